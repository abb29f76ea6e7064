//! `mobilevlmd bench`: measures this machine's limits and every stage against them.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;

use kernels::cpu::IsaLevel;
use kernels::{Cpu, CpuOptions, DType};
use serde::Serialize;

use super::Failure;
use crate::bench::busy::{self, BusyReport};
use crate::bench::dims::Dims;
use crate::bench::engine::{self, EngineReport};
use crate::bench::load::{self, LoadReport};
use crate::bench::report::Report;
use crate::bench::stage::Stage;
use crate::bench::synthetic::{FileType, Recipe, Tower};
use crate::bench::turns;
use crate::bench::{self, Options, SEED};
use crate::config::ModelConfig;
use crate::model::files::{LoadOptions, ModelFiles, ProjectorKind};

/// Measures this machine's limits and every stage against them.
///
/// Stages are encode (a picture), prefill (164 tokens) and decode (64 tokens after none), on made-up
/// weights at real dimensions unless --model is given. Fails if a stage is faster than the machine's
/// measured limit, which means that the limit was measured wrong.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to measure instead of single stages
    #[arg(value_enum, conflicts_with_all = ["stages", "write"])]
    what: Option<What>,
    /// GGUF file, Hugging Face directory or builtin to measure instead of made-up weights
    #[arg(long, value_name = "PATH", conflicts_with = "dims")]
    model: Option<PathBuf>,
    /// GGUF vision part
    #[arg(long, value_name = "FILE", requires = "model")]
    mmproj: Option<PathBuf>,
    /// Vision tower of a Hugging Face directory that has none inside
    #[arg(long, value_name = "FOLDER", requires = "model")]
    vision_tower: Option<PathBuf>,
    /// Type that float weights of the language model are quantized to
    #[arg(long, value_name = "TYPE", default_value_t = DType::Q4K, requires = "model")]
    dtype: DType,
    /// Type that float weights of the vision tower are quantized to, or f32, f16, bf16
    #[arg(long, value_name = "TYPE", default_value_t = DType::Q8_0)]
    vision_dtype: DType,
    /// Dimensions of the made-up model: tiny, 1.7b, 3b or 7b
    #[arg(long, value_name = "SIZE", default_value_t = Dims::B1_7)]
    dims: Dims,
    /// Stages to measure, such as encode_v2,decode_q4_0; of a model also encode, prefill, decode
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    stages: Vec<String>,
    /// Timed rounds of each stage, of which the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Worker threads; 0 takes one for each physical core
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=256))]
    threads: u16,
    /// Instruction set to use instead of the best there is
    #[arg(long, value_name = "NAME")]
    isa: Option<IsaLevel>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Write the made-up model as a pair of GGUF files and measure nothing
    #[arg(long, value_name = "FOLDER", requires = "file_type", conflicts_with_all = ["model", "json", "stages"])]
    write: Option<PathBuf>,
    /// Where `bench load` keeps packed weights meanwhile; the directory for temporary files if absent
    #[arg(long, value_name = "FOLDER", requires = "what")]
    folder: Option<PathBuf>,
    /// Types of the written language model, such as q4_0, q4_k_m or q8_0
    #[arg(long = "type", value_name = "TYPE", requires = "write")]
    file_type: Option<FileType>,
}

/// What can be measured beside stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// What callers wait for, and what more of them, rules and cameras cost
    Engine,
    /// How long a model takes to load, packed anew and kept by an earlier start
    Load,
    /// How much slower stages get while other processes keep all cores busy
    Busy,
    /// One stage for each line of standard input that names one, for a program that lets others take turns
    Turns,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    if let (Some(folder), Some(file_type)) = (&args.write, args.file_type) {
        for path in recipe(args, file_type).write(folder)? {
            say!("{}", path.display());
        }
        return Ok(());
    }
    match args.what {
        Some(What::Engine) => show(args, &measure_engine(args)?),
        Some(What::Load) => show(args, &measure_load(args)?),
        Some(What::Busy) => show(args, &measure_busy(args)?),
        Some(What::Turns) => take_turns(args),
        None => {
            let report = measure(args)?;
            show(args, &report)?;
            Ok(report.check()?)
        }
    }
}

fn show(args: &Args, report: &(impl Serialize + Display)) -> Result<(), Failure> {
    if args.json {
        say!("{}", serde_json::to_string(report)?);
    } else {
        say!("{report}");
    }
    Ok(())
}

