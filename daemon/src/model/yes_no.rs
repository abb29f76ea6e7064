//! How sure a model is of yes, read from the distribution of its first token.

use std::collections::BTreeSet;

use super::tokenizer::Tokenizer;

/// What stands before an answer in the prompt.
const BEFORE: &str = " ASSISTANT:";

/// First tokens of the spellings of yes and of no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YesNo {
    yes: Vec<u32>,
    no: Vec<u32>,
}

impl YesNo {
    /// The tokens of a vocabulary; `None` if it begins yes and no with the same pieces only.
    pub fn new(tokenizer: &Tokenizer) -> Option<Self> {
        let yes = first_tokens(tokenizer, ["Yes", "yes", "YES"]);
        let no = first_tokens(tokenizer, ["No", "no", "NO"]);
        let only = |these: &BTreeSet<u32>, others: &BTreeSet<u32>| -> Vec<u32> {
            these.difference(others).copied().collect()
        };
        let (yes, no) = (only(&yes, &no), only(&no, &yes));
        (!yes.is_empty() && !no.is_empty()).then_some(Self { yes, no })
    }

    /// Probability of yes among yes and no, from the logits of an answer's first token, of which
    /// there is one for each piece of the vocabulary. Logits that are no numbers say nothing: 0.5.
    pub fn p_yes(&self, logits: &[f32]) -> f64 {
        let logit = |id: &u32| f64::from(logits[*id as usize]);
        let top = self.yes.iter().chain(&self.no).map(logit).fold(f64::NEG_INFINITY, f64::max);
        if !top.is_finite() {
            return 0.5;
        }
        let mass = |ids: &[u32]| ids.iter().map(|id| (logit(id) - top).exp()).sum::<f64>();
        let (yes, no) = (mass(&self.yes), mass(&self.no));
        yes / (yes + no)
    }
}

/// The first token of each spelling, with and without a space before it.
fn first_tokens<const N: usize>(tokenizer: &Tokenizer, spellings: [&str; N]) -> BTreeSet<u32> {
    let before = tokenizer.encode(BEFORE);
    let first = |text: String| {
        let ids = tokenizer.encode(&format!("{BEFORE}{text}"));
        // A piece that reaches across the colon would be no answer to the prompt.
        ids.strip_prefix(before.as_slice())?.first().copied()
    };
    spellings.iter().flat_map(|word| [format!(" {word}"), (*word).to_owned()]).filter_map(first).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::files::TokenizerSource;

    fn tokenizer() -> Tokenizer {
        let path =
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/tokenizer/full/tokenizer.model"));
        Tokenizer::from_source(&TokenizerSource::SentencePiece(path.to_owned())).unwrap()
    }

    #[test]
    fn the_published_vocabulary_has_whole_words() {
        let tokenizer = tokenizer();
        let YesNo { yes, no } = YesNo::new(&tokenizer).unwrap();
        for (ids, word) in [(&yes, "yes"), (&no, "no")] {
            let words = ids.iter().filter(|id| tokenizer.decode(&[**id]).trim().eq_ignore_ascii_case(word));
            assert!(words.count() >= 3, "{word}: {ids:?}");
        }
    }

    #[test]
    fn all_spellings_count_and_nothing_else() {
        let sure = YesNo { yes: vec![1, 2], no: vec![3] };
        let logits = [90.0, 0.0, 0.0, 0.0, 50.0];
        assert!((sure.p_yes(&logits) - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(sure.p_yes(&[0.0, 1e30, 0.0, -1e30]), 1.0);
        assert_eq!(sure.p_yes(&[0.0, -1e30, -1e30, 1e30]), 0.0);
        assert_eq!(sure.p_yes(&[f32::NAN; 4]), 0.5);
    }
}
