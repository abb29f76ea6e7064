//! Kernels for x86-64.

pub(crate) mod avx2;
pub(crate) mod avxvnni;
pub(crate) mod avx512vnni;

mod fill;
mod load;
