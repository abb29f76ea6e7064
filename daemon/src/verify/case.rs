//! A model's cases on one device and path.

use kernels::{DType, Device, KvDtype};

use super::golden::{Golden, error, patch_cosine, vector_cosine};
use super::row::{Bound, Row};
use super::target::{OnDevice, Target};
use super::{Sink, VISION_COSINE};
use crate::config::ModelConfig;
use crate::model::files::{LoadOptions, ModelFiles};
use crate::model::kv_cache::Sequence;
use crate::model::pass::Pass;
use crate::model::prompt::{Part, Prompt, Turn};
use crate::model::sampler::greedy;
use crate::model::tokenizer::Tokenizer;
use crate::model::{Input, KvOptions, MobileVlm};

/// Errors of a plain f32 implementation.
const FEATURES: Bound = Bound::AtMost(2e-5);
const PROJECTED: Bound = Bound::AtMost(3e-5);
const LOGITS: Bound = Bound::AtMost(5e-5);
/// 8-bit activations: one rounding that falls the other way moves logits by up to 3 %.
const EIGHT_BIT: Bound = Bound::AtMost(4e-2);
/// Without a picture float weights keep f32 activations and differ by the f16 cache only; the
/// reference allows this much to an implementation that rounds all activations to f16.
const HALF_CACHE: Bound = Bound::AtMost(5e-3);
/// An 8-bit cache under exact arithmetic: each key and value is off by up to 1/254 of the largest of
/// its 32, which moves logits of the reference models by 0.6 to 2.9 %, most behind few positions.
/// As for 8-bit activations, whose rounding is of the same size, up to 4 % are allowed.
const Q8_CACHE: Bound = Bound::AtMost(4e-2);
/// 8-bit vision and 8-bit text together: cosine of the logits, without their mean.
const ANSWER_COSINE: Bound = Bound::AtLeast(0.99);
/// A step whose best two logits are closer than this may go either way.
const CLEAR_GAP: f32 = 1e-3;
/// Tensors a case may have.
const KNOWN: [&str; 9] = [
    "input_ids",
    "vision_features",
    "projected",
    "logits",
    "generated_ids",
    "step_top5_ids",
    "step_top5_logits",
    "q8act_logits",
    "q8act_generated_ids",
];

/// How numbers are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// Weights as stored, f32 arithmetic and cache.
    Exact,
    /// What `run` does by default, with text weights of the type the file has.
    Run,
    /// The text part of [`Path::Run`] as the reference's 8-bit numbers were made: behind an exact
    /// picture and with an f32 cache. A small difference there makes roundings fall the other way,
    /// which would hide what the text part itself does.
    RunText,
    /// [`Path::Exact`] but for a cache of 8-bit integers: what that alone does.
    Q8Cache,
}

impl Path {
    /// Every path.
    pub(super) const ALL: [Path; 4] = [Path::Exact, Path::Run, Path::RunText, Path::Q8Cache];

    fn name(self) -> &'static str {
        match self {
            Path::Exact => "exact",
            Path::Run => "run",
            Path::RunText => "run text",
            Path::Q8Cache => "q8 cache",
        }
    }

    fn load_options(self, dtype: Option<DType>) -> LoadOptions {
        match self {
            Path::Exact | Path::Q8Cache => LoadOptions { dtype: None, vision_dtype: DType::F32, exact: true },
            Path::Run => LoadOptions { dtype, vision_dtype: run_vision_dtype(), exact: false },
            Path::RunText => LoadOptions { dtype, vision_dtype: DType::F32, exact: false },
        }
    }

    fn kv_dtype(self) -> KvDtype {
        match self {
            Path::Exact | Path::RunText => KvDtype::F32,
            Path::Run => KvDtype::F16,
            Path::Q8Cache => KvDtype::Q8,
        }
    }
}

fn run_vision_dtype() -> DType {
    ModelConfig::default().vision_dtype.parse().expect("the default is a type")
}

