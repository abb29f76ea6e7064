//! The engine on the test scene, and what it says beside what is really there: no bus and no files
//! needed, so that a person sees that it sees.
//!
//! Frames are given to the engine one at a time, so that each one gets its caption.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use image::RgbImage;
use kernels::pixels::Color;
use messages::{AnswerPiece, AskError, Caption, FrameChoice, Question};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use crate::camera::world::{Exchange, Scene, Style, UNSEEN, World, exchanges};
use crate::camera::{Frame, FrameError, Latest, PixelFormat, Wake};
use crate::config::Config;
use crate::engine::{Ask, CameraInput, EngineHandle, Event};
use crate::service::{self, ServiceError};
use crate::wall_clock;

mod blocks;
mod show;

pub use show::{Folder, Lines, Screen, Show};

/// Name of the only camera.
const CAMERA: &str = "test";

/// Size of the frames, that of the test camera.
const WIDTH: u32 = 640;
const HEIGHT: u32 = 480;

/// Frames from one question to the next.
const ASK_EVERY: u64 = 3;

/// Seconds of the world from one still to the next where nobody watches it move.
const STILL_STEP: f64 = 3.0;

/// How often it is looked whether there is something new.
const LOOK: Duration = Duration::from_millis(2);

/// How the scene passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passing {
    /// As time does, with at least this long from frame to frame: a person watches.
    Live(Duration),
    /// From one moment of rest to the next, as fast as the machine can.
    Stills,
}

/// What a demonstration shows.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The world.
    pub seed: u64,
    /// Frames after which it ends; `None` goes on until it is stopped.
    pub frames: Option<u64>,
    /// How the scene passes.
    pub passing: Passing,
}

/// A described frame.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What the model saw.
    pub picture: RgbImage,
    /// What it says.
    pub caption: Caption,
    /// What is there; `None` while things change, when more than one answer is right.
    pub truth: Option<String>,
    /// A question about the frame.
    pub asked: Option<Asked>,
}

/// A question and its answers.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The question.
    pub question: String,
    /// What the model says.
    pub answer: String,
    /// What is true.
    pub truth: String,
}

/// Why a demonstration ends early.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The engine cannot start.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The engine ended.
    #[error("the engine ended: run with MOBILEVLMD_LOG=info to see why")]
    EngineEnded,
    /// The model failed on a frame.
    #[error("frame {0} was not described: run with MOBILEVLMD_LOG=warn to see why")]
    NotDescribed(u64),
    /// A question was refused.
    #[error("a question was not answered: {0}")]
    Ask(#[from] AskError),
    /// A frame cannot be shown.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The screen or a file cannot be written.
    #[error(transparent)]
    Show(#[from] io::Error),
}

/// Shows the test scene and what the model of `config` says of it.
pub fn run(config: &Config, options: &Options, show: &mut dyn Show) -> Result<(), DemoError> {
    let wake = Wake::default();
    let latest = Arc::new(Latest::new(wake.clone()));
    let max_age = Duration::from_secs(3600);
    let input = CameraInput { name: CAMERA.into(), latest: latest.clone(), max_age, describe: true };
    let mut config = config.clone();
    // Every frame that is shown gets its caption, and nothing else is asked.
    (config.caption.change_threshold, config.caption.period_s) = (0.0, 0.0);
    config.rules.clear();
    let style = Style::of_prompt(&config.caption.prompt).unwrap_or(Style::Sentence);
    let (engine, events, _) = service::start_engine(&config, vec![input], wake)?;
    let mut stage =
        Stage { world: World::new(UNSEEN.wrapping_add(options.seed)), engine, events, latest, style };
    let result = stage.play(options, show);
    stage.engine.stop().map_err(ServiceError::from)?;
    result
}

/// The world in front of the engine.
struct Stage {
    world: World,
    engine: EngineHandle,
    events: mpsc::Receiver<Event>,
    latest: Arc<Latest<Frame>>,
    style: Style,
}

impl Stage {
    fn play(&mut self, options: &Options, show: &mut dyn Show) -> Result<(), DemoError> {
        let start = Instant::now();
        let mut seconds = 0.0;
        for number in 0..options.frames.unwrap_or(u64::MAX) {
            let frame_start = Instant::now();
            seconds = match options.passing {
                Passing::Live(_) => start.elapsed().as_secs_f64(),
                Passing::Stills => self.world.next_rest(seconds + STILL_STEP),
            };
            let seen = self.see(number, &self.world.at(seconds), show)?;
            show.seen(number, &seen)?;
            if let Passing::Live(least) = options.passing {
                std::thread::sleep(least.saturating_sub(frame_start.elapsed()));
            }
        }
        Ok(())
    }

    /// Shows a scene to the engine and waits for its caption.
    fn see(&mut self, number: u64, scene: &Scene, show: &mut dyn Show) -> Result<Seen, DemoError> {
        let frame = frame(number, scene);
        let picture = frame.rgb()?;
        let failures = self.failures();
        self.latest.put(frame);
        show.picture(&picture)?;
        let caption = loop {
            match self.events.try_recv() {
                Ok(Event::Caption(caption, _)) if caption.frame.sequence == number => break *caption,
                Ok(Event::Piece(piece)) => show.piece(&piece.text)?,
                Ok(_) => {}
                Err(TryRecvError::Disconnected) => return Err(DemoError::EngineEnded),
                Err(TryRecvError::Empty) if self.failures() > failures => {
                    return Err(DemoError::NotDescribed(number));
                }
                Err(TryRecvError::Empty) => std::thread::sleep(LOOK),
            }
        };
        let is_clear = scene.is_clear();
        let asked = match is_clear && number % ASK_EVERY == ASK_EVERY - 1 {
            true => self.ask(number, scene)?,
            false => None,
        };
        Ok(Seen { picture, caption, truth: is_clear.then(|| scene.caption(self.style)), asked })
    }

    /// Frames so far that got no caption.
    fn failures(&self) -> u64 {
        let report = self.engine.progress().report();
        report.cameras.iter().map(|camera| camera.failed + camera.damaged + camera.too_old).sum()
    }

    /// Asks something that has an answer.
    fn ask(&self, number: u64, scene: &Scene) -> Result<Option<Asked>, DemoError> {
        let mut exchanges = exchanges(scene, number);
        if exchanges.is_empty() {
            return Ok(None);
        }
        let chosen = number as usize % exchanges.len();
        let Exchange { question, answer: truth, .. } = exchanges.swap_remove(chosen);
        let (reply, mut pieces) = mpsc::channel(64);
        let asked = Question { frame: FrameChoice::Sequence(number), ..Question::new(&question) };
        self.engine.asks().send(Ask {
            camera: CAMERA.into(),
            question: asked,
            arrived: Instant::now(),
            reply,
        })?;
        loop {
            match pieces.blocking_recv().ok_or(DemoError::EngineEnded)? {
                AnswerPiece::Text { .. } => {}
                AnswerPiece::Final(answer) => {
                    return Ok(Some(Asked { question, answer: answer.text, truth }));
                }
                AnswerPiece::Error(error) => return Err(error.into()),
            }
        }
    }
}

/// A scene as the test camera delivers it.
fn frame(sequence: u64, scene: &Scene) -> Frame {
    Frame {
        sequence,
        captured_at: wall_clock::now(),
        captured: Instant::now(),
        width: WIDTH,
        height: HEIGHT,
        stride: 3 * WIDTH,
        format: PixelFormat::Rgb24,
        color: Color::default(),
        bytes: scene.render(WIDTH, HEIGHT).into_raw(),
    }
}
