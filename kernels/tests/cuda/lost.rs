//! A GPU that fails in the middle: one payload says so, and nothing else falls over.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use kernels::cuda::driver::{Address, DeviceLost, Driver, List};
use kernels::cuda::{Cuda, OpenError};
use kernels::device::DeviceError;
use kernels::{Arithmetic, DType, Device, MatrixView};

/// Memory that is never touched; everything fails from the list on that comes after `sound` ones.
#[derive(Debug)]
struct Failing {
    sound: AtomicUsize,
}

impl Failing {
    fn answer(&self) -> Result<(), DeviceLost> {
        match self.sound.load(Ordering::Relaxed) {
            0 => Err(DeviceLost { doing: "a test", reason: "CUDA_ERROR_LAUNCH_FAILED".to_owned() }),
            _ => Ok(()),
        }
    }
}

impl Driver for Failing {
    fn name(&self) -> String {
        "cuda-failing".to_owned()
    }

    fn alloc(&self, bytes: usize) -> Result<Address, DeviceError> {
        if bytes > 1 << 30 { Err(DeviceError::OutOfMemory { what: "a test", bytes }) } else { Ok(1 << 40) }
    }

    unsafe fn free(&self, _: Address, _: usize) {}

    unsafe fn upload(&self, _: &[u8], _: Address) -> Result<(), DeviceLost> {
        self.answer()
    }

    unsafe fn download(&self, _: Address, _: &mut [u8]) -> Result<(), DeviceLost> {
        self.answer()
    }

    unsafe fn run(&self, _: &List) -> Result<(), DeviceLost> {
        let answer = self.answer();
        if answer.is_ok() {
            self.sound.fetch_sub(1, Ordering::Relaxed);
        }
        answer
    }
}

fn failing(sound: usize) -> Cuda<Failing> {
    Cuda::new(Failing { sound: sound.into() }).unwrap()
}

#[test]
fn whoever_waits_for_a_lost_device_is_told() {
    let device = failing(1);
    let (mut x, y) = (device.tensor(3, 4).unwrap(), device.tensor(3, 4).unwrap());
    device.add(&mut x, &y);
    device.flush();
    // Only what waits finds out, and what is dropped meanwhile does not mind.
    device.add(&mut x, &y);
    let payload = catch_unwind(AssertUnwindSafe(|| device.read(&x, 0, &mut [0.0; 4]))).unwrap_err();
    let lost = DeviceLost::of(&*payload).expect("the payload says what happened");
    assert_eq!(OpenError::Lost(lost.clone()).to_string(), lost.to_string());
    assert!(lost.to_string().contains("CUDA_ERROR_LAUNCH_FAILED"), "{lost}");
    device.add(&mut x, &y);
    drop((x, y, device));
}

#[test]
fn memory_that_is_not_there_is_an_error() {
    let device = failing(9);
    let error = device.tensor(1 << 14, 1 << 15).unwrap_err();
    assert!(matches!(error, DeviceError::OutOfMemory { what: "a tensor", .. }), "{error}");
    assert!(device.tensor(usize::MAX, 3).is_err() && device.tensor(1 << 16, 1 << 16).is_err());
    let view = MatrixView { rows: 2, cols: 32, dtype: DType::Q4_0, bytes: &[0; 35] };
    let error = device.matrix(view, Arithmetic::Int8).unwrap_err();
    assert_eq!(error.to_string(), "a q4_0 matrix of 2 x 32 has 35 bytes, expected 36");
    let view = MatrixView { rows: 1, cols: 2, dtype: DType::F16, bytes: &[0; 4] };
    let error = device.matrix(view, Arithmetic::Int8).unwrap_err();
    assert_eq!(error, DeviceError::NoIntegerArithmetic(DType::F16));
}
