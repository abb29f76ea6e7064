//! One line of the table.

use std::fmt;

use serde::Serialize;

use super::table::{self, Column};

/// How rows are printed; the problem follows behind.
const COLUMNS: [Column; 5] = [
    Column::left("", 4),
    Column::left("stage", 11),
    Column::left("case", 58),
    Column::right("error", 8),
    Column::left("tolerance", 8),
];

/// What a check demands of its number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// At most this; 0 demands equality.
    AtMost(f64),
    /// At least this: cosines.
    AtLeast(f64),
}

impl Bound {
    /// Whether `value` keeps the bound; NaN keeps none.
    pub fn holds(self, value: f64) -> bool {
        match self {
            Bound::AtMost(bound) => value <= bound,
            Bound::AtLeast(bound) => value >= bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::AtMost(0.0) => f.write_str("equal"),
            Bound::AtMost(bound) => write!(f, "<= {bound:.0e}"),
            Bound::AtLeast(bound) => write!(f, ">= {bound}"),
        }
    }
}

/// One check and its result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What was checked.
    pub stage: &'static str,
    /// Where the numbers come from, and how they were computed.
    pub case: String,
    /// The measured number: an error, a count of differences, or a cosine.
    pub error: Option<f64>,
    /// The bound in words.
    pub tolerance: String,
    /// Whether the check holds.
    pub passed: bool,
    /// Why there is no number, or what the first difference is.
    pub problem: Option<String>,
}

impl Row {
    /// A check with a number.
    pub fn measured(stage: &'static str, case: impl Into<String>, error: f64, bound: Bound) -> Self {
        Self {
            stage,
            case: case.into(),
            error: Some(error),
            tolerance: bound.to_string(),
            passed: bound.holds(error),
            problem: None,
        }
    }

    /// A check that could not be made: always a failure.
    pub fn failed(stage: &'static str, case: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self {
            stage,
            case: case.into(),
            error: None,
            tolerance: "-".to_owned(),
            passed: false,
            problem: Some(problem.to_string()),
        }
    }

    /// Whether two lists are equal; the error counts the differences.
    pub fn equal<T: PartialEq + fmt::Debug>(
        stage: &'static str,
        case: impl Into<String>,
        got: &[T],
        want: &[T],
    ) -> Self {
        let different = got.iter().zip(want).filter(|(got, want)| got != want).count();
        let count = different + got.len().abs_diff(want.len());
        let mut row = Self::measured(stage, case, count as f64, Bound::AtMost(0.0));
        if let Some(place) = (0..got.len().max(want.len())).find(|&place| got.get(place) != want.get(place)) {
            row.problem = Some(format!("at {place}: got {:?}, want {:?}", got.get(place), want.get(place)));
        }
        row
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = self.error.map_or("-".to_owned(), |error| match error {
            whole if whole.fract() == 0.0 => format!("{whole}"),
            part if part >= 0.01 => format!("{part:.6}"),
            small => format!("{small:.2e}"),
        });
        let result = if self.passed { "pass" } else { "FAIL" };
        let problem = self.problem.as_deref().unwrap_or_default();
        table::row(f, &COLUMNS, &[result, self.stage, &self.case, &error, &self.tolerance, problem])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_on_their_side_and_never_for_nan() {
        for (bound, value, holds) in [
            (Bound::AtMost(0.0), 0.0, true),
            (Bound::AtMost(1e-5), 2e-5, false),
            (Bound::AtLeast(0.999), 0.9995, true),
            (Bound::AtLeast(0.999), 0.99, false),
            (Bound::AtMost(1.0), f64::NAN, false),
            (Bound::AtLeast(0.0), f64::NAN, false),
        ] {
            assert_eq!(bound.holds(value), holds, "{bound} {value}");
        }
    }

    #[test]
    fn lists_of_different_length_differ() {
        let row = Row::equal("ids", "case", &[1, 2, 3], &[1, 5]);
        assert_eq!((row.error, row.passed), (Some(2.0), false));
        assert_eq!(row.problem.as_deref(), Some("at 1: got Some(2), want Some(5)"));
        assert!(Row::equal::<u8>("ids", "case", &[], &[]).passed);
    }
}