/// A conversation, its picture, and the numbers that should come out.
pub(super) struct Case {
    pub name: String,
    pub turns: Vec<Turn>,
    /// The normalized picture, if there is one.
    pub pixels: Option<Vec<f32>>,
    /// Numbers of the prompt and the vision part.
    pub vision: Golden,
    /// Numbers of the text part, if the files hold the model they belong to.
    pub text: Option<Golden>,
    /// Text of the continuation.
    pub continuation: Option<String>,
    /// Activations inside the model.
    pub debug: Option<Golden>,
}

/// A model and its cases.
pub(super) struct Work<'a> {
    pub label: &'a str,
    pub files: &'a ModelFiles,
    pub tokenizer: &'a Tokenizer,
    /// Type that float weights of the text part are quantized to; `None` keeps them.
    pub dtype: Option<DType>,
    pub cases: &'a [Case],
}

impl Work<'_> {
    /// Rows that need no device: prompts, texts, and tensors nobody asked for.
    pub(super) fn check_text(&self, sink: &mut Sink<'_>) {
        for case in self.cases {
            let label = format!("{} {}", self.label, case.name);
            for golden in std::iter::once(&case.vision).chain(&case.text) {
                for name in golden.names().into_iter().filter(|name| !KNOWN.contains(&name.as_str())) {
                    sink.push(Row::failed("case", &label, format!("unknown tensor {name}")));
                }
            }
            let ids = Prompt::new(self.tokenizer, &case.turns, case.pixels.is_some()).ids();
            sink.push(match case.vision.ids("input_ids") {
                Ok(want) => Row::equal("prompt", &label, &ids, &want),
                Err(problem) => Row::failed("prompt", &label, problem),
            });
            if let (Some(golden), Some(want)) = (&case.text, &case.continuation) {
                sink.push(match golden.ids("generated_ids") {
                    Ok(ids) => {
                        let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
                        let text = self.tokenizer.decode(&ids);
                        Row::equal("text", &label, &[text.trim()], &[want.trim()])
                    }
                    Err(problem) => Row::failed("text", &label, problem),
                });
            }
        }
    }

    /// Rows of every case on one device and path.
    pub(super) fn check_on(&self, target: Target, path: Path, sink: &mut Sink<'_>) {
        let label = format!("{} {target}", path.name());
        match target.with(Check { work: self, path, label: &label }) {
            Ok(rows) => rows.into_iter().for_each(|row| sink.push(row)),
            Err(problem) => sink.push(Row::failed("load", format!("{} {label}", self.label), problem)),
        }
    }
}

struct Check<'a> {
    work: &'a Work<'a>,
    path: Path,
    label: &'a str,
}

impl OnDevice for Check<'_> {
    type Output = Result<Vec<Row>, String>;

    fn run<D: Device>(self, device: D) -> Self::Output {
        let files = self.work.files;
        let kv = KvOptions::with_budget(&files.language, files.language.context, 0, self.path.kv_dtype());
        let model = MobileVlm::load(files, device, &self.path.load_options(self.work.dtype), kv)
            .map_err(|error| error.to_string())?;
        let pass = model.pass().map_err(|error| error.to_string())?;
        let mut bench = Bench { model, pass, path: self.path, rows: Vec::new() };
        for case in self.work.cases {
            let label = format!("{} {} {}", self.work.label, case.name, self.label);
            if let Err(problem) = bench.case(self.work, case, &label) {
                bench.rows.push(Row::failed("case", label, problem));
            }
        }
        Ok(bench.rows)
    }
}

/// A loaded model and the rows it gave.
struct Bench<D: Device> {
    model: MobileVlm<D>,
    pass: Pass<D>,
    path: Path,
    rows: Vec<Row>,
}

