//! The one owner of model, KV cache and device.
//!
//! One thread runs a loop: take in questions and frames, let the scheduler choose, do one unit of
//! work. A picture is encoded once; captions and questions fork its positions in the KV cache.

mod request;
mod scheduler;
mod scene;
mod job;
mod camera;
mod question;
mod progress;

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kernels::{Device, DeviceError};
use messages::{Sampling, Timings};
use tokio::sync::mpsc;

use crate::camera::Wake;
use crate::config::{CaptionConfig, QuestionConfig};
use crate::model::kv_cache::Sequence;
use crate::model::pass::Pass;
use crate::model::preprocess::Preprocessor;
use crate::model::prompt::{Part, Prompt, Turn};
use crate::model::sampler::Sampler;
use crate::model::speech::Speech;
use crate::model::tokenizer::Tokenizer;
use crate::model::{Input, MobileVlm, PassError};
use camera::Camera;
use job::{Job, Plan};
use progress::millis;
use question::Question;
use scene::{Encoding, Scene, Target};
use scheduler::{CameraView, Choice, QuestionView};

pub use camera::CameraInput;
pub use progress::{CameraReport, Progress, Report};
pub use request::{Ask, AskSender, Event, Reply};

/// How long the engine sleeps at most when there is nothing to do: deadlines are looked at, and
/// the watchdog sees that it is alive.
const IDLE: Duration = Duration::from_millis(100);

/// Events that may wait for the bus.
const EVENTS: usize = 256;

/// What the engine is told at start.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Identity carried by every result.
    pub model_id: String,
    /// What is asked of every frame.
    pub caption: CaptionConfig,
    /// Defaults and limits of questions.
    pub question: QuestionConfig,
}

/// The parts the engine takes over.
pub struct EngineParts<D: Device> {
    /// The model with its device and KV cache.
    pub model: MobileVlm<D>,
    /// Text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// Pictures to tensors.
    pub preprocessor: Preprocessor,
    /// Sources of frames.
    pub cameras: Vec<CameraInput>,
    /// Rung when a frame or a question arrives.
    pub wake: Wake,
    /// Prompts and limits.
    pub options: EngineOptions,
}

/// Why the engine cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The device is out of memory.
    #[error("engine scratch: {0}")]
    Device(#[from] DeviceError),
    /// The cache is too small even for one picture.
    #[error("first picture: {0}")]
    Pass(#[from] PassError),
    /// No thread.
    #[error("the engine thread cannot start: {0}")]
    Thread(#[from] std::io::Error),
}

/// The running engine. Dropping it stops the thread and waits for its end.
pub struct EngineHandle {
    asks: AskSender,
    progress: Arc<Progress>,
    wake: Wake,
    thread: Option<JoinHandle<Result<(), EngineError>>>,
}

impl EngineHandle {
    /// The way in for questions.
    pub fn asks(&self) -> AskSender {
        self.asks.clone()
    }

    /// What the engine tells of itself.
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// Whether the thread has ended, which it does by itself only on an error.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops the engine: open questions are cancelled, the unit under way is finished.
    pub fn stop(mut self) -> Result<(), EngineError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), EngineError> {
        self.progress.ask_to_stop();
        self.wake.ring();
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        if thread::panicking() {
            self.progress.ask_to_stop();
            self.wake.ring();
        } else if let Err(error) = self.join() {
            tracing::error!(%error, "the engine ended with an error");
        }
    }
}

/// Starts the engine thread. Returns its handle and what it publishes.
pub fn spawn<D: Device + 'static>(
    parts: EngineParts<D>,
) -> Result<(EngineHandle, mpsc::Receiver<Event>), EngineError>
where
    D::Tensor: 'static,
    D::Matrix: 'static,
    D::Kv: 'static,
{
    let wake = parts.wake.clone();
    let (asks, questions) = AskSender::channel(parts.options.question.queue, wake.clone());
    let (events, receiver) = mpsc::channel(EVENTS);
    let progress = Arc::new(Progress::default());
    let mut engine = Engine::new(parts, questions, events, progress.clone())?;
    let thread = thread::Builder::new().name("engine".into()).spawn(move || engine.run())?;
    Ok((EngineHandle { asks, progress, wake, thread: Some(thread) }, receiver))
}

