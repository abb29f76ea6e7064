//! Counts what each thread asks of the allocator, so that tests can bound it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static TALLY: Cell<Tally> = const { Cell::new(Tally { calls: 0, bytes: 0, largest: 0 }) };
    static SHARED: Cell<Option<&'static AtomicUsize>> = const { Cell::new(None) };
}

/// What a thread has allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Number of allocations.
    pub(crate) calls: usize,
    /// Bytes of all of them.
    pub(crate) bytes: usize,
    /// Bytes of the largest.
    pub(crate) largest: usize,
}

fn count(bytes: usize) {
    // Both are gone while a thread ends; nothing is measured then.
    if let Ok(Some(calls)) = SHARED.try_with(Cell::get) {
        calls.fetch_add(1, Ordering::Relaxed);
    }
    let _ = TALLY.try_with(|tally| {
        let Tally { calls, bytes: sum, largest } = tally.get();
        tally.set(Tally { calls: calls + 1, bytes: sum.saturating_add(bytes), largest: largest.max(bytes) });
    });
}

// SAFETY: every call goes to the system allocator unchanged; counting touches a thread-local cell
// that needs no allocation itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(old, layout) }
    }
}

/// What this thread allocates while `work` runs.
pub(crate) fn during<T>(work: impl FnOnce() -> T) -> (T, Tally) {
    TALLY.set(Tally { calls: 0, bytes: 0, largest: 0 });
    let result = work();
    (result, TALLY.get())
}

/// From now on counts the allocations of the calling thread in `calls`, for other threads to read.
pub(crate) fn count_calls_in(calls: &'static AtomicUsize) {
    SHARED.set(Some(calls));
}

#[test]
fn allocations_of_this_thread_are_counted() {
    let (kept, tally) = during(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| vec![1u8; 1 << 22]).join().expect("the thread ends");
        });
        (vec![1u8; 1 << 20], vec![2u8; 10])
    });
    assert!(tally.largest == 1 << 20, "{tally:?}");
    assert!(tally.calls >= 2 && tally.bytes >= kept.0.len() + kept.1.len(), "{tally:?}");
}
