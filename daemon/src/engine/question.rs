//! Questions: admitted, put to a picture, answered or refused exactly once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kernels::Device;
use messages::{Answer, AnswerPiece, AskError, FrameChoice, FrameStamp, Timings};

use super::admission::Admission;
use super::camera::scene_of;
use super::job::{Ear, Job, Plan, Purpose, Writer};
use super::progress::millis;
use super::request::Ask;
use super::scene::{Scene, Target};
use super::unit::UNIT;
use super::{Engine, reused};
use crate::camera::Frame;
use crate::model::PassError;
use crate::model::constraint::{ConstraintError, Guided};
use crate::model::kv_cache::Sequence;
use crate::model::preprocess::decode_picture;
use crate::model::prompt::{Turn, after_image};
use crate::model::sampler::Sampler;
use crate::model::speech::Speech;
use crate::wall_clock;

mod talk;

use talk::{Held, Talk};
pub(super) use talk::{Picture, session_limits};

/// Longest answer that can be asked for, in tokens.
const MAX_TOKENS: u32 = 4096;

/// A question in the engine's hands.
pub(super) struct Question {
    number: u64,
    /// The question as it came.
    pub(super) ask: Ask,
    /// Index of the camera it is about.
    pub(super) camera: usize,
    /// When its time is up.
    pub(super) deadline: Instant,
    deadline_ms: u32,
    /// Everything after the picture, as tokens.
    prompt: Vec<u32>,
    /// Only a frame from this one on will do.
    from_sequence: Option<u64>,
    /// The very frame asked for by its number.
    wanted: Option<Arc<Frame>>,
    /// Its turn came at this time.
    started: Option<Instant>,
    /// Whether its first token was chosen.
    has_begun: bool,
    /// The form of the answer, until that begins.
    guided: Option<Guided>,
    /// Its place in a session, once it is its turn.
    talk: Option<Talk>,
    /// Whether it came to a session that had a picture to stay with.
    pub(super) is_bound: bool,
    stage: Stage,
}

/// What a question needs after `guided`.
fn after_form(question: &messages::Question) -> Stage {
    if question.session.is_some() { Stage::Turn } else { Stage::Picture }
}

/// How far a question is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The form of the answer is being compiled.
    Form,
    /// Another question of its session is being answered.
    Turn,
    /// The picture it is about is not in the cache.
    Picture,
    /// The picture is there, but no pages for the answer.
    Pages,
    /// It is being answered.
    Answer,
}

impl Question {
    /// Whether a picture must be encoded for it.
    pub(super) fn wants_picture(&self) -> bool {
        self.stage == Stage::Picture
    }

    /// Whether a camera's picture is what the question is about.
    fn accepts(&self, scene: &Scene, max_stale: Duration) -> bool {
        match (&self.ask.question.frame, self.from_sequence) {
            (FrameChoice::Picture(_), _) => false,
            (FrameChoice::Sequence(wanted), _) => scene.stamp.sequence == *wanted,
            (_, Some(from)) => scene.stamp.sequence >= from,
            (FrameChoice::Latest | FrameChoice::Fresh, None) => scene.captured.elapsed() <= max_stale,
        }
    }
}

impl<D: Device> Engine<D> {
    /// Takes questions in, as many as may be open, and refuses the others. When that takes long, some
    /// are left for the next round.
    pub(super) fn admit_questions(&mut self) {
        let start = Instant::now();
        while let Ok(ask) = self.asks.try_recv() {
            if self.questions.len() < self.options.question.queue.max(1) {
                self.admit(ask);
            } else {
                // A fresh channel has room; a closed one has nobody to tell.
                let _ = ask.reply.try_send(AnswerPiece::Error(self.progress.admission().refuse()));
            }
            if start.elapsed() >= UNIT {
                self.wake.ring();
                break;
            }
        }
        self.find_forms();
        self.find_turns();
        self.find_pictures();
    }

