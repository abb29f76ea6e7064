//! A model that one engine after the other is started with, and what stands around the engine.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kernels::{Device, KvDtype};
use messages::{AnswerPiece, FrameChoice, Question, Rule, Sampling};
use tokio::sync::mpsc;

use crate::bench::BenchError;
use crate::camera::{Frame, Latest, PixelFormat, Wake};
use crate::config::{CaptionConfig, QuestionConfig};
use crate::engine::{self, Ask, CameraInput, EngineHandle, EngineOptions, EngineParts, Event, UnitTimes};
use crate::model::files::{LoadOptions, ModelFiles};
use crate::model::kv_cache::Sequence;
use crate::model::preprocess::Preprocessor;
use crate::model::prompt::{Turn, after_image, system_prefix};
use crate::model::sampler::greedy;
use crate::model::tokenizer::Tokenizer;
use crate::model::{Input, KvOptions, MobileVlm};

use super::report::Positions;

/// Tokens behind the picture, template included.
const QUESTION_TOKENS: usize = 20;

/// Memory of the KV cache, the daemon's default.
const KV_BYTES: usize = 512 << 20;

/// Positions of a sequence: all that is measured, and a made-up vocabulary's long system prompt.
const CONTEXT: usize = 1024;

/// Width and height of the frames.
const FRAME: (usize, usize) = (640, 480);

/// Time between two frames of a camera that always has a new one.
const FRAME_PERIOD: Duration = Duration::from_millis(20);

/// How long a result may take before the engine is taken to be broken.
const PATIENCE: Duration = Duration::from_secs(600);

/// How an engine is set up.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    /// Its cameras.
    pub(super) cameras: usize,
    /// What is watched for on all of them.
    pub(super) rules: Vec<Rule>,
    /// What every caption is foretold to be.
    pub(super) foretold: Option<Vec<u32>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { cameras: 1, rules: Vec::new(), foretold: None }
    }
}

/// A loaded model and all that is needed to start an engine with it.
pub(super) struct Stand<'a, D: Device> {
    files: &'a ModelFiles,
    tokenizer: Arc<Tokenizer>,
    /// There but while an engine has it.
    model: Option<MobileVlm<D>>,
    caption: CaptionConfig,
    question: String,
    units: UnitTimes,
}

