//! Whether the clock of another node can be believed.

use std::fmt;
use std::time::Duration;

/// How far a stamp may be ahead of its arrival: clocks that are set over the network differ by less.
const AHEAD: Duration = Duration::from_millis(200);

/// How old a frame may be on arrival.
const OLD: Duration = Duration::from_secs(60);

/// On arrival frames are younger than this; older ones are believed, but worth a word.
const LATE: Duration = Duration::from_secs(1);

/// Tells when frames were captured: by their stamps, unless these cannot be right.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// What was said is not said again: ahead, old, late.
    told: [bool; 3],
}

/// What is odd about the stamps of a publisher.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Doubt {
    /// From the future.
    Ahead(Duration),
    /// Too old to be true.
    Old(Duration),
    /// Possible, but old.
    Late(Duration),
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instead = "the time of arrival is taken as capture time; set both clocks, with NTP or PTP";
        match self {
            Self::Ahead(by) => write!(f, "frames are stamped {} s ahead: {instead}", by.as_secs_f32()),
            Self::Old(by) => {
                write!(f, "frames are stamped {} s before they arrive: {instead}", by.as_secs_f32())
            }
            Self::Late(by) => write!(
                f,
                "frames arrive {} s after their capture: the clocks differ or the link is slow, \
                 and frames older than max_age_s are not described",
                by.as_secs_f32()
            ),
        }
    }
}

impl Clock {
    /// The capture time of a frame that arrived at `arrived` with `stamp`, both in nanoseconds since the
    /// Unix epoch, and what is to be said about it. A stamp of 0 is none.
    pub(super) fn captured_at(&mut self, stamp: Option<u64>, arrived: u64) -> (u64, Option<Doubt>) {
        let Some(stamp) = stamp.filter(|&stamp| stamp > 0) else { return (arrived, None) };
        let (ahead, age) = (stamp.saturating_sub(arrived), arrived.saturating_sub(stamp));
        let (ahead, age) = (Duration::from_nanos(ahead), Duration::from_nanos(age));
        let (captured_at, kind, doubt) = match () {
            () if ahead > AHEAD => (arrived, 0, Doubt::Ahead(ahead)),
            () if age > OLD => (arrived, 1, Doubt::Old(age)),
            () if age > LATE => (stamp, 2, Doubt::Late(age)),
            () => return (stamp, None),
        };
        let is_told = std::mem::replace(&mut self.told[kind], true);
        (captured_at, (!is_told).then_some(doubt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const NOW: u64 = 1_700_000_000 * SECOND;

    #[test]
    fn impossible_stamps_give_way_to_the_arrival() {
        let captured = |stamp| Clock::default().captured_at(stamp, NOW);
        assert_eq!(captured(None), (NOW, None));
        assert_eq!(captured(Some(0)), (NOW, None));
        assert_eq!(captured(Some(NOW - SECOND / 10)), (NOW - SECOND / 10, None));
        assert_eq!(captured(Some(NOW + SECOND / 10)), (NOW + SECOND / 10, None));
        let seconds = Duration::from_secs;
        assert_eq!(captured(Some(NOW + 2 * SECOND)), (NOW, Some(Doubt::Ahead(seconds(2)))));
        assert_eq!(captured(Some(NOW - 61 * SECOND)), (NOW, Some(Doubt::Old(seconds(61)))));
        assert_eq!(captured(Some(u64::MAX)).0, NOW);
        assert_eq!(captured(Some(1)).0, NOW);
        let late = NOW - 3 * SECOND;
        assert_eq!(captured(Some(late)), (late, Some(Doubt::Late(seconds(3)))));
    }

    #[test]
    fn each_doubt_is_told_once() {
        let mut clock = Clock::default();
        let mut told = |stamp| clock.captured_at(Some(stamp), NOW).1.is_some();
        assert!(told(NOW + SECOND));
        assert!(!told(NOW + 2 * SECOND));
        assert!(!told(NOW));
        assert!(!told(NOW + 3 * SECOND));
        assert!(told(5));
    }
}
