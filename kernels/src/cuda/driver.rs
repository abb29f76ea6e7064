//! What [`super::Cuda`] asks of the machine: memory, copies, launches. The real one is
//! [`super::native::Gpu`]; the tests have another that runs the same kernels on the processor.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::device::DeviceError;

/// A place in the memory of a device.
pub type Address = u64;

/// What a launch gives to a kernel, in the order of its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Argument {
    /// A pointer, 0 for none, or a number of 64 bits.
    Wide(u64),
    /// An `int`.
    Int(i32),
    /// A `float`.
    Float(f32),
}

impl Argument {
    /// Where the value stands, as `cuLaunchKernel` wants it.
    pub fn as_pointer(&self) -> *const std::ffi::c_void {
        match self {
            Argument::Wide(value) => (&raw const *value).cast(),
            Argument::Int(value) => (&raw const *value).cast(),
            Argument::Float(value) => (&raw const *value).cast(),
        }
    }
}

/// A kernel and how many threads run it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Launch<'a> {
    /// One of [`super::program::KERNELS`].
    pub kernel: &'static str,
    /// Blocks in both directions, none 0.
    pub grid: [u32; 2],
    /// Threads of a block, whole warps of 32.
    pub threads: u32,
    /// The kernel's parameters.
    pub arguments: &'a [Argument],
}

/// The device no longer answers. After this nothing on it can be trusted, and a process cannot open it
/// again: it has to end and start anew.
///
/// The methods of [`crate::Device`] give no results, so [`super::Cuda`] unwinds with this as the
/// payload; [`DeviceLost::of`] finds it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the GPU failed at {doing}: {reason}; the process has to start again")]
pub struct DeviceLost {
    /// What was asked of it.
    pub doing: &'static str,
    /// What the driver says.
    pub reason: String,
}

impl DeviceLost {
    /// What a thread that ended with this payload died of, if it was its device.
    pub fn of(payload: &(dyn Any + Send)) -> Option<&Self> {
        payload.downcast_ref()
    }

    /// Unwinds without the noise of a panic.
    pub(super) fn raise(self) -> ! {
        std::panic::resume_unwind(Box::new(self))
    }
}

/// One GPU, its memory and one queue of work. Everything happens in the order in which it was asked
/// for; only [`Driver::download`] waits.
pub trait Driver: Send + Sync + 'static {
    /// The device in words.
    fn name(&self) -> String;

    /// Zeroed memory at a multiple of 16.
    fn alloc(&self, bytes: usize) -> Result<Address, DeviceError>;

    /// Gives memory back.
    ///
    /// # Safety
    ///
    /// `address` is one that [`Driver::alloc`] gave for as many bytes, and is not used any more.
    unsafe fn free(&self, address: Address, bytes: usize);

    /// Copies `bytes` to the device; they may change afterwards.
    ///
    /// # Safety
    ///
    /// There is memory for all of them at `to`.
    unsafe fn upload(&self, bytes: &[u8], to: Address) -> Result<(), DeviceLost>;

    /// Fills `into` from the device, after everything asked for before.
    ///
    /// # Safety
    ///
    /// There is memory of that size at `from`.
    unsafe fn download(&self, from: Address, into: &mut [u8]) -> Result<(), DeviceLost>;

    /// Copies inside the device.
    ///
    /// # Safety
    ///
    /// There is memory of that size at both places, and they do not overlap.
    unsafe fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), DeviceLost>;

    /// Runs a kernel.
    ///
    /// # Safety
    ///
    /// The arguments are those of the kernel, and it stays inside the memory they point to.
    unsafe fn launch(&self, launch: Launch<'_>) -> Result<(), DeviceLost>;
}

/// Some memory of a device, given back when dropped.
pub(super) struct Buffer<D: Driver> {
    driver: Arc<D>,
    address: Address,
    bytes: usize,
}

impl<D: Driver> Buffer<D> {
    /// Zeroed memory for `what`.
    pub(super) fn new(driver: &Arc<D>, what: &'static str, bytes: usize) -> Result<Self, DeviceError> {
        // Kernels are given addresses of empty tensors, too.
        let bytes = bytes.max(16);
        let address = driver.alloc(bytes).map_err(|_| DeviceError::OutOfMemory { what, bytes })?;
        Ok(Self { driver: Arc::clone(driver), address, bytes })
    }

    /// The same for numbers of elements and their sizes, whose product may overflow.
    pub(super) fn of(driver: &Arc<D>, what: &'static str, dims: &[usize]) -> Result<Self, DeviceError> {
        let bytes = dims.iter().try_fold(1_usize, |bytes, &dim| bytes.checked_mul(dim));
        match bytes.filter(|bytes| isize::try_from(*bytes).is_ok()) {
            Some(bytes) => Self::new(driver, what, bytes),
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

    pub(super) fn upload(&self, bytes: &[u8], offset: usize) {
        self.check(offset, bytes.len());
        // SAFETY: the range was checked.
        let done = unsafe { self.driver.upload(bytes, self.address + offset as u64) };
        done.unwrap_or_else(|lost| lost.raise());
    }

    pub(super) fn download(&self, offset: usize, into: &mut [u8]) {
        self.check(offset, into.len());
        // SAFETY: the range was checked.
        let done = unsafe { self.driver.download(self.address + offset as u64, into) };
        done.unwrap_or_else(|lost| lost.raise());
    }

    /// Copies bytes from `offset` of this buffer to `to_offset` of another one.
    pub(super) fn copy_to(&self, offset: usize, to: &Self, to_offset: usize, bytes: usize) {
        self.check(offset, bytes);
        to.check(to_offset, bytes);
        let [from, place] = [self.address + offset as u64, to.address + to_offset as u64];
        assert!(from.abs_diff(place) >= bytes as u64, "places overlap");
        // SAFETY: both ranges were checked, and that they are apart.
        let done = unsafe { self.driver.copy(from, place, bytes) };
        done.unwrap_or_else(|lost| lost.raise());
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
        // SAFETY: the address and size are those of the allocation, whose only owner ends here.
        unsafe { self.driver.free(self.address, self.bytes) };
    }
}

impl<D: Driver> fmt::Debug for Buffer<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.bytes)
    }
}

/// A small table that kernels read, such as positions. It is uploaded only when it changes, so the
/// layers of a pass share one upload, and it stays in its place, as a recorded pass would need.
#[derive(Debug)]
pub(super) struct Table<D: Driver> {
    buffer: Buffer<D>,
    kept: Vec<u8>,
}

impl<D: Driver> Table<D> {
    /// Room for so many numbers.
    pub(super) const LEN: usize = 1 << 16;

    pub(super) fn new(driver: &Arc<D>) -> Result<Self, DeviceError> {
        let bytes = 4 * Self::LEN;
        let buffer = Buffer::new(driver, "a table of positions", bytes)?;
        Ok(Self { buffer, kept: Vec::with_capacity(bytes) })
    }

    /// Makes the table hold `numbers` and returns the argument that points to it.
    pub(super) fn set(&mut self, numbers: impl Iterator<Item = u32> + Clone) -> Argument {
        let is_kept = self.kept.chunks_exact(4).eq(numbers.clone().map(u32::to_le_bytes));
        if !is_kept {
            self.kept.clear();
            self.kept.extend(numbers.flat_map(u32::to_le_bytes));
            assert!(self.kept.len() <= self.buffer.bytes, "{} bytes of positions", self.kept.len());
            self.buffer.upload(&self.kept, 0);
        }
        self.buffer.at(0)
    }
}