impl<'a, D: Device + 'static> Stand<'a, D> {
    /// Loads a model whose captions have `caption_tokens` tokens.
    pub(super) fn load(
        files: &'a ModelFiles,
        device: D,
        load: &LoadOptions,
        caption_tokens: u32,
    ) -> Result<Self, BenchError> {
        let tokenizer = Arc::new(Tokenizer::of_model(files)?);
        let context = CONTEXT.min(files.language.context);
        let kv = KvOptions::with_budget(&files.language, context, KV_BYTES, KvDtype::F16);
        let model = MobileVlm::load(files, device, load, kv)?;
        let prompt = text_of(&tokenizer, QUESTION_TOKENS);
        let caption = CaptionConfig {
            prompt: prompt.clone(),
            max_tokens: caption_tokens,
            change_threshold: 0.0,
            ..CaptionConfig::default()
        };
        let units = UnitTimes::default();
        Ok(Self { files, tokenizer, model: Some(model), caption, question: prompt, units })
    }

    /// Positions of the prompts.
    pub(super) fn positions(&self) -> Positions {
        Positions {
            system: system_prefix(&self.tokenizer).len(),
            question: after_image(&self.tokenizer, &[Turn::ask(&self.question)]).len(),
        }
    }

    /// Entries of the vocabulary.
    pub(super) fn vocabulary(&self) -> usize {
        self.files.language.vocabulary
    }

    /// The units of all engines so far.
    pub(super) fn units(&self) -> &UnitTimes {
        &self.units
    }

    /// Starts an engine, does `work` around it and stops it.
    pub(super) fn run<R>(
        &mut self,
        setup: &Setup,
        work: impl FnOnce(&mut Floor) -> R,
    ) -> Result<R, BenchError> {
        let model = self.model.take().ok_or(BenchError::EngineLost)?;
        let wake = Wake::default();
        let latest: Vec<_> = (0..setup.cameras).map(|_| Arc::new(Latest::new(wake.clone()))).collect();
        let input = |(index, latest): (usize, &Arc<Latest<Frame>>)| CameraInput {
            name: camera_name(index),
            latest: latest.clone(),
            max_age: PATIENCE,
            describe: true,
        };
        let vision = &self.files.vision;
        let rules = setup.rules.iter().map(|rule| Rule { question: self.question.clone(), ..rule.clone() });
        let parts = EngineParts {
            model,
            tokenizer: self.tokenizer.clone(),
            preprocessor: Preprocessor::new(vision.image, self.files.image_mean, self.files.image_std),
            cameras: latest.iter().enumerate().map(input).collect(),
            wake,
            options: EngineOptions {
                model_id: self.files.id.clone(),
                caption: CaptionConfig { drafts: setup.foretold.is_some(), ..self.caption.clone() },
                question: QuestionConfig { deadline_s: PATIENCE.as_secs_f64(), ..QuestionConfig::default() },
                rules: rules.collect(),
                changes: Default::default(),
                foretold: setup.foretold.clone(),
            },
        };
        let (engine, handle, events) = engine::prepare(parts)?;
        let (frames, question) = (vec![0; setup.cameras], self.question.clone());
        let mut floor = Floor { handle, events, latest, frames, question };
        let (result, model) = std::thread::scope(|scope| {
            let running = scope.spawn(move || engine.run());
            let result = work(&mut floor);
            floor.handle.ask_to_stop();
            (result, running.join())
        });
        let (model, end) = model.map_err(|_| BenchError::EngineLost)?;
        self.model = Some(model);
        self.units.merge(&floor.handle.progress().units());
        end?;
        Ok(result)
    }

    /// The tokens of the caption that the model writes of the first picture, the end token excluded.
    pub(super) fn caption(&mut self) -> Result<Vec<u32>, BenchError> {
        let model = self.model.as_mut().ok_or(BenchError::EngineLost)?;
        let vision = &self.files.vision;
        let mut preprocessor = Preprocessor::new(vision.image, self.files.image_mean, self.files.image_std);
        let mut picture = image::RgbImage::new(0, 0);
        frame(0, 0).rgb_into(&mut picture).map_err(|_| BenchError::EngineLost)?;
        model.encode(preprocessor.pixels(&picture));
        let (mut pass, mut sequence) = (model.pass()?, Sequence::default());
        let visual = 0..model.visual_tokens();
        model.forward(&mut pass, &mut sequence, Input::Tokens(&system_prefix(&self.tokenizer)))?;
        model.forward(&mut pass, &mut sequence, Input::Visual(visual))?;
        let prompt = after_image(&self.tokenizer, &[Turn::ask(&self.caption.prompt)]);
        model.forward(&mut pass, &mut sequence, Input::Tokens(&prompt))?;
        let mut said = Vec::new();
        while said.len() < self.caption.max_tokens as usize {
            let id = greedy(model.logits(&pass));
            if id == self.tokenizer.eos() {
                break;
            }
            said.push(id);
            model.forward(&mut pass, &mut sequence, Input::Tokens(&[id]))?;
        }
        model.release(&mut sequence);
        Ok(said)
    }

    /// Lets the engines to come keep the system prompt on disk, or not. Whatever an earlier one left
    /// there is taken away.
    pub(super) fn keep_prefix(&mut self, keep: bool) {
        let folder = prefix_folder();
        // There is nothing the first time.
        let _ = fs::remove_dir_all(&folder);
        let kept = keep && fs::create_dir_all(&folder).is_ok();
        self.model = self.model.take().map(|model| model.with_prefix_folder(kept.then_some(folder)));
    }
}

fn prefix_folder() -> PathBuf {
    std::env::temp_dir().join(format!("mobilevlmd-bench-{}", std::process::id()))
}

/// What stands around a running engine.
pub(super) struct Floor {
    handle: EngineHandle,
    events: mpsc::Receiver<Event>,
    latest: Vec<Arc<Latest<Frame>>>,
    /// Frames shown by each camera.
    frames: Vec<u64>,
    question: String,
}

impl Floor {
    /// Puts a new frame in front of a camera.
    pub(super) fn show(&mut self, camera: usize) {
        let sequence = self.frames[camera];
        self.frames[camera] += 1;
        self.latest[camera].put(frame(camera, sequence));
    }

    /// Waits for the next caption; tells how old its frame is.
    pub(super) fn caption(&mut self) -> Duration {
        loop {
            match self.events.blocking_recv() {
                Some(Event::Caption(_, captured)) => return captured.elapsed(),
                Some(_) => {}
                // The engine is gone, and its end says why.
                None => return Duration::ZERO,
            }
        }
    }

    /// Shows a new frame and waits until all that is done about it is done. Returns the time.
    pub(super) fn describe(&mut self, camera: usize) -> Duration {
        let start = Instant::now();
        self.show(camera);
        self.finish(start)
    }

    /// Shows the first frame again; otherwise as [`Floor::describe`].
    pub(super) fn show_same(&mut self, camera: usize) -> Duration {
        let start = Instant::now();
        let sequence = self.frames[camera];
        self.frames[camera] += 1;
        self.latest[camera].put(Frame { sequence, ..frame(camera, 0) });
        self.finish(start)
    }

