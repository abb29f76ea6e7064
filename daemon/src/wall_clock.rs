//! The time of day as messages carry it: nanoseconds since the Unix epoch, 0 before it.

use std::time::{Instant, SystemTime};

/// Now.
pub(crate) fn now() -> u64 {
    nanos(SystemTime::now())
}

/// A past moment of this process's clock.
pub(crate) fn at(moment: Instant) -> u64 {
    SystemTime::now().checked_sub(moment.elapsed()).map_or(0, nanos)
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_stand_before_now_by_their_age() {
        let Some(moment) = Instant::now().checked_sub(Duration::from_secs(1)) else { return };
        let (then, now) = (at(moment), now());
        assert!(then > 0 && then + 1_000_000_000 <= now, "{then} {now}");
        assert_eq!(nanos(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), 0);
    }
}
