//! When a caller who is refused may come back: measured, not guessed.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use messages::AskError;

/// What a question is taken to cost before any was answered.
const FIRST_GUESS: Duration = Duration::from_secs(1);

/// Bounds of what a refused caller is told.
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(60);

/// How fast questions are worked off, and who was refused. Shared by all who refuse.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// Microseconds from the end of one question to the end of the next; 0 before the first.
    interval_us: AtomicU64,
    /// Callers refused since a question ended last.
    in_line: AtomicU32,
    refused: AtomicU64,
}

impl Admission {
    /// Refuses a caller: places come free one by one, and callers refused before come first.
    pub(super) fn refuse(&self) -> AskError {
        let before = self.in_line.fetch_add(1, Ordering::Relaxed);
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.overloaded(before)
    }

    /// What one is told who has `before` callers before him.
    pub(super) fn overloaded(&self, before: u32) -> AskError {
        let wait = self.interval().saturating_mul(before.saturating_add(1)).clamp(SHORTEST, LONGEST);
        AskError::Overloaded { retry_after_ms: wait.as_millis() as u32 }
    }

    /// A question ended `time` after the one before it, or after its own arrival if that was later.
    pub(super) fn ended(&self, time: Duration) {
        let old = self.interval_us.load(Ordering::Relaxed);
        let new = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        // The mean of about the last eight.
        let mean = if old == 0 { new } else { old - old / 8 + new / 8 };
        self.interval_us.store(mean, Ordering::Relaxed);
        // One place came free for whoever was first in line.
        let _ = self.in_line.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |line| line.checked_sub(1));
    }

    /// Callers refused since start.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn interval(&self) -> Duration {
        match self.interval_us.load(Ordering::Relaxed) {
            0 => FIRST_GUESS,
            micros => Duration::from_micros(micros),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: AskError) -> u32 {
        match error {
            AskError::Overloaded { retry_after_ms } => retry_after_ms,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn callers_are_told_what_questions_really_take() {
        let admission = Admission::default();
        assert_eq!(told(admission.overloaded(0)), 1000);
        for _ in 0..100 {
            admission.ended(Duration::from_millis(250));
        }
        let first = told(admission.refuse());
        assert!((240..=250).contains(&first), "{first}");
        for _ in 0..100 {
            admission.ended(Duration::from_millis(40));
        }
        let faster = told(admission.overloaded(0));
        assert!((39..=41).contains(&faster), "{faster}");
    }

    #[test]
    fn callers_stand_in_line() {
        let admission = Admission::default();
        admission.ended(Duration::from_millis(100));
        assert_eq!([(); 3].map(|()| told(admission.refuse())), [100, 200, 300]);
        admission.ended(Duration::from_millis(100));
        assert_eq!(told(admission.refuse()), 300);
        assert_eq!(admission.refused(), 4);
        assert_eq!(told(admission.overloaded(u32::MAX)), 60_000);
    }
}
