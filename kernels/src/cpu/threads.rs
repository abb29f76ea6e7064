//! A fixed pool of threads that share out the tasks of one job at a time.
//!
//! Tasks are taken one by one from an atomic counter, and the caller takes part: a thread that the
//! system has suspended holds back the one task it has begun and nothing else. Waiting is a short
//! bounded spin, as decoding hands out jobs every few microseconds, and then sleep.

use std::cell::Cell;
use std::hint::spin_loop;
use std::marker::PhantomData;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

/// Turns of the wait loop before a thread sleeps: 10 to 40 microseconds on current processors.
const SPINS: usize = 1000;

/// Chunks per thread that [`Pool::rows`] aims at, so that a thread that lags has little to be waited for.
const CHUNKS_PER_THREAD: usize = 8;

/// The pool. One thread at a time may hand out jobs.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Keeps the pool from being shared, so that two jobs never meet.
    one_caller: PhantomData<Cell<()>>,
}

/// What a job's tasks do.
type Task = dyn Fn(usize) + Sync;

#[derive(Clone, Copy)]
struct Job {
    /// Alive until the caller's [`Finish`] has seen `running` at 0 with no job open.
    task: *const Task,
    tasks: usize,
}

// SAFETY: the pointee is `Sync`, and `Job` is only a reference to it.
unsafe impl Send for Job {}

struct Shared {
    /// Number of the newest job. Written under the lock, watched without.
    newest: AtomicUsize,
    /// Next task of the open job.
    next: AtomicUsize,
    /// Workers inside the open job. Written under the lock, watched without.
    running: AtomicUsize,
    state: Mutex<State>,
    start: Condvar,
    finish: Condvar,
}

#[derive(Default)]
struct State {
    /// The job workers may still join.
    job: Option<Job>,
    /// Workers asleep on `start`.
    sleepers: usize,
    /// Whether the caller is asleep on `finish`.
    caller_sleeps: bool,
    /// Whether a worker's task panicked during the open job.
    panicked: bool,
    stop: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool of `threads` threads, the caller's among them; 0 means one per physical core.
    pub(crate) fn new(threads: usize) -> Self {
        let threads = if threads == 0 { physical_cores() } else { threads };
        let shared = Arc::new(Shared {
            newest: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            state: Mutex::default(),
            start: Condvar::new(),
            finish: Condvar::new(),
        });
        let spawn = |index: usize| {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name(format!("kernels-{index}")).spawn(move || shared.serve()).ok()
        };
        let workers = (1..threads).filter_map(spawn).collect();
        Self { shared, workers, one_caller: PhantomData }
    }

