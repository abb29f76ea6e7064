//! The fast implementation for CPUs.

/// The CPU device.
#[derive(Debug)]
pub struct Cpu;

/// Choices at start.
#[derive(Clone, Debug, Default)]
pub struct CpuOptions;
