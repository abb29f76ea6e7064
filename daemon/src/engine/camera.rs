//! Captions: the newest frame of each camera in turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kernels::Device;
use messages::{Caption, CaptionPiece, Captioning, FrameStamp, Sampling, Timings};

use super::Engine;
use super::draft::Memory;
use super::job::{Ear, Job, Plan, Purpose, Writer};
use super::progress::millis;
use super::pulse::Pulse;
use super::request::Event;
use super::scene::{Scene, Target};
use super::scheduler::CameraView;
use super::sight::{Look, Sight};
use crate::camera::{Frame, Latest};
use crate::model::PassError;
use crate::model::kv_cache::Sequence;
use crate::model::prompt::{Turn, after_image};
use crate::model::sampler::Sampler;
use crate::model::speech::Speech;

/// A source of frames as the engine sees it.
#[derive(Clone, Debug)]
pub struct CameraInput {
    /// Name on the bus.
    pub name: String,
    /// Its newest frame.
    pub latest: Arc<Latest<Frame>>,
    /// Oldest frame that is described, from capture to the start of encoding.
    pub max_age: Duration,
    /// Whether it is described from the start; if not it is paused.
    pub describe: bool,
}

impl CameraInput {
    /// Whether it is the same camera, not another one of its name.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.latest, &other.latest)
    }
}

/// What the engine holds for a camera.
pub(super) struct Camera {
    pub(super) input: CameraInput,
    /// The picture described last.
    pub(super) scene: Option<Scene>,
    /// What its frames are asked, and how often.
    pub(super) captioning: Captioning,
    /// [`Captioning::prompt_id`] of the caption being written.
    asked: String,
    /// When its last picture began.
    pub(super) last_start: Option<Instant>,
    /// From this time on its next picture takes turns with questions.
    owed_at: Instant,
    /// Tells whether a frame needs a new description.
    pub(super) sight: Sight,
    pulse: Pulse,
    /// What was said of its pictures.
    memory: Memory,
}

impl Camera {
    /// A camera whose first picture is owed at once.
    pub(super) fn new(input: CameraInput, captioning: Captioning, now: Instant) -> Self {
        Self {
            input,
            captioning,
            asked: String::new(),
            scene: None,
            last_start: None,
            owed_at: now,
            sight: Sight::default(),
            pulse: Pulse::default(),
            memory: Memory::default(),
        }
    }

    /// What the scheduler needs to know; `is_free` tells that it may begin a picture.
    pub(super) fn view(&self, is_free: bool, now: Instant) -> CameraView {
        let period = Duration::try_from_secs_f64(self.captioning.period_s).unwrap_or_default();
        let is_due = is_free
            && !self.captioning.paused
            && self.last_start.is_none_or(|start| now.duration_since(start) >= period)
            && self.sight.is_rested(now)
            && self.input.latest.has_new()
            && !self.input.latest.is_lost();
        CameraView { is_due, last_start: self.last_start, owed_at: Some(self.owed_at) }
    }

    /// Takes note that a picture begins. Returns when what is said of it is owed.
    pub(super) fn begin_picture(&mut self, now: Instant, at_least_every: Duration) -> Instant {
        self.last_start = Some(now);
        std::mem::replace(&mut self.owed_at, now + at_least_every)
    }

    /// Whether the camera delivered frames and does not any more.
    pub(super) fn is_gone(&mut self, now: Instant) -> bool {
        if let Some(newest) = self.input.latest.newest() {
            self.pulse.see(newest.sequence, newest.captured);
        }
        self.pulse.is_gone(now)
    }
}

/// A scene for `frame` that has no positions yet.
pub(super) fn scene_of(camera: &str, frame: &Arc<Frame>) -> Scene {
    Scene {
        stamp: stamp_of(camera, frame),
        captured: frame.captured,
        frame: Some(frame.clone()),
        timings: Timings::default(),
        sequence: Sequence::default(),
        used: frame.captured,
        is_captioned: false,
        unchanged_since: None,
        owed_at: None,
    }
}

/// What results say of a frame.
pub(super) fn stamp_of(camera: &str, frame: &Frame) -> FrameStamp {
    FrameStamp { camera: camera.to_owned(), sequence: frame.sequence, captured_at: frame.captured_at }
}

impl<D: Device> Engine<D> {
    /// Begins to encode the newest frame of a camera, unless it is too old or shows nothing new.
    pub(super) fn describe(&mut self, index: usize) {
        let camera = &mut self.cameras[index];
        let Some(frame) = camera.input.latest.take_new() else { return };
        let start = Instant::now();
        if start.duration_since(frame.captured) > camera.input.max_age {
            self.progress.update(|report| report.cameras[index].too_old += 1);
            return;
        }
        if let Err(error) = frame.rgb_into(&mut self.rgb) {
            tracing::debug!(camera = camera.input.name, sequence = frame.sequence, %error, "damaged frame");
            camera.last_start = Some(start);
            self.progress.update(|report| report.cameras[index].damaged += 1);
            return;
        }
        let config = &self.options.caption;
        let unchanged_since = match camera.sight.look(&self.rgb, frame.captured_at, start, config) {
            Look::News => None,
            Look::Stale { since } => Some(since),
            Look::Same { since } => return self.rest(index, &frame, since),
        };
        let owed_at = Some(camera.begin_picture(start, config.at_least_every()));
        let scene = Scene { owed_at, unchanged_since, ..scene_of(&camera.input.name, &frame) };
        self.progress.update(|report| report.cameras[index].unchanged_since = unchanged_since);
        self.begin_encoding(Target::Camera(index), scene, start);
    }

