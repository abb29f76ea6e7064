//! What a model was found to see, as a table for people and as JSON for programs.

use std::fmt;

use serde::Serialize;

use super::tally::Score;
use crate::verify::table::{self, Column};

/// The table's columns.
const COLUMNS: [Column; 6] = [
    Column::left("", 11),
    Column::left("category", 12),
    Column::right("asked", 6),
    Column::right("right", 8),
    Column::right("guess", 8),
    Column::right("Brier", 6),
];

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The model.
    pub model: String,
    /// What computed it.
    pub device: String,
    /// Scenes of each run.
    pub scenes: u32,
    /// Number of the first scene among the unseen ones.
    pub seed: u32,
    /// One run for each condition.
    pub runs: Vec<Run>,
}

/// All scenes under one condition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// Name of the condition.
    pub condition: &'static str,
    /// Captions that name everything and nothing wrong.
    pub caption: Score,
    /// Questions whose answer is a word or some.
    pub attributes: Score,
    /// Questions whose answer is yes or no.
    pub yes_no: Score,
    /// The same by what it is about.
    pub categories: Vec<Row>,
    /// Median milliseconds from a frame to the last token of its caption.
    pub caption_ms: f64,
    /// Mean tokens of a caption, the end token included.
    pub caption_tokens: f64,
    /// The first wrong answers, if they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub misses: Vec<Miss>,
}

/// What is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// What captions say.
    Caption,
    /// Answers of a word or some.
    Attribute,
    /// Answers of yes or no.
    YesNo,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Caption, Self::Attribute, Self::YesNo];

    const fn name(self) -> &'static str {
        match self {
            Self::Caption => "caption",
            Self::Attribute => "attribute",
            Self::YesNo => "yes/no",
        }
    }
}

/// What was said of one thing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// How it was asked.
    pub kind: Kind,
    /// What it is about.
    pub category: &'static str,
    /// How it went.
    #[serde(flatten)]
    pub score: Score,
}

/// A wrong answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Miss {
    /// The scene.
    pub seed: u64,
    /// What was asked.
    pub question: String,
    /// What is true.
    pub truth: String,
    /// What was said.
    pub said: String,
}

impl Report {
    /// Whether at least one question was asked in each run.
    pub fn is_scored(&self) -> bool {
        !self.runs.is_empty() && self.runs.iter().all(|run| run.caption.asked > 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, device, scenes, seed, runs } = self;
        writeln!(f, "{model} on {device}: {scenes} unseen scenes from number {seed}")?;
        runs.iter().try_for_each(|run| write!(f, "\n{run}"))
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { condition, caption_ms, caption_tokens, .. } = self;
        writeln!(
            f,
            "{condition}: frame to last token of the caption {caption_ms:.1} ms (median), {caption_tokens:.1} tokens"
        )?;
        table::head(f, &COLUMNS)?;
        writeln!(f)?;
        for kind in Kind::ALL {
            let (total, all) = match kind {
                Kind::Caption => (&self.caption, "whole"),
                Kind::Attribute => (&self.attributes, "all"),
                Kind::YesNo => (&self.yes_no, "all"),
            };
            line(f, kind.name(), all, total)?;
            for category in self.categories.iter().filter(|category| category.kind == kind) {
                line(f, "", category.category, &category.score)?;
            }
        }
        for Miss { seed, question, truth, said } in &self.misses {
            writeln!(f, "scene {seed}: {question}\n    true: {truth}\n    said: {said}")?;
        }
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, what: &str, category: &str, score: &Score) -> fmt::Result {
    let percent = |part: f64| format!("{:.2} %", 100.0 * part);
    let guess = score.guess.map_or_else(String::new, percent);
    let brier = score.brier.map_or_else(String::new, |brier| format!("{brier:.4}"));
    let (asked, right) = (score.asked.to_string(), percent(score.accuracy));
    table::row(f, &COLUMNS, &[what, category, &asked, &right, &guess, &brier])?;
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        let score =
            |right, guess, brier| Score { asked: 8, right, accuracy: right as f64 / 8.0, guess, brier };
        let row = |kind, category, score| Row { kind, category, score };
        Run {
            condition: "plain",
            caption: score(6, None, None),
            attributes: score(7, Some(0.25), None),
            yes_no: score(4, Some(0.5), Some(0.2)),
            categories: vec![
                row(Kind::Attribute, "color", score(7, Some(0.25), None)),
                row(Kind::YesNo, "door", score(4, Some(0.5), Some(0.2))),
            ],
            caption_ms: 41.25,
            caption_tokens: 19.5,
            misses: Vec::new(),
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_category() {
        let text = run().to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "plain: frame to last token of the caption 41.2 ms (median), 19.5 tokens");
        assert_eq!(lines[2], "caption      whole              8   75.00 %");
        assert_eq!(lines[6], "             door               8   50.00 %   50.00 %  0.2000");
        assert_eq!(lines.len(), 7);
    }

    #[test]
    fn json_leaves_out_what_is_not_known() {
        let json = serde_json::to_value(run()).unwrap();
        assert_eq!(json["categories"][0]["accuracy"], 0.875);
        assert!(json["categories"][0].get("brier").is_none() && json.get("misses").is_none());
        assert_eq!(json["yes_no"]["brier"], 0.2);
    }
}
