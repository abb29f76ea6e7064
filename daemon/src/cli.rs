//! The command line: one file per command.

use clap::{Parser, Subcommand};

mod ask;
mod bench;
mod cameras;
mod caption;
mod check;
mod run;
mod snapshot;
mod status;
mod verify;
mod watch;

/// Describes what a robot's cameras see, continuously, on a zenoh bus.
#[derive(Debug, Parser)]
#[command(name = "mobilevlmd", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
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
    /// A failure with exit code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
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
        match self.command {
            None => Err(Failure::new("not built yet")),
            Some(Command::Run(args)) => run::run(&args),
            Some(Command::Watch(args)) => watch::run(&args),
            Some(Command::Ask(args)) => ask::run(&args),
            Some(Command::Status(args)) => status::run(&args),
            Some(Command::Snapshot(args)) => snapshot::run(&args),
            Some(Command::Caption(args)) => caption::run(&args),
            Some(Command::Cameras(args)) => cameras::run(&args),
            Some(Command::Check(args)) => check::run(&args),
            Some(Command::Verify(args)) => verify::run(&args),
            Some(Command::Bench(args)) => bench::run(&args),
        }
    }
}
