//! The doorway: parse, run, report.

use std::panic;
use std::process::ExitCode;

use clap::Parser;
use kernels::cuda::DeviceLost;
use mobilevlmd::cli::{Cli, Failure};
use mobilevlmd::journal;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = panic::catch_unwind(|| cli.run()).unwrap_or_else(|payload| {
        // A GPU that failed for good ends whatever was being done.
        let lost = DeviceLost::of(&*payload).map(Failure::lost);
        Err(lost.unwrap_or_else(|| panic::resume_unwind(payload)))
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            journal::failure(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}
