//! When a caller who is refused may come back: measured, not guessed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use messages::AskError;

/// What a question is taken to cost before any was answered.
const FIRST_GUESS: Duration = Duration::from_secs(1);

/// Bounds of what a refused caller is told.
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(60);

/// How fast questions are worked off, and who was refused. Shared by all who refuse.
#[derive(Debug)]
pub(crate) struct Admission {
    start: Instant,
    /// Microseconds from the end of one question to the end of the next; 0 before the first.
    interval_us: AtomicU64,
    /// The place that was promised last, in microseconds after `start`.
    promised_us: AtomicU64,
    refused: AtomicU64,
}

impl Default for Admission {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self { start: Instant::now(), interval_us: zero(), promised_us: zero(), refused: zero() }
    }
}

impl Admission {
    /// Refuses a caller: places come free one by one, and each is promised once.
    pub(crate) fn refuse(&self) -> AskError {
        self.refuse_at(self.start.elapsed())
    }

    fn refuse_at(&self, now: Duration) -> AskError {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let (now, interval) = (micros(now), micros(self.interval()));
        let next = |promised: u64| (promised.max(now) + interval).min(now + micros(LONGEST));
        let promise = |promised| Some(next(promised));
        let (Ok(promised) | Err(promised)) =
            self.promised_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, promise);
        overloaded(Duration::from_micros(next(promised) - now))
    }

    /// What one is told who had a place but no room: the next end of a question makes some.
    pub(crate) fn overloaded(&self) -> AskError {
        overloaded(self.interval())
    }

    /// A question ended `time` after the one before it, or after its own arrival if that was later.
    pub(crate) fn ended(&self, time: Duration) {
        let old = self.interval_us.load(Ordering::Relaxed);
        let new = micros(time).max(1);
        // The mean of about the last eight.
        let mean = if old == 0 { new } else { old - old / 8 + new / 8 };
        self.interval_us.store(mean, Ordering::Relaxed);
    }

    /// Callers refused since start.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn interval(&self) -> Duration {
        match self.interval_us.load(Ordering::Relaxed) {
            0 => FIRST_GUESS,
            micros => Duration::from_micros(micros),
        }
    }
}

fn overloaded(wait: Duration) -> AskError {
    let wait = wait.clamp(SHORTEST, LONGEST);
    AskError::Overloaded { retry_after_ms: wait.as_millis() as u32 }
}

/// Far more than anything takes at most, so that sums of a few fit.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(u64::MAX / 4)
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
        assert_eq!(told(admission.overloaded()), 1000);
        for _ in 0..100 {
            admission.ended(Duration::from_millis(250));
        }
        let first = told(admission.refuse());
        assert!((240..=250).contains(&first), "{first}");
        for _ in 0..100 {
            admission.ended(Duration::from_millis(40));
        }
        let faster = told(admission.overloaded());
        assert!((39..=41).contains(&faster), "{faster}");
    }

    #[test]
    fn each_place_is_promised_once() {
        let admission = Admission::default();
        admission.ended(Duration::from_millis(100));
        let refuse = |seconds: f64| told(admission.refuse_at(Duration::from_secs_f64(seconds)));
        assert_eq!([(); 3].map(|()| refuse(1.0)), [100, 200, 300]);
        assert_eq!(refuse(1.1), 300, "a place came free meanwhile");
        assert_eq!(refuse(9.0), 100, "whoever did not come back is not waited for");
        assert_eq!(admission.refused(), 5);
        for _ in 0..1000 {
            refuse(9.0);
        }
        assert_eq!(refuse(9.0), 60_000);
    }
}
