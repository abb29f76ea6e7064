//! `mobilevlmd caption`: Captions pictures without a bus.

use super::Failure;

/// Captions pictures without a bus.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: &Args) -> Result<(), Failure> {
    Err(Failure::new("not built yet"))
}
