//! What threads that wait read ahead.
//!
//! A decoded token is a row of matrix products with little between them, always in the same order. While
//! one thread does what lies between, or looks for the next job, the memory would be idle: each thread that
//! waits brings the beginning of its next part into its own cache instead.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Places that a thread reads at once.
pub(crate) const PLACES: usize = 2;

/// Bytes of each place that are read ahead: together half of a second-level cache of 1 MiB.
const MOST: usize = 256 << 10;

/// Bytes of each place that are asked for between two looks at what is waited for.
const STEP: usize = 256;

/// Bytes that memory is asked for at once.
const LINE: usize = 64;

/// Jobs whose successors are remembered; a model has a few hundred.
const REMEMBERED: usize = 4096;

/// Where a thread will begin to read, alone in its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Upcoming {
    /// Changes with the places.
    stamp: AtomicUsize,
    /// Addresses, or 0. They are asked for only, so that they may be anything.
    places: [AtomicUsize; PLACES],
}

/// How far a thread is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    stamp: usize,
    places: [usize; PLACES],
    done: usize,
}

impl Upcoming {
    /// Tells the thread where it will begin. A thread that looks meanwhile may see half of it, which
    /// does no harm.
    pub(crate) fn set(&self, places: [usize; PLACES]) {
        for (to, place) in self.places.iter().zip(places) {
            to.store(place, Ordering::Relaxed);
        }
        self.stamp.store(self.stamp.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// Asks for a little more; whether there was anything left to ask for.
    pub(crate) fn fetch(&self, progress: &mut Progress) -> bool {
        let stamp = self.stamp.load(Ordering::Acquire);
        if stamp != progress.stamp {
            let places = std::array::from_fn(|place| self.places[place].load(Ordering::Relaxed));
            *progress = Progress { stamp, places, done: 0 };
        }
        if progress.done >= MOST || progress.places == [0; PLACES] {
            return false;
        }
        for place in progress.places {
            for at in (progress.done..progress.done + STEP).step_by(LINE) {
                fetch_line(place.wrapping_add(at));
            }
        }
        progress.done += STEP;
        true
    }
}

/// Asks for a line of memory in the second-level cache. Nothing happens if there is no such memory.
#[inline]
fn fetch_line(address: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program could see and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::without_provenance(address)) };
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a prefetch reads nothing that the program could see and never faults.
    unsafe {
        std::arch::asm!("prfm pldl2keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

/// Which job came after which the last time, by the address of its last matrix: where each thread began.
#[derive(Debug, Default)]
pub(crate) struct Order {
    after: HashMap<usize, Vec<[usize; PLACES]>>,
    /// The newest job.
    last: usize,
}

impl Order {
    /// Notes that a job with these places begins, whose last matrix is at `own`; returns where its
    /// successor began the last time.
    pub(crate) fn note(
        &mut self,
        own: usize,
        places: impl ExactSizeIterator<Item = [usize; PLACES]>,
    ) -> Option<&[[usize; PLACES]]> {
        if self.after.len() >= REMEMBERED {
            self.after.clear();
        }
        let begun = self.after.entry(self.last).or_default();
        begun.clear();
        begun.extend(places);
        self.last = own;
        self.after.get(&own).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_followed_by_what_followed_it_the_last_time() {
        let mut order = Order::default();
        let mut note = |own: usize| order.note(own, [[own, own + 1]].into_iter()).map(<[_]>::to_vec);
        assert_eq!([note(10), note(20), note(30)], [None, None, None]);
        assert_eq!(note(10), Some(vec![[20, 21]]));
        assert_eq!(note(20), Some(vec![[30, 31]]));
        // From now on, 20 is followed by 10.
        assert_eq!(note(10), Some(vec![[20, 21]]));
        assert_eq!(note(20), Some(vec![[10, 11]]));
    }

    #[test]
    fn a_thread_stops_after_its_share_until_it_is_told_something_new() {
        let (upcoming, mut progress) = (Upcoming::default(), Progress::default());
        assert!(!upcoming.fetch(&mut progress), "nothing is known yet");
        let bytes = vec![1_u8; 1000];
        for _ in 0..2 {
            upcoming.set([bytes.as_ptr().addr(), 8]); // The second is no memory of ours.
            let steps = std::iter::repeat_with(|| upcoming.fetch(&mut progress)).take_while(|more| *more);
            assert_eq!(steps.count(), MOST / STEP);
        }
        upcoming.set([0, 0]);
        assert!(!upcoming.fetch(&mut progress));
    }
}
