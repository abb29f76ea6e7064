//! The one owner of model, KV cache and device.
//!
//! One thread runs a loop: take in questions and frames, let the scheduler choose, do one unit of
//! work. A picture is encoded once; captions, rules and questions fork its positions in the KV cache.
//! Each of them is a [`Job`]; jobs share the passes of the language model.

mod request;
mod admission;
mod change;
mod scheduler;
mod gate;
mod sight;
mod scene;
mod draft;
mod job;
mod batch;
mod camera;
mod pulse;
mod rule;
mod rules;
mod session;
mod question;
mod latency;
mod progress;

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kernels::{Device, DeviceError, PAGE};
use messages::{AlertEnd, AskError, Rule, Sampling, Timings};
use tokio::sync::mpsc;

use crate::camera::Wake;
use crate::config::{CaptionConfig, QuestionConfig};
use crate::model::constraint::Grammars;
use crate::model::kv_cache::Sequence;
use crate::model::kv_cache::prefix_tree::PrefixId;
use crate::model::pass::Pass;
use crate::model::preprocess::Preprocessor;
use crate::model::prompt::{Part, Prompt, Turn};
use crate::model::sampler::Sampler;
use crate::model::tokenizer::Tokenizer;
use crate::model::yes_no::YesNo;
use crate::model::{Input, MobileVlm, PassError};
use batch::Batch;
use camera::Camera;
use draft::Answers;
use job::{Job, Outcome, Plan, Purpose};
use progress::millis;
use question::{Picture, Question, ask_error, constraint_error, session_limits};
use rules::{Answer, Rules};
use scene::{Encoding, Scene, Target};
use scheduler::{CameraView, JobView, Lane, PictureView, Share, Turns, Unit, View, WantView};
use session::Sessions;

pub use camera::CameraInput;
pub use change::{RuleRequest, RuleSender};
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
    /// What is watched for, until it is changed.
    pub rules: Vec<Rule>,
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
    /// No thread.
    #[error("the engine thread cannot start: {0}")]
    Thread(#[from] std::io::Error),
}

/// The running engine. Dropping it stops the thread and waits for its end.
pub struct EngineHandle {
    asks: AskSender,
    rules: RuleSender,
    progress: Arc<Progress>,
    wake: Wake,
    thread: Option<JoinHandle<Result<(), EngineError>>>,
}

impl EngineHandle {
    /// The way in for questions.
    pub fn asks(&self) -> AskSender {
        self.asks.clone()
    }

