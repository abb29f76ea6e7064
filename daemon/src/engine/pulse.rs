//! Whether a camera still delivers, told by its frames alone.

use std::time::{Duration, Instant};

/// A camera without a new frame for so long delivers nothing any more, unless it is a slow one.
const GONE: Duration = Duration::from_secs(5);

/// Frames that a slow camera may leave out.
const MISSED: u32 = 4;

/// The newest frame of a camera and how long the ones before it took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pulse {
    newest: Option<(u64, Instant)>,
    period: Duration,
}

impl Pulse {
    /// Takes note of the newest frame, which may be the same as before.
    pub(super) fn see(&mut self, sequence: u64, captured: Instant) {
        if let Some((last, at)) = self.newest
            && sequence > last
        {
            let frames = u32::try_from(sequence - last).unwrap_or(u32::MAX);
            self.period = captured.duration_since(at) / frames;
        }
        self.newest = Some((sequence, captured));
    }

    /// Whether there were frames and there are none any more.
    pub(super) fn is_gone(&self, now: Instant) -> bool {
        let patience = GONE.max(self.period.saturating_mul(MISSED));
        self.newest.is_some_and(|(_, captured)| now.duration_since(captured) > patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_is_gone_when_it_misses_its_time() {
        let (mut pulse, start) = (Pulse::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert!(!pulse.is_gone(at(100)), "one that never delivered cannot be gone");
        pulse.see(0, at(0));
        pulse.see(0, at(0));
        assert!(!pulse.is_gone(at(5)));
        assert!(pulse.is_gone(at(6)));
        pulse.see(30, at(60));
        assert!(!pulse.is_gone(at(67)), "four times two seconds");
        assert!(pulse.is_gone(at(69)));
    }
}