/// Everything the engine thread owns.
struct Engine<D: Device> {
    model: MobileVlm<D>,
    tokenizer: Arc<Tokenizer>,
    preprocessor: Preprocessor,
    options: EngineOptions,
    wake: Wake,
    asks: mpsc::Receiver<Ask>,
    events: mpsc::Sender<Event>,
    progress: Arc<Progress>,
    /// The positions every conversation begins with.
    system: Sequence,
    cameras: Vec<Camera>,
    questions: Vec<Question>,
    questions_seen: u64,
    encoding: Option<Encoding>,
    /// What the scheduler is shown, kept for its room.
    views: (Vec<QuestionView>, Vec<CameraView>),
    /// One pass for each kind of work, so that each can wait between two layers.
    encode_pass: Pass<D>,
    question_pass: Pass<D>,
    caption_pass: Pass<D>,
    rgb: image::RgbImage,
}

impl<D: Device> Engine<D> {
    fn new(
        parts: EngineParts<D>,
        asks: mpsc::Receiver<Ask>,
        events: mpsc::Sender<Event>,
        progress: Arc<Progress>,
    ) -> Result<Self, EngineError> {
        let EngineParts { model, tokenizer, preprocessor, cameras, wake, options } = parts;
        let cameras: Vec<Camera> = cameras.into_iter().map(Camera::new).collect();
        progress.update(|report| {
            report.cameras = vec![CameraReport::default(); cameras.len()];
            report.cache.bytes = model.cache().bytes() as u64;
            report.cache.pages = model.cache().pages() as u32;
        });
        Ok(Self {
            encode_pass: model.pass()?,
            question_pass: model.pass()?,
            caption_pass: model.pass()?,
            questions: Vec::with_capacity(options.question.queue),
            questions_seen: 0,
            encoding: None,
            views: (Vec::with_capacity(options.question.queue), Vec::with_capacity(cameras.len())),
            system: Sequence::default(),
            rgb: image::RgbImage::new(0, 0),
            model,
            tokenizer,
            preprocessor,
            options,
            wake,
            asks,
            events,
            progress,
            cameras,
        })
    }

    fn run(&mut self) -> Result<(), EngineError> {
        let result = self.warm_up();
        if result.is_ok() {
            self.progress.set_ready();
            while !self.progress.is_stopping() {
                self.admit_questions();
                self.drop_dead_questions();
                self.begin_captions();
                let start = Instant::now();
                match self.choose() {
                    Choice::Wait => {
                        self.progress.tick();
                        self.wake.wait_until(start + IDLE);
                    }
                    choice => {
                        self.work(choice);
                        self.progress.unit(start.elapsed());
                    }
                }
            }
        }
        self.cancel_questions();
        result
    }

    /// Computes the system prompt's positions and answers once on a grey picture, so that the
    /// first real frame finds everything in place.
    fn warm_up(&mut self) -> Result<(), EngineError> {
        let prompt = Prompt::new(&self.tokenizer, &[Turn::ask(&self.options.caption.prompt)], true);
        let (system, tail) = split(prompt);
        self.model.forward(&mut self.encode_pass, &mut self.system, Input::Tokens(&system))?;
        let side = 64;
        let grey = image::RgbImage::from_pixel(side, side, image::Rgb([128; 3]));
        self.model.encode(self.preprocessor.pixels(&grey));
        let mut sequence = Sequence::default();
        self.model.fork(&self.system, &mut sequence);
        let visual = 0..self.model.visual_tokens();
        self.model.forward(&mut self.encode_pass, &mut sequence, Input::Visual(visual))?;
        self.model.forward(&mut self.encode_pass, &mut sequence, Input::Tokens(&tail))?;
        let logits = self.model.logits(&self.encode_pass);
        let first = Sampler::new(Sampling::default()).sample(logits);
        tracing::debug!(token = first, "the model answered on a test picture");
        self.model.release(&mut sequence);
        Ok(())
    }

    fn choose(&mut self) -> Choice {
        let now = Instant::now();
        let encoding = self.encoding.as_ref().map(|encoding| encoding.target);
        let period = Duration::try_from_secs_f64(self.options.caption.period_s).unwrap_or_default();
        let (questions, cameras) = &mut self.views;
        questions.clear();
        questions.extend(self.questions.iter().enumerate().map(|(i, question)| question.view(i)));
        cameras.clear();
        cameras.extend(self.cameras.iter().enumerate().map(|(i, c)| c.view(i, encoding, period, now)));
        scheduler::next(questions, cameras, encoding.is_some())
    }

