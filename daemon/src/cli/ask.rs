//! `mobilevlmd ask`: Asks a camera a question.

use super::Failure;

/// Asks a camera a question.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: &Args) -> Result<(), Failure> {
    Err(Failure::new("not built yet"))
}
