//! How long to wait before a camera is opened again.

use std::time::Duration;

use rand::rngs::ChaCha12Rng;
use rand::{RngExt, SeedableRng};

/// Times between attempts: each failure doubles them up to a limit. A random part of up to a half is
/// taken off, so that cameras that were lost together do not come back all at the same moment.
#[derive(Debug)]
pub(super) struct Backoff {
    shortest: Duration,
    longest: Duration,
    full: Duration,
    random: ChaCha12Rng,
}

impl Backoff {
    /// Times from `shortest` to `longest`; the random parts follow from `seed`.
    pub(super) fn new(shortest: Duration, longest: Duration, seed: u64) -> Self {
        Self { shortest, longest, full: shortest, random: ChaCha12Rng::seed_from_u64(seed) }
    }

    /// The time to wait after one more failure.
    pub(super) fn next(&mut self) -> Duration {
        let part = self.random.random_range(0.5..=1.0);
        let time = self.full.mul_f64(part);
        self.full = self.full.saturating_mul(2).min(self.longest);
        time
    }

    /// There is reason to hope: the next time is the shortest again.
    pub(super) fn reset(&mut self) {
        self.full = self.shortest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORTEST: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_secs(2);

    #[test]
    fn times_double_up_to_the_limit_less_a_random_part() {
        let mut backoff = Backoff::new(SHORTEST, LONGEST, 7);
        for round in 0..3 {
            for full in [250, 500, 1000, 2000, 2000, 2000].map(Duration::from_millis) {
                let time = backoff.next();
                assert!(full / 2 <= time && time <= full, "round {round}: {time:?} of {full:?}");
            }
            backoff.reset();
        }
    }

    #[test]
    fn two_cameras_do_not_wait_in_step() {
        let times = |seed| {
            let mut backoff = Backoff::new(SHORTEST, LONGEST, seed);
            [(); 8].map(|()| backoff.next())
        };
        assert_eq!(times(1), times(1));
        let apart = times(1).iter().zip(times(2)).filter(|(a, b)| a.abs_diff(*b) > SHORTEST / 50).count();
        assert!(apart >= 6, "{apart} of 8 differ");
    }
}
