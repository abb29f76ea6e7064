//! A fixed pool of threads that share out the tasks of one job at a time.
//!
//! Tasks are numbered, and each thread begins with a range of its own, so that it goes through
//! neighbouring parts of memory; a thread that has finished its range takes what is left of the
//! others'. A thread that the system has suspended thus holds back the one task it has begun and
//! nothing else, and a slow core does fewer tasks. The caller takes part. Waiting is a short bounded
//! spin, as decoding hands out jobs every few microseconds, and then sleep.

use std::cell::{Cell, UnsafeCell};
use std::hint::spin_loop;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use super::ahead::{PLACES, Progress, Upcoming};
use super::processors::Processors;

/// Turns of the wait loop before a thread sleeps: 10 to 40 microseconds on current processors.
const SPINS: usize = 1000;

/// Chunks per thread that [`Pool::rows`] aims at, so that a thread that lags has little to be waited for.
const CHUNKS_PER_THREAD: usize = 8;

/// The pool. One thread at a time may hand out jobs.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    processors: Processors,
    /// What the caller read while it waited. Keeps the pool from being shared, so that two jobs never meet.
    ahead: Cell<Progress>,
}

/// What a job's tasks do.
type Task = dyn Fn(usize) + Sync;

#[derive(Clone, Copy)]
struct Job {
    /// Alive until the caller's [`Finish`] has seen nobody inside and the gate closed.
    task: *const Task,
    tasks: usize,
}

/// The next task of a thread's range. Alone in its cache lines.
#[repr(align(128))]
struct Next(AtomicUsize);

/// Parts of [`Shared::gate`]: workers inside, then whether others may enter, then the number of the job.
const INSIDE: u64 = OPEN - 1;
const OPEN: u64 = 1 << 16;
const NUMBER: u64 = !(INSIDE | OPEN);

struct Shared {
    /// The newest job: its number, whether it is open, and how many workers are inside.
    gate: AtomicU64,
    /// The newest job. Written by the caller while the gate is closed and nobody inside, read inside.
    job: UnsafeCell<Option<Job>>,
    /// One for each thread.
    next: Box<[Next]>,
    /// What each thread reads while it waits.
    upcoming: Box<[Upcoming]>,
    /// Whether a worker's task panicked during the newest job.
    panicked: AtomicBool,
    /// Workers that sleep on `start`, or are about to. Changed under the lock.
    sleepers: AtomicUsize,
    /// Whether the caller sleeps on `finish`, or is about to. Changed under the lock.
    caller_sleeps: AtomicBool,
    /// Whether the pool ends.
    stop: Mutex<bool>,
    start: Condvar,
    finish: Condvar,
}

