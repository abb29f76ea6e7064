//! `mobilevlmd watch`: Prints captions as they are published.

use super::Failure;

/// Prints captions as they are published.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: &Args) -> Result<(), Failure> {
    Err(Failure::new("not built yet"))
}
