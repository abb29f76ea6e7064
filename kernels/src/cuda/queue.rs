//! Work on its way to the device, and the memory it is done in.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::driver::{Address, Argument, DeviceLost, Driver, Launch, List, Work};
use crate::device::DeviceError;

/// A list is given to the device when it has become so long, at the latest.
const LONGEST: usize = 1024;

/// What was asked for and not yet given to the device. It goes there as a list when results are read,
/// when something is uploaded over what it may use, and when a pass begins, so that each pass is one
/// list, which the driver may know from before.
pub(super) struct Queue<D: Driver> {
    driver: D,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    list: List,
    /// How many lists were given to the device.
    lists: u64,
}

impl<D: Driver> Queue<D> {
    pub(super) fn new(driver: D) -> Self {
        Self { driver, pending: Mutex::default() }
    }

    pub(super) fn driver(&self) -> &D {
        &self.driver
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // A list stays whole even if a thread ended in the middle.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, work: Work<'_>) {
        let mut pending = self.pending();
        pending.list.push(work);
        if pending.list.len() >= LONGEST {
            self.run(&mut pending).unwrap_or_else(|lost| lost.raise());
        }
    }

    /// Launches a kernel, unless there is nothing to do for it.
    pub(super) fn launch(&self, launch: Launch<'_>) {
        if !launch.grid.contains(&0) {
            self.push(Work::Launch(launch));
        }
    }

    /// Launches a kernel with a thread for each of `count` numbers.
    pub(super) fn each(&self, kernel: &'static str, count: usize, arguments: &[Argument]) {
        const THREADS: u32 = 256;
        let grid = [count.div_ceil(THREADS as usize) as u32, 1];
        self.launch(Launch { kernel, grid, threads: THREADS, arguments });
    }

    /// Gives the device all there is.
    pub(super) fn flush(&self) {
        self.run(&mut self.pending()).unwrap_or_else(|lost| lost.raise());
    }

    fn run(&self, pending: &mut Pending) -> Result<(), DeviceLost> {
        if pending.list.is_empty() {
            return Ok(());
        }
        // SAFETY: every operation checks its shapes first and gives buffers of those shapes in the order
        // of the kernel's parameters, and a buffer that is dropped waits for the list to be given away;
        // the parity tests run each of them over guarded memory.
        let done = unsafe { self.driver.run(&pending.list) };
        pending.list.clear();
        pending.lists += 1;
        done
    }

    /// Number of the list that is being made.
    fn list(&self) -> u64 {
        self.pending().lists
    }
}

/// Some memory of a device, given back when dropped.
pub(super) struct Buffer<D: Driver> {
    queue: Arc<Queue<D>>,
    address: Address,
    bytes: usize,
}

impl<D: Driver> Buffer<D> {
    /// Zeroed memory for `what`.
    pub(super) fn new(queue: &Arc<Queue<D>>, what: &'static str, bytes: usize) -> Result<Self, DeviceError> {
        // Kernels are given addresses of empty tensors, too.
        let bytes = bytes.max(16);
        let address = queue.driver.alloc(bytes).map_err(|_| DeviceError::OutOfMemory { what, bytes })?;
        Ok(Self { queue: Arc::clone(queue), address, bytes })
    }

