//! The one owner of model, KV cache and device.
//!
//! One thread runs a loop: take in questions and frames, let the scheduler choose, do one unit of
//! work. A picture is encoded once; captions, rules and questions fork its positions in the KV cache.
//! Each of them is a job; jobs share the passes of the language model.

mod handle;
mod request;
mod admission;
mod change;
mod control;
mod reload;
mod scheduler;
mod kind;
mod unit;
mod room;
mod gate;
mod sight;
mod scene;
mod draft;
mod job;
mod batch;
mod work;
mod camera;
mod pulse;
mod rule;
mod rules;
mod session;
mod question;
mod lost;
mod latency;
mod progress;

use std::sync::Arc;
use std::time::{Duration, Instant};

use kernels::Device;
use messages::{AlertEnd, Sampling, Timings};
use tokio::sync::mpsc;

use crate::camera::Wake;
use crate::model::constraint::Grammars;
use crate::model::kv_cache::Sequence;
use crate::model::kv_cache::prefix_tree::PrefixId;
use crate::model::pass::Pass;
use crate::model::preprocess::Preprocessor;
use crate::model::prompt::{Part, Prompt, Turn};
use crate::model::sampler::Sampler;
use crate::model::tokenizer::Tokenizer;
use crate::model::yes_no::YesNo;
use crate::model::{Input, MobileVlm};
use batch::Batch;
use camera::Camera;
use control::configured;
use draft::Answers;
use job::{Job, Outcome, Purpose};
use progress::millis;
use question::{Picture, Question, session_limits};
use rules::Rules;
use scene::{Encoding, Target};
use scheduler::{CameraView, JobView, PictureView, Share, Turns, Unit, View, WantView};
use session::Sessions;
use unit::Pace;

pub(crate) use admission::Admission;
pub use camera::CameraInput;
pub use change::{Change, ControlRequest, ControlSender, Reload, Reloaded, Settled};
pub use handle::{EngineError, EngineHandle, EngineOptions, EngineParts, ReadyEngine, prepare, spawn};
pub use kind::{Kind, UnitFigures, UnitTimes};
pub use progress::{CameraReport, Progress, Report, Waits};
pub use request::{Ask, AskSender, Event, Reply};

/// How long the engine sleeps at most when there is nothing to do: deadlines are looked at, and
/// the watchdog sees that it is alive.
const IDLE: Duration = Duration::from_millis(100);

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
    /// Pictures given up because others wanted their pages.
    scenes_evicted: u64,
    questions: Vec<Question>,
    questions_seen: u64,
    /// When a question ended last.
    last_end: Instant,
    rules: Rules,
    changes: mpsc::Receiver<ControlRequest>,
    /// Changes of captions so far.
    captions_revision: u64,
    /// The picture being encoded, and the pass that takes it into the cache.
    encoding: Option<Encoding>,
    encode_pass: Pass<D>,
    /// Everything that is being written, and the passes it shares.
    jobs: Vec<Job>,
    jobs_seen: u64,
    batches: [Batch<D>; 2],
    /// Jobs that came to their end in the unit under way, and how.
    ended: Vec<(u64, Outcome)>,
    /// Those that heard what follows, by index.
    heard: Vec<usize>,
    pace: Pace,
    turns: Turns,
    views: Views,
    sessions: Sessions<PrefixId, Picture>,
    /// As many as the status tells.
    sessions_shown: u32,
    /// What was answered to the latest questions.
    answers: Answers,
    /// Forms of answers, over the vocabulary.
    grammars: Arc<Grammars>,
    rgb: image::RgbImage,
    /// Since when pages that nobody takes grow cold.
    cold_since: Instant,
}

/// What the scheduler is shown and what it answers, kept for their room.
#[derive(Default)]
struct Views {
    jobs: Vec<JobView>,
    wants: Vec<WantView>,
    cameras: Vec<CameraView>,
    shares: Vec<Share>,
}

impl<D: Device> Engine<D> {
    fn new(
        parts: EngineParts<D>,
        (asks, changes): (mpsc::Receiver<Ask>, mpsc::Receiver<ControlRequest>),
        events: mpsc::Sender<Event>,
        progress: Arc<Progress>,
    ) -> Result<Self, EngineError> {
        let EngineParts { model, tokenizer, preprocessor, cameras, wake, options } = parts;
        let start = Instant::now();
        let camera = |input: CameraInput| {
            let captioning = configured(&input, &options.caption);
            Camera::new(input, captioning, start)
        };
        let cameras: Vec<Camera> = cameras.into_iter().map(camera).collect();
        progress.update(|report| {
            report.cameras = cameras.iter().map(|camera| CameraReport::new(&camera.input.name)).collect();
            report.cache.bytes = model.cache().bytes() as u64;
            report.cache.pages = model.cache().pages() as u32;
        });
        let changes_before = options.changes.clone();
        let mut engine = Self {
            encode_pass: model.pass()?,
            batches: [Batch::new(&model)?, Batch::new(&model)?],
            questions: Vec::with_capacity(options.question.queue),
            questions_seen: 0,
            scenes_evicted: 0,
            last_end: start,
            encoding: None,
            jobs: Vec::with_capacity(options.question.queue + cameras.len()),
            jobs_seen: 0,
            ended: Vec::new(),
            heard: Vec::new(),
            pace: Pace::default(),
            turns: Turns::default(),
            views: Views::default(),
            sessions: Sessions::new(session_limits(&options.question, model.cache().pages())),
            sessions_shown: 0,
            answers: Answers::default(),
            grammars: Arc::new(Grammars::new(&tokenizer)),
            system: Sequence::default(),
            rgb: image::RgbImage::new(0, 0),
            cold_since: start,
            rules: Rules::new(YesNo::new(&tokenizer)),
            changes,
            captions_revision: 0,
            model,
            tokenizer,
            preprocessor,
            options,
            wake,
            asks,
            events,
            progress,
            cameras,
        };
        engine.prompts_of(&engine.options.rules)?;
        for camera in &engine.cameras {
            engine.check_captioning(&camera.captioning).map_err(EngineError::Captions)?;
        }
        engine.take_up(changes_before)?;
        Ok(engine)
    }

