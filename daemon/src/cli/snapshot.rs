//! `mobilevlmd snapshot`: Saves the newest frame of a camera.

use super::Failure;

/// Saves the newest frame of a camera.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: &Args) -> Result<(), Failure> {
    Err(Failure::new("not built yet"))
}
