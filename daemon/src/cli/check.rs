//! `mobilevlmd check`: validates configuration, model and cameras, and says what would happen.

use std::fmt::Display;

use messages::keys::ROOT;

use super::Failure;
use super::run::Settings;
use crate::bus;
use crate::camera;
use crate::config::{BusConfig, Config};
use crate::model::tokenizer::Tokenizer;
use crate::service;

/// Checks configuration, model and cameras, and says what `run` with the same flags would do
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: Settings,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let sources = args.settings.sources();
    let config = sources.load().map_err(|error| Failure::config(&error))?;
    let mut report = Report::default();
    match sources.file() {
        Some(file) => report.fine("configuration", format!("{} is valid", file.display())),
        None => report.fine("configuration", "no file: the defaults, the environment and flags"),
    }
    report.note("model", model(&config));
    report.note("device", service::device_name(&config.model));
    report.note("bus", bus(&config));
    for camera in config.cameras_or_test() {
        let probed = camera::probe(&camera).map_err(|error| error.to_string());
        report.note(&format!("camera {}", camera.name), probed);
    }
    report.end()
}

/// Lines printed as they are found, and how many of them are problems.
#[derive(Default)]
struct Report {
    problems: u32,
}

impl Report {
    fn fine(&mut self, what: &str, line: impl Display) {
        say!("{what:<14} {line}");
    }

    fn note(&mut self, what: &str, line: Result<String, String>) {
        match line {
            Ok(line) => self.fine(what, line),
            Err(problem) => {
                self.problems += 1;
                self.fine(what, format!("PROBLEM: {problem}"));
            }
        }
    }

    fn end(&self) -> Result<(), Failure> {
        match self.problems {
            0 => Ok(()),
            1 => Err(Failure::new("1 problem")),
            n => Err(Failure::new(format!("{n} problems"))),
        }
    }
}

fn model(config: &Config) -> Result<String, String> {
    let source = config.model.source();
    let files = source.open().map_err(|error| error.to_string())?;
    Tokenizer::of_model(&files).map_err(|error| error.to_string())?;
    Ok(format!("{source}: {}", files.summary()))
}

fn bus(config: &Config) -> Result<String, String> {
    bus::check(&config.bus).map_err(|error| error.to_string())?;
    let root = format!("{ROOT}/{}", config.device());
    let BusConfig { zenoh_config, mode, listen, connect, .. } = &config.bus;
    if !zenoh_config.as_os_str().is_empty() {
        return Ok(format!("{root} as {} says", zenoh_config.display()));
    }
    let joined = |endpoints: &[String]| match endpoints {
        [] => "nothing".to_owned(),
        some => some.join(", "),
    };
    Ok(format!("{root} as a {mode}, listening on {}, connecting to {}", joined(listen), joined(connect)))
}
