//! `mobilevlmd caption`: Captions pictures without a bus.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kernels::cpu::IsaLevel;
use kernels::{Cpu, CpuOptions, DType, Device, KvDtype, Reference};
use messages::{Sampling, Timings};
use serde::Serialize;

use super::Failure;
use crate::config::{CaptionConfig, ModelConfig};
use crate::gpu::{self, DeviceChoice};
use crate::model::files::{LoadOptions, ModelFiles};
use crate::model::preprocess::decode_picture;
use crate::model::prompt::{Prompt, Turn};
use crate::model::sampler::Sampler;
use crate::model::viewer::Viewer;

/// Largest picture file that is read.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Captions pictures without a bus: text streams to the terminal
#[derive(Debug, clap::Args)]
pub struct Args {
    /// JPEG or PNG files
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// GGUF text model or Hugging Face directory [default: the built-in world model]
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// GGUF vision part [default: found beside the model]
    #[arg(long, value_name = "FILE")]
    mmproj: Option<PathBuf>,
    /// Vision tower of a Hugging Face model [default: found beside the model]
    #[arg(long, value_name = "DIR")]
    vision_tower: Option<PathBuf>,
    /// What is asked of every picture
    #[arg(long, value_name = "TEXT", default_value_t = CaptionConfig::default().prompt)]
    prompt: String,
    /// Type that float weights are quantized to while loading; f32 computes everything exactly
    #[arg(long, value_name = "TYPE", default_value_t = default_dtype())]
    dtype: DType,
    /// Type of the vision part: q8_0, f32, f16, bf16 [default: q8_0; f32 with --dtype f32]
    #[arg(long, value_name = "TYPE", value_parser = vision_dtype)]
    vision_dtype: Option<DType>,
    /// Longest caption
    #[arg(long, value_name = "TOKENS", default_value_t = 128)]
    max_tokens: usize,
    /// 0 always takes the most probable token
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Chooses among the most probable tokens with this much probability together; 1 takes all
    #[arg(long, default_value_t = 1.0)]
    top_p: f32,
    /// Seed of the choice
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The CPU's kernels, a GPU as cuda:N, auto, or the slow scalar reference
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    device: DeviceChoice,
    /// Highest instruction set to use [default: the best there is]
    #[arg(long, value_name = "NAME")]
    isa: Option<IsaLevel>,
    /// Threads; 0 takes the physical cores
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Print one JSON object per picture
    #[arg(long)]
    json: bool,
}

fn default_dtype() -> DType {
    ModelConfig::default().dtype.parse().expect("the default is a type")
}

fn vision_dtype(name: &str) -> Result<DType, String> {
    match name.parse()? {
        dtype @ (DType::Q8_0 | DType::F32 | DType::F16 | DType::BF16) => Ok(dtype),
        other => Err(format!("{other} is no type for the vision part, expected q8_0, f32, f16 or bf16")),
    }
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Described<'a> {
    image: String,
    model: &'a str,
    device: String,
    text: String,
    /// The prompt, with -200 where the picture stands.
    prompt_ids: Vec<i64>,
    /// Generated tokens, the end token included.
    token_ids: Vec<u32>,
    /// Whether the token limit cut the text short.
    truncated: bool,
    /// Opening and loading the model, once for all pictures.
    load_ms: f32,
    timings: Timings,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    if !(args.temperature.is_finite() && args.temperature >= 0.0) {
        return Err(Failure::new(format!("--temperature {}: expected 0 or more", args.temperature)));
    }
    if !(args.top_p > 0.0 && args.top_p <= 1.0) {
        return Err(Failure::new(format!("--top-p {}: expected more than 0, at most 1", args.top_p)));
    }
    let gpu = match args.device {
        DeviceChoice::Reference => return describe_all(args, Reference),
        DeviceChoice::Cuda(ordinal) => Some(gpu::open(ordinal, None)?),
        DeviceChoice::Auto => gpu::open_if_usable(None),
        DeviceChoice::Cpu => None,
    };
    match gpu {
        Some(gpu) => describe_all(args, gpu),
        None => describe_all(args, Cpu::new(CpuOptions { threads: args.threads, isa_cap: args.isa })),
    }
}

