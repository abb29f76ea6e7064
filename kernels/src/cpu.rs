//! The fast implementation for CPUs.

pub(crate) mod isa;
pub mod probe;
pub(crate) mod threads;

use isa::Isa;
pub use isa::IsaLevel;
use threads::Pool;

/// Choices at start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuOptions {
    /// Threads that work, the caller's among them; 0 means one per physical core.
    pub threads: usize,
    /// The best instruction set to use; `None` means the best there is.
    pub isa_cap: Option<IsaLevel>,
}

/// The CPU device.
#[derive(Debug)]
pub struct Cpu {
    isa: Isa,
    pool: Pool,
}

impl Cpu {
    /// Starts the threads and chooses the instruction set: the best this processor has that is not
    /// above the cap.
    pub fn new(options: CpuOptions) -> Self {
        Self { isa: Isa::best(options.isa_cap), pool: Pool::new(options.threads) }
    }

    /// Instruction sets this processor has kernels for, plainest first.
    pub fn available() -> Vec<IsaLevel> {
        IsaLevel::ALL.into_iter().filter(|level| Isa::of(*level).is_some()).collect()
    }

    /// The instruction set in use.
    pub fn isa(&self) -> IsaLevel {
        self.isa.level()
    }

    /// Threads that work, the caller's among them.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }
}

impl Default for Cpu {
    fn default() -> Self {
        Self::new(CpuOptions::default())
    }
}
