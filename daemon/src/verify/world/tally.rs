//! How often a model is right, and how often somebody who looks at nothing would be.

use std::collections::BTreeMap;

use serde::Serialize;

/// Answers to questions of one kind or of several.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    asked: usize,
    right: usize,
    /// How often each answer is the true one, by kind of question.
    truths: BTreeMap<&'static str, BTreeMap<String, usize>>,
    /// Squared errors of P(yes), and how many.
    squared: (f64, usize),
}

/// A tally in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Questions asked.
    pub asked: usize,
    /// Answers that were right.
    pub right: usize,
    /// Part that was right; 0 if nothing was asked.
    pub accuracy: f64,
    /// Part that would be right if every kind of question always got its commonest answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guess: Option<f64>,
    /// Mean squared error of P(yes): 0 is certain and right, 0.25 undecided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brier: Option<f64>,
}

impl Tally {
    /// Counts an answer.
    pub(super) fn add(&mut self, is_right: bool) {
        self.add_many(usize::from(is_right), 1);
    }

    /// Counts several answers.
    pub(super) fn add_many(&mut self, right: usize, asked: usize) {
        self.asked += asked;
        self.right += right;
    }

    /// Questions asked.
    pub(super) fn asked(&self) -> usize {
        self.asked
    }

    /// Remembers the true answer to a question of a kind.
    pub(super) fn add_truth(&mut self, kind: &'static str, truth: &str) {
        *self.truths.entry(kind).or_default().entry(truth.to_ascii_lowercase()).or_default() += 1;
    }

    /// Counts how sure of yes an answer was whose truth is `is_yes`.
    pub(super) fn add_belief(&mut self, p_yes: f64, is_yes: bool) {
        let error = p_yes - f64::from(u8::from(is_yes));
        self.squared.0 += error * error;
        self.squared.1 += 1;
    }

    /// Adds what another tally counted.
    pub(super) fn merge(&mut self, other: &Self) {
        self.asked += other.asked;
        self.right += other.right;
        self.squared.0 += other.squared.0;
        self.squared.1 += other.squared.1;
        for (kind, truths) in &other.truths {
            let own = self.truths.entry(kind).or_default();
            for (truth, count) in truths {
                *own.entry(truth.clone()).or_default() += count;
            }
        }
    }

    /// The tally in numbers.
    pub(super) fn score(&self) -> Score {
        let part = |of: usize, all: usize| if all == 0 { 0.0 } else { of as f64 / all as f64 };
        let known: usize = self.truths.values().flat_map(BTreeMap::values).sum();
        let commonest: usize = self.truths.values().filter_map(|truths| truths.values().max()).sum();
        let (squared, beliefs) = self.squared;
        Score {
            asked: self.asked,
            right: self.right,
            accuracy: part(self.right, self.asked),
            guess: (known > 0).then(|| part(commonest, known)),
            brier: (beliefs > 0).then(|| squared / beliefs as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guess_gives_each_kind_its_commonest_answer() {
        let mut all = Tally::default();
        for (kind, truths) in [("door", &["open", "open", "Closed"][..]), ("count", &["two", "one"])] {
            let mut tally = Tally::default();
            for truth in truths {
                tally.add(*truth == "open");
                tally.add_truth(kind, truth);
            }
            all.merge(&tally);
        }
        let score = all.score();
        assert_eq!((score.asked, score.right, score.accuracy), (5, 2, 0.4));
        assert_eq!((score.guess, score.brier), (Some(0.6), None));
        assert_eq!(Tally::default().score().accuracy, 0.0);
    }

    #[test]
    fn certainty_counts_twice() {
        let mut tally = Tally::default();
        for (p_yes, is_yes) in [(1.0, true), (0.0, false), (0.5, true), (1.0, false)] {
            tally.add_belief(p_yes, is_yes);
        }
        assert_eq!(tally.score().brier, Some((0.25 + 1.0) / 4.0));
    }
}
