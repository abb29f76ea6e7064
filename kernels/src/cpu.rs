//! The fast implementation for CPUs.

pub mod probe;

/// The CPU device.
#[derive(Debug)]
pub struct Cpu;

/// Choices at start.
#[derive(Clone, Debug, Default)]
pub struct CpuOptions;
