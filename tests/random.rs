//! Numbers that look random and come again with the same seed.

use std::time::Duration;

/// A xorshift generator; its seed must not be 0.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % end
    }

    /// Whether something happens that happens once in `many` times.
    pub(crate) fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    /// The time to the next event of a Poisson process whose events are `mean` apart on average.
    pub(crate) fn interval(&mut self, mean: Duration) -> Duration {
        let steps = 1u64 << 40;
        let unit = self.below(steps) as f64 / steps as f64;
        mean.mul_f64(-(1.0 - unit).ln())
    }
}

#[test]
fn intervals_have_their_mean_and_scatter() {
    let random = &mut Random(7);
    let seconds: Vec<f64> =
        (0..20_000).map(|_| random.interval(Duration::from_secs(2)).as_secs_f64()).collect();
    let mean = seconds.iter().sum::<f64>() / seconds.len() as f64;
    // Of an exponential distribution, one in e is longer than the mean.
    let longer = seconds.iter().filter(|&&second| second > 2.0).count() as f64 / seconds.len() as f64;
    assert!((mean - 2.0).abs() < 0.05 && (longer - (-1.0f64).exp()).abs() < 0.01, "{mean}, {longer}");
}
