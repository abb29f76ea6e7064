//! How much work fits into a unit, as measured.

use std::time::Duration;

/// Layers are added to a unit of work until it has lasted this long: a layer of a full pass at 1.7B
/// on two cores, a third of a decoded token, the whole model where it is small.
pub(super) const UNIT: Duration = Duration::from_millis(8);

/// A pass without prompts is not suspended as long as it keeps below this.
pub(super) const STEP: Duration = Duration::from_millis(36);

/// Rows of a pass that are worth reading the weights for, however slow the machine.
const FEWEST_ROWS: usize = 16;

/// What a row of a layer takes. Before the first one it is taken to be nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct RowTime(f64);

impl RowTime {
    /// Takes note of a layer of `rows` that took `time`. A few rows tell nothing, since reading the
    /// weights is what takes the time then.
    pub(super) fn see(&mut self, rows: usize, time: Duration) {
        if rows >= FEWEST_ROWS {
            let new = time.as_secs_f64() / rows as f64;
            self.0 = if self.0 == 0.0 { new } else { 0.75 * self.0 + 0.25 * new };
        }
    }

    /// Rows of which one layer stays below [`STEP`], at most `most`.
    pub(super) fn rows(self, most: usize) -> usize {
        let fitting = STEP.as_secs_f64() / self.0.max(1e-12);
        (fitting as usize).clamp(FEWEST_ROWS, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_machines_take_fewer_rows_at_once() {
        let mut time = RowTime::default();
        assert_eq!(time.rows(192), 192);
        time.see(1, Duration::from_secs(1));
        assert_eq!(time, RowTime::default(), "one row tells nothing");
        time.see(100, Duration::from_millis(10));
        assert_eq!(time.rows(192), 192);
        (0..50).for_each(|_| time.see(100, Duration::from_millis(100)));
        assert!((35..=36).contains(&time.rows(192)), "{}", time.rows(192));
        (0..50).for_each(|_| time.see(16, Duration::from_secs(1)));
        assert_eq!(time.rows(192), FEWEST_ROWS);
    }
}
