//! What a run with the engine found.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::engine::{Kind, UnitFigures, UnitTimes};

/// How long something took, several times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Wait {
    /// Median in milliseconds.
    pub median_ms: f64,
    /// 99th percentile in milliseconds.
    pub p99_ms: f64,
    /// Longest in milliseconds.
    pub longest_ms: f64,
    /// How often it was measured.
    pub count: usize,
}

impl Wait {
    /// Of measured times.
    pub(in crate::bench) fn of(times: &[Duration]) -> Self {
        let mut ms: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        ms.sort_unstable_by(f64::total_cmp);
        let Some(&longest_ms) = ms.last() else { return Self::default() };
        let at = |part: f64| ms[((ms.len() - 1) as f64 * part).round() as usize];
        Self { median_ms: at(0.5), p99_ms: at(0.99), longest_ms, count: ms.len() }
    }
}

/// Positions of the prompts that were measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Positions {
    /// Before the picture.
    pub system: usize,
    /// A question behind the picture, template included.
    pub question: usize,
}

/// From a loaded model to its first caption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Restart {
    /// The system prompt is computed.
    pub computed: Wait,
    /// The system prompt is read from disk.
    pub from_disk: Wait,
}

/// Questions asked at once.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Together {
    /// How many.
    pub questions: usize,
    /// Until the last of them has its first token.
    pub last_first_token: Wait,
    /// Tokens of all answers, from asking to the last token.
    pub tokens_per_second: f64,
}

/// Cameras that always have a new frame.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cameras {
    /// How many.
    pub cameras: usize,
    /// Captions of all of them.
    pub captions_per_second: f64,
    /// From the capture of a frame to its whole caption.
    pub age: Wait,
}

/// Stretches of the engine's work that nothing could interrupt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Units {
    /// What was done, see [`Kind`].
    pub kind: String,
    /// Median in milliseconds.
    pub median_ms: f32,
    /// What one in a thousand exceeds, in milliseconds.
    pub p999_ms: f32,
    /// Longest in milliseconds.
    pub longest_ms: f32,
    /// How many there were.
    pub count: u64,
}

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EngineReport {
    /// Device and kernels.
    pub device: String,
    /// The model.
    pub model: String,
    /// Lengths of the prompts.
    pub positions: Positions,
    /// Question on a described frame to its first token, the engine idle.
    pub idle: Wait,
    /// The same while two cameras are described and watched by five rules.
    pub busy: Wait,
    /// Questions at once.
    pub together: Vec<Together>,
    /// Number of rules, and from a frame to the end of all that is done about it.
    pub rules: Vec<(usize, Wait)>,
    /// Cameras at once.
    pub cameras: Vec<Cameras>,
    /// What was proposed, and from a new frame to its whole caption.
    pub captions: Vec<(String, Wait)>,
    /// Tokens of that caption.
    pub caption_tokens: usize,
    /// Restart to first caption.
    pub restart: Restart,
    /// Units of work by kind.
    pub units: Vec<Units>,
    /// The longest of all units.
    pub longest_unit_ms: f32,
}

impl EngineReport {
    pub(super) fn new(device: &str, model: &str, positions: Positions) -> Self {
        Self { device: device.into(), model: model.into(), positions, ..Self::default() }
    }

    pub(super) fn set_units(&mut self, times: &UnitTimes) {
        let of = |kind: Kind| {
            let UnitFigures { count, median_ms, p999_ms, longest_ms } = times.figures(kind);
            Units { kind: kind.name().into(), median_ms, p999_ms, longest_ms, count }
        };
        self.units = Kind::ALL.map(of).to_vec();
        self.longest_unit_ms = self.units.iter().map(|units| units.longest_ms).fold(0.0, f32::max);
    }

    /// Milliseconds that one more rule takes for each frame.
    pub fn per_rule_ms(&self) -> f64 {
        let (Some((none, without)), Some((some, with))) = (self.rules.first(), self.rules.last()) else {
            return 0.0;
        };
        (with.median_ms - without.median_ms) / (some - none).max(1) as f64
    }
}

impl fmt::Display for EngineReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Positions { system, question } = self.positions;
        writeln!(
            f,
            "{} on {}: {system} positions before the picture, {question} of a question",
            self.model, self.device
        )?;
        writeln!(f)?;
        writeln!(f, "{:<52} {:>9} {:>9} {:>9} {:>6}", "milliseconds", "median", "p99", "longest", "of")?;
        row(f, "question to first token, idle", &self.idle)?;
        row(f, "  while 2 cameras are described, 5 rules each", &self.busy)?;
        for Together { questions, last_first_token, tokens_per_second } in &self.together {
            let name = format!("  {questions} at once, the last ({tokens_per_second:.1} tok/s)");
            row(f, &name, last_first_token)?;
        }
        for (what, wait) in &self.captions {
            row(f, &format!("new frame to caption of {} tokens, {what}", self.caption_tokens), wait)?;
        }
        for (rules, wait) in &self.rules {
            row(f, &format!("new frame until all is done, {rules} rules"), wait)?;
        }
        for Cameras { cameras, captions_per_second, age } in &self.cameras {
            let name = format!("age of captions, {cameras} cameras ({captions_per_second:.2} per second)");
            row(f, &name, age)?;
        }
        row(f, "loaded model to first caption", &self.restart.computed)?;
        row(f, "  with the system prompt on disk", &self.restart.from_disk)?;
        writeln!(f)?;
        writeln!(
            f,
            "{:<52} {:>9} {:>9} {:>9} {:>6}",
            "units in milliseconds", "median", "p99.9", "longest", "of"
        )?;
        for Units { kind, median_ms, p999_ms, longest_ms, count } in &self.units {
            writeln!(f, "{kind:<52} {median_ms:>9.2} {p999_ms:>9.2} {longest_ms:>9.1} {count:>6}")?;
        }
        writeln!(f)?;
        write!(f, "one more rule: {:.1} ms for each frame; ", self.per_rule_ms())?;
        writeln!(f, "longest unit: {:.1} ms", self.longest_unit_ms)?;
        write!(f, "drafts are the caption that the model writes, with none or one token replaced")
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, wait: &Wait) -> fmt::Result {
    let Wait { median_ms, p99_ms, longest_ms, count } = wait;
    writeln!(f, "{name:<52} {median_ms:>9.1} {p99_ms:>9.1} {longest_ms:>9.1} {count:>6}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_times_themselves() {
        let times: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        let wait = Wait { median_ms: 51.0, p99_ms: 99.0, longest_ms: 100.0, count: 100 };
        assert_eq!(Wait::of(&times), wait);
        assert_eq!(Wait::of(&[]), Wait::default());
    }

    #[test]
    fn the_price_of_a_rule_is_the_slope() {
        let wait = |median_ms| Wait { median_ms, ..Wait::default() };
        let rules = vec![(0, wait(100.0)), (1, wait(130.0)), (5, wait(220.0))];
        let report = EngineReport { rules, ..EngineReport::default() };
        assert!((report.per_rule_ms() - 24.0).abs() < 1e-9);
        assert!(report.to_string().contains("one more rule: 24.0 ms"), "{report}");
        assert_eq!(EngineReport::default().per_rule_ms(), 0.0);
    }
}
