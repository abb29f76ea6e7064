//! A one-place slot where new replaces old, and the bell that tells of it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Holds the newest value only. Putting never waits for the reader.
#[derive(Debug)]
pub struct Latest<T> {
    slot: Mutex<Slot<T>>,
    wake: Wake,
}

#[derive(Debug)]
struct Slot<T> {
    value: Option<Arc<T>>,
    seen: bool,
    /// The source is gone since the value was put.
    lost: bool,
}

impl<T> Latest<T> {
    /// An empty slot that rings `wake` whenever a value is put.
    pub fn new(wake: Wake) -> Self {
        Self { slot: Mutex::new(Slot { value: None, seen: true, lost: false }), wake }
    }

    /// Replaces the value. Returns whether the old one was never taken.
    pub fn put(&self, value: impl Into<Arc<T>>) -> bool {
        let value = value.into();
        let mut slot = lock(&self.slot);
        let replaced_unseen = !slot.seen;
        let old = slot.value.replace(value);
        slot.seen = false;
        slot.lost = false;
        drop(slot);
        // Freeing a frame takes time that readers need not wait for.
        drop(old);
        self.wake.ring();
        replaced_unseen
    }

    /// Tells that the source is gone until the next value is put. The newest one stays to be looked at.
    pub fn lose(&self) {
        lock(&self.slot).lost = true;
        self.wake.ring();
    }

    /// Nobody takes the value any more: from now on only a newer one is new. Returns whether it was never
    /// taken.
    pub fn expire(&self) -> bool {
        !std::mem::replace(&mut lock(&self.slot).seen, true)
    }

    /// Whether the source is gone.
    pub fn is_lost(&self) -> bool {
        lock(&self.slot).lost
    }

    /// The newest value if nobody took it yet.
    pub fn take_new(&self) -> Option<Arc<T>> {
        let mut slot = lock(&self.slot);
        if slot.seen {
            return None;
        }
        slot.seen = true;
        slot.value.clone()
    }

    /// The newest value, taken or not.
    pub fn newest(&self) -> Option<Arc<T>> {
        lock(&self.slot).value.clone()
    }

    /// Whether there is a value that nobody took.
    pub fn has_new(&self) -> bool {
        !lock(&self.slot).seen
    }
}

/// A bell that one thread waits for and any thread rings. A ring while nobody waits is kept.
#[derive(Clone, Debug, Default)]
pub struct Wake(Arc<(Mutex<bool>, Condvar)>);

impl Wake {
    /// Wakes the waiting thread, or the next one to wait.
    pub fn ring(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_one();
    }

    /// Waits for a ring, at most until `deadline`.
    pub fn wait_until(&self, deadline: Instant) {
        let mut rung = lock(&self.0.0);
        while !*rung {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return;
            }
            rung = self.0.1.wait_timeout(rung, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *rung = false;
    }
}

/// Locks a mutex whose data stays valid even if a holder panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
