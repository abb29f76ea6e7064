//! The GPU behind the tests: the emulated one, or with `PARITY_CUDA=N` the real one of that number.

use std::path::PathBuf;

use kernels::cuda::driver::{Address, DeviceLost, Driver, List};
use kernels::cuda::{Cuda, Gpu, Shelf};
use kernels::device::DeviceError;

use crate::emulated::{self, Emulated};

/// A new device.
pub(crate) fn device() -> Cuda<Machine> {
    let machine = match std::env::var("PARITY_CUDA") {
        Ok(number) => {
            let ordinal = number.parse().expect("PARITY_CUDA is the number of a GPU");
            Machine::Real(Gpu::open(ordinal, &Kept).unwrap_or_else(|error| panic!("PARITY_CUDA: {error}")))
        }
        Err(_) => Machine::Emulated(emulated::gpu()),
    };
    Cuda::new(machine).expect("memory for the tables")
}

/// Compiled kernels beside the tests.
struct Kept;

fn path(key: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(key)
}

impl Shelf for Kept {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        std::fs::read(path(key)).ok()
    }

    fn put(&self, key: &str, compiled: &[u8]) {
        std::fs::write(path(key), compiled).expect("room for the kernels");
    }
}

/// One of both.
pub(crate) enum Machine {
    Emulated(Emulated),
    Real(Gpu),
}

/// Passes a call on. What the caller promises holds for either.
macro_rules! pass {
    ($machine:expr, $method:ident($($argument:expr),*)) => {
        match $machine {
            // SAFETY: the caller's.
            Machine::Emulated(gpu) => unsafe { gpu.$method($($argument),*) },
            // SAFETY: the caller's.
            Machine::Real(gpu) => unsafe { gpu.$method($($argument),*) },
        }
    };
}

impl Driver for Machine {
    fn name(&self) -> String {
        match self {
            Machine::Emulated(gpu) => gpu.name(),
            Machine::Real(gpu) => gpu.name(),
        }
    }

    fn alloc(&self, bytes: usize) -> Result<Address, DeviceError> {
        match self {
            Machine::Emulated(gpu) => gpu.alloc(bytes),
            Machine::Real(gpu) => gpu.alloc(bytes),
        }
    }

    unsafe fn free(&self, address: Address, bytes: usize) {
        pass!(self, free(address, bytes));
    }

    unsafe fn upload(&self, bytes: &[u8], to: Address) -> Result<(), DeviceLost> {
        pass!(self, upload(bytes, to))
    }

    unsafe fn download(&self, from: Address, into: &mut [u8]) -> Result<(), DeviceLost> {
        pass!(self, download(from, into))
    }

    unsafe fn run(&self, list: &List) -> Result<(), DeviceLost> {
        pass!(self, run(list))
    }
}
