//! Measurements: limits of the machine and every stage against them.
//!
//! A stage is what a user waits for: encoding a picture, prefilling a prompt, decoding an answer.
//! It runs through [`MobileVlm`](crate::model::MobileVlm) like the daemon itself, on made-up weights
//! at real dimensions or on a given model.

pub mod busy;
pub mod dims;
pub mod engine;
pub mod load;
pub mod probe;
pub mod report;
pub mod stage;
pub mod synthetic;
pub mod turns;

mod rounds;

use std::io;
use std::path::PathBuf;

use kernels::{Device, DeviceError};

use crate::engine::EngineError;
use crate::model::PassError;
use crate::model::files::{LoadOptions, ModelError, ModelFiles, ProjectorKind};
use crate::model::language::LanguageConfig;
use crate::model::tokenizer::TokenizerError;
use crate::model::vision::VisionConfig;

use dims::Dims;
use probe::Prober;
use report::Report;
use rounds::Bench;
use stage::{Stage, Work};
use synthetic::{FileType, Recipe, Tower};

/// Seed of all made-up weights.
pub const SEED: u64 = 1;

/// What to measure, and how often.
#[derive(Clone, Debug)]
pub struct Options {
    /// Timed rounds of a stage, after one that is not timed. The median counts.
    pub rounds: usize,
    /// How float weights of a given model are held. Made-up weights are held as they are, but for
    /// those of the vision tower.
    pub load: LoadOptions,
    /// Threads of the probes.
    pub threads: usize,
}

/// Why nothing was measured, or a measurement cannot be true.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A model cannot be loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Nobody to compete with.
    #[error("cannot start sh to keep the cores busy: {0}")]
    Others(io::Error),
    /// Memory is short.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A sequence cannot go on.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// A vocabulary that cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The engine ended with an error.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The engine ended without giving the model back.
    #[error("the engine stopped in the middle of a measurement: its last messages say why")]
    EngineLost,
    /// A folder that cannot be used.
    #[error("{}: {source}; name another one with --folder", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No packed weights where they were to be.
    #[error("{}: packed weights were not kept there; the log says why", path.display())]
    NotKept {
        /// The folder.
        path: PathBuf,
    },
    /// A stage the model does not have.
    #[error("no stage \"{wanted}\" here, only {known}")]
    NoSuchStage {
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
    /// Whoever asks for stages line by line cannot be heard or answered.
    #[error("standard input or output: {0}")]
    Lines(io::Error),
    /// A result that is no number, so the time taken means nothing.
    #[error("{stage} gave values that are not finite: its kernels or weights are wrong")]
    NotFinite {
        /// The stage.
        stage: String,
    },
    /// A stage faster than the machine.
    #[error(
        "{stage} reached {fraction:.3} of this machine's {limit} limit: the probe was disturbed or is wrong; \
         run again on an idle machine"
    )]
    BeatsLimit {
        /// The stage.
        stage: String,
        /// Which limit.
        limit: &'static str,
        /// How far, 1 being the limit.
        fraction: f64,
    },
}

/// Measures `stages` of made-up models of size `dims`, one model at a time. `device` makes the device
/// of each of them.
pub fn synthetic<D: Device>(
    dims: Dims,
    stages: &[Stage],
    device: impl Fn() -> D,
    options: &Options,
) -> Result<Report, BenchError> {
    let mut prober = Prober::new(options.threads)?;
    let mut report = Report::new(&device().name(), &format!("synthetic {dims}"));
    let mut left = stages.to_vec();
    while let Some(&first) = left.first() {
        let (now, later): (Vec<_>, _) = left.iter().partition(|stage| stage.shares_weights(first));
        left = later;
        let files = recipe(dims, first).files()?;
        let load = LoadOptions { dtype: None, ..options.load };
        let mut bench = Bench::load(&files, device(), &load)?;
        for stage in now {
            bench.measure(stage.work(), &stage.to_string(), options.rounds, &mut prober, &mut report)?;
        }
    }
    report.finish(prober.limits());
    report.order(&stages.iter().map(Stage::to_string).collect::<Vec<_>>());
    Ok(report)
}

/// Measures the stages of a model that `wanted` names, all if it names none. A stage is named in
/// full or by its first word.
pub fn model<D: Device>(
    files: &ModelFiles,
    wanted: &[String],
    device: D,
    options: &Options,
) -> Result<Report, BenchError> {
    let named = named(files, &options.load);
    for word in wanted {
        find(&named, word)?;
    }
    let mut prober = Prober::new(options.threads)?;
    let mut report = Report::new(&device.name(), &files.id);
    let mut bench = Bench::load(files, device, &options.load)?;
    for (work, name) in &named {
        if wanted.is_empty() || wanted.iter().any(|word| is_named(name, word)) {
            bench.measure(*work, name, options.rounds, &mut prober, &mut report)?;
        }
    }
    report.finish(prober.limits());
    Ok(report)
}

/// The stages of a model with their names.
fn named(files: &ModelFiles, load: &LoadOptions) -> [(Work, String); Work::ALL.len()] {
    Work::ALL.map(|work| (work, stage::name_of(work, files, load)))
}

/// Whether `word` names the stage called `name`: in full or by its first word.
fn is_named(name: &str, word: &str) -> bool {
    name == word || name.split('_').next() == Some(word)
}

/// The stage that `word` names.
fn find<'a>(named: &'a [(Work, String)], word: &str) -> Result<&'a (Work, String), BenchError> {
    named.iter().find(|(_, name)| is_named(name, word)).ok_or_else(|| {
        let known: Vec<_> = named.iter().map(|(_, name)| name.as_str()).collect();
        BenchError::NoSuchStage { wanted: word.into(), known: known.join(", ") }
    })
}

/// A model whose measured part has its full size, and the rest next to none.
fn recipe(dims: Dims, stage: Stage) -> Recipe {
    let (vision, language) = (dims.vision(), dims.language());
    let (small_vision, small_language) = (Dims::Tiny.vision(), Dims::Tiny.language());
    match stage {
        Stage::Encode(projector) => Recipe {
            vision,
            language: LanguageConfig {
                vocabulary: small_language.vocabulary,
                layers: 1,
                ffn: small_language.ffn,
                ..language
            },
            projector,
            tower: Tower::Plain,
            file_type: FileType::Q8_0,
            seed: SEED,
        },
        Stage::Prefill(file_type)
        | Stage::Decode(file_type)
        | Stage::DecodeDeep(file_type)
        | Stage::Together(file_type)
        | Stage::TogetherShared(file_type) => Recipe {
            vision: VisionConfig { blocks: 1, ..small_vision },
            language,
            projector: ProjectorKind::LdpV2,
            tower: Tower::Plain,
            file_type,
            seed: SEED,
        },
    }
}