    fn admit(&mut self, ask: Ask) {
        let Some(camera) = self.cameras.iter().position(|camera| camera.input.name == ask.camera) else {
            let known = self.cameras.iter().map(|camera| camera.input.name.clone()).collect();
            return self.refuse(&ask, AskError::UnknownCamera { camera: ask.camera.clone(), known });
        };
        if ask.question.only_ends_session() {
            return self.end_session(&ask, camera);
        }
        if ask.question.text.trim().is_empty() {
            return self.refuse(&ask, AskError::BadRequest { reason: "the question is empty".into() });
        }
        let is_bound = self.is_bound(&ask, camera);
        let latest = &self.cameras[camera].input.latest;
        if latest.is_lost() && !is_bound && !matches!(ask.question.frame, FrameChoice::Picture(_)) {
            return self.refuse(&ask, self.gone(camera));
        }
        let newest = latest.newest();
        let (from_sequence, wanted) = match (&ask.question.frame, newest) {
            _ if is_bound => (None, None),
            (FrameChoice::Picture(_), _) => (None, None),
            (_, None) => {
                let reason = format!("camera \"{}\" has not delivered one yet", ask.camera);
                return self.refuse(&ask, AskError::NoFrame { reason });
            }
            (FrameChoice::Sequence(wanted), Some(newest)) => {
                let described = self.cameras[camera].scene.as_ref().and_then(|scene| scene.frame.clone());
                let held = [Some(newest), described].into_iter().flatten();
                let numbers: Vec<_> = held.clone().map(|frame| frame.sequence.to_string()).collect();
                let Some(frame) = held.into_iter().find(|frame| frame.sequence == *wanted) else {
                    let reason = format!("frame {wanted} is not held; held are {}", numbers.join(", "));
                    return self.refuse(&ask, AskError::NoFrame { reason });
                };
                (None, Some(frame))
            }
            (FrameChoice::Fresh, Some(newest)) => (Some(newest.sequence), None),
            (FrameChoice::Latest, Some(_)) => (None, None),
        };
        let deadline_ms = match ask.question.deadline_ms {
            0 => self.options.question.deadline().as_millis().try_into().unwrap_or(u32::MAX),
            asked => asked,
        };
        let guided = match self.guide(&ask.question) {
            Ok(guided) => guided,
            Err(error) => return self.refuse(&ask, constraint_error(&error)),
        };
        let stage = after_form(&ask.question);
        let prompt = after_image(&self.tokenizer, &[Turn::ask(&ask.question.text)]);
        self.questions_seen += 1;
        self.questions.push(Question {
            number: self.questions_seen,
            deadline: ask.arrived + Duration::from_millis(u64::from(deadline_ms)),
            deadline_ms,
            prompt,
            ask,
            camera,
            from_sequence,
            wanted,
            started: None,
            has_begun: false,
            stage: if guided.is_some() { Stage::Form } else { stage },
            guided,
            talk: None,
            is_bound,
        });
        let waiting = self.questions.len() as u32;
        self.progress.update(|report| report.engine.questions_waiting = waiting);
    }

    /// Begins to compile what the answer must look like.
    fn guide(&self, question: &messages::Question) -> Result<Option<Guided>, ConstraintError> {
        let Some(constraint) = question.constraint.clone() else { return Ok(None) };
        let wake = self.wake.clone();
        Guided::begin(&self.grammars, constraint, move || wake.ring()).map(Some)
    }

    /// Lets questions go on whose form is compiled, and refuses those that can have none.
    fn find_forms(&mut self) {
        for index in (0..self.questions.len()).rev() {
            let question = &mut self.questions[index];
            if question.stage != Stage::Form {
                continue;
            }
            match question.guided.as_mut().map(Guided::is_ready).transpose() {
                Ok(Some(false)) => {}
                Ok(_) => question.stage = after_form(&question.ask.question),
                Err(error) => self.end(index, Err(constraint_error(&error))),
            }
        }
    }

    /// Gives every question that waits for a picture the one its camera has, if that will do.
    fn find_pictures(&mut self) {
        for index in (0..self.questions.len()).rev() {
            let question = &self.questions[index];
            if matches!(question.stage, Stage::Form | Stage::Turn | Stage::Answer) {
                continue;
            }
            if let Some(picture) = self.bound_picture(question) {
                self.find_bound(index, &picture);
                continue;
            }
            let asked = question.ask.question.max_stale_ms;
            let max_stale = match asked {
                0 => Duration::try_from_secs_f64(self.options.question.max_stale_s).unwrap_or_default(),
                asked => Duration::from_millis(u64::from(asked)),
            };
            let camera = question.camera;
            if self.cameras[camera].scene.as_ref().is_none_or(|scene| !question.accepts(scene, max_stale)) {
                self.questions[index].stage = Stage::Picture;
            } else if let Some(mut scene) = self.cameras[camera].scene.take() {
                scene.used = Instant::now();
                self.put(index, &scene);
                self.cameras[camera].scene = Some(scene);
            }
        }
    }

