//! `mobilevlmd bench`: Measures this machine's limits and every stage against them.

use super::Failure;

/// Measures this machine's limits and every stage against them.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: &Args) -> Result<(), Failure> {
    Err(Failure::new("not built yet"))
}
