//! A made-up SentencePiece vocabulary: special pieces, bytes, letters, then invented words.

use crate::model::files::Vocabulary;

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

/// What SentencePiece writes for a space.
const SPACE: char = '\u{2581}';

const CONSONANTS: &[u8] = b"bcdfghjklmnpqrstvwxz";
const VOWELS: &[u8] = b"aeiou";

/// A vocabulary of `size` pieces, at least enough for the special pieces, bytes and letters.
pub fn vocabulary(size: usize) -> Vocabulary {
    let mut pieces = vec!["<unk>".to_string(), "<s>".into(), "</s>".into()];
    let mut kinds = vec![UNKNOWN, CONTROL, CONTROL];
    pieces.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    kinds.resize(pieces.len(), BYTE);
    pieces.push(SPACE.into());
    pieces.extend(('!'..='~').map(String::from));
    let size = size.max(pieces.len());
    // A word and the same word after a space, shorter words first.
    let words = (0..).flat_map(|index| {
        let word = word(index);
        [format!("{SPACE}{word}"), word]
    });
    let missing = size - pieces.len();
    pieces.extend(words.take(missing));
    kinds.resize(pieces.len(), NORMAL);
    // Special pieces and bytes take no part in merging; earlier pieces are merged first.
    let scores = (0..size).map(|id| if id < 259 { 0.0 } else { -((id - 259) as f32) }).collect();
    Vocabulary { pieces, scores, kinds, bos: 1, eos: 2, unk: 0, add_space_prefix: true }
}

/// The word of syllables that are the digits of `index`, lowest first, without a shorter spelling.
fn word(mut index: usize) -> String {
    let syllables = CONSONANTS.len() * VOWELS.len();
    let mut word = String::new();
    loop {
        let digit = index % syllables;
        word.push(char::from(CONSONANTS[digit / VOWELS.len()]));
        word.push(char::from(VOWELS[digit % VOWELS.len()]));
        index /= syllables;
        if index == 0 {
            return word;
        }
        index -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::model::files::TokenizerSource;
    use crate::model::tokenizer::Tokenizer;

    #[test]
    fn texts_of_any_letters_come_back() {
        let source = TokenizerSource::Vocabulary(vocabulary(32000));
        let tokenizer = Tokenizer::from_source(&source).expect("a sound vocabulary");
        for text in ["USER: What is this?", "babe bibo", "gr\u{fc}n\n1 + 1"] {
            let ids = tokenizer.encode(text);
            assert_eq!(tokenizer.decode(&ids).trim_start(), text);
        }
        assert_eq!(tokenizer.encode("babe").len(), 1, "a word of the vocabulary");
    }

    #[test]
    fn pieces_are_unique_and_as_many_as_asked() {
        for size in [512, 32000] {
            let vocabulary = vocabulary(size);
            assert_eq!(vocabulary.pieces.len(), size);
            assert_eq!(vocabulary.scores.len(), size);
            assert_eq!(vocabulary.kinds.len(), size);
            assert_eq!(vocabulary.pieces.iter().collect::<HashSet<_>>().len(), size);
            assert!(vocabulary.pieces.iter().all(|piece| !piece.is_empty()));
            assert_eq!(vocabulary.pieces[3 + 10], "<0x0A>");
        }
    }

    #[test]
    fn every_word_is_a_merge_of_two_pieces() {
        let vocabulary = vocabulary(32000);
        let known: HashSet<_> = vocabulary.pieces.iter().map(String::as_str).collect();
        for piece in &vocabulary.pieces[259..] {
            let mut cuts = piece.char_indices().map(|(at, _)| piece.split_at(at)).skip(1).peekable();
            let single = cuts.peek().is_none();
            assert!(single || cuts.any(|(a, b)| known.contains(a) && known.contains(b)), "{piece}");
        }
    }
}
