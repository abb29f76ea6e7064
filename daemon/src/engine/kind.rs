//! Kinds of units, and how long those of each kind took.

use std::time::Duration;

use super::progress::millis;

/// What a unit did. Where several fit into one, it is counted as the longest of them at full size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Takes in questions, rules and frames and chooses: what precedes every unit.
    Intake,
    /// Decodes a picture and looks for what is new in it.
    Picture,
    /// Resizes it and embeds its patches.
    Patches,
    /// Half a block of the vision tower, or several.
    Block,
    /// The projector.
    Projector,
    /// Lets sequences board a pass; pages that they share with others are copied.
    Board,
    /// Layers of a pass.
    Layers,
    /// Logits and what is made of them.
    Logits,
}

impl Kind {
    /// All of them in the order of a frame's way.
    pub const ALL: [Self; 8] = [
        Self::Intake,
        Self::Picture,
        Self::Patches,
        Self::Block,
        Self::Projector,
        Self::Board,
        Self::Layers,
        Self::Logits,
    ];

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::Picture => "picture",
            Self::Patches => "patches",
            Self::Block => "block",
            Self::Projector => "projector",
            Self::Board => "board",
            Self::Layers => "layers",
            Self::Logits => "logits",
        }
    }
}

/// Times are told apart to this many milliseconds.
const STEP_MS: f32 = 0.25;

/// Steps that are told apart: up to 64 ms.
const STEPS: usize = 256;

/// How long units of each kind took.
#[derive(Clone, Debug)]
pub struct UnitTimes {
    kinds: [Spread; Kind::ALL.len()],
}

/// How often a unit took how long.
#[derive(Clone, Copy, Debug)]
struct Spread {
    /// Counts of each step; the last one counts everything longer too.
    counts: [u32; STEPS],
    longest_ms: f32,
}

/// How long units of a kind took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UnitFigures {
    /// Units.
    pub count: u64,
    /// Median in milliseconds, to a quarter of one.
    pub median_ms: f32,
    /// The time in milliseconds that one in a thousand exceeds, to a quarter of one.
    pub p999_ms: f32,
    /// The longest in milliseconds.
    pub longest_ms: f32,
}

impl Default for UnitTimes {
    fn default() -> Self {
        Self { kinds: [Spread { counts: [0; STEPS], longest_ms: 0.0 }; Kind::ALL.len()] }
    }
}

impl UnitTimes {
    /// Counts a unit.
    pub(super) fn add(&mut self, kind: Kind, time: Duration) {
        let Spread { counts, longest_ms } = &mut self.kinds[kind as usize];
        let ms = millis(time);
        counts[((ms / STEP_MS) as usize).min(STEPS - 1)] += 1;
        *longest_ms = longest_ms.max(ms);
    }

    /// Counts what another one counted.
    pub fn merge(&mut self, other: &Self) {
        for (spread, other) in self.kinds.iter_mut().zip(&other.kinds) {
            for (count, other) in spread.counts.iter_mut().zip(other.counts) {
                *count += other;
            }
            spread.longest_ms = spread.longest_ms.max(other.longest_ms);
        }
    }

    /// In figures.
    pub fn figures(&self, kind: Kind) -> UnitFigures {
        let Spread { counts, longest_ms } = &self.kinds[kind as usize];
        let count = counts.iter().map(|&count| u64::from(count)).sum();
        let at = |part: f64| {
            let (mut left, mut step) = ((count as f64 * part).ceil() as u64, 0);
            while step + 1 < STEPS && u64::from(counts[step]) < left {
                left -= u64::from(counts[step]);
                step += 1;
            }
            // The end of a step may lie behind the longest, which the last step leaves open.
            if step + 1 == STEPS { *longest_ms } else { longest_ms.min((step + 1) as f32 * STEP_MS) }
        };
        UnitFigures { count, median_ms: at(0.5), p999_ms: at(0.999), longest_ms: *longest_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_place() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index, "{}", kind.name());
        }
    }

    #[test]
    fn figures_are_of_one_kind() {
        let mut times = UnitTimes::default();
        assert_eq!(times.figures(Kind::Block), UnitFigures::default());
        (0..1998).for_each(|_| times.add(Kind::Block, Duration::from_micros(20_100)));
        times.add(Kind::Block, Duration::from_micros(62_500));
        times.add(Kind::Block, Duration::from_micros(30_100));
        times.add(Kind::Board, Duration::from_micros(10));
        let figures = UnitFigures { count: 2000, median_ms: 20.25, p999_ms: 20.25, longest_ms: 62.5 };
        assert_eq!(times.figures(Kind::Block), figures);
        let board = times.figures(Kind::Board);
        assert!(board.p999_ms == board.longest_ms && board.longest_ms < STEP_MS, "{board:?}");
        times.add(Kind::Block, Duration::from_millis(31));
        assert_eq!(times.figures(Kind::Block).p999_ms, 30.25);
        let mut all = UnitTimes::default();
        all.merge(&times);
        all.merge(&times);
        assert_eq!(all.figures(Kind::Block).count, 4002);
        assert_eq!(all.figures(Kind::Block).longest_ms, 62.5);
        (0..9).for_each(|_| all.add(Kind::Block, Duration::from_secs(1)));
        assert_eq!(all.figures(Kind::Block).p999_ms, 1000.0, "what is off the scale is not hidden");
    }
}
