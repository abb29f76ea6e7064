//! A SentencePiece-style vocabulary made from the world's own texts: special pieces, bytes, letters,
//! then byte pair encoding until every word is one piece.

use std::collections::{BTreeMap, BTreeSet};

use mobilevlmd::model::files::Vocabulary;

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

/// What SentencePiece writes for a space.
const SPACE: char = '\u{2581}';

/// A vocabulary of exactly `size` pieces for texts like `texts`. If the words need fewer, pieces that no
/// text ever spells fill it up.
pub fn vocabulary<'a>(texts: impl IntoIterator<Item = &'a str>, size: usize) -> Vocabulary {
    let mut words = count_words(texts);
    let mut letters: BTreeSet<String> = ('!'..='~').map(String::from).collect();
    letters.insert(SPACE.into());
    letters.extend(words.iter().flat_map(|(word, _)| word.iter().cloned()));

    let mut pieces = vec!["<unk>".to_string(), "<s>".into(), "</s>".into()];
    let mut kinds = vec![UNKNOWN, CONTROL, CONTROL];
    pieces.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    kinds.resize(pieces.len(), BYTE);
    pieces.extend(letters);
    while pieces.len() < size {
        let Some((left, right)) = most_frequent_pair(&words) else { break };
        let merged = format!("{left}{right}");
        words.iter_mut().for_each(|(word, _)| merge(word, &left, &right));
        if !pieces.contains(&merged) {
            pieces.push(merged);
        }
    }
    kinds.resize(pieces.len(), NORMAL);
    while pieces.len() < size {
        pieces.push(format!("<unused{}>", pieces.len()));
        kinds.push(CONTROL);
    }
    // Earlier pieces are merged first; special pieces, bytes and letters take no part.
    let scores = (0..size).map(|id| if id < 259 { 0.0 } else { -((id - 259) as f32) }).collect();
    Vocabulary { pieces, scores, kinds, bos: 1, eos: 2, unk: 0, add_space_prefix: true }
}

type Words = Vec<(Vec<String>, u64)>;

/// Words as letters with how often they occur. A mark is a word of its own, so that a word is the same
/// piece before a full stop and before a comma.
fn count_words<'a>(texts: impl IntoIterator<Item = &'a str>) -> Words {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for text in texts {
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            let end = word.find(|c: char| !c.is_alphanumeric() && c != '-').unwrap_or(word.len());
            *counts.entry(format!("{SPACE}{}", &word[..end])).or_default() += 1;
        }
    }
    counts.into_iter().map(|(word, count)| (word.chars().map(String::from).collect(), count)).collect()
}

/// The neighbours that occur most often; of equals the first in alphabetical order.
fn most_frequent_pair(words: &Words) -> Option<(String, String)> {
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (word, count) in words {
        for pair in word.windows(2) {
            *counts.entry((&pair[0], &pair[1])).or_default() += count;
        }
    }
    let best = counts.into_iter().max_by(|a, b| a.1.cmp(&b.1).then_with(|| b.0.cmp(&a.0)))?;
    Some((best.0.0.to_owned(), best.0.1.to_owned()))
}

fn merge(word: &mut Vec<String>, left: &str, right: &str) {
    let mut at = 0;
    while at + 1 < word.len() {
        if word[at] == left && word[at + 1] == right {
            let tail = word.remove(at + 1);
            word[at].push_str(&tail);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mobilevlmd::model::files::TokenizerSource;
    use mobilevlmd::model::tokenizer::Tokenizer;

    #[test]
    fn every_word_of_the_texts_is_one_token() {
        let texts = ["A red ball is left of a blue box.", "The door is open. Is the box blue?"];
        let vocabulary = vocabulary(texts, 512);
        assert_eq!((vocabulary.pieces.len(), vocabulary.kinds.len()), (512, 512));
        let distinct: BTreeSet<_> = vocabulary.pieces.iter().collect();
        assert_eq!(distinct.len(), 512);
        let tokenizer = Tokenizer::from_source(&TokenizerSource::Vocabulary(vocabulary)).expect("sound");
        for (text, tokens) in [("A red ball", 3), ("The door is open.", 5), ("Is the box blue?", 5)] {
            let ids = tokenizer.encode(text);
            assert_eq!(ids.len(), tokens, "{text}");
            assert_eq!(tokenizer.decode(&ids).trim_start(), text);
        }
        let foreign = tokenizer.encode("zebra \u{fc}");
        assert_eq!(tokenizer.decode(&foreign).trim_start(), "zebra \u{fc}");
    }
}
