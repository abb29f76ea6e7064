//! What came over the bus and how it ended, and who was refused for want of a place.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use messages::{AskError, BusStatus};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::present::Present;
use super::strangers;
use crate::engine::Admission;

/// Refusals on their way off zenoh's threads.
const REFUSALS: u32 = 64;

/// What is counted since start. A question or request counts before its reply is sent, so that whoever got the
/// reply finds it in the status.
pub(super) struct Counts {
    figures: Mutex<BusStatus>,
    present: Present,
}

impl Counts {
    pub(super) fn new(present: Present) -> Arc<Self> {
        Arc::new(Self { figures: Mutex::default(), present })
    }

    /// A question arrived.
    pub(super) fn asked(&self) {
        self.lock().questions += 1;
    }

    /// A question ends with an answer.
    pub(super) fn answered(&self) {
        self.lock().answered += 1;
    }

    /// A question ends with an error.
    pub(super) fn failed(&self, error: &AskError) {
        self.lock().failed.add(error);
    }

    /// A request that needs no thinking ends.
    pub(super) fn request(&self, is_ok: bool) {
        let mut figures = self.lock();
        figures.requests += 1;
        figures.requests_failed += u64::from(!is_ok);
    }

    /// As it is now.
    pub(super) fn figures(&self) -> BusStatus {
        let figures = *self.lock();
        let open = figures.questions - figures.answered - figures.failed.total();
        let strangers::Turned { strangers, too_slow } = strangers::turned();
        BusStatus {
            open: u32::try_from(open).unwrap_or(u32::MAX),
            neighbours: u32::try_from(self.present.number()).unwrap_or(u32::MAX),
            strangers,
            too_slow,
            ..figures
        }
    }

    fn lock(&self) -> MutexGuard<'_, BusStatus> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends refusals on threads of our own: zenoh has two to listen with, and a caller who does not read must not
/// hold one of them.
#[derive(Clone)]
pub(super) struct Refusals {
    places: Arc<Semaphore>,
    runtime: Handle,
}

impl Refusals {
    pub(super) fn new(runtime: Handle) -> Self {
        Self { places: Arc::new(Semaphore::new(REFUSALS as usize)), runtime }
    }

    /// Runs `refuse` soon. If too many are under way, it runs here and now, which slows those who flood.
    pub(super) fn send(&self, refuse: impl FnOnce() + Send + 'static) {
        match self.places.clone().try_acquire_owned() {
            Ok(place) => drop(self.runtime.spawn_blocking(move || {
                refuse();
                drop(place);
            })),
            Err(_) => refuse(),
        }
    }

    /// Waits until all are sent.
    pub(super) async fn sent(&self) {
        // The places are never closed.
        drop(self.places.acquire_many(REFUSALS).await);
    }
}

/// Places for requests that are answered at once; more are refused.
pub(super) struct Places {
    free: Arc<Semaphore>,
    pace: Admission,
    last_end: Mutex<Instant>,
}

/// A place, free again when it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    arrived: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(number: usize) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(number));
        Arc::new(Self { free, pace: Admission::default(), last_end: Mutex::new(Instant::now()) })
    }

    /// Errors: all are taken; when to come back is told as requests went so far.
    pub(super) fn take(self: &Arc<Self>) -> Result<Place, AskError> {
        let permit = self.free.clone().try_acquire_owned().map_err(|_| self.pace.refuse())?;
        Ok(Place { places: self.clone(), arrived: Instant::now(), _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut last = self.places.last_end.lock().unwrap_or_else(PoisonError::into_inner);
        self.places.pace.ended(now.duration_since((*last).max(self.arrived)));
        *last = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn whoever_finds_no_place_is_told_when_there_will_be_one() {
        let places = Places::new(2);
        let (first, second) = (places.take().ok().unwrap(), places.take().ok().unwrap());
        let told = |error| match error {
            AskError::Overloaded { retry_after_ms } => retry_after_ms,
            other => panic!("{other:?}"),
        };
        assert_eq!(told(places.take().err().unwrap()), 1000, "nothing was measured yet");
        std::thread::sleep(Duration::from_millis(20));
        drop(first);
        let third = places.take().ok().unwrap();
        assert!((20..1000).contains(&told(places.take().err().unwrap())));
        drop((second, third));
    }
}