    /// Begins the answer of a question on a picture in the cache, or lets it wait for pages.
    fn put(&mut self, index: usize, scene: &Scene) {
        let held = self.held(index, &scene.stamp);
        self.put_on(index, scene, held);
    }

    /// The same, where `held` is more than the picture alone.
    fn put_on(&mut self, index: usize, scene: &Scene, held: Option<Held>) {
        let question = &self.questions[index];
        let max_tokens = self.max_tokens(question);
        let behind = held.as_ref().map_or(0, |held| held.behind);
        let prompt = question.prompt.len() - behind;
        let forked = match held {
            Some(Held { mut sequence, .. }) => {
                let forked = self.fork(&sequence, prompt, max_tokens);
                self.model.release(&mut sequence);
                forked
            }
            None => self.fork(&scene.sequence, prompt, max_tokens),
        };
        match forked {
            Ok((sequence, max_tokens)) => {
                self.note_talk(index, scene, behind);
                self.questions[index].prompt.drain(..behind);
                self.begin_answer(index, scene, sequence, max_tokens);
            }
            Err(PassError::OutOfPages(_))
                if self.will_free_pages() && (scene.frame.is_some() || behind > 0) =>
            {
                self.questions[index].stage = Stage::Pages;
            }
            Err(error) => self.end(index, Err(ask_error(error, self.progress.admission()))),
        }
    }

    /// Tokens of a question's answer at most.
    fn max_tokens(&self, question: &Question) -> u32 {
        match question.ask.question.max_tokens {
            0 => self.options.question.max_tokens,
            asked => asked.min(MAX_TOKENS),
        }
    }

    fn begin_answer(&mut self, index: usize, scene: &Scene, sequence: Sequence, max_tokens: u32) {
        let question = &mut self.questions[index];
        let now = Instant::now();
        let started = *question.started.get_or_insert(now);
        let asked = &question.ask.question;
        let guided = question.guided.take();
        let speech = match guided {
            Some(_) => Speech::exact(&self.tokenizer, &asked.stop),
            None => Speech::new(&self.tokenizer, &asked.stop),
        };
        let sampler = Sampler::new(asked.sampling);
        let is_plain = guided.is_none() && sampler.is_greedy() && self.options.caption.drafts;
        let drafter =
            is_plain.then(|| self.answers.of(&question.ask.camera, &asked.text).drafter()).flatten();
        let queue = started.duration_since(question.ask.arrived);
        if let Some(frame) = &scene.frame {
            // Whoever asked may want to see what the answer is about.
            let (camera, frame) = (question.camera, frame.clone());
            self.progress.update(|report| report.cameras[camera].asked = Some(frame));
        }
        self.progress.time(|stages| stages.queue.add(queue));
        // What was spent on the picture belongs to the question only if it had to wait for it.
        let timings = if started < now && question.from_sequence.is_some() || scene.frame.is_none() {
            Timings { queue_ms: millis(queue), ..scene.timings }
        } else {
            reused(queue)
        };
        question.stage = Stage::Answer;
        let plan = Plan {
            purpose: Purpose::Question(question.number),
            stamp: scene.stamp.clone(),
            captured: scene.captured,
            timings,
            owed_at: None,
            turn: question.deadline,
            prompt: std::mem::take(&mut question.prompt),
            ear: Ear::Text(Box::new(Writer { sampler, speech, max_tokens, guided, drafter })),
        };
        self.start(sequence, plan);
    }

