//! Questions of a session: their turn, what they continue, and what is kept for the next one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kernels::Device;
use messages::{Answer, AnswerPiece, AskError, FrameChoice, FrameStamp, Timings};

use super::{Ask, Question, Stage};
use crate::camera::Frame;
use crate::config::QuestionConfig;
use crate::engine::Engine;
use crate::engine::job::Job;
use crate::engine::scene::{Scene, Target};
use crate::engine::session::{Entry, Kept, Limits, Room, Session, Turn, Words};
use crate::model::kv_cache::Sequence;
use crate::model::preprocess::decode_picture;
use crate::model::prompt::{self, after_image, later_question};
use crate::model::tokenizer::Tokenizer;

/// What a caller is told whose session has no place.
const RETRY_AFTER_MS: u32 = 1000;

/// The picture a session is about.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Picture {
    stamp: FrameStamp,
    captured: Instant,
    source: Source,
}

/// Where a picture comes from, should its positions be gone.
#[derive(Clone, Debug)]
enum Source {
    Frame(Arc<Frame>),
    /// JPEG or PNG.
    Bytes(Arc<[u8]>),
}

impl Picture {
    /// The picture without positions.
    fn scene(&self) -> Scene {
        Scene {
            stamp: self.stamp.clone(),
            captured: self.captured,
            frame: None,
            timings: Timings::default(),
            sequence: Sequence::default(),
            used: Instant::now(),
            is_captioned: true,
            unchanged_since: None,
            owed_at: None,
        }
    }
}

/// A question's place in its session.
#[derive(Clone, Debug)]
pub(super) struct Talk {
    /// Number of the session.
    session: u64,
    /// Earlier turns in view.
    turns: u32,
    /// Whether those turns are computed again.
    recomputed: bool,
    /// The picture it is put to.
    picture: Option<Picture>,
}

/// Positions that a question continues.
pub(super) struct Held {
    /// The positions.
    pub(super) sequence: Sequence,
    /// Tokens of the prompt among them.
    pub(super) behind: usize,
}

impl Words for Tokenizer {
    fn question(&self, text: &str, first: bool) -> Vec<u32> {
        if first { after_image(self, &[prompt::Turn::ask(text)]) } else { later_question(self, text) }
    }

    fn end(&self) -> u32 {
        self.eos()
    }
}

/// What sessions may take of a cache of `pages`.
pub(in crate::engine) fn session_limits(config: &QuestionConfig, pages: usize) -> Limits {
    Limits {
        sessions: config.sessions,
        idle: Duration::try_from_secs_f64(config.session_idle_s).unwrap_or(Duration::MAX),
        pages: pages * config.session_kv_percent as usize / 100,
    }
}

impl<D: Device> Engine<D> {
    /// Positions before the first turn.
    fn scene_len(&self) -> usize {
        self.system.len() + self.model.visual_tokens()
    }

    /// Whether a question stays with the picture of a session that is open already.
    pub(super) fn is_bound(&self, ask: &Ask, camera: usize) -> bool {
        ask.question.session.as_ref().is_some_and(|session| {
            let open = self.sessions.find(camera, &session.name);
            !session.follow && open.is_some_and(|session| session.picture().is_some())
        })
    }

    /// Ends the session of a caller who asks nothing else.
    pub(super) fn end_session(&mut self, ask: &Ask, camera: usize) {
        let name = ask.question.session.as_ref().map_or("", |session| session.name.as_str());
        if !self.sessions.end_idle(camera, name) {
            return self.refuse(ask, AskError::Overloaded { retry_after_ms: RETRY_AFTER_MS });
        }
        self.free_sessions();
        let frame = FrameStamp { camera: ask.camera.clone(), ..FrameStamp::default() };
        let model_id = self.options.model_id.clone();
        let answer = Answer { frame, prompt_id: "question".into(), model_id, ..Answer::default() };
        // A fresh channel has room; a closed one has nobody to tell.
        let _ = ask.reply.try_send(AnswerPiece::Final(answer));
        self.progress.update(|report| report.engine.questions_answered += 1);
    }

    /// Gives questions of sessions their turn, in the order they came.
    pub(super) fn find_turns(&mut self) {
        let now = Instant::now();
        self.sessions.expire(now);
        let mut index = 0;
        while index < self.questions.len() {
            let question = &self.questions[index];
            let name = question.ask.question.session.as_ref().map(|session| session.name.as_str());
            match name.filter(|_| question.stage == Stage::Turn) {
                None => index += 1,
                Some(name) => match self.sessions.enter(question.camera, name, now) {
                    Entry::Busy => index += 1,
                    Entry::In(session) => {
                        index += usize::from(self.begin_turn(index, session));
                    }
                    Entry::Full => {
                        self.end(index, Err(AskError::Overloaded { retry_after_ms: RETRY_AFTER_MS }));
                    }
                },
            }
        }
        self.free_sessions();
    }

    /// Writes the turns before a question in front of it. Returns whether the question goes on.
    fn begin_turn(&mut self, index: usize, session: u64) -> bool {
        let question = &self.questions[index];
        let positions = self.model.context().saturating_sub(self.scene_len());
        let answer = (self.max_tokens(question) as usize).min(positions / 4);
        let text = &question.ask.question.text;
        let prompt = self.sessions.prompt(session, text, Room { positions, answer }, &*self.tokenizer);
        let open = self.sessions.get(session);
        let turns = open.map_or(0, |session| session.turns() as u32);
        let has_picture = open.is_some_and(|session| session.picture().is_some());
        let question = &mut self.questions[index];
        question.prompt = prompt;
        question.talk = Some(Talk { session, turns, recomputed: false, picture: None });
        question.stage = Stage::Picture;
        if question.is_bound && !has_picture {
            let reason = "the session ended before this question: ask again to open another one".into();
            self.end(index, Err(AskError::NoFrame { reason }));
            return false;
        }
        true
    }

