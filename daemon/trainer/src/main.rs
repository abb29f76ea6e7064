//! Trains the built-in model: `mobilevlm-trainer --out FOLDER`. Run again, it goes on.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Parser;
use trainer::net::Dims;
use trainer::train::{Options, train};

/// Trains the small built-in model of mobilevlmd from nothing on its synthetic world.
#[derive(Debug, Parser)]
struct Args {
    /// Folder for checkpoint, log and weights; with a checkpoint in it, the run goes on
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Steps of the whole run
    #[arg(long, default_value_t = 6600)]
    steps: u32,
    /// Stop after this many steps, to go on another time
    #[arg(long)]
    stop: Option<u32>,
    /// Scenes of a step
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Captions of a scene, each in another style
    #[arg(long, default_value_t = 3)]
    captions: usize,
    /// Questions about a scene at most
    #[arg(long, default_value_t = 12)]
    questions: usize,
    /// Learning rate at its highest
    #[arg(long, default_value_t = 6e-4)]
    rate: f32,
    /// Threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Steps between two lines of the log
    #[arg(long, default_value_t = 100)]
    every: u32,
    /// First scene
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The environment is as it has to be
    #[arg(long, hide = true)]
    prepared: bool,
}

/// What the process must find in its environment. Each thread of a step has a share of the batch, so
/// matrix products must not spread over more threads; and tensors of some megabytes that come and go
/// must not be given back to the system each time.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("RAYON_NUM_THREADS", "1"),
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_MMAP_THRESHOLD_", "33554432"),
    ("MALLOC_TRIM_THRESHOLD_", "8589934592"),
];

fn main() -> ExitCode {
    let args = Args::parse();
    if !args.prepared {
        return again();
    }
    let options = Options {
        folder: args.out,
        steps: args.steps,
        stop: args.stop.unwrap_or(args.steps),
        batch: args.batch.max(args.threads.max(1)),
        captions: args.captions,
        questions: args.questions,
        rate: args.rate,
        threads: args.threads.max(1),
        every: args.every.max(1),
        seed: args.seed,
    };
    match train(&Dims::world(), &options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mobilevlm-trainer: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Starts this program once more, in the environment that it needs.
fn again() -> ExitCode {
    let program = std::env::current_exe().unwrap_or_else(|_| "mobilevlm-trainer".into());
    let arguments = std::env::args_os().skip(1);
    match Command::new(program).args(arguments).arg("--prepared").envs(ENVIRONMENT).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mobilevlm-trainer: {error}");
            ExitCode::FAILURE
        }
    }
}