    /// Threads that work, the caller's among them.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task` with each number below `tasks` once, on all threads, and returns when all calls
    /// have. Panics if a call panicked.
    pub(crate) fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if tasks < 2 || self.workers.is_empty() {
            (0..tasks).for_each(task);
            return;
        }
        // SAFETY: only the lifetime changes. `Finish` keeps this frame alive, also while unwinding,
        // until no thread can call `task` any more.
        let task = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const Task>(task) };
        let job = Job { task, tasks };
        self.shared.open(job);
        let finish = Finish(&self.shared);
        self.shared.work(job);
        drop(finish);
        let panicked = std::mem::take(&mut self.shared.lock().panicked);
        assert!(!panicked, "a kernel panicked on a worker thread");
    }

    /// Cuts `data`, rows of `width`, into chunks of at least `least` whole rows, and calls
    /// `f(first_row, chunk)` for each on all threads.
    pub(crate) fn rows<T: Send>(
        &self,
        data: &mut [T],
        width: usize,
        least: usize,
        f: &(dyn Fn(usize, &mut [T]) + Sync),
    ) {
        if data.is_empty() {
            return;
        }
        assert!(data.len().is_multiple_of(width), "data does not fill rows of {width}");
        let rows = data.len() / width;
        let chunk = rows.div_ceil(self.threads() * CHUNKS_PER_THREAD).max(least).max(1);
        let base = Base(data.as_mut_ptr());
        self.run(rows.div_ceil(chunk), &|index| {
            let first = index * chunk;
            let len = chunk.min(rows - first) * width;
            // SAFETY: chunk `index` lies inside `data`, no two overlap, each is taken once, and
            // `data` is borrowed until `run` returns.
            let part = unsafe { std::slice::from_raw_parts_mut(base.at(first * width), len) };
            f(first, part);
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.start.notify_all();
        for worker in self.workers.drain(..) {
            // Panics of tasks are caught, so a worker ends only by being told to.
            let _ = worker.join();
        }
    }
}

/// Start of data that tasks write disjoint parts of.
pub(crate) struct Base<T>(pub(crate) *mut T);

// SAFETY: a `Base` is only an address; whoever goes through it has to show that no other thread
// touches the same elements.
unsafe impl<T: Send> Send for Base<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Base<T> {}

impl<T> Base<T> {
    /// Address of element `index`.
    pub(crate) fn at(&self, index: usize) -> *mut T {
        self.0.wrapping_add(index)
    }
}

/// Closes the open job and waits until no worker is inside it.
struct Finish<'a>(&'a Shared);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        let shared = self.0;
        shared.lock().job = None;
        if spin_until(|| shared.running.load(Ordering::Acquire) == 0) {
            return;
        }
        let mut state = shared.lock();
        while shared.running.load(Ordering::Acquire) > 0 {
            state.caller_sleeps = true;
            state = shared.finish.wait(state).expect("nothing panics under this lock");
        }
        state.caller_sleeps = false;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }

    /// Lets workers join `job`.
    fn open(&self, job: Job) {
        let mut state = self.lock();
        self.next.store(0, Ordering::Relaxed);
        state.job = Some(job);
        state.panicked = false;
        self.newest.fetch_add(1, Ordering::Release);
        let sleepers = state.sleepers > 0;
        drop(state);
        if sleepers {
            self.start.notify_all();
        }
    }

    /// Takes tasks until none is left.
    fn work(&self, job: Job) {
        // SAFETY: the caller of `Pool::run` waits for every thread that is in here.
        let task = unsafe { &*job.task };
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= job.tasks {
                return;
            }
            task(index);
        }
    }

    /// A worker's life.
    fn serve(&self) {
        let mut seen = 0;
        while let Some(job) = self.join(&mut seen) {
            let panicked = catch_unwind(AssertUnwindSafe(|| self.work(job))).is_err();
            self.leave(panicked);
        }
    }

    /// Waits for a job newer than `seen` and enters it; `None` when the pool ends.
    fn join(&self, seen: &mut usize) -> Option<Job> {
        spin_until(|| self.newest.load(Ordering::Acquire) != *seen);
        let mut state = self.lock();
        loop {
            if state.stop {
                return None;
            }
            let newest = self.newest.load(Ordering::Acquire);
            if newest != *seen {
                *seen = newest;
                if let Some(job) = state.job {
                    self.running.fetch_add(1, Ordering::Relaxed);
                    return Some(job);
                }
            }
            state.sleepers += 1;
            state = self.start.wait(state).expect("nothing panics under this lock");
            state.sleepers -= 1;
        }
    }

    /// Ends a worker's part in the open job.
    fn leave(&self, panicked: bool) {
        let mut state = self.lock();
        state.panicked |= panicked;
        let last = self.running.fetch_sub(1, Ordering::Release) == 1;
        if last && state.caller_sleeps {
            self.finish.notify_one();
        }
    }
}

/// Watches for `condition` a short while; whether it came true.
fn spin_until(condition: impl Fn() -> bool) -> bool {
    for _ in 0..SPINS {
        if condition() {
            return true;
        }
        spin_loop();
    }
    false
}

/// Cores this process may use, not counting hardware threads of one core twice.
fn physical_cores() -> usize {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    (threads / threads_per_core()).max(1)
}

/// Hardware threads of one core.
#[cfg(target_arch = "x86_64")]
fn threads_per_core() -> usize {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const TOPOLOGY: u32 = 0xb;
    if __cpuid(0).eax < TOPOLOGY {
        return 1;
    }
    ((__cpuid_count(TOPOLOGY, 0).ebx & 0xffff) as usize).max(1)
}

/// Hardware threads of one core.
#[cfg(not(target_arch = "x86_64"))]
fn threads_per_core() -> usize {
    1
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in 1..5 {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            for tasks in [0, 1, 2, 3, 17, 1000] {
                let counts: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
                pool.run(tasks, &|index| {
                    counts[index].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn many_short_jobs_in_a_row() {
        let pool = Pool::new(3);
        let sum = AtomicUsize::new(0);
        for round in 0..5000 {
            if round % 1000 == 0 {
                thread::sleep(std::time::Duration::from_millis(2));
            }
            pool.run(4, &|index| {
                sum.fetch_add(index, Ordering::Relaxed);
            });
        }
        assert_eq!(sum.into_inner(), 5000 * 6);
    }

    #[test]
    fn rows_are_cut_without_overlap() {
        let pool = Pool::new(2);
        for (rows, width, least) in [(0, 3, 1), (1, 5, 4), (7, 2, 3), (100, 3, 1)] {
            let mut data = vec![0; rows * width];
            pool.rows(&mut data, width, least, &|first, chunk| {
                for (i, row) in chunk.chunks_exact_mut(width).enumerate() {
                    row.iter_mut().for_each(|value| *value += first + i + 1);
                }
            });
            let want: Vec<usize> = (0..rows * width).map(|i| i / width + 1).collect();
            assert_eq!(data, want);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pool.run(64, &|index| assert_ne!(index, 40, "on purpose"));
        }));
        assert!(outcome.is_err());
        let count = AtomicUsize::new(0);
        pool.run(64, &|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 64);
    }
}
