//! How sure a model is of yes, read from the distribution of its first token.

use std::collections::BTreeSet;

use super::sampler::exp;
use super::tokenizer::Tokenizer;

/// What stands before an answer in the prompt.
const BEFORE: &str = " ASSISTANT:";

/// First tokens of the spellings of yes and of no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YesNo {
    yes: Vec<u32>,
    no: Vec<u32>,
}

/// What the distribution of a first token says. Both are from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Probability of yes among yes and no.
    pub p_yes: f64,
    /// Probability of yes and no among all there is to say. Far below 1 the question was not one of
    /// yes or no.
    pub p_either: f64,
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

    /// Probability of yes among yes and no: see [`YesNo::read`].
    pub fn p_yes(&self, logits: &[f32]) -> f64 {
        self.read(logits).p_yes
    }

    /// Reads the logits of an answer's first token, of which there is one for each piece of the
    /// vocabulary. Logits that are no numbers say nothing: a probability of 0.5 among 0.
    pub fn read(&self, logits: &[f32]) -> Verdict {
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let highest =
            |ids: &[u32]| ids.iter().map(|id| logits[*id as usize]).fold(f32::NEG_INFINITY, f32::max);
        let best = highest(&self.yes).max(highest(&self.no));
        if !top.is_finite() || !best.is_finite() {
            return Verdict { p_yes: 0.5, p_either: 0.0 };
        }
        // Relative to the better answer, so that two unlikely ones can still be told apart.
        let below = |logit: f32, highest: f32| exp(f64::from(logit) - f64::from(highest));
        let mass = |ids: &[u32]| ids.iter().map(|id| below(logits[*id as usize], best)).sum::<f64>();
        let (yes, no) = (mass(&self.yes), mass(&self.no));
        let all: f64 = logits.iter().map(|&logit| below(logit, top)).sum();
        let either = (yes + no) * below(best, top) / all;
        Verdict { p_yes: yes / (yes + no), p_either: either.min(1.0) }
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
    fn the_share_of_both_answers_is_that_of_the_softmax() {
        let sure = YesNo { yes: vec![1, 2], no: vec![3] };
        let read = |logits: [f32; 5]| sure.read(&logits);
        let near = |got: f64, want: f64| (got - want).abs() < 1e-6;
        let even = read([0.0; 5]);
        assert!(near(even.p_yes, 2.0 / 3.0) && near(even.p_either, 0.6), "{even:?}");
        let other = read([20.0, 0.0, 0.0, 0.0, f32::NAN]);
        assert!(near(other.p_yes, 2.0 / 3.0) && other.p_either < 1e-6, "{other:?}");
        let clear = read([-9.0, 30.0, f32::NEG_INFINITY, f32::NAN, f32::NAN]);
        assert!(near(clear.p_yes, 1.0) && near(clear.p_either, 1.0), "{clear:?}");
        for hopeless in [[f32::NAN; 5], [f32::NEG_INFINITY; 5], [f32::INFINITY; 5]] {
            assert_eq!(read(hopeless), Verdict { p_yes: 0.5, p_either: 0.0 }, "{hopeless:?}");
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
