//! The arithmetic of MobileVLM on this machine.
//!
//! [`Device`] is the seam: every operation a model may ask for, with shapes and formulas.
//! [`Reference`] is its scalar specification and oracle. [`Cpu`] is the fast implementation; it
//! chooses an instruction set at run time; [`Cuda`] is that for NVIDIA GPUs.
//!
//! This crate does no file or network IO, reads no clock and knows no model. It allocates only
//! when it packs a matrix or makes a buffer it was asked for.

pub mod device;
pub mod dtype;
pub mod tensor;
mod shared;
pub mod quant;
pub mod reference;
pub mod cpu;
pub mod cuda;
pub mod pixels;
pub mod heap;

/// Raised by every change that gives numbers other bits or pages of the KV cache another layout, so
/// that what was stored by another build is known.
pub const NUMBERS: u32 = 2;

pub use cpu::{Cpu, CpuOptions, IsaLevel};
pub use cuda::Cuda;
pub use device::{
    Activation, Arithmetic, Device, DeviceError, Grid, KV_BLOCK, KvDtype, KvShape, MatrixView, PAGE, PageId,
    Pairing, Product, Slot, Span,
};
pub use dtype::DType;
pub use reference::Reference;
pub use shared::{BytesOwner, SharedBytes, SharedMatrix};
pub use tensor::HostTensor;
