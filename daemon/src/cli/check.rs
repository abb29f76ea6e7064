//! `mobilevlmd check`: Checks configuration, model and cameras, and says what would happen.

use super::Failure;

/// Checks configuration, model and cameras, and says what would happen.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: &Args) -> Result<(), Failure> {
    Err(Failure::new("not built yet"))
}
