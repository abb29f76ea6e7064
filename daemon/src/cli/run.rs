//! `mobilevlmd run`: The daemon itself.

use super::Failure;

/// The daemon itself.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: &Args) -> Result<(), Failure> {
    Err(Failure::new("not built yet"))
}
