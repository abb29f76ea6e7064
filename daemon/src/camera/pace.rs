//! When the next frame of a drawn or recorded source is due.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

/// Frames per second, written with two decimals at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fps(pub f64);

impl fmt::Display for Fps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", (self.0 * 100.0).round() / 100.0)
    }
}

/// An even beat that starts over when it was missed by more than a beat.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    next: Instant,
}

impl Pace {
    /// A beat of `fps` frames per second; 0 and nonsense take `default_fps`.
    pub(super) fn new(fps: f64, default_fps: f64) -> Self {
        let fps = if fps > 0.0 { fps.clamp(0.001, 1000.0) } else { default_fps };
        Self { interval: Duration::from_secs_f64(1.0 / fps), next: Instant::now() }
    }

    /// Time between frames.
    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// Frames per second.
    pub(super) fn fps(&self) -> Fps {
        Fps(1.0 / self.interval.as_secs_f64())
    }

    /// Waits for the beat, at most `wait`. Returns whether it came.
    pub(super) fn wait(&mut self, wait: Duration) -> bool {
        let now = Instant::now();
        let left = self.next.saturating_duration_since(now);
        if left > wait {
            thread::sleep(wait);
            return false;
        }
        thread::sleep(left);
        self.next = (self.next + self.interval).max(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_frame_is_due_at_once_and_the_next_after_an_interval() {
        let mut pace = Pace::new(0.01, 1.0);
        assert_eq!(pace.interval(), Duration::from_secs(100));
        assert!(pace.wait(Duration::ZERO));
        assert!(!pace.wait(Duration::ZERO));
    }

    #[test]
    fn rates_are_written_short() {
        let written = [30.0, 7.5, 30_000.0 / 1001.0, 1.0 / 3.0].map(|fps| Fps(fps).to_string());
        assert_eq!(written, ["30", "7.5", "29.97", "0.33"]);
    }

    #[test]
    fn nonsense_takes_the_default() {
        for fps in [0.0, -1.0, f64::NAN] {
            assert_eq!(Pace::new(fps, 4.0).interval(), Duration::from_millis(250));
        }
        assert_eq!(Pace::new(f64::INFINITY, 4.0).interval(), Duration::from_millis(1));
    }
}