impl<D: Device> Bench<D> {
    fn case(&mut self, work: &Work<'_>, case: &Case, label: &str) -> Result<(), String> {
        if let Some(pixels) = &case.pixels {
            self.vision(work, case, pixels, label)?;
        }
        let Some(golden) = &case.text else { return Ok(()) };
        let prompt = Prompt::new(work.tokenizer, &case.turns, case.pixels.is_some());
        let mut sequence = Sequence::default();
        let done = self.answer(&prompt, golden, &mut sequence, label);
        self.model.release(&mut sequence);
        done
    }

    /// Patch features and visual tokens.
    fn vision(&mut self, work: &Work<'_>, case: &Case, pixels: &[f32], label: &str) -> Result<(), String> {
        let encoded = self.model.encode(pixels);
        let (features, tokens) = (encoded.features(), encoded.tokens());
        let (width, hidden) = (work.files.vision.hidden, work.files.language.hidden);
        for (stage, name, got, channels, bound) in [
            ("features", "vision_features", &features, width, FEATURES),
            ("projected", "projected", &tokens, hidden, PROJECTED),
        ] {
            if case.vision.has(name) {
                let (_, want) = case.vision.floats(name)?;
                self.rows.push(match self.path {
                    Path::Exact => Row::measured(stage, label, error(got, &want), bound),
                    Path::Run => {
                        Row::measured(stage, label, patch_cosine(got, &want, channels), VISION_COSINE)
                    }
                    Path::RunText | Path::Q8Cache => continue,
                });
            }
        }
        if let (Some(debug), Path::Exact) = (&case.debug, self.path) {
            // Row 0 is the class vector; the picture's rows replace the image mark of the prompt.
            let (_, states) = debug.floats(&format!("vision.hidden_states.{}", work.files.vision.blocks))?;
            let states = states.get(width..).unwrap_or_default();
            self.rows.push(Row::measured(
                "debug",
                format!("{label} vision"),
                error(&features, states),
                FEATURES,
            ));
            let (_, rows) = debug.floats("llm.inputs_embeds")?;
            let before = case.vision.ids("input_ids")?.iter().take_while(|&&id| id >= 0).count() * hidden;
            let rows = rows.get(before..before + tokens.len()).unwrap_or_default();
            self.rows.push(Row::measured(
                "debug",
                format!("{label} embeds"),
                error(&tokens, rows),
                PROJECTED,
            ));
        }
        Ok(())
    }

    /// Logits after the prompt and along the reference's continuation.
    fn answer(
        &mut self,
        prompt: &Prompt,
        golden: &Golden,
        sequence: &mut Sequence,
        label: &str,
    ) -> Result<(), String> {
        self.read(prompt, sequence)?;
        let first = self.model.logits(&self.pass).to_vec();
        let pictured = prompt.parts.contains(&Part::Image);
        self.rows.push(self.first_logits(golden, &first, pictured, label)?);
        if matches!(self.path, Path::RunText | Path::Q8Cache) {
            return Ok(());
        }
        let wanted: Vec<u32> = golden.ids("generated_ids")?.iter().map(|&id| id as u32).collect();
        let steps = self.steps(first, &wanted, sequence)?;
        if self.path == Path::Exact {
            self.rows.push(chosen(&steps, &wanted, golden, label)?);
            self.rows.push(best_five(&steps, golden, label)?);
        }
        let repeated = self.repeated(prompt, &wanted, &steps, label)?;
        self.rows.push(repeated);
        Ok(())
    }