    /// Begins to encode the picture a question needs.
    pub(super) fn begin_picture_for(&mut self, index: usize) {
        let start = Instant::now();
        let question = &mut self.questions[index];
        question.started.get_or_insert(start);
        if let Some(picture) = self.bound_picture(&self.questions[index]) {
            return self.begin_bound_picture(index, &picture, start);
        }
        let question = &mut self.questions[index];
        let camera = question.camera;
        if let FrameChoice::Picture(bytes) = &question.ask.question.frame {
            let number = question.number;
            match decode_picture(bytes) {
                Ok(picture) => self.rgb = picture,
                Err(error) => {
                    let reason = format!("the picture cannot be used: {error}");
                    return self.end(index, Err(AskError::BadRequest { reason }));
                }
            }
            let stamp = FrameStamp {
                camera: question.ask.camera.clone(),
                sequence: 0,
                captured_at: wall_clock::at(question.ask.arrived),
            };
            let captured = question.ask.arrived;
            let (timings, sequence) = (Timings::default(), Sequence::default());
            let (is_captioned, owed_at) = (true, None);
            let scene = Scene {
                stamp,
                captured,
                frame: None,
                timings,
                sequence,
                used: captured,
                is_captioned,
                unchanged_since: None,
                owed_at,
            };
            return self.begin_encoding(Target::Question(number), scene, start);
        }
        let Some(frame) = question.wanted.take().or_else(|| self.cameras[camera].input.latest.newest())
        else {
            let reason = format!("camera \"{}\" has none", self.cameras[camera].input.name);
            return self.end(index, Err(AskError::NoFrame { reason }));
        };
        question.from_sequence = Some(frame.sequence);
        if let Err(error) = frame.rgb_into(&mut self.rgb) {
            self.progress.update(|report| report.cameras[camera].damaged += 1);
            let reason = format!("frame {} is damaged: {error}", frame.sequence);
            return self.end(index, Err(AskError::NoFrame { reason }));
        }
        let scene = scene_of(&self.cameras[camera].input.name, &frame);
        let config = &self.options.caption;
        self.cameras[camera].sight.describe(&self.rgb, frame.captured_at, start, config);
        let owed_at = self.cameras[camera].begin_picture(start, config.at_least_every());
        let scene = Scene { owed_at: Some(owed_at), ..scene };
        self.begin_encoding(Target::Camera(camera), scene, start);
    }

    /// Puts a question to the picture it brought.
    pub(super) fn give_picture(&mut self, number: u64, mut scene: Scene) {
        if let Some(index) = self.questions.iter().position(|question| question.number == number) {
            self.put(index, &scene);
        }
        self.model.release(&mut scene.sequence);
    }

    /// Tells those who waited for a picture that the cache has no room for it.
    pub(super) fn fail_encoding(&mut self, target: Target, error: PassError) {
        if let Target::Camera(camera) = target {
            self.cameras[camera].sight.forget();
            self.fail_caption(camera, error);
        }
        for index in (0..self.questions.len()).rev() {
            let question = &self.questions[index];
            let waited = match target {
                Target::Camera(camera) => question.wants_picture() && question.camera == camera,
                Target::Question(number) => question.number == number,
            };
            if waited {
                self.end(index, Err(ask_error(error, self.progress.admission())));
            }
        }
    }

    /// Hands out new text of an answer.
    pub(super) fn send_answer_piece(&mut self, job: usize, number: u64) {
        let job = &mut self.jobs[job];
        let Some(question) = self.questions.iter_mut().find(|question| question.number == number) else {
            return;
        };
        if !question.has_begun && job.tokens.generated > 0 {
            question.has_begun = true;
            let waited = question.ask.arrived.elapsed();
            self.progress.time(|stages| stages.first_token.add(waited));
        }
        // One place stays free for the final piece; text waits for the next one.
        if question.ask.reply.capacity() > 1
            && let Some(text) = job.take_piece()
        {
            let piece = AnswerPiece::Text { index: job.pieces, text };
            job.pieces += 1;
            // A place was free, so this fails only if the caller left: seen next round.
            let _ = question.ask.reply.try_send(piece);
        }
    }

    /// Remembers a finished answer: it may foretell the next one to the same question.
    pub(super) fn learn_answer(&mut self, number: u64, job: &Job) {
        if let Some(question) = self.questions.iter().find(|question| question.number == number)
            && job.is_plain()
            && self.options.caption.drafts
        {
            let memory = self.answers.of(&question.ask.camera, &question.ask.question.text);
            memory.learn(job.ids().1, job.drafter());
        }
    }

