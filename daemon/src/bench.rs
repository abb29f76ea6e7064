//! Measurements: limits of the machine and every stage against them.

pub mod dims;
pub mod probe;
pub mod synthetic;
