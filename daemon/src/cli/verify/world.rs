//! `mobilevlmd verify --world`: how well a model sees the test camera's world.

use std::io::{IsTerminal, Write};

use crate::cli::Failure;
use crate::cli::run::ModelSettings;
use crate::verify::Target;
use crate::verify::world::{Condition, Options, score};

/// Flags of the score.
#[derive(Debug, clap::Args)]
pub struct WorldArgs {
    /// Instead of reference data: show the model so many scenes it was never trained on, ask about
    /// each, and print how often it is right
    #[arg(
        long = "world",
        value_name = "SCENES",
        conflicts_with = "exact_only",
        value_parser = clap::value_parser!(u32).range(1..),
    )]
    scenes: Option<u32>,
    /// Number of the first scene
    #[arg(long, default_value_t = 0)]
    seed: u32,
    /// How scenes are shown, in turn: plain; exact (f32 arithmetic); blank (a grey picture instead);
    /// noise (twice the noise); jpeg (of quality 30); half (resolution)
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "plain")]
    conditions: Vec<Condition>,
    /// Print the first wrong answers of each turn
    #[arg(long, value_name = "N", default_value_t = 0)]
    misses: usize,
    #[command(flatten)]
    settings: ModelSettings,
}

impl WorldArgs {
    /// Prints the score on `target`, or on what the configuration says.
    pub fn run(&self, target: Option<Target>, threads: usize, json: bool) -> Result<(), Failure> {
        let mut config = self.settings.sources().load().map_err(|error| Failure::config(&error))?;
        if threads > 0 {
            config.model.threads = threads;
        }
        let options = Options {
            scenes: self.scenes.unwrap_or_default(),
            seed: self.seed,
            conditions: self.conditions.clone(),
            target: target.unwrap_or_else(|| Target::of_config(&config.model)),
            misses: self.misses,
        };
        let files = config.model.source().open()?;
        let stderr = std::io::stderr();
        let shows_progress = stderr.is_terminal();
        let report = score(&files, &config, &options, &mut |condition, done| {
            if shows_progress {
                // Whoever cannot see it still gets the score.
                let _ = write!(stderr.lock(), "\r{condition}: {done} of {} scenes\u{1b}[K", options.scenes);
            }
        })?;
        if shows_progress {
            write!(stderr.lock(), "\r\u{1b}[K")?;
        }
        let mut out = std::io::stdout().lock();
        match json {
            true => writeln!(out, "{}", serde_json::to_string(&report)?)?,
            false => write!(out, "{report}")?,
        }
        if report.is_scored() { Ok(()) } else { Err(Failure::new("nothing could be scored")) }
    }
}