    /// Reads the whole prompt.
    fn read(&mut self, prompt: &Prompt, sequence: &mut Sequence) -> Result<(), String> {
        for part in &prompt.parts {
            let input = match part {
                Part::Tokens(ids) => Input::Tokens(ids),
                Part::Image => Input::Visual(0..self.model.visual_tokens()),
            };
            self.model.forward(&mut self.pass, sequence, input).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn first_logits(&self, golden: &Golden, got: &[f32], pictured: bool, label: &str) -> Result<Row, String> {
        let quantized = golden.has("q8act_logits");
        let is_exact = matches!(self.path, Path::Exact | Path::Q8Cache);
        let name = if quantized && !is_exact { "q8act_logits" } else { "logits" };
        let (_, want) = golden.floats(name)?;
        Ok(match self.path {
            Path::RunText if quantized => Row::measured("logits", label, error(got, &want), EIGHT_BIT),
            Path::Exact | Path::RunText => Row::measured("logits", label, error(got, &want), LOGITS),
            Path::Q8Cache => Row::measured("logits", label, error(got, &want), Q8_CACHE),
            Path::Run if !quantized && !pictured => {
                Row::measured("logits", label, error(got, &want), HALF_CACHE)
            }
            Path::Run => Row::measured("answer", label, vector_cosine(got, &want), ANSWER_COSINE),
        })
    }

    /// The logits before each of the `wanted` tokens.
    fn steps(
        &mut self,
        first: Vec<f32>,
        wanted: &[u32],
        sequence: &mut Sequence,
    ) -> Result<Vec<Vec<f32>>, String> {
        let mut steps = vec![first];
        for id in wanted.iter().take(wanted.len().saturating_sub(1)) {
            let input = Input::Tokens(std::slice::from_ref(id));
            self.model.forward(&mut self.pass, sequence, input).map_err(|error| error.to_string())?;
            steps.push(self.model.logits(&self.pass).to_vec());
        }
        Ok(steps)
    }

    /// The last step once more, in other pieces and in one batch: every bit must be the same.
    fn repeated(
        &mut self,
        prompt: &Prompt,
        wanted: &[u32],
        steps: &[Vec<f32>],
        label: &str,
    ) -> Result<Row, String> {
        let mut sequence = Sequence::default();
        let done = self.read(prompt, &mut sequence).and_then(|()| {
            let before_last = &wanted[..steps.len() - 1];
            if !before_last.is_empty() {
                let input = Input::Tokens(before_last);
                self.model
                    .forward(&mut self.pass, &mut sequence, input)
                    .map_err(|error| error.to_string())?;
            }
            Ok(self.model.logits(&self.pass).to_vec())
        });
        self.model.release(&mut sequence);
        let bits = |logits: &[f32]| logits.iter().map(|logit| logit.to_bits()).collect::<Vec<_>>();
        let last = steps.last().map_or(&[][..], Vec::as_slice);
        Ok(Row::equal("repeated", label, &bits(&done?), &bits(last)))
    }
}

/// Whether greedy decoding takes the reference's tokens. Steps that could go either way are left out.
fn chosen(steps: &[Vec<f32>], wanted: &[u32], golden: &Golden, label: &str) -> Result<Row, String> {
    let (_, best) = golden.floats("step_top5_logits")?;
    let mut got: Vec<u32> = steps.iter().map(|logits| greedy(logits)).collect();
    for ((got, want), best) in got.iter_mut().zip(wanted).zip(best.chunks_exact(5)) {
        if best[0] - best[1] < CLEAR_GAP {
            *got = *want;
        }
    }
    Ok(Row::equal("ids", label, &got, wanted))
}

/// The five best logits of every step.
fn best_five(steps: &[Vec<f32>], golden: &Golden, label: &str) -> Result<Row, String> {
    let (_, want) = golden.floats("step_top5_logits")?;
    let ids = golden.ids("step_top5_ids")?;
    if want.len() != steps.len() * 5 || ids.len() != want.len() {
        return Err(format!("{} best logits and {} ids for {} steps", want.len(), ids.len(), steps.len()));
    }
    let logit = |(at, &id): (usize, &i64)| steps[at / 5].get(id as usize).copied().unwrap_or(f32::NAN);
    let got: Vec<f32> = ids.iter().enumerate().map(logit).collect();
    Ok(Row::measured("steps", label, error(&got, &want), LOGITS))
}
