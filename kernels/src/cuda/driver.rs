//! What [`super::Cuda`] asks of the machine: memory, copies, launches. The real one is
//! [`super::native::Gpu`]; the tests have another that runs the same kernels on the processor.

use std::any::Any;
use std::hash::{Hash, Hasher};

use crate::device::DeviceError;

/// A place in the memory of a device.
pub type Address = u64;

/// What a launch gives to a kernel, in the order of its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Argument {
    /// A pointer, 0 for none, or a number of 64 bits.
    Wide(u64),
    /// An `int`.
    Int(i32),
    /// A `float`, as its bits.
    Float(u32),
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
    /// One of [`super::program::kernels`].
    pub kernel: &'static str,
    /// Blocks in both directions, none 0.
    pub grid: [u32; 2],
    /// Threads of a block, whole warps of 32.
    pub threads: u32,
    /// The kernel's parameters.
    pub arguments: &'a [Argument],
}

/// Something to do on the device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work<'a> {
    /// Run a kernel.
    Launch(Launch<'a>),
    /// Copy bytes to another place.
    Copy {
        /// Where they are.
        from: Address,
        /// Where they go.
        to: Address,
        /// How many.
        bytes: usize,
    },
}

/// Things to do one after the other. A pass of a model gives the same list each time: what changes is
/// in tables that are uploaded before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct List {
    entries: Vec<Entry>,
    arguments: Vec<Argument>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Entry {
    Launch { kernel: &'static str, grid: [u32; 2], threads: u32, arguments: usize },
    Copy { from: Address, to: Address, bytes: usize },
}

impl List {
    /// Appends something.
    pub fn push(&mut self, work: Work<'_>) {
        self.entries.push(match work {
            Work::Launch(Launch { kernel, grid, threads, arguments }) => {
                self.arguments.extend_from_slice(arguments);
                Entry::Launch { kernel, grid, threads, arguments: arguments.len() }
            }
            Work::Copy { from, to, bytes } => Entry::Copy { from, to, bytes },
        });
    }

    /// Everything in order.
    pub fn iter(&self) -> impl Iterator<Item = Work<'_>> {
        let mut rest = self.arguments.as_slice();
        self.entries.iter().map(move |entry| match *entry {
            Entry::Launch { kernel, grid, threads, arguments } => {
                let (now, later) = rest.split_at(arguments);
                rest = later;
                Work::Launch(Launch { kernel, grid, threads, arguments: now })
            }
            Entry::Copy { from, to, bytes } => Work::Copy { from, to, bytes },
        })
    }

    /// How many things there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets everything and keeps the room for it.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.arguments.clear();
    }
}

impl Hash for List {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.entries.hash(state);
        self.arguments.hash(state);
    }
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

    /// Does everything on a list, in order.
    ///
    /// # Safety
    ///
    /// Kernels get their own arguments and stay inside the memory these point to; there is memory at
    /// both places of a copy, and they do not overlap.
    unsafe fn run(&self, list: &List) -> Result<(), DeviceLost>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_gives_back_what_was_put_there() {
        let (first, second) = ([Argument::Wide(9), Argument::Int(-1)], [Argument::Float(7)]);
        let launch =
            |kernel, arguments| Work::Launch(Launch { kernel, grid: [3, 1], threads: 32, arguments });
        let copy = Work::Copy { from: 16, to: 32, bytes: 8 };
        let work = [launch("a", &first), copy, launch("b", &second), launch("c", &[])];
        let mut list = List::default();
        work.into_iter().for_each(|work| list.push(work));
        assert!(list.iter().eq(work));
        let mut other = list.clone();
        other.push(copy);
        assert!(other != list && other.len() == 5);
        other.clear();
        assert!(other.is_empty() && other.iter().next().is_none());
    }

    #[test]
    fn a_lost_device_is_known_by_its_payload() {
        let lost = DeviceLost { doing: "rope", reason: "CUDA_ERROR_ILLEGAL_ADDRESS".to_owned() };
        let payload = std::panic::catch_unwind(|| lost.clone().raise()).unwrap_err();
        assert_eq!(DeviceLost::of(&*payload), Some(&lost));
        assert_eq!(DeviceLost::of(&"another panic"), None);
    }
}