fn measure(args: &Args) -> Result<Report, Failure> {
    let (device, options) = conditions(args)?;
    let Some(files) = files(args)? else {
        let stages = stages(&args.stages)?;
        return Ok(bench::synthetic(args.dims, &stages, device, &options)?);
    };
    Ok(bench::model(&files, &args.stages, device(), &options)?)
}

fn measure_engine(args: &Args) -> Result<EngineReport, Failure> {
    let (device, options) = conditions(args)?;
    Ok(match files(args)? {
        Some(files) => engine::engine(&files, device(), &options)?,
        None => engine::synthetic_engine(args.dims, device(), &options)?,
    })
}

fn measure_busy(args: &Args) -> Result<BusyReport, Failure> {
    let (device, options) = conditions(args)?;
    Ok(busy::busy(&subject(args)?, device(), &options)?)
}

fn take_turns(args: &Args) -> Result<(), Failure> {
    let (device, options) = conditions(args)?;
    Ok(turns::turns(&subject(args)?, device(), &options, io::stdin().lock(), io::stdout().lock())?)
}

fn measure_load(args: &Args) -> Result<LoadReport, Failure> {
    let (device, options) = conditions(args)?;
    let own = || std::env::temp_dir().join(format!("mobilevlmd-load-{}", std::process::id()));
    let folder = args.folder.clone().map_or_else(own, |folder| folder.join("mobilevlmd-load"));
    Ok(load::load(&subject(args)?, device, &options, &folder)?)
}

/// The made-up model.
fn recipe(args: &Args, file_type: FileType) -> Recipe {
    let (vision, language) = (args.dims.vision(), args.dims.language());
    let projector = ProjectorKind::LdpV2;
    Recipe { vision, language, projector, tower: Tower::Plain, file_type, seed: SEED }
}

/// How devices are made, and what is done how often.
fn conditions(args: &Args) -> Result<(impl Fn() -> Cpu, Options), Failure> {
    if let Some(isa) = args.isa
        && !Cpu::available().contains(&isa)
    {
        return Err(Failure::new(format!("--isa {isa}: this processor does not have it")));
    }
    let cpu = CpuOptions { threads: args.threads.into(), isa_cap: args.isa };
    let device = move || Cpu::new(cpu);
    let options = Options {
        rounds: args.rounds.into(),
        load: LoadOptions { dtype: Some(args.dtype), vision_dtype: args.vision_dtype, exact: false },
        threads: device().threads(),
    };
    Ok((device, options))
}

/// The model to measure, unless one is made up.
fn files(args: &Args) -> Result<Option<ModelFiles>, Failure> {
    let Some(model) = &args.model else { return Ok(None) };
    let model = ModelConfig {
        path: model.clone(),
        mmproj: args.mmproj.clone().unwrap_or_default(),
        vision_tower: args.vision_tower.clone().unwrap_or_default(),
        ..ModelConfig::default()
    };
    Ok(Some(model.source().open()?))
}

/// The model to measure as a whole, a made-up one of the usual types unless another is given.
fn subject(args: &Args) -> Result<ModelFiles, Failure> {
    Ok(match files(args)? {
        Some(files) => files,
        None => recipe(args, FileType::Q4_K_M).files()?,
    })
}

/// Stages of a made-up model: those named, or the default ones.
fn stages(names: &[String]) -> Result<Vec<Stage>, Failure> {
    if names.is_empty() {
        return Ok(Stage::DEFAULT.to_vec());
    }
    names.iter().map(|name| name.parse().map_err(Failure::new)).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        for (text, accepted) in [
            ("bench", true),
            ("bench --json --stages encode_v2,decode_q4_0 --rounds 3 --threads 2 --isa avx2", true),
            ("bench --model m.gguf --mmproj f.gguf --dtype q8_0 --stages decode", true),
            ("bench --write out --type q4_k_m --dims tiny", true),
            ("bench engine --dims tiny --rounds 1 --json", true),
            ("bench load --rounds 2 --folder out", true),
            ("bench busy --dims tiny", true),
            ("bench turns --model m.gguf --threads 2", true),
            ("bench --folder out", false),
            ("bench engine --stages decode_q4_0", false),
            ("bench turns --write out --type q4_0", false),
            ("bench bus", false),
            ("bench --write out", false),
            ("bench --type q4_0", false),
            ("bench --mmproj f.gguf", false),
            ("bench --model m.gguf --dims tiny", false),
            ("bench --rounds 0", false),
            ("bench --isa mmx", false),
            ("bench --dims 2b", false),
        ] {
            let words = ["mobilevlmd"].into_iter().chain(text.split(' '));
            assert_eq!(Cli::try_parse_from(words).is_ok(), accepted, "{text}");
        }
    }
}
