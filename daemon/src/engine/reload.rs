//! Another configuration while running: cameras come and go, prompts and rules change, the model stays.

use std::time::Instant;

use kernels::Device;
use messages::{AlertEnd, AskError, CaptionSettings, Rules};

use super::Engine;
use super::camera::{Camera, CameraInput};
use super::change::{Reload, Reloaded};
use super::control::configured;
use super::job::Purpose;
use super::progress::CameraReport;
use super::scene::Target;

impl<D: Device> Engine<D> {
    /// Takes up another configuration under what was changed over the bus.
    ///
    /// Errors: a prompt or a rule that this model cannot take. Nothing is changed.
    pub(super) fn reload(&mut self, reload: Reload) -> Result<Reloaded, AskError> {
        let Reload { cameras, caption, question, rules, changes } = reload;
        self.prompts_of(&rules)?;
        for camera in &cameras {
            self.check_captioning(&configured(camera, &caption))?;
        }
        let before = (self.rules.list(), self.captions());
        (self.options.rules, self.options.caption, self.options.question) = (rules, caption, question);
        self.replace_cameras(cameras);
        self.take_up(changes)?;
        let (rules, cameras) = (self.rules.list(), self.captions());
        let (new_rules, new_captions) = (rules != before.0, cameras != before.1);
        self.rules.revision += u64::from(new_rules);
        self.captions_revision += u64::from(new_captions);
        Ok(Reloaded {
            rules: new_rules.then_some(Rules { rules, revision: self.rules.revision }),
            captions: new_captions.then_some(CaptionSettings { cameras, revision: self.captions_revision }),
        })
    }

    /// Makes these the cameras there are. Those that stay keep all they have, in their new places.
    fn replace_cameras(&mut self, inputs: Vec<CameraInput>) {
        let place = |camera: &Camera| inputs.iter().position(|input| input.is(&camera.input));
        let places: Vec<_> = self.cameras.iter().map(place).collect();
        for index in (0..places.len()).filter(|&index| places[index].is_none()) {
            self.close_camera(index);
        }
        let now = Instant::now();
        let mut old = std::mem::take(&mut self.cameras);
        for input in inputs {
            let stayed = old.iter().position(|camera| camera.input.is(&input)).map(|at| old.swap_remove(at));
            self.cameras.push(match stayed {
                Some(mut camera) => {
                    camera.input = input;
                    camera
                }
                None => {
                    let captioning = configured(&input, &self.options.caption);
                    Camera::new(input, captioning, now)
                }
            });
        }
        self.move_to(&places);
        for removed in old.into_iter().map(|camera| camera.input.name) {
            if !self.cameras.iter().any(|camera| camera.input.name == removed) {
                self.tell_removed(removed);
            }
        }
    }

    /// Gives up everything about a camera that leaves, and ends what somebody waits for.
    fn close_camera(&mut self, camera: usize) {
        for index in (0..self.questions.len()).rev() {
            if self.questions[index].camera == camera {
                let name = &self.cameras[camera].input.name;
                let reason = format!("the configuration of camera \"{name}\" changed");
                self.end(index, Err(AskError::Cancelled { reason }));
            }
        }
        self.end_alerts(AlertEnd::CameraGone, |watched| watched == camera);
        self.give_up_camera(camera);
    }

    /// Whatever names a camera by its place names its new place. What was about those without one is
    /// gone, but for their sessions and watches.
    fn move_to(&mut self, places: &[Option<usize>]) {
        let follow = |camera: &mut usize| *camera = places[*camera].unwrap_or(*camera);
        for job in &mut self.jobs {
            match &mut job.purpose {
                Purpose::Rule { camera, .. } | Purpose::Caption { camera } => follow(camera),
                Purpose::Question(_) => {}
            }
        }
        if let Some(encoding) = &mut self.encoding
            && let Target::Camera(camera) = &mut encoding.target
        {
            follow(camera);
        }
        self.questions.iter_mut().for_each(|question| follow(&mut question.camera));
        self.sessions.move_cameras(places);
        self.free_sessions();
        self.progress.update(|report| {
            let mut old = std::mem::take(&mut report.cameras);
            report.cameras =
                self.cameras.iter().map(|camera| CameraReport::new(&camera.input.name)).collect();
            for (report_of, place) in old.drain(..).zip(places) {
                if let Some(place) = place {
                    report.cameras[*place] = report_of;
                }
            }
        });
        self.move_watches(places);
    }
}
