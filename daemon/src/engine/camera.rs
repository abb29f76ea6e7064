//! Captions: the newest frame of each camera in turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kernels::Device;
use messages::{Caption, CaptionPiece, FrameStamp, Timings};

use super::Engine;
use super::job::{Job, Step};
use super::progress::millis;
use super::request::Event;
use super::scene::{Scene, Target};
use super::scheduler::{self, CameraView};
use crate::camera::{Frame, Latest};
use crate::model::PassError;
use crate::model::kv_cache::Sequence;
use crate::model::prompt::{Prompt, Turn};

/// A source of frames as the engine sees it.
#[derive(Clone, Debug)]
pub struct CameraInput {
    /// Name on the bus.
    pub name: String,
    /// Its newest frame.
    pub latest: Arc<Latest<Frame>>,
    /// Oldest frame that is described, from capture to the start of encoding.
    pub max_age: Duration,
}

/// What the engine holds for a camera.
pub(super) struct Camera {
    pub(super) input: CameraInput,
    /// The picture described last.
    pub(super) scene: Option<Scene>,
    /// The caption under way.
    pub(super) caption: Option<Captioning>,
    last_start: Option<Instant>,
}

/// A caption under way.
pub(super) struct Captioning {
    job: Job,
    pieces: u32,
}

impl Camera {
    pub(super) fn new(input: CameraInput) -> Self {
        Self { input, scene: None, caption: None, last_start: None }
    }

    /// What the scheduler needs to know.
    pub(super) fn view(
        &self,
        index: usize,
        encoding: Option<Target>,
        period: Duration,
        now: Instant,
    ) -> CameraView {
        let caption = self.caption.as_ref().map(|caption| {
            if caption.job.is_between_layers() { scheduler::Caption::Layer } else { scheduler::Caption::Unit }
        });
        let is_due = caption.is_none()
            && encoding != Some(Target::Camera(index))
            && self.last_start.is_none_or(|start| now.duration_since(start) >= period)
            && self.input.latest.has_new();
        CameraView { caption, is_due, last_start: self.last_start }
    }
}

/// A scene for `frame` that has no positions yet.
pub(super) fn scene_of(camera: &str, frame: &Arc<Frame>) -> Scene {
    Scene {
        stamp: FrameStamp {
            camera: camera.to_owned(),
            sequence: frame.sequence,
            captured_at: frame.captured_at,
        },
        captured: frame.captured,
        frame: Some(frame.clone()),
        timings: Timings::default(),
        sequence: Sequence::default(),
        is_captioned: false,
    }
}

impl<D: Device> Engine<D> {
    /// Begins to encode the newest frame of a camera, unless it is too old.
    pub(super) fn describe(&mut self, index: usize) {
        let camera = &mut self.cameras[index];
        let Some(frame) = camera.input.latest.take_new() else { return };
        let start = Instant::now();
        if start.duration_since(frame.captured) > camera.input.max_age {
            self.progress.update(|report| report.cameras[index].too_old += 1);
            return;
        }
        camera.last_start = Some(start);
        if let Err(error) = frame.rgb_into(&mut self.rgb) {
            tracing::debug!(camera = camera.input.name, sequence = frame.sequence, %error, "damaged frame");
            self.progress.update(|report| report.cameras[index].damaged += 1);
            return;
        }
        let scene = scene_of(&camera.input.name, &frame);
        self.begin_encoding(Target::Camera(index), scene, start);
    }

    /// Keeps an encoded frame as what the camera sees now.
    pub(super) fn keep_scene(&mut self, index: usize, scene: Scene) {
        let described = scene.frame.clone();
        if let Some(mut old) = self.cameras[index].scene.replace(scene) {
            self.model.release(&mut old.sequence);
        }
        self.progress.update(|report| report.cameras[index].described = described);
    }

    /// Begins a caption wherever a picture has none yet.
    pub(super) fn begin_captions(&mut self) {
        for index in 0..self.cameras.len() {
            let camera = &mut self.cameras[index];
            if camera.caption.is_some() || camera.scene.as_ref().is_none_or(|scene| scene.is_captioned) {
                continue;
            }
            let Some(mut scene) = camera.scene.take() else { continue };
            scene.is_captioned = true;
            let config = &self.options.caption;
            let prompt = Prompt::new(&self.tokenizer, &[Turn::ask(&config.prompt)], true);
            let plan = self.plan(&scene, prompt, config.max_tokens);
            let camera = &mut self.cameras[index];
            camera.scene = Some(scene);
            match plan {
                Ok(plan) => camera.caption = Some(Captioning { job: Job::new(plan), pieces: 0 }),
                Err(error) => self.fail_caption(index, error),
            }
        }
    }

    /// Does one unit of a camera's caption.
    pub(super) fn step_caption(&mut self, index: usize) {
        let Some(caption) = &mut self.cameras[index].caption else { return };
        match caption.job.step(&mut self.model, &mut self.caption_pass) {
            Ok(step) => {
                // Pieces give way to captions when the bus is slow.
                if self.events.capacity() > self.events.max_capacity() / 2
                    && let Some(text) = caption.job.take_piece()
                {
                    let frame = caption.job.stamp.clone();
                    let piece = CaptionPiece { frame, index: caption.pieces, text };
                    caption.pieces += 1;
                    // A full channel was excluded, a closed one means that the daemon is stopping.
                    let _ = self.events.try_send(Event::Piece(piece));
                }
                if let Step::Finished { truncated } = step {
                    self.finish_caption(index, truncated);
                }
            }
            Err(error) => {
                if let Some(caption) = self.cameras[index].caption.take() {
                    self.close(caption.job);
                }
                self.fail_caption(index, error);
            }
        }
    }

    fn finish_caption(&mut self, index: usize, truncated: bool) {
        let Some(Captioning { job, .. }) = self.cameras[index].caption.take() else { return };
        let age_ms = millis(job.captured.elapsed());
        let caption = Caption {
            text: job.text().to_owned(),
            frame: job.stamp.clone(),
            age_ms,
            prompt_id: self.options.caption.prompt_id.clone(),
            model_id: self.options.model_id.clone(),
            tokens: job.tokens,
            timings: job.timings,
            truncated,
        };
        let captured = job.captured;
        self.close(job);
        self.progress.update(|report| {
            report.cameras[index].captions += 1;
            report.cameras[index].caption_age_ms = age_ms;
        });
        if let Err(tokio::sync::mpsc::error::TrySendError::Full(_)) =
            self.events.try_send(Event::Caption(Box::new(caption), captured))
        {
            tracing::warn!(
                camera = self.cameras[index].input.name,
                "caption dropped: the bus does not keep up"
            );
        }
    }

    pub(super) fn fail_caption(&mut self, index: usize, error: PassError) {
        tracing::warn!(camera = self.cameras[index].input.name, %error, "frame not described");
    }
}
