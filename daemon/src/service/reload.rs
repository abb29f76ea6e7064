//! The configuration, read again while everything runs: taken up whole or refused whole.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use messages::AskError;

use super::{Service, ServiceError, feeds, log_state};
use crate::camera::{self, CameraError, CameraHandle, ReadyCamera};
use crate::config::{CameraConfig, Config, ConfigError};
use crate::engine::{CameraInput, Reload};
use crate::health::Health;
use crate::journal;

/// Why a configuration is not taken up.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// It cannot be read, or not in place of the running one.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A source cannot be understood.
    #[error(transparent)]
    Camera(#[from] CameraError),
    /// The model cannot do what it says.
    #[error(transparent)]
    Engine(#[from] AskError),
}

/// A camera of the new configuration.
enum Next {
    /// It runs already and goes on.
    Running(String),
    /// It is to be started, with the name and the source of the configuration.
    New(ReadyCamera, Box<CameraConfig>),
}

/// A camera that is being closed.
struct Closing {
    name: String,
    source: String,
    thread: JoinHandle<()>,
}

impl Service {
    /// Reads the configuration again and takes it up, or tells why it does not.
    ///
    /// Errors: the new configuration holds, but not all of its cameras can be started.
    pub(super) fn reload(
        &mut self,
        load: impl Fn() -> Result<Config, ConfigError>,
        health: &mut Health,
    ) -> Result<(), ServiceError> {
        health.reloading();
        health.status("reading the configuration again");
        let outcome = load().map_err(Refusal::from).and_then(|new| self.check(&new));
        let taken_up = match outcome {
            Ok((config, plan)) => self.take_up(config, plan),
            Err(refusal) => {
                tracing::warn!(%refusal, "the new configuration is refused, the old one stays");
                self.refused = Some(refusal.to_string());
                Ok(())
            }
        };
        health.status(&self.summary());
        health.reloaded();
        taken_up
    }

    /// Has everything checked that can refuse the new configuration, the engine last: if that takes it
    /// up, it holds.
    fn check(&self, new: &Config) -> Result<(Config, Vec<Next>), Refusal> {
        let config = self.config.reloaded(new)?;
        let plan = self.plan(&config)?;
        self.bus.reload(Reload {
            cameras: self.inputs(&plan, &config),
            caption: config.caption.clone(),
            question: config.question.clone(),
            rules: config.rules.clone(),
            changes: Default::default(),
        })?;
        let waiting = config.differing_keys(new);
        if !waiting.is_empty() {
            tracing::warn!(keys = waiting.join(", "), "what changed of these keys waits for a restart");
        }
        Ok((config, plan))
    }

    /// Which cameras go on, and which are to be started. What does not concern the source changes under a
    /// running camera.
    fn plan(&self, config: &Config) -> Result<Vec<Next>, CameraError> {
        let running = self.config.cameras_or_test();
        let next = |new: CameraConfig| {
            let same = |old: &CameraConfig| CameraConfig {
                max_age_s: old.max_age_s,
                describe: old.describe,
                publish_fps: old.publish_fps,
                publish_quality: old.publish_quality,
                ..new.clone()
            };
            let goes_on = running.iter().any(|old| same(old) == *old);
            Ok(match goes_on {
                true => Next::Running(new.name),
                false => {
                    Next::New(camera::prepare(&new, &self.bus.network(), self.wake.clone())?, Box::new(new))
                }
            })
        };
        config.cameras_or_test().into_iter().map(next).collect()
    }

    /// What the engine is given.
    fn inputs(&self, plan: &[Next], config: &Config) -> Vec<CameraInput> {
        let handles = self.host.handles();
        let latest = |next: &Next| match next {
            Next::Running(name) => {
                handles.iter().find(|handle| handle.name == *name).map(|handle| handle.latest.clone())
            }
            Next::New(ready, _) => Some(ready.latest.clone()),
        };
        let input = |(next, config): (&Next, CameraConfig)| {
            let max_age = Duration::from_secs_f64(config.max_age_s);
            Some(CameraInput { name: config.name, latest: latest(next)?, max_age, describe: config.describe })
        };
        plan.iter().zip(config.cameras_or_test()).filter_map(input).collect()
    }

    /// Does what is left once the engine has taken the new configuration up.
    fn take_up(&mut self, config: Config, plan: Vec<Next>) -> Result<(), ServiceError> {
        journal::change(&config.log);
        let old = std::mem::replace(&mut self.config, config);
        self.refused = None;
        self.host.publish(feeds(&self.config.cameras_or_test()));
        let exchanged = self.host.exchange(|handles| exchange(handles, plan, &old.cameras_or_test()));
        tracing::info!(cameras = self.host.handles().len(), "the new configuration holds");
        Ok(exchanged?)
    }
}

/// Closes the cameras that do not go on and starts the new ones. Nobody waits for a driver that takes its
/// time to close, but for a new camera of the same name or source.
fn exchange(
    mut handles: Vec<CameraHandle>,
    plan: Vec<Next>,
    configs: &[CameraConfig],
) -> Result<Vec<CameraHandle>, CameraError> {
    let goes_on = |handle: &CameraHandle| {
        plan.iter().any(|next| matches!(next, Next::Running(name) if *name == handle.name))
    };
    let leaving: Vec<_> = handles.extract_if(.., |handle| !goes_on(handle)).collect();
    let mut closing = Vec::with_capacity(leaving.len());
    for handle in leaving {
        let config = configs.iter().find(|config| config.name == handle.name);
        let source = config.map(|config| device(&config.source).to_owned()).unwrap_or_default();
        closing.push(close(handle, source)?);
    }
    let mut next_handles = Vec::with_capacity(plan.len());
    for next in plan {
        match next {
            Next::Running(name) => {
                next_handles.extend(handles.extract_if(.., |handle| handle.name == name));
            }
            Next::New(ready, config) => {
                let hinders = |closing: &mut Closing| {
                    closing.name == config.name || closing.source == device(&config.source)
                };
                let threads = closing.extract_if(.., hinders).map(|closing| closing.thread).collect();
                tracing::info!(camera = config.name, source = config.source, "camera added");
                next_handles.push(ready.after(threads).start(log_state)?);
            }
        }
    }
    Ok(next_handles)
}

/// Closes a camera on a thread of its own.
fn close(handle: CameraHandle, source: String) -> Result<Closing, CameraError> {
    let name = handle.name.clone();
    tracing::info!(camera = name, "camera removed");
    let thread = thread::Builder::new().name("close camera".into()).spawn(move || handle.stop());
    let thread = thread.map_err(|error| CameraError::Thread { camera: name.clone(), error })?;
    Ok(Closing { name, source, thread })
}

/// A source without the format that is asked of it.
fn device(source: &str) -> &str {
    source.split('?').next().unwrap_or(source)
}
