//! Cameras that disappear: nothing more is computed for them, and their pages come back.

use kernels::Device;
use messages::{AskError, FrameChoice};

use super::Engine;
use super::job::Purpose;
use super::scene::{Encoding, Target};

impl<D: Device> Engine<D> {
    /// Gives up everything about cameras that are gone: questions, captions, rules, pictures.
    pub(super) fn give_up_lost_cameras(&mut self) {
        for camera in 0..self.cameras.len() {
            if self.cameras[camera].input.latest.is_lost() {
                self.cancel_questions_about(camera);
                self.give_up_camera(camera);
            }
        }
    }

    /// What a caller is told whose camera is gone.
    pub(super) fn gone(&self, camera: usize) -> AskError {
        AskError::NoFrame { reason: format!("camera \"{}\" is gone", self.cameras[camera].input.name) }
    }

    /// A picture that was brought along does not depend on the camera, nor does a conversation about
    /// one that was described.
    fn cancel_questions_about(&mut self, camera: usize) {
        for index in (0..self.questions.len()).rev() {
            let question = &self.questions[index];
            let is_brought = matches!(question.ask.question.frame, FrameChoice::Picture(_));
            if question.camera == camera && !is_brought && !question.is_bound {
                self.end(index, Err(self.gone(camera)));
            }
        }
    }

    /// Gives up its captions, rules and pictures.
    pub(super) fn give_up_camera(&mut self, camera: usize) {
        let is_its = |purpose| match purpose {
            Purpose::Caption { camera: other } | Purpose::Rule { camera: other, .. } => other == camera,
            Purpose::Question(_) => false,
        };
        while let Some(id) = self.jobs.iter().find(|job| is_its(job.purpose)).map(|job| job.id) {
            if let Some(job) = self.take_job(id) {
                self.close(job);
            }
        }
        let encoding = self.encoding.take_if(|encoding| encoding.target == Target::Camera(camera));
        let scene = self.cameras[camera].scene.take();
        self.cameras[camera].sight.forget();
        for mut scene in scene.into_iter().chain(encoding.map(Encoding::into_scene)) {
            self.model.release(&mut scene.sequence);
            self.progress.update(|report| {
                report.cache.pages_used = self.model.cache().pages_used() as u32;
            });
        }
    }
}