    /// A finished answer.
    pub(super) fn answer(&self, number: u64, job: &Job, truncated: bool) -> Answer {
        let (turns, recomputed) = self.talk(number);
        Answer {
            text: job.text().to_owned(),
            frame: job.stamp.clone(),
            age_ms: millis(job.captured.elapsed()),
            prompt_id: "question".into(),
            model_id: self.options.model_id.clone(),
            tokens: job.tokens,
            timings: job.timings,
            truncated,
            turns,
            recomputed,
        }
    }

    /// Ends the question of a job.
    pub(super) fn end_question(&mut self, number: u64, result: Result<Answer, AskError>) {
        if let Some(index) = self.questions.iter().position(|question| question.number == number) {
            self.end(index, result);
        }
    }

    /// Ends questions whose caller left or whose time is up.
    pub(super) fn drop_dead_questions(&mut self) {
        let now = Instant::now();
        for index in (0..self.questions.len()).rev() {
            let question = &self.questions[index];
            if question.ask.reply.is_closed() {
                self.end(index, Err(AskError::Cancelled { reason: "the caller left".into() }));
            } else if now >= question.deadline {
                let deadline_ms = question.deadline_ms;
                self.end(index, Err(AskError::Deadline { deadline_ms }));
            }
        }
    }

    /// Refuses everything that is open or still arrives.
    pub(super) fn cancel_questions(&mut self) {
        let stopping = || AskError::Cancelled { reason: "the daemon is stopping".into() };
        for index in (0..self.questions.len()).rev() {
            self.end(index, Err(stopping()));
        }
        self.asks.close();
        while let Ok(ask) = self.asks.try_recv() {
            self.refuse(&ask, stopping());
        }
    }

    /// The one end of an admitted question.
    pub(super) fn end(&mut self, index: usize, result: Result<Answer, AskError>) {
        let question = self.questions.remove(index);
        self.leave_session(&question);
        let purpose = Purpose::Question(question.number);
        let job = self.jobs.iter().find(|job| job.purpose == purpose).map(|job| job.id);
        if let Some(job) = job.and_then(|id| self.take_job(id)) {
            self.close(job);
        }
        if let Some(encoding) = &self.encoding
            && encoding.target == Target::Question(question.number)
            && let Some(encoding) = self.encoding.take()
        {
            self.model.release(&mut encoding.into_scene().sequence);
        }
        let waiting = self.questions.len() as u32;
        let is_answered = result.is_ok();
        let now = Instant::now();
        let since = self.last_end.max(question.ask.arrived);
        self.last_end = now;
        self.progress.admission().ended(now.duration_since(since));
        if is_answered {
            self.progress.time(|stages| stages.answer.add(now.duration_since(question.ask.arrived)));
        }
        let last = result.map_or_else(AnswerPiece::Error, AnswerPiece::Final);
        // One place was kept free, so this fails only if the caller left.
        let _ = question.ask.reply.try_send(last);
        self.progress.update(|report| {
            report.engine.questions_waiting = waiting;
            report.engine.questions_answered += u64::from(is_answered);
            report.engine.questions_failed += u64::from(!is_answered);
        });
    }

    fn refuse(&self, ask: &Ask, error: AskError) {
        // A fresh channel has room; a closed one has nobody to tell.
        let _ = ask.reply.try_send(AnswerPiece::Error(error));
        self.progress.update(|report| report.engine.questions_failed += 1);
    }
}

/// What a caller is told when the answer cannot have the form asked for.
pub(super) fn constraint_error(error: &ConstraintError) -> AskError {
    match error {
        ConstraintError::Busy => AskError::Overloaded { retry_after_ms: 1000 },
        error => AskError::Constraint { reason: error.to_string() },
    }
}

/// What a caller is told when the cache or the context is full.
pub(super) fn ask_error(error: PassError, admission: &Admission) -> AskError {
    match error {
        PassError::OutOfPages(_) => admission.overloaded(),
        PassError::ContextFull { wanted, context } => AskError::TooLong {
            what: "positions of prompt and answer".into(),
            got: wanted as u64,
            limit: context as u64,
        },
    }
}