    /// The way in for changes of the rules.
    pub fn rules(&self) -> RuleSender {
        self.rules.clone()
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
    let progress = Arc::new(Progress::new(asks.admission()));
    let (rules, changes) = RuleSender::channel(wake.clone());
    let mut engine = Engine::new(parts, (questions, changes), events, progress.clone())?;
    let thread = thread::Builder::new().name("engine".into()).spawn(move || engine.run())?;
    Ok((EngineHandle { asks, rules, progress, wake, thread: Some(thread) }, receiver))
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
    /// When a question ended last.
    last_end: Instant,
    rules: Rules,
    /// The picture being encoded, and the pass that takes it into the cache.
    encoding: Option<Encoding>,
    encode_pass: Pass<D>,
    /// Everything that is being written, and the passes it shares.
    jobs: Vec<Job>,
    jobs_seen: u64,
    batches: [Batch<D>; 2],
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
        (asks, changes): (mpsc::Receiver<Ask>, mpsc::Receiver<RuleRequest>),
        events: mpsc::Sender<Event>,
        progress: Arc<Progress>,
    ) -> Result<Self, EngineError> {
        let EngineParts { model, tokenizer, preprocessor, cameras, wake, mut options } = parts;
        let start = Instant::now();
        let cameras: Vec<Camera> = cameras.into_iter().map(|input| Camera::new(input, start)).collect();
        progress.update(|report| {
            report.cameras = vec![CameraReport::default(); cameras.len()];
            report.cache.bytes = model.cache().bytes() as u64;
            report.cache.pages = model.cache().pages() as u32;
        });
        let rules = std::mem::take(&mut options.rules);
        let mut engine = Self {
            encode_pass: model.pass()?,
            batches: [Batch::new(&model)?, Batch::new(&model)?],
            questions: Vec::with_capacity(options.question.queue),
            questions_seen: 0,
            last_end: start,
            encoding: None,
            jobs: Vec::with_capacity(options.question.queue + cameras.len()),
            jobs_seen: 0,
            turns: Turns::default(),
            views: Views::default(),
            sessions: Sessions::new(session_limits(&options.question, model.cache().pages())),
            sessions_shown: 0,
            answers: Answers::default(),
            grammars: Arc::new(Grammars::new(&tokenizer)),
            system: Sequence::default(),
            rgb: image::RgbImage::new(0, 0),
            rules: Rules::new(YesNo::new(&tokenizer), changes),
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
        engine.set_rules(rules)?;
        Ok(engine)
    }

    fn run(&mut self) -> Result<(), EngineError> {
        let result = self.warm_up();
        if result.is_ok() {
            self.progress.set_ready();
            while !self.progress.is_stopping() {
                self.admit_questions();
                self.drop_dead_questions();
                self.admit_rule_changes();
                self.begin_rules();
                self.begin_captions();
                let start = Instant::now();
                self.end_alerts_of_gone_cameras(start);
                self.send_alerts();
                match self.choose(start) {
                    Unit::Wait => {
                        self.progress.tick();
                        self.wake.wait_until(start + IDLE);
                    }
                    unit => {
                        self.work(unit);
                        self.progress.unit(start.elapsed());
                    }
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
        let visual = 0..self.model.visual_tokens();
        self.model.forward(&mut self.encode_pass, &mut sequence, Input::Visual(visual))?;
        self.model.forward(&mut self.encode_pass, &mut sequence, Input::Tokens(&tail))?;
        let logits = self.model.logits(&self.encode_pass);
        let first = Sampler::new(Sampling::default()).sample(logits);
        tracing::debug!(token = first, "the model answered on a test picture");
        self.model.release(&mut sequence);
        Ok(())
    }

    /// Shows the scheduler how things are and takes its choice.
    fn choose(&mut self, now: Instant) -> Unit {
        let has_room = self.has_room_for_picture();
        let period = Duration::try_from_secs_f64(self.options.caption.period_s).unwrap_or_default();
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
            cameras.push(camera.view(has_room && !is_busy, period, now));
        }
        let picture = encoding.map(|encoding| PictureView { owed_at: encoding.owed_at() });
        let view = View { now, jobs, wants, cameras, picture, turns: self.turns };
        let (unit, turns) = scheduler::next(&view);
        if let Unit::Begin(lane) = unit {
            scheduler::share(&view, lane, Batch::<D>::ROOM, shares);
        }
        self.turns = turns;
        unit
    }

    fn work(&mut self, unit: Unit) {
        match unit {
            Unit::Begin(lane) => self.begin_batch(lane),
            Unit::Continue(lane) => self.step_batch(lane),
            Unit::Encode => self.step_encoding(),
            Unit::PictureFor(question) => self.begin_picture_for(question),
            Unit::Describe(camera) => self.describe(camera),
            Unit::Wait => {}
        }
    }

    /// Begins a pass with those whom the scheduler named, and does its first unit.
    fn begin_batch(&mut self, lane: Lane) {
        let batch = &mut self.batches[lane as usize];
        batch.clear(&self.model);
        let mut failed = None;
        for share in &self.views.shares {
            let job = &mut self.jobs[share.job];
            match batch.board(&mut self.model, job, share) {
                Ok(()) => job.lane = Some(lane),
                Err(error) => failed = Some((job.id, error)),
            }
        }
        match failed {
            // Pages were set aside, so this is the exception; whoever is left goes on next round.
            Some((job, error)) => self.fail_job(job, error),
            None => self.step_batch(lane),
        }
    }

    /// Does one unit of a pass. When the pass is over, everybody in it gets its next tokens.
    fn step_batch(&mut self, lane: Lane) {
        let start = Instant::now();
        let batch = &mut self.batches[lane as usize];
        let is_over = batch.step(&mut self.model);
        let mut ended = Vec::new();
        if is_over {
            let (members, mut logits) = batch.finish(&mut self.model);
            for member in members {
                let Some(job) = self.jobs.iter_mut().find(|job| job.id == member.job) else { continue };
                match &mut logits {
                    Some(logits) if member.is_sampled => {
                        ended.extend(job.hear(&member.share, logits, member.first).map(|how| (job.id, how)));
                    }
                    _ => job.advance(member.share.rows),
                }
            }
        }
        let now = Instant::now();
        for job in self.jobs.iter_mut().filter(|job| job.lane == Some(lane)) {
            job.spend(now - start);
            if is_over {
                job.leave(&mut self.model, now);
            }
        }
        if is_over {
            self.end_pass(lane, now - start);
            self.speak();
            for (job, outcome) in ended {
                self.conclude(job, outcome);
            }
        }
    }

    /// Counts a finished pass, whose last unit took `last`, and takes everybody out.
    fn end_pass(&mut self, lane: Lane, last: Duration) {
        let batch = &mut self.batches[lane as usize];
        let (rows, time, is_long) = (batch.rows() as u64, batch.spent() + last, batch.is_long());
        batch.clear(&self.model);
        self.progress.update(|report| {
            report.engine.passes += 1;
            report.engine.rows += rows;
        });
        self.progress.time(|stages| {
            if is_long { &mut stages.prefill } else { &mut stages.decode }.add(time);
        });
    }

    /// Hands out new text.
    fn speak(&mut self) {
        for index in 0..self.jobs.len() {
            match self.jobs[index].purpose {
                Purpose::Question(number) => self.send_answer_piece(index, number),
                Purpose::Caption { .. } => self.send_caption_piece(index),
                Purpose::Rule { .. } => {}
            }
        }
    }

    /// A job came to its end: its pages go back, then its result goes where it belongs.
    fn conclude(&mut self, job: u64, outcome: Outcome) {
        let Some(mut job) = self.take_job(job) else { return };
        match (job.purpose, outcome) {
            (Purpose::Question(number), Outcome::Text { truncated }) => {
                self.learn_answer(number, &job);
                self.keep_turn(number, &mut job);
                let answer = self.answer(number, &job, truncated);
                self.close(job);
                self.end_question(number, Ok(answer));
            }
            (Purpose::Question(number), Outcome::Formless(error)) => {
                self.close(job);
                self.end_question(number, Err(constraint_error(&error)));
            }
            (Purpose::Caption { camera }, Outcome::Text { truncated }) => {
                self.learn_caption(camera, &job);
                let (caption, captured) = (self.caption(camera, &job, truncated), job.captured);
                self.close(job);
                self.publish_caption(camera, caption, captured);
            }
            (Purpose::Rule { camera, rule }, Outcome::Verdict(verdict)) => {
                let answer = Answer::new(verdict, &job);
                self.close(job);
                self.judge(camera, rule, answer);
            }
            (purpose, outcome) => {
                tracing::debug!(?purpose, ?outcome, "nobody waits for this");
                self.close(job);
            }
        }
    }

    /// A job cannot go on.
    fn fail_job(&mut self, job: u64, error: PassError) {
        let Some(job) = self.take_job(job) else { return };
        let purpose = job.purpose;
        self.close(job);
        match purpose {
            Purpose::Question(number) => {
                self.end_question(number, Err(ask_error(error, self.progress.admission())))
            }
            Purpose::Caption { camera } => self.fail_caption(camera, error),
            Purpose::Rule { .. } => self.fail_rule(purpose, error),
        }
    }

    /// Takes a job out of the list and out of its pass.
    fn take_job(&mut self, id: u64) -> Option<Job> {
        let index = self.jobs.iter().position(|job| job.id == id)?;
        let mut job = self.jobs.remove(index);
        if let Some(lane) = job.lane {
            self.batches[lane as usize].withdraw(&mut self.model, id);
            job.leave(&mut self.model, Instant::now());
        }
        Some(job)
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
        self.progress.time(|stages| {
            stages.preprocess.add_ms(scene.timings.preprocess_ms);
            stages.encode.add_ms(scene.timings.encode_ms);
            stages.picture.add_ms(scene.timings.prefill_ms);
        });
        match target {
            Target::Camera(camera) => self.keep_scene(camera, scene),
            Target::Question(number) => self.give_picture(number, scene),
        }
    }

    /// Whether a picture can be taken into the cache, or waiting would not help.
    /// What sessions keep makes room for it.
    fn has_room_for_picture(&mut self) -> bool {
        let pages = self.model.visual_tokens().div_ceil(PAGE) + 1;
        self.jobs.is_empty() || self.model.make_room(pages).is_ok()
    }

    /// Forks `from` and sets pages aside for a prompt and what follows it, so that a job that was
    /// begun never runs out of them. Returns how many tokens can follow, at most `max_tokens`.
    fn fork(
        &mut self,
        from: &Sequence,
        prompt: usize,
        max_tokens: u32,
    ) -> Result<(Sequence, u32), PassError> {
        let (held, context) = (from.len() + prompt, self.model.context());
        if held >= context {
            return Err(PassError::ContextFull { wanted: held + 1, context });
        }
        let max_tokens = max_tokens.min((context - held) as u32).max(1);
        let mut sequence = Sequence::default();
        self.model.fork(from, &mut sequence);
        if let Err(error) = self.model.reserve(&mut sequence, prompt + max_tokens as usize) {
            self.model.release(&mut sequence);
            return Err(error.into());
        }
        Ok((sequence, max_tokens))
    }

    /// Begins a job on a sequence that [`Engine::fork`] gave.
    fn start(&mut self, sequence: Sequence, plan: Plan) -> u64 {
        self.jobs_seen += 1;
        self.jobs.push(Job::new(self.jobs_seen, sequence, plan));
        self.jobs_seen
    }

    /// Counts a finished job and gives its pages back.
    fn close(&mut self, job: Job) {
        let (tokens, timings, drafts) = (job.tokens, job.timings, job.drafts);
        job.release(&mut self.model);
        let pages_used = self.model.cache().pages_used() as u32;
        let per_second = |tokens: u32, ms: f32| if ms > 0.0 { tokens as f32 * 1000.0 / ms } else { 0.0 };
        self.progress.update(|report| {
            let computed = tokens.prompt - tokens.cached;
            report.cache.pages_used = pages_used;
            report.cache.positions_reused += u64::from(tokens.cached);
            report.cache.positions_computed += u64::from(computed + tokens.generated);
            report.engine.drafts.proposed += drafts.proposed;
            report.engine.drafts.accepted += drafts.accepted;
            report.engine.drafts.passes += drafts.passes;
            report.engine.drafts.tokens += u64::from(tokens.generated);
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