// SAFETY: `job` is only touched as said there; the task it points to is `Sync`.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Pool {
    /// [`Pool::on`] all processors.
    #[cfg(test)]
    pub(crate) fn new(threads: usize) -> Self {
        Self::on(Processors::default(), threads)
    }

    /// A pool of `threads` threads, the caller's among them, that stay on some processors; 0 means one
    /// for each of these, or one per physical core where none are named.
    pub(crate) fn on(processors: Processors, threads: usize) -> Self {
        let threads = match (threads, processors.count()) {
            (0, 0) => physical_cores(),
            (0, count) => count,
            _ => threads,
        };
        let threads = threads.min(INSIDE as usize);
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            next: (0..threads).map(|_| Next(AtomicUsize::new(0))).collect(),
            upcoming: (0..threads).map(|_| Upcoming::default()).collect(),
            panicked: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            caller_sleeps: AtomicBool::new(false),
            stop: Mutex::new(false),
            start: Condvar::new(),
            finish: Condvar::new(),
        });
        let spawn = |index: usize| {
            let shared = Arc::clone(&shared);
            let serve = move || {
                processors.hold();
                shared.serve(index);
            };
            thread::Builder::new().name(format!("kernels-{index}")).spawn(serve).ok()
        };
        let workers = (1..threads).filter_map(spawn).collect();
        Self { shared, workers, processors, ahead: Cell::default() }
    }

    /// Lets the calling thread run on the processors of the pool alone.
    pub(crate) fn enter(&self) {
        self.processors.hold();
    }

    /// Threads that work, the caller's among them.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// The first task that each thread takes of so many.
    pub(crate) fn first_tasks(&self, tasks: usize) -> impl ExactSizeIterator<Item = usize> {
        (0..self.threads()).map(move |index| self.shared.first(tasks, index))
    }

    /// Tells each thread what to read from memory while it waits.
    pub(crate) fn read_ahead(&self, places: &[[usize; PLACES]]) {
        for (upcoming, places) in self.shared.upcoming.iter().zip(places) {
            upcoming.set(*places);
        }
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
        let finish = Finish(&self.shared, &self.ahead);
        self.shared.work(job, 0);
        drop(finish);
        let panicked = self.shared.panicked.swap(false, Ordering::Relaxed);
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
        *self.shared.lock() = true;
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
struct Finish<'a>(&'a Shared, &'a Cell<Progress>);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        let Self(shared, progress) = *self;
        shared.gate.fetch_and(!OPEN, Ordering::AcqRel);
        let empty = || shared.gate.load(Ordering::Acquire) & INSIDE == 0;
        let mut ahead = progress.take();
        let is_empty = shared.spin_until(0, &mut ahead, empty);
        progress.set(ahead);
        if is_empty {
            return;
        }
        let mut lock = shared.lock();
        shared.caller_sleeps.store(true, Ordering::Relaxed);
        // Either the last worker sees that the caller sleeps, or the caller sees that it has left.
        fence(Ordering::SeqCst);
        while !empty() {
            lock = shared.finish.wait(lock).expect("nothing panics under this lock");
        }
        shared.caller_sleeps.store(false, Ordering::Relaxed);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.stop.lock().expect("nothing panics under this lock")
    }

    /// First task of the range of thread `index`; that of one past the last thread is the end.
    fn first(&self, tasks: usize, index: usize) -> usize {
        let threads = self.next.len();
        tasks / threads * index + (tasks % threads).min(index)
    }

    /// Lets workers join `job`.
    fn open(&self, job: Job) {
        for (index, next) in self.next.iter().enumerate() {
            next.0.store(self.first(job.tasks, index), Ordering::Relaxed);
        }
        // SAFETY: the gate is closed and nobody inside since the last job's `Finish`.
        unsafe { *self.job.get() = Some(job) };
        let number = (self.gate.load(Ordering::Relaxed) & NUMBER).wrapping_add(2 * OPEN);
        self.gate.store(number | OPEN, Ordering::Release);
        // Either a worker that goes to sleep sees the new number, or its sleep is seen here.
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::Relaxed) > 0 {
            drop(self.lock());
            self.start.notify_all();
        }
    }

    /// Takes tasks until none is left, those of thread `own` first.
    fn work(&self, job: Job, own: usize) {
        // SAFETY: the caller of `Pool::run` waits for every thread that is in here.
        let task = unsafe { &*job.task };
        let threads = self.next.len();
        for index in (own..threads).chain(0..own) {
            let end = self.first(job.tasks, index + 1);
            let next = &self.next[index].0;
            while next.load(Ordering::Relaxed) < end {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number < end {
                    task(number);
                }
            }
        }
    }

    /// The life of worker `own`.
    fn serve(&self, own: usize) {
        let (mut seen, mut ahead) = (0, Progress::default());
        while self.wait(own, seen, &mut ahead) {
            if let Some(job) = self.join(&mut seen) {
                let panicked = catch_unwind(AssertUnwindSafe(|| self.work(job, own))).is_err();
                self.leave(panicked);
            }
        }
    }

    /// Watches for `condition` a short while, as thread `own`; whether it came true.
    fn spin_until(&self, own: usize, ahead: &mut Progress, condition: impl Fn() -> bool) -> bool {
        for _ in 0..SPINS {
            if condition() {
                return true;
            }
            if !self.upcoming[own].fetch(ahead) {
                spin_loop();
            }
        }
        false
    }

    /// Waits for a job other than number `seen`; false when the pool ends.
    fn wait(&self, own: usize, seen: u64, ahead: &mut Progress) -> bool {
        let new = || self.gate.load(Ordering::Relaxed) & NUMBER != seen;
        if self.spin_until(own, ahead, new) {
            return true;
        }
        let mut stop = self.lock();
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        while !*stop && !new() {
            stop = self.start.wait(stop).expect("nothing panics under this lock");
        }
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
        !*stop
    }

    /// Enters the newest job and notes its number, unless it is closed.
    fn join(&self, seen: &mut u64) -> Option<Job> {
        let enter = |gate: u64| (gate & OPEN != 0).then_some(gate + 1);
        let entered = self.gate.fetch_update(Ordering::Acquire, Ordering::Relaxed, enter);
        *seen = entered.unwrap_or_else(|gate| gate) & NUMBER;
        // SAFETY: this worker is inside, or does not look.
        entered.ok().and_then(|_| unsafe { *self.job.get() })
    }

    /// Ends a worker's part in the job.
    fn leave(&self, panicked: bool) {
        if panicked {
            self.panicked.store(true, Ordering::Relaxed);
        }
        self.gate.fetch_sub(1, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.caller_sleeps.load(Ordering::Relaxed) {
            drop(self.lock());
            self.finish.notify_one();
        }
    }
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
    fn ranges_cover_all_tasks() {
        for threads in 1..6 {
            let pool = Pool::new(threads);
            for tasks in [0, 1, 5, 6, 7, 100] {
                let first: Vec<usize> = (0..=threads).map(|index| pool.shared.first(tasks, index)).collect();
                assert_eq!((first[0], first[threads]), (0, tasks));
                assert!(first.is_sorted());
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