    fn run(&mut self) -> Result<(), EngineError> {
        let result = self.warm_up();
        if result.is_ok() {
            self.progress.set_ready();
            while !self.progress.is_stopping() {
                let round = Instant::now();
                self.give_up_lost_cameras();
                self.admit_questions();
                self.drop_dead_questions();
                self.admit_changes();
                self.begin_rules();
                self.begin_captions();
                let start = Instant::now();
                self.end_alerts_of_gone_cameras(start);
                self.send_alerts();
                self.forget_cold_pages(start);
                let unit = self.choose(start);
                let chosen = Instant::now();
                let kind = self.work(unit);
                self.progress.round(chosen - round, kind.map(|kind| (kind, chosen.elapsed())));
                if kind.is_none() {
                    self.wake.wait_until(start + IDLE);
                }
            }
        }
        self.cancel_questions();
        self.end_alerts(AlertEnd::Stopping, |_| true);
        result
    }

    /// Computes the system prompt's positions and answers once on a grey picture, so that the
    /// first real frame finds everything in place.
    fn warm_up(&mut self) -> Result<(), EngineError> {
        let prompt = Prompt::new(&self.tokenizer, &[Turn::ask(&self.options.caption.prompt)], true);
        let (system, tail) = split(prompt);
        self.model.read_beginning(&mut self.encode_pass, &mut self.system, &system)?;
        let side = 64;
        let grey = image::RgbImage::from_pixel(side, side, image::Rgb([128; 3]));
        self.model.encode(self.preprocessor.pixels(&grey));
        let mut sequence = Sequence::default();
        self.model.fork(&self.system, &mut sequence);
        let (visual, start) = (self.model.visual_tokens(), Instant::now());
        self.model.forward(&mut self.encode_pass, &mut sequence, Input::Visual(0..visual))?;
        let (work, layer) =
            (self.model.pass_work(&self.encode_pass), start.elapsed() / self.model.layers() as u32);
        self.pace.see_layer(visual, work, layer);
        self.model.forward(&mut self.encode_pass, &mut sequence, Input::Tokens(&tail))?;
        let logits = self.model.logits(&self.encode_pass);
        let first = Sampler::new(Sampling::default()).sample(logits);
        tracing::debug!(token = first, "the model answered on a test picture");
        self.model.release(&mut sequence);
        Ok(())
    }

    /// Shows the scheduler how things are and takes its choice.
    fn choose(&mut self, now: Instant) -> Unit {
        let is_wanted = self.questions.iter().any(Question::wants_picture)
            || self.cameras.iter().any(|camera| camera.view(true, now).is_due);
        let has_room = is_wanted && self.has_room_for_picture();
        let encoding = self.encoding.as_ref();
        let Views { jobs, wants, cameras, shares } = &mut self.views;
        jobs.clear();
        jobs.extend(self.jobs.iter().map(Job::view));
        wants.clear();
        let waiting = self.questions.iter().enumerate().filter(|(_, question)| question.wants_picture());
        if has_room || encoding.is_some() {
            wants.extend(waiting.map(|(question, q)| WantView { question, deadline: q.deadline }));
        }
        cameras.clear();
        for (index, camera) in self.cameras.iter().enumerate() {
            let is_busy = encoding.is_some_and(|encoding| encoding.target == Target::Camera(index))
                || self.jobs.iter().any(|job| job.purpose == Purpose::Caption { camera: index });
            cameras.push(camera.view(has_room && !is_busy, now));
        }
        let picture = encoding.map(|encoding| PictureView { owed_at: encoding.owed_at() });
        let view = View { now, jobs, wants, cameras, picture, turns: self.turns };
        let (unit, turns) = scheduler::next(&view);
        if let Unit::Begin(lane) = unit {
            let deepest = self.jobs.iter().map(Job::positions).max().unwrap_or(0);
            let room = Batch::<D>::room(self.pace, self.model.row_work(deepest));
            scheduler::share(&view, lane, room, shares);
        }
        self.turns = turns;
        unit
    }

    /// Does a unit of work; returns its kind. There is none while waiting.
    fn work(&mut self, unit: Unit) -> Option<Kind> {
        Some(match unit {
            Unit::Begin(lane) => self.begin_batch(lane),
            Unit::Continue(lane) => self.step_batch(lane),
            Unit::Encode => self.step_encoding(),
            Unit::PictureFor(question) => {
                self.begin_picture_for(question);
                Kind::Picture
            }
            Unit::Describe(camera) => {
                self.describe(camera);
                Kind::Picture
            }
            Unit::Wait => return None,
        })
    }

    /// Gives everything up and returns the model, whose cache is empty again.
    fn into_model(mut self) -> MobileVlm<D> {
        for batch in &mut self.batches {
            batch.clear(&self.model);
        }
        for mut job in std::mem::take(&mut self.jobs) {
            job.leave(&mut self.model, Instant::now());
            job.release(&mut self.model);
        }
        let encoding = self.encoding.take().map(Encoding::into_scene);
        let scenes = self.cameras.iter_mut().filter_map(|camera| camera.scene.take());
        for mut scene in scenes.chain(encoding) {
            self.model.release(&mut scene.sequence);
        }
        self.model.forget_all();
        self.model.release(&mut self.system);
        debug_assert_eq!(self.model.cache().pages_used(), 0, "all pages came back");
        self.model
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
