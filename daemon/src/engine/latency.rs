//! Times of the last few hundred pieces of work of one kind.

use std::time::Duration;

use messages::Latency;

use super::progress::millis;

/// Times that are kept.
const KEPT: usize = 256;

/// The newest times, in a ring.
#[derive(Clone, Debug)]
pub(super) struct Times {
    count: u64,
    worst_ms: f32,
    recent: Vec<f32>,
}

impl Default for Times {
    /// Room for all that is kept, so that adding does not allocate.
    fn default() -> Self {
        Self { count: 0, worst_ms: 0.0, recent: Vec::with_capacity(KEPT) }
    }
}

impl Times {
    /// Adds a time.
    pub(super) fn add(&mut self, time: Duration) {
        self.add_ms(millis(time));
    }

    /// Adds a time in milliseconds.
    pub(super) fn add_ms(&mut self, ms: f32) {
        let place = (self.count % KEPT as u64) as usize;
        match self.recent.get_mut(place) {
            Some(old) => *old = ms,
            None => self.recent.push(ms),
        }
        self.count += 1;
        self.worst_ms = self.worst_ms.max(ms);
    }

    /// In figures: the median and the 99th percentile of what is kept.
    pub(super) fn figures(&self) -> Latency {
        let mut sorted = self.recent.clone();
        sorted.sort_unstable_by(f32::total_cmp);
        let at = |part: f64| match sorted.len() {
            0 => 0.0,
            len => sorted[((len - 1) as f64 * part).round() as usize],
        };
        Latency { count: self.count, median_ms: at(0.5), p99_ms: at(0.99), worst_ms: self.worst_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_times_count() {
        let mut times = Times::default();
        assert_eq!(times.figures(), Latency::default());
        (0..100).for_each(|ms| times.add(Duration::from_millis(ms)));
        let latency = Latency { count: 100, median_ms: 50.0, p99_ms: 98.0, worst_ms: 99.0 };
        assert_eq!(times.figures(), latency);
        (0..300).for_each(|_| times.add_ms(7.0));
        let latency = Latency { count: 400, median_ms: 7.0, p99_ms: 7.0, worst_ms: 99.0 };
        assert_eq!(times.figures(), latency);
    }
}
