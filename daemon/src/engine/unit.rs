//! How much work fits into a unit, as measured.
//!
//! Work comes in pieces: a page copied for a sequence, a layer, the logits of a few rows. A unit is
//! one piece, and more of them as long as the next one is foreseen to end in time.

use std::time::{Duration, Instant};

/// Pieces are added to a unit until it has lasted this long: less than a layer of a full pass at 1.7B
/// on two cores, a third of a decoded token, the whole model where it is small.
pub(super) const UNIT: Duration = Duration::from_millis(8);

/// A pass without prompts is not suspended as long as it keeps below this.
pub(super) const STEP: Duration = Duration::from_millis(28);

/// A layer takes no longer, or a pass has fewer rows. It cannot be suspended, so this leaves room for
/// a machine that is slow for a moment.
const LAYER: Duration = Duration::from_millis(24);

/// Rows of a pass that are worth reading the weights for, however slow the machine.
const FEWEST_ROWS: usize = 16;

/// The share that the newest time has in what is foreseen.
const NEWEST: f64 = 0.25;

/// The time of a unit under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
    /// The end of the last piece.
    last: Instant,
    is_begun: bool,
}

impl Clock {
    /// Of a unit that begins now.
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self { start: now, last: now, is_begun: false }
    }

    /// Whether a piece that is foreseen to take `piece` ends within `limit` from the start. The first
    /// one always does, or there would be no end.
    pub(super) fn allows(&self, piece: Duration, limit: Duration) -> bool {
        !self.is_begun || self.last + piece <= self.start + limit
    }

    /// Ends a piece; returns how long it took.
    pub(super) fn piece(&mut self) -> Duration {
        let now = Instant::now();
        let piece = now - self.last;
        (self.last, self.is_begun) = (now, true);
        piece
    }

    /// The end of the last piece.
    pub(super) fn now(&self) -> Instant {
        self.last
    }

    /// From the start to the end of the last piece.
    pub(super) fn spent(&self) -> Duration {
        self.last - self.start
    }
}

/// How long pieces take, as measured. Before the first ones they are taken to take nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Pace {
    /// A row of a layer that sees no other positions, in seconds.
    row: f64,
    /// The logits of a few rows and what is made of them, in seconds.
    finish: f64,
}

impl Pace {
    /// Takes note of a layer of `rows`, as much work as `work` rows that see no other positions, that
    /// took `time`. A few rows tell nothing, since reading the weights is what takes the time then.
    pub(super) fn see_layer(&mut self, rows: usize, work: f64, time: Duration) {
        if rows >= FEWEST_ROWS {
            follow(&mut self.row, time.as_secs_f64() / work);
        }
    }

    /// Takes note of the logits of a few rows.
    pub(super) fn see_finish(&mut self, time: Duration) {
        follow(&mut self.finish, time.as_secs_f64());
    }

    /// What a layer of so much work takes.
    pub(super) fn layer(self, work: f64) -> Duration {
        Duration::from_secs_f64(self.row * work.max(FEWEST_ROWS as f64))
    }

    /// What the logits of a few rows take, and what is made of them.
    pub(super) fn finish(self) -> Duration {
        Duration::from_secs_f64(self.finish)
    }

    /// Rows, each as much work as `work` that see no other positions, of which one layer stays below
    /// [`LAYER`]: at most `most`.
    pub(super) fn rows(self, work: f64, most: usize) -> usize {
        let fitting = LAYER.as_secs_f64() / (self.row * work).max(1e-12);
        (fitting as usize).clamp(FEWEST_ROWS, most)
    }
}

fn follow(foreseen: &mut f64, new: f64) {
    *foreseen = if *foreseen == 0.0 { new } else { (1.0 - NEWEST) * *foreseen + NEWEST * new };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn slow_machines_take_fewer_rows_at_once() {
        let mut pace = Pace::default();
        assert_eq!(pace.rows(1.0, 192), 192);
        pace.see_layer(1, 1.0, Duration::from_secs(1));
        assert_eq!(pace, Pace::default(), "one row tells nothing");
        pace.see_layer(100, 100.0, millis(10));
        assert_eq!(pace.rows(1.0, 192), 192);
        (0..50).for_each(|_| pace.see_layer(100, 100.0, millis(100)));
        assert!((23..=24).contains(&pace.rows(1.0, 192)), "{}", pace.rows(1.0, 192));
        (0..50).for_each(|_| pace.see_layer(16, 16.0, Duration::from_secs(1)));
        assert_eq!(pace.rows(1.0, 192), FEWEST_ROWS);
    }

    #[test]
    fn rows_that_see_much_are_fewer() {
        let mut pace = Pace::default();
        // Half of the time goes into what the rows see.
        pace.see_layer(100, 200.0, millis(40));
        assert!((119..=120).contains(&pace.rows(1.0, 192)), "{}", pace.rows(1.0, 192));
        assert!((29..=30).contains(&pace.rows(4.0, 192)), "{}", pace.rows(4.0, 192));
        assert_eq!(pace.layer(100.0), millis(20));
        assert_eq!(pace.layer(1.0), Duration::from_micros(3200), "reading the weights takes the time");
    }

    #[test]
    fn a_unit_has_a_piece_and_those_that_fit() {
        let mut clock = Clock::start();
        assert!(clock.allows(Duration::from_secs(9), UNIT), "the first one always fits");
        let piece = clock.piece();
        assert_eq!((clock.spent(), clock.now() - clock.start), (piece, piece));
        let long = piece + Duration::from_secs(1);
        assert!(clock.allows(Duration::from_secs(1), long));
        assert!(!clock.allows(Duration::from_secs(1) + Duration::from_nanos(1), long));
    }
}
