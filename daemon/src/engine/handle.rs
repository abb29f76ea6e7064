//! The engine as the rest of the daemon holds it: its parts, its start and its end.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use kernels::cuda::DeviceLost;
use kernels::{Device, DeviceError};
use messages::{AskError, Rule};
use tokio::sync::mpsc;

use super::Engine;
use super::camera::CameraInput;
use super::change::ControlSender;
use super::progress::Progress;
use super::request::{AskSender, Event};
use crate::camera::Wake;
use crate::changes::Changes;
use crate::config::{CaptionConfig, QuestionConfig};
use crate::model::preprocess::Preprocessor;
use crate::model::tokenizer::Tokenizer;
use crate::model::{MobileVlm, PassError};

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
    /// What the configuration watches for.
    pub rules: Vec<Rule>,
    /// What was changed of captions and rules before this start.
    pub changes: Changes,
    /// For measurements: what every caption is foretold to be.
    pub foretold: Option<Vec<u32>>,
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
    /// The rules cannot be evaluated.
    #[error("rules: {0}")]
    Rules(#[from] AskError),
    /// The device no longer answers.
    #[error(transparent)]
    Lost(#[from] DeviceLost),
    /// The prompt or the longest caption does not fit the model.
    #[error("captions: {0}")]
    Captions(AskError),
    /// No thread.
    #[error("the engine thread cannot start: {0}")]
    Thread(#[from] std::io::Error),
}

/// The running engine. Dropping it stops the thread and waits for its end.
pub struct EngineHandle {
    asks: AskSender,
    control: ControlSender,
    progress: Arc<Progress>,
    wake: Wake,
    thread: Option<JoinHandle<Result<(), EngineError>>>,
}

impl EngineHandle {
    /// The way in for questions.
    pub fn asks(&self) -> AskSender {
        self.asks.clone()
    }

    /// The way in for changes.
    pub fn control(&self) -> ControlSender {
        self.control.clone()
    }

    /// What the engine tells of itself.
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// Whether the thread has ended, which it does by itself only on an error.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Asks the engine to stop, and does not wait for it.
    pub fn ask_to_stop(&self) {
        self.progress.ask_to_stop();
        self.wake.ring();
    }

    /// Stops the engine: open questions are cancelled, the unit under way is finished.
    pub fn stop(mut self) -> Result<(), EngineError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), EngineError> {
        self.ask_to_stop();
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => match DeviceLost::of(&*panic) {
                Some(lost) => Err(lost.clone().into()),
                None => std::panic::resume_unwind(panic),
            },
            None => Ok(()),
        }
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        if thread::panicking() {
            self.ask_to_stop();
        } else if let Err(error) = self.join() {
            tracing::error!(%error, "the engine ended with an error");
        }
    }
}

/// Starts the engine thread. Returns its handle and what it publishes.
pub fn spawn<D: Device + 'static>(
    parts: EngineParts<D>,
) -> Result<(EngineHandle, mpsc::Receiver<Event>), EngineError> {
    let (engine, mut handle, receiver) = prepare(parts)?;
    let run = || {
        engine.0.model.device().enter();
        engine.run().1
    };
    handle.thread = Some(thread::Builder::new().name("engine".into()).spawn(run)?);
    Ok((handle, receiver))
}

/// An engine for a thread of the caller's, with its handle and what it publishes.
pub fn prepare<D: Device>(
    parts: EngineParts<D>,
) -> Result<(ReadyEngine<D>, EngineHandle, mpsc::Receiver<Event>), EngineError> {
    let wake = parts.wake.clone();
    let (asks, questions) = AskSender::channel(parts.options.question.queue, wake.clone());
    let (events, receiver) = mpsc::channel(EVENTS);
    let progress = Arc::new(Progress::new(asks.admission()));
    let (control, changes) = ControlSender::channel(wake.clone());
    let engine = Engine::new(parts, (questions, changes), events, progress.clone())?;
    Ok((ReadyEngine(engine), EngineHandle { asks, control, progress, wake, thread: None }, receiver))
}

/// An engine that waits for a thread.
pub struct ReadyEngine<D: Device>(Engine<D>);

impl<D: Device> ReadyEngine<D> {
    /// Runs until the handle asks to stop. Returns the model, whose cache is empty again, and what
    /// ended the engine if it ended by itself.
    pub fn run(mut self) -> (MobileVlm<D>, Result<(), EngineError>) {
        let result = self.0.run();
        (self.0.into_model(), result)
    }
}