fn describe_all<D: Device>(args: &Args, device: D) -> Result<(), Failure> {
    let start = Instant::now();
    let config = ModelConfig {
        path: args.model.clone().unwrap_or_default(),
        mmproj: args.mmproj.clone().unwrap_or_default(),
        vision_tower: args.vision_tower.clone().unwrap_or_default(),
        ..ModelConfig::default()
    };
    let files = config.source().open()?;
    let mut describer = Describer::load(args, &files, device)?;
    let load_ms = milliseconds(start.elapsed());
    let mut out = std::io::stdout().lock();
    for image in &args.images {
        if args.images.len() > 1 && !args.json {
            write!(out, "{}: ", image.display())?;
        }
        let mut described = describer.describe(image, &mut |piece| {
            if args.json {
                return Ok(());
            }
            out.write_all(piece.as_bytes())?;
            out.flush()
        })?;
        if args.json {
            described.load_ms = load_ms;
            serde_json::to_writer(&mut out, &described)?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// A loaded model and what it is asked of every picture.
struct Describer<'a, D: Device> {
    args: &'a Args,
    files: &'a ModelFiles,
    viewer: Viewer<D>,
    prompt_ids: Vec<i64>,
}

impl<'a, D: Device> Describer<'a, D> {
    fn load(args: &'a Args, files: &'a ModelFiles, device: D) -> Result<Self, Failure> {
        let (options, kv_dtype) = precision(args);
        let viewer = Viewer::load(files, device, &options, kv_dtype)?;
        let prompt_ids = Prompt::new(viewer.tokenizer(), &[Turn::ask(&args.prompt)], true).ids();
        Ok(Self { args, files, viewer, prompt_ids })
    }

    /// Describes one picture; pieces of text go to `show` as they come.
    fn describe(
        &mut self,
        image: &Path,
        show: &mut dyn FnMut(&str) -> std::io::Result<()>,
    ) -> Result<Described<'a>, Failure> {
        let Args { temperature, top_p, seed, max_tokens, .. } = *self.args;
        let start = Instant::now();
        let picture = decode_picture(&read(image)?).map_err(|error| at(image, error))?;
        let decoded = start.elapsed();
        let look = self.viewer.look(&picture)?;
        let start = Instant::now();
        self.viewer.ask(&self.args.prompt)?;
        let asked = start.elapsed();
        let mut sampler = Sampler::new(Sampling { temperature, top_p, seed });
        let said = self.viewer.answer(&mut sampler, max_tokens, show)?;
        let timings = Timings {
            preprocess_ms: milliseconds(decoded + look.preprocess),
            encode_ms: milliseconds(look.encode),
            prefill_ms: milliseconds(look.prefill + asked),
            decode_ms: milliseconds(start.elapsed() - asked),
            ..Timings::default()
        };
        Ok(Described {
            image: image.display().to_string(),
            model: &self.files.id,
            device: self.viewer.model().device().name(),
            text: said.text,
            prompt_ids: self.prompt_ids.clone(),
            token_ids: said.ids,
            truncated: said.truncated,
            load_ms: 0.0,
            timings,
        })
    }
}

/// Types of weights and cache. `--dtype f32` alone is the exact path: weights as stored, f32
/// arithmetic and cache.
fn precision(args: &Args) -> (LoadOptions, KvDtype) {
    let exact = args.dtype == DType::F32 && args.vision_dtype.is_none_or(|dtype| dtype == DType::F32);
    let usual = || ModelConfig::default().vision_dtype.parse().expect("the default is a type");
    let vision_dtype = if exact { DType::F32 } else { args.vision_dtype.unwrap_or_else(usual) };
    let options = LoadOptions { dtype: Some(args.dtype), vision_dtype, exact };
    (options, if exact { KvDtype::F32 } else { KvDtype::F16 })
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let file = std::fs::File::open(path).map_err(|error| at(path, error))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| at(path, error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(at(path, format!("more than {MAX_FILE_BYTES} bytes, too large for a picture")));
    }
    Ok(bytes)
}

fn at(path: &Path, problem: impl std::fmt::Display) -> Failure {
    Failure::new(format!("{}: {problem}", path.display()))
}

fn milliseconds(time: Duration) -> f32 {
    time.as_secs_f32() * 1e3
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(flags: &[&str]) -> Args {
        Line::parse_from(["caption", "a.png"].iter().chain(flags)).args
    }

    #[test]
    fn f32_alone_is_the_exact_path() {
        let (options, kv) = precision(&args(&["--dtype", "f32"]));
        assert!(options.exact && kv == KvDtype::F32);
        let (options, kv) = precision(&args(&["--dtype", "f32", "--vision-dtype", "q8_0"]));
        assert!(!options.exact && kv == KvDtype::F16 && options.vision_dtype == DType::Q8_0);
        let (options, _) = precision(&args(&[]));
        assert_eq!((options.dtype, options.vision_dtype), (Some(DType::Q4K), DType::Q8_0));
    }

    /// A file of the reference data.
    fn data(path: &str) -> PathBuf {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data")).join(path)
    }

    #[test]
    fn pieces_join_to_the_text_of_the_reference() {
        let index = std::fs::read(data("goldens/index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
        let case = &index["checkpoints"]["v1-tiny"]["cases"]["cat"];
        let question = case["question"].as_str().unwrap();
        let args = args(&["--dtype", "f32", "--max-tokens", "32", "--prompt", question]);
        let paths =
            crate::model::files::ModelPaths { model: data("checkpoints/v1-tiny"), ..Default::default() };
        let files = ModelFiles::open(&paths).unwrap();
        let mut describer = Describer::load(&args, &files, Cpu::default()).unwrap();
        for _ in 0..2 {
            let mut pieces = String::new();
            let mut show = |piece: &str| {
                pieces.push_str(piece);
                Ok(())
            };
            let described = describer.describe(&data("images/cat.png"), &mut show).unwrap();
            assert_eq!(described.text, case["text"].as_str().unwrap());
            assert_eq!(described.token_ids.len(), 32);
            assert!(described.truncated);
            assert_eq!(pieces, described.text);
        }
        let error = describer.describe(&data("README.md"), &mut |_| Ok(())).unwrap_err();
        assert!(error.message.ends_with("README.md: neither a JPEG nor a PNG picture"), "{}", error.message);
    }

    #[test]
    fn bad_flags_are_refused() {
        for flags in
            [&["--vision-dtype", "q4_0"][..], &["--dtype", "q9"], &["--isa", "neon9"], &["--device", "tpu"]]
        {
            assert!(Line::try_parse_from(["caption", "a.png"].iter().chain(flags)).is_err(), "{flags:?}");
        }
        assert!(Line::try_parse_from(["caption"]).is_err());
        assert!(run(&args(&["--temperature=-1"])).is_err());
        assert!(run(&args(&["--top-p", "0"])).is_err());
    }
}