    /// Waits for a caption, and until the engine has nothing to do.
    fn finish(&mut self, start: Instant) -> Duration {
        self.caption();
        let progress = self.handle.progress();
        let mut time = start.elapsed();
        while progress.report().engine.jobs > 0 {
            std::thread::sleep(Duration::from_micros(200));
            time = start.elapsed();
        }
        time
    }

    /// From asking on the described frame to the first token of the answer.
    pub(super) fn first_token(&mut self) -> Duration {
        self.ask_together(1, 1).0
    }

    /// Asks so many questions at once about the first camera. Returns the time until the last answer,
    /// and the tokens of all.
    pub(super) fn ask_together(&mut self, questions: usize, max_tokens: u32) -> (Duration, u32) {
        let start = Instant::now();
        let asks = self.handle.asks();
        let ask = |_| {
            let (reply, pieces) = mpsc::channel(max_tokens as usize + 8);
            let question = Question {
                max_tokens,
                frame: FrameChoice::Latest,
                max_stale_ms: PATIENCE.as_millis() as u32,
                sampling: Sampling::default(),
                ..Question::new(&self.question)
            };
            let ask = Ask { camera: camera_name(0), question, arrived: Instant::now(), reply };
            asks.send(ask).ok().map(|()| pieces)
        };
        let open: Vec<_> = (0..questions).filter_map(ask).collect();
        let tokens = open.into_iter().map(tokens_of).sum();
        (start.elapsed(), tokens)
    }

    /// Does `work` while every camera always has a new frame.
    pub(super) fn while_fed<R>(&mut self, work: impl FnOnce(&mut Self) -> R) -> R {
        let stop = AtomicBool::new(false);
        let (latest, mut frames) = (self.latest.clone(), self.frames.clone());
        std::thread::scope(|scope| {
            let feeder = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for (camera, latest) in latest.iter().enumerate().filter(|(_, latest)| !latest.has_new())
                    {
                        latest.put(frame(camera, frames[camera]));
                        frames[camera] += 1;
                    }
                    std::thread::sleep(FRAME_PERIOD);
                }
                frames
            });
            let result = work(self);
            stop.store(true, Ordering::Relaxed);
            if let Ok(frames) = feeder.join() {
                self.frames = frames;
            }
            result
        })
    }

    /// Waits for so many captions while every camera always has a new frame. Returns the time they
    /// took and the age of each.
    pub(super) fn captions_while_fed(&mut self, count: usize) -> (Duration, Vec<Duration>) {
        self.while_fed(|floor| {
            floor.caption();
            let start = Instant::now();
            let ages = (0..count).map(|_| floor.caption()).collect();
            (start.elapsed(), ages)
        })
    }
}

/// Waits for the end of an answer; tells how many tokens it has.
fn tokens_of(mut pieces: mpsc::Receiver<AnswerPiece>) -> u32 {
    loop {
        match pieces.blocking_recv() {
            Some(AnswerPiece::Final(answer)) => return answer.tokens.generated,
            Some(AnswerPiece::Text { .. }) => {}
            Some(AnswerPiece::Error(_)) | None => return 0,
        }
    }
}

fn camera_name(index: usize) -> String {
    format!("camera-{index}")
}

/// A picture of its own for every camera and frame: shapes that move a good part of its width.
fn frame(camera: usize, sequence: u64) -> Frame {
    let (width, height) = FRAME;
    let shift = 97 * sequence as usize + 31 * camera;
    let colour = |x: usize, y: usize| {
        let block = ((x + shift) / 80 + (y + shift / 2) / 60) * 53;
        [block % 251, (block * 3 + y / 4) % 251, (block * 7 + x / 4) % 251].map(|value| value as u8)
    };
    let bytes = (0..width * height).flat_map(|at| colour(at % width, at / width)).collect();
    Frame {
        sequence,
        captured_at: 1_000_000_000 + sequence,
        captured: Instant::now(),
        width: width as u32,
        height: height as u32,
        stride: 3 * width as u32,
        format: PixelFormat::Rgb24,
        color: Default::default(),
        bytes,
    }
}

/// A question that takes `tokens` positions behind the picture, or as few as can be.
fn text_of(tokenizer: &Tokenizer, tokens: usize) -> String {
    let mut text = String::from("is");
    let length = |text: &str| after_image(tokenizer, &[Turn::ask(text)]).len();
    let words = ["it", "a", "no", "da", "be", "to", "me", "so", "we", "go"];
    for word in words.iter().cycle().take(2 * tokens) {
        let longer = format!("{text} {word}");
        if length(&longer) <= tokens {
            text = longer;
        }
    }
    text
}
