//! The devices a check runs on.

use std::fmt;

use kernels::cpu::IsaLevel;
use kernels::cuda::OpenError;
use kernels::{Cpu, CpuOptions, Device, Reference};

use crate::config::ModelConfig;
use crate::gpu::{self, DeviceChoice};

/// A device to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The scalar specification.
    Reference,
    /// The CPU device held to one instruction set.
    Cpu {
        /// The instruction set.
        isa: IsaLevel,
        /// Threads; 0 takes the physical cores.
        threads: usize,
    },
    /// A GPU by its number.
    Cuda(usize),
}

/// Work that can be done on any device.
pub(super) trait OnDevice {
    /// What comes of it.
    type Output;

    /// Does it.
    fn run<D: Device>(self, device: D) -> Self::Output;
}

impl Target {
    /// Every instruction set of this processor, plainest first.
    pub fn every_isa(threads: usize) -> Vec<Target> {
        Cpu::available().into_iter().map(|isa| Target::Cpu { isa, threads }).collect()
    }

    /// The best instruction set of this processor.
    pub fn best(threads: usize) -> Target {
        let isa = Cpu::available().into_iter().max().unwrap_or(IsaLevel::Scalar);
        Target::Cpu { isa, threads }
    }

    /// The device that a configuration names, with the best instruction set it allows.
    pub fn of_config(config: &ModelConfig) -> Target {
        match config.device_choice() {
            DeviceChoice::Reference => return Target::Reference,
            DeviceChoice::Cuda(ordinal) => return Target::Cuda(ordinal),
            DeviceChoice::Auto | DeviceChoice::Cpu => {}
        }
        // "auto" is no instruction set, so no cap.
        let cap: Option<IsaLevel> = config.isa.parse().ok();
        let allowed = Cpu::available().into_iter().filter(|isa| cap.is_none_or(|cap| *isa <= cap));
        Target::Cpu { isa: allowed.max().unwrap_or(IsaLevel::Scalar), threads: config.threads }
    }

    /// Whether the device is there, or in a line why not.
    pub fn check(self) -> Result<(), OpenError> {
        match self {
            Target::Reference | Target::Cpu { .. } => Ok(()),
            Target::Cuda(ordinal) => gpu::open(ordinal, None).map(drop),
        }
    }

    pub(super) fn with<W: OnDevice>(self, work: W) -> W::Output {
        match self {
            Target::Reference => work.run(Reference),
            Target::Cpu { isa, threads } => work.run(Cpu::new(CpuOptions { threads, isa_cap: Some(isa) })),
            Target::Cuda(ordinal) => {
                let device = gpu::open(ordinal, None);
                work.run(device.unwrap_or_else(|error| panic!("it was there when asked for: {error}")))
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Reference => f.write_str("reference"),
            Target::Cpu { isa, .. } => f.write_str(isa.name()),
            Target::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}
