//! The doorway: parse, run, report.

use std::process::ExitCode;

use clap::Parser;
use mobilevlmd::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("mobilevlmd: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}
