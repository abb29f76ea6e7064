//! `mobilevlmd cameras`: Lists V4L2 devices, formats, sizes and rates.

use super::Failure;

/// Lists V4L2 devices, formats, sizes and rates.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: &Args) -> Result<(), Failure> {
    Err(Failure::new("not built yet"))
}
