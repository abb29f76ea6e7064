//! `mobilevlmd demo`: shows the test scene and what the model says of it.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use super::Failure;
use super::run::ModelSettings;
use crate::demo::{self, DemoError, Folder, Lines, Options, Passing, Screen, Show};

/// Letters across a picture on a terminal.
const COLUMNS: u32 = 60;

/// From frame to frame on a terminal at least.
const BEAT: Duration = Duration::from_millis(250);

/// Frames where nobody watches, unless told otherwise.
const STILLS: u64 = 10;

/// Shows the test scene and what the model says of it, without a bus
///
/// On a terminal the scene moves, with its caption and now and then an answered question below, until
/// Ctrl-C. Elsewhere, or with --out, it prints what the model says of some stills beside what is there.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Number of the test scene
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Stop after this many frames [default: 10 where it is no terminal]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    frames: Option<u64>,
    /// Save each frame as PNG, what is said of it as text
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    #[command(flatten)]
    settings: ModelSettings,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let config = args.settings.sources().load().map_err(|error| Failure::config(&error))?;
    let stdout = io::stdout();
    let is_live = stdout.is_terminal() && args.out.is_none();
    let frames = if is_live { args.frames } else { Some(args.frames.unwrap_or(STILLS)) };
    let passing = if is_live { Passing::Live(BEAT) } else { Passing::Stills };
    let mut show: Box<dyn Show> = match &args.out {
        Some(folder) => Box::new(Folder::new(folder.clone(), stdout.lock())?),
        None if is_live => Box::new(Screen::new(stdout.lock(), COLUMNS)),
        None => Box::new(Lines::new(stdout.lock())),
    };
    match demo::run(&config, &Options { seed: args.seed, frames, passing }, &mut *show) {
        // Whoever read the captions has enough.
        Err(DemoError::Show(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