    /// A frame shows nothing new: what was said of the last one holds.
    fn rest(&mut self, index: usize, frame: &Frame, since: u64) {
        self.progress.update(|report| {
            report.cameras[index].unchanged += 1;
            report.cameras[index].unchanged_since = Some(since);
        });
        self.see_same(index, frame);
    }

    /// Keeps an encoded frame as what the camera sees now.
    pub(super) fn keep_scene(&mut self, index: usize, scene: Scene) {
        let described = scene.frame.clone();
        if let Some(mut old) = self.cameras[index].scene.replace(scene) {
            self.model.release(&mut old.sequence);
        }
        if let Some(frame) = described {
            self.progress.update(|report| report.cameras[index].hold(frame));
        }
    }

    /// Begins a caption wherever a picture has none yet.
    pub(super) fn begin_captions(&mut self) {
        for index in 0..self.cameras.len() {
            let purpose = Purpose::Caption { camera: index };
            let camera = &mut self.cameras[index];
            if camera.captioning.paused
                || camera.scene.as_ref().is_none_or(|scene| scene.is_captioned)
                || self.jobs.iter().any(|job| job.purpose == purpose)
            {
                continue;
            }
            let Some(mut scene) = camera.scene.take() else { continue };
            let begun = self.begin_caption(&scene, index);
            // Without pages it waits for those of others.
            scene.is_captioned = begun.is_ok() || !self.will_free_pages();
            if scene.is_captioned
                && let Err(error) = begun
            {
                self.fail_caption(index, error);
            }
            self.cameras[index].scene = Some(scene);
        }
    }

    fn begin_caption(&mut self, scene: &Scene, index: usize) -> Result<(), PassError> {
        let captioning = &self.cameras[index].captioning;
        let prompt = after_image(&self.tokenizer, &[Turn::ask(&captioning.prompt)]);
        let max_tokens = captioning.max_tokens;
        let (sequence, max_tokens) = self.fork(&scene.sequence, prompt.len(), max_tokens)?;
        let camera = &mut self.cameras[index];
        camera.asked.clone_from(&camera.captioning.prompt_id);
        let sampler = Sampler::new(Sampling::default());
        let speech = Speech::new(&self.tokenizer, &[]);
        let drafter = match &self.options.foretold {
            Some(text) => Memory::sure_of(text).drafter(),
            None if self.options.caption.drafts => camera.memory.drafter(),
            None => None,
        };
        self.start(
            sequence,
            Plan {
                purpose: Purpose::Caption { camera: index },
                stamp: scene.stamp.clone(),
                captured: scene.captured,
                timings: scene.timings,
                owed_at: scene.owed_at,
                turn: Instant::now(),
                prompt,
                ear: Ear::Text(Box::new(Writer { sampler, speech, max_tokens, guided: None, drafter })),
            },
        );
        Ok(())
    }

    /// Hands out new text of a caption.
    pub(super) fn send_caption_piece(&mut self, job: usize) {
        let job = &mut self.jobs[job];
        // Pieces give way to captions when the bus is slow.
        if self.events.capacity() > self.events.max_capacity() / 2
            && let Some(text) = job.take_piece()
        {
            let piece = CaptionPiece { frame: job.stamp.clone(), index: job.pieces, text };
            job.pieces += 1;
            // A full channel was excluded, a closed one means that the daemon is stopping.
            let _ = self.events.try_send(Event::Piece(piece));
        }
    }

    /// Remembers a finished caption: it may foretell the next one.
    pub(super) fn learn_caption(&mut self, camera: usize, job: &Job) {
        if self.options.caption.drafts {
            self.cameras[camera].memory.learn(job.ids().1, job.drafter());
        }
    }

    /// A finished caption of a camera's picture.
    pub(super) fn caption(&self, index: usize, job: &Job, truncated: bool) -> Caption {
        let scene = self.cameras[index].scene.as_ref().filter(|scene| scene.stamp == job.stamp);
        Caption {
            text: job.text().to_owned(),
            frame: job.stamp.clone(),
            age_ms: millis(job.captured.elapsed()),
            prompt_id: self.cameras[index].asked.clone(),
            model_id: self.options.model_id.clone(),
            tokens: job.tokens,
            timings: job.timings,
            truncated,
            unchanged_since: scene.and_then(|scene| scene.unchanged_since),
        }
    }

    /// Hands a finished caption to the bus.
    pub(super) fn publish_caption(&mut self, index: usize, caption: Caption, captured: Instant) {
        self.progress.update(|report| {
            report.cameras[index].captions += 1;
            report.cameras[index].caption_age_ms = caption.age_ms;
        });
        self.progress.time(|stages| stages.caption.add_ms(caption.age_ms));
        if let Err(tokio::sync::mpsc::error::TrySendError::Full(_)) =
            self.events.try_send(Event::Caption(Box::new(caption), captured))
        {
            tracing::warn!(
                camera = self.cameras[index].input.name,
                "caption dropped: the bus does not keep up"
            );
        }
    }

    /// Tells that a picture has no description.
    pub(super) fn fail_caption(&mut self, index: usize, error: PassError) {
        tracing::warn!(camera = self.cameras[index].input.name, %error, "frame not described");
        self.progress.update(|report| report.cameras[index].failed += 1);
    }
}