    /// The same for numbers of elements and their sizes, whose product may overflow.
    pub(super) fn of(queue: &Arc<Queue<D>>, what: &'static str, dims: &[usize]) -> Result<Self, DeviceError> {
        let bytes = dims.iter().try_fold(1_usize, |bytes, &dim| bytes.checked_mul(dim));
        match bytes.filter(|bytes| isize::try_from(*bytes).is_ok()) {
            Some(bytes) => Self::new(queue, what, bytes),
            None => Err(DeviceError::OutOfMemory { what, bytes: usize::MAX }),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The argument that points to byte `offset`.
    pub(super) fn at(&self, offset: usize) -> Argument {
        assert!(offset <= self.bytes, "byte {offset} of {}", self.bytes);
        Argument::Wide(self.address + offset as u64)
    }

    /// Replaces bytes from `offset` on, after what was asked for before.
    pub(super) fn upload(&self, bytes: &[u8], offset: usize) {
        self.queue.flush();
        self.upload_now(bytes, offset);
    }

    /// The same before what was asked for before.
    fn upload_now(&self, bytes: &[u8], offset: usize) {
        self.check(offset, bytes.len());
        // SAFETY: the range was checked.
        let done = unsafe { self.queue.driver.upload(bytes, self.address + offset as u64) };
        done.unwrap_or_else(|lost| lost.raise());
    }

    /// Reads bytes from `offset` on, after what was asked for before.
    pub(super) fn download(&self, offset: usize, into: &mut [u8]) {
        self.check(offset, into.len());
        self.queue.flush();
        // SAFETY: the range was checked.
        let done = unsafe { self.queue.driver.download(self.address + offset as u64, into) };
        done.unwrap_or_else(|lost| lost.raise());
    }

    /// Copies bytes from `offset` of this buffer to `to_offset` of another one.
    pub(super) fn copy_to(&self, offset: usize, to: &Self, to_offset: usize, bytes: usize) {
        self.check(offset, bytes);
        to.check(to_offset, bytes);
        let [from, place] = [self.address + offset as u64, to.address + to_offset as u64];
        assert!(from.abs_diff(place) >= bytes as u64, "places overlap");
        if bytes > 0 {
            self.queue.push(Work::Copy { from, to: place, bytes });
        }
    }

    fn check(&self, offset: usize, bytes: usize) {
        let end = offset.checked_add(bytes);
        assert!(
            end.is_some_and(|end| end <= self.bytes),
            "{bytes} bytes from {offset} of a buffer of {}",
            self.bytes
        );
    }
}

impl<D: Driver> Drop for Buffer<D> {
    fn drop(&mut self) {
        // A device that is lost is reported by whoever asks something of it.
        let _ = self.queue.run(&mut self.queue.pending());
        // SAFETY: the address and size are those of the allocation, whose only owner ends here, and what
        // uses it was given to the device before.
        unsafe { self.queue.driver.free(self.address, self.bytes) };
    }
}

impl<D: Driver> fmt::Debug for Buffer<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.bytes)
    }
}

/// A small table that kernels read, such as positions. It is uploaded only when it changes, so the
/// layers of a pass share one upload, and it stays in its place, as a pass that is known from before
/// needs.
#[derive(Debug)]
pub(super) struct Table<D: Driver> {
    buffer: Buffer<D>,
    kept: Vec<u8>,
    /// The list that last got its place.
    used: Option<u64>,
}

impl<D: Driver> Table<D> {
    /// Room for so many numbers.
    pub(super) const LEN: usize = 1 << 16;

    pub(super) fn new(queue: &Arc<Queue<D>>) -> Result<Self, DeviceError> {
        let bytes = 4 * Self::LEN;
        let buffer = Buffer::new(queue, "a table of positions", bytes)?;
        Ok(Self { buffer, kept: Vec::with_capacity(bytes), used: None })
    }

    /// Makes the table hold `numbers` and returns the argument that points to it.
    pub(super) fn set(&mut self, numbers: impl Iterator<Item = u32> + Clone) -> Argument {
        let is_kept = self.kept.chunks_exact(4).eq(numbers.clone().map(u32::to_le_bytes));
        if !is_kept {
            self.kept.clear();
            self.kept.extend(numbers.flat_map(u32::to_le_bytes));
            assert!(self.kept.len() <= self.buffer.bytes, "{} bytes of positions", self.kept.len());
            // Whoever was given the place before wants the old content.
            if self.used == Some(self.buffer.queue.list()) {
                self.buffer.queue.flush();
            }
            self.buffer.upload_now(&self.kept, 0);
        }
        self.used = Some(self.buffer.queue.list());
        self.buffer.at(0)
    }
}
