//! The doorway: parse, run, report.

use std::process::ExitCode;

use clap::Parser;
use mobilevlmd::cli::Cli;
use mobilevlmd::journal;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            journal::failure(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}
