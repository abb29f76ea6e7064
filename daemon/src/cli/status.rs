//! `mobilevlmd status`: Prints the daemon's status.

use super::Failure;

/// Prints the daemon's status.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: &Args) -> Result<(), Failure> {
    Err(Failure::new("not built yet"))
}