    /// The picture of the session that a question stays with.
    pub(super) fn bound_picture(&self, question: &Question) -> Option<Picture> {
        let session = self.sessions.get(question.talk.as_ref()?.session)?;
        let follows = question.ask.question.session.as_ref().is_none_or(|session| session.follow);
        session.picture().filter(|_| !follows).cloned()
    }

    /// Puts a question to the picture of its session, if its positions are in the cache.
    pub(super) fn find_bound(&mut self, index: usize, picture: &Picture) {
        let camera = self.questions[index].camera;
        let scene = self.cameras[camera].scene.take_if(|scene| scene.stamp == picture.stamp);
        if let Some(scene) = scene {
            self.put(index, &scene);
            self.cameras[camera].scene = Some(scene);
        } else if let Some(held) = self.held(index, &picture.stamp) {
            self.put_on(index, &picture.scene(), Some(held));
        } else {
            self.questions[index].stage = Stage::Picture;
        }
    }

    /// Begins to encode the picture of a session again.
    pub(super) fn begin_bound_picture(&mut self, index: usize, picture: &Picture, start: Instant) {
        let number = self.questions[index].number;
        let failed = match &picture.source {
            Source::Frame(frame) => frame.rgb_into(&mut self.rgb).err().map(|error| error.to_string()),
            Source::Bytes(bytes) => match decode_picture(bytes) {
                Ok(rgb) => {
                    self.rgb = rgb;
                    None
                }
                Err(error) => Some(error.to_string()),
            },
        };
        match failed {
            Some(error) => {
                let reason = format!("the picture of the session cannot be used: {error}");
                self.end(index, Err(AskError::NoFrame { reason }));
            }
            None => self.begin_encoding(Target::Question(number), picture.scene(), start),
        }
    }

    /// What is kept of a question's session, if it stands behind the picture of `stamp` and is still
    /// there.
    pub(super) fn held(&mut self, index: usize, stamp: &FrameStamp) -> Option<Held> {
        let number = self.questions[index].talk.as_ref()?.session;
        let session = self.sessions.get(number)?;
        let kept = session.kept()?;
        if session.picture().is_none_or(|picture| picture.stamp != *stamp) {
            return None;
        }
        let mut sequence = Sequence::default();
        if !self.model.fork_kept(kept.key, &mut sequence) {
            self.sessions.forget_kept(number);
            return None;
        }
        Some(Held { sequence, behind: kept.behind })
    }

    /// Takes note of the picture a question is put to, and of how many tokens before it are held.
    pub(super) fn note_talk(&mut self, index: usize, scene: &Scene, behind: usize) {
        let question = &mut self.questions[index];
        let Some(talk) = &mut question.talk else { return };
        let known = self.sessions.get(talk.session).and_then(Session::picture);
        let source = match (&scene.frame, &question.ask.question.frame) {
            (Some(frame), _) => Some(Source::Frame(frame.clone())),
            (None, _) if known.is_some_and(|known| known.stamp == scene.stamp) => {
                known.map(|known| known.source.clone())
            }
            (None, FrameChoice::Picture(bytes)) => Some(Source::Bytes(bytes.as_slice().into())),
            (None, _) => None,
        };
        let picture = |source| Picture { stamp: scene.stamp.clone(), captured: scene.captured, source };
        talk.picture = source.map(picture);
        talk.recomputed = behind == 0 && talk.turns > 0;
        if talk.recomputed {
            self.progress.update(|report| report.engine.sessions_recomputed += 1);
        }
    }

    /// Keeps a finished answer and its positions for the next question of its session.
    pub(in crate::engine) fn keep_turn(&mut self, number: u64, job: &mut Job) {
        let Some(question) = self.questions.iter_mut().find(|question| question.number == number) else {
            return;
        };
        let Some(talk) = &mut question.talk else { return };
        let Some(picture) = talk.picture.take() else { return };
        let (session, text) = (talk.session, question.ask.question.text.clone());
        let is_over = question.ask.question.session.as_ref().is_some_and(|session| session.end);
        let turn = Turn::new(text, job.ids().1.to_vec(), &*self.tokenizer);
        let sequence = job.take_sequence();
        let (behind, pages) = (sequence.len().saturating_sub(self.scene_len()), sequence.pages().len());
        let kept = Kept { key: self.model.keep(None, sequence), behind, pages };
        self.sessions.answered(session, turn, picture, kept, Instant::now());
        if is_over {
            self.sessions.end(session);
        }
        self.free_sessions();
    }

    /// Earlier turns that a question saw, and whether they were computed again.
    pub(super) fn talk(&self, number: u64) -> (u32, bool) {
        let question = self.questions.iter().find(|question| question.number == number);
        let talk = question.and_then(|question| question.talk.as_ref());
        talk.map_or((0, false), |talk| (talk.turns, talk.recomputed))
    }

    /// A question of a session is over, answered or not.
    pub(super) fn leave_session(&mut self, question: &Question) {
        if let Some(talk) = &question.talk {
            self.sessions.leave(talk.session, Instant::now());
            self.free_sessions();
        }
    }

    /// Gives back what sessions keep no longer.
    pub(in crate::engine) fn free_sessions(&mut self) {
        while let Some(key) = self.sessions.take_freed() {
            self.model.forget(key);
        }
        let open = self.sessions.count() as u32;
        if open != self.sessions_shown {
            self.sessions_shown = open;
            self.progress.update(|report| report.engine.sessions = open);
        }
    }
}
