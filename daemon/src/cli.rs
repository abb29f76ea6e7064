//! The command line: one file per command.

use clap::{Parser, Subcommand};
use kernels::cuda::DeviceLost;

use crate::config::{self, ConfigError};
use crate::journal;

/// Prints a line to whoever reads it. A reader who went away, as `head` does, has seen enough.
macro_rules! say {
    ($($line:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($line)*);
    }};
}

pub mod ask;
pub mod bench;
pub mod cameras;
pub mod caption;
pub mod check;
pub mod demo;
pub mod run;
pub mod snapshot;
pub mod status;
pub mod verify;
pub mod watch;

mod terminal;

/// Describes what a robot's cameras see, continuously, on a zenoh bus.
#[derive(Debug, Parser)]
#[command(name = "mobilevlmd", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Watch(watch::Args),
    Ask(ask::Args),
    Status(status::Args),
    Snapshot(snapshot::Args),
    Caption(caption::Args),
    Cameras(cameras::Args),
    Check(check::Args),
    Demo(demo::Args),
    Verify(verify::Args),
    Bench(bench::Args),
}

/// Why a command failed: one line for the user and an exit code.
#[derive(Debug)]
pub struct Failure {
    /// What, where, and what to do.
    pub message: String,
    /// Exit code of the process.
    pub code: u8,
}

impl Failure {
    /// Exit code of a configuration that must be changed, `EX_CONFIG`: trying again without that is
    /// of no use, which it tells the service manager.
    pub const CONFIGURATION: u8 = 78;

    /// Exit code of a GPU that failed for good, `EX_OSERR`: another process can open it anew.
    pub const DEVICE_LOST: u8 = 71;

    /// A failure with exit code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }

    /// A GPU that failed for good.
    pub fn lost(lost: &DeviceLost) -> Self {
        Self { message: lost.to_string(), code: Self::DEVICE_LOST }
    }

    /// A configuration that must be changed.
    pub fn config(error: &ConfigError) -> Self {
        Self { message: error.to_string(), code: Self::CONFIGURATION }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

impl Cli {
    /// Runs the chosen command.
    pub fn run(self) -> Result<(), Failure> {
        let Some(command) = self.command else { return run::run(&self.run) };
        if !matches!(command, Command::Run(_)) {
            journal::start(&config::log_of_environment().map_err(|error| Failure::config(&error))?);
        }
        match command {
            Command::Run(args) => run::run(&args),
            Command::Watch(args) => watch::run(&args),
            Command::Ask(args) => ask::run(&args),
            Command::Status(args) => status::run(&args),
            Command::Snapshot(args) => snapshot::run(&args),
            Command::Caption(args) => caption::run(&args),
            Command::Cameras(args) => cameras::run(&args),
            Command::Check(args) => check::run(&args),
            Command::Demo(args) => demo::run(&args),
            Command::Verify(args) => verify::run(&args),
            Command::Bench(args) => bench::run(&args),
        }
    }
}
