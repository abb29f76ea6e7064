//! `mobilevlmd verify`: Holds this build and this machine against reference data.

use super::Failure;

/// Holds this build and this machine against reference data.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: &Args) -> Result<(), Failure> {
    Err(Failure::new("not built yet"))
}