    fn work(&mut self, choice: Choice) {
        match choice {
            Choice::Question(index) => self.step_question(index),
            Choice::PictureFor(index) => self.begin_picture_for(index),
            Choice::Encode => self.step_encoding(),
            Choice::Caption(camera) => self.step_caption(camera),
            Choice::Describe(camera) => self.describe(camera),
            Choice::Wait => {}
        }
    }

    /// Begins to encode what is in `self.rgb`.
    fn begin_encoding(&mut self, target: Target, mut scene: Scene, start: Instant) {
        self.model.fork(&self.system, &mut scene.sequence);
        let pixels = self.preprocessor.pixels(&self.rgb);
        scene.timings.preprocess_ms = millis(start.elapsed());
        self.encoding = Some(Encoding::begin(&mut self.model, target, scene, pixels));
    }

    fn step_encoding(&mut self) {
        let Some(encoding) = &mut self.encoding else { return };
        let step = encoding.step(&mut self.model, &mut self.encode_pass);
        if matches!(step, Ok(false)) {
            return;
        }
        let Some(encoding) = self.encoding.take() else { return };
        let target = encoding.target;
        let mut scene = encoding.into_scene();
        if let Err(error) = step {
            self.model.release(&mut scene.sequence);
            self.fail_encoding(target, error);
            return;
        }
        let computed = self.model.visual_tokens() as u64;
        self.progress.update(|report| {
            report.engine.images += 1;
            report.engine.encode_ms = scene.timings.encode_ms;
            report.cache.positions_computed += computed;
        });
        match target {
            Target::Camera(camera) => self.keep_scene(camera, scene),
            Target::Question(number) => self.give_picture(number, scene),
        }
    }

    /// A job on a picture in the cache, or why the prompt does not fit.
    fn plan(&mut self, scene: &Scene, prompt: Prompt, max_tokens: u32) -> Result<Plan, PassError> {
        let (_, tail) = split(prompt);
        let context = self.model.context();
        let room = context.saturating_sub(scene.sequence.len() + tail.len());
        if room == 0 {
            return Err(PassError::ContextFull { wanted: scene.sequence.len() + tail.len() + 1, context });
        }
        let mut sequence = Sequence::default();
        self.model.fork(&scene.sequence, &mut sequence);
        Ok(Plan {
            stamp: scene.stamp.clone(),
            captured: scene.captured,
            timings: scene.timings,
            sequence,
            tail,
            sampler: Sampler::new(Sampling::default()),
            speech: Speech::new(&self.tokenizer, &[]),
            max_tokens: max_tokens.min(room as u32).max(1),
        })
    }

    /// Counts a finished job and gives its pages back.
    fn close(&mut self, job: Job) {
        let (tokens, timings) = (job.tokens, job.timings);
        job.release(&mut self.model);
        let pages_used = self.model.cache().pages_used() as u32;
        let per_second = |tokens: u32, ms: f32| if ms > 0.0 { tokens as f32 * 1000.0 / ms } else { 0.0 };
        self.progress.update(|report| {
            let computed = tokens.prompt - tokens.cached;
            report.cache.pages_used = pages_used;
            report.cache.positions_reused += u64::from(tokens.cached);
            report.cache.positions_computed += u64::from(computed + tokens.generated);
            report.engine.prefill_tokens_per_second = per_second(computed, timings.prefill_ms);
            report.engine.decode_tokens_per_second = per_second(tokens.generated, timings.decode_ms);
        });
    }
}

/// The tokens before and after the picture.
fn split(prompt: Prompt) -> (Vec<u32>, Vec<u32>) {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut side = &mut before;
    for part in prompt.parts {
        match part {
            Part::Tokens(ids) => side.extend(ids),
            Part::Image => side = &mut after,
        }
    }
    (before, after)
}

/// Timings of work on a cached picture: what was spent on the picture is not spent again.
fn reused(queue: Duration) -> Timings {
    Timings { queue_ms: millis(queue), ..Timings::default() }
}
