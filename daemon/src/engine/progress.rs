//! What the engine tells of itself to the rest of the daemon.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use messages::{CacheStatus, EngineStatus, RuleStatus, StageStatus};

use super::admission::Admission;
use super::kind::{Kind, UnitTimes};
use super::latency::Times;
use crate::camera::Frame;

/// Described frames of a camera that are held: whoever reads a caption has so many more captions of time to
/// ask for its picture.
const HELD: usize = 4;

/// Shared between the engine and whoever watches it.
#[derive(Debug, Default)]
pub struct Progress {
    units: AtomicU64,
    ready: AtomicBool,
    stop: AtomicBool,
    figures: Mutex<Figures>,
    admission: Arc<Admission>,
}

/// What is counted, and how long it took.
#[derive(Debug, Default)]
struct Figures {
    report: Report,
    stages: Stages,
    units: UnitTimes,
}

/// Times of each stage; [`StageStatus`] tells what they are.
#[derive(Debug, Default)]
pub(super) struct Stages {
    pub(super) queue: Times,
    pub(super) first_token: Times,
    pub(super) answer: Times,
    pub(super) caption: Times,
    pub(super) preprocess: Times,
    pub(super) encode: Times,
    pub(super) picture: Times,
    pub(super) prefill: Times,
    pub(super) decode: Times,
    pub(super) unit: Times,
}

impl Stages {
    fn figures(&self) -> StageStatus {
        StageStatus {
            queue: self.queue.figures(),
            first_token: self.first_token.figures(),
            answer: self.answer.figures(),
            caption: self.caption.figures(),
            preprocess: self.preprocess.figures(),
            encode: self.encode.figures(),
            picture: self.picture.figures(),
            prefill: self.prefill.figures(),
            decode: self.decode.figures(),
            unit: self.unit.figures(),
        }
    }
}

/// Figures of the engine, copied when a result is finished.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Work done.
    pub engine: EngineStatus,
    /// The KV cache.
    pub cache: CacheStatus,
    /// Per camera, in the order of the configuration.
    pub cameras: Vec<CameraReport>,
    /// Per rule and camera that it watches, in the order of the rules.
    pub rules: Vec<RuleStatus>,
    /// How long questions waited.
    pub waits: Waits,
}

/// How long questions waited for their first pass, counted in units of work: a slow machine does not
/// change that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Units done between the moment a question had all it needs and its first pass, at most.
    pub most: u64,
    /// How many the scheduler promises at most, the longest pass so far taken into account.
    pub promised: u64,
}

/// What the engine did for one camera.
#[derive(Clone, Debug, Default)]
pub struct CameraReport {
    /// Its name.
    pub camera: String,
    /// Captions finished.
    pub captions: u64,
    /// Frames that were too old when their turn came.
    pub too_old: u64,
    /// Frames that could not be decoded.
    pub damaged: u64,
    /// Frames whose description failed.
    pub failed: u64,
    /// Frames that showed nothing new.
    pub unchanged: u64,
    /// While new frames show nothing new: the capture time of the first frame that looked like this,
    /// in nanoseconds since the Unix epoch.
    pub unchanged_since: Option<u64>,
    /// Milliseconds from capture of the frame to the end of its last caption.
    pub caption_age_ms: f32,
    /// The frames described last, the newest behind: what the model saw.
    pub described: VecDeque<Arc<Frame>>,
    /// The frame that a question was put to last.
    pub asked: Option<Arc<Frame>>,
}

impl Report {
    /// What the engine did for the camera of a name; nothing if it does not know it.
    pub fn camera(&self, name: &str) -> CameraReport {
        self.cameras.iter().find(|report| report.camera == name).cloned().unwrap_or_default()
    }
}

impl CameraReport {
    /// Nothing done yet.
    pub(super) fn new(camera: &str) -> Self {
        Self { camera: camera.to_owned(), ..Self::default() }
    }

    /// Holds a frame that is described, and lets the oldest go.
    pub(super) fn hold(&mut self, frame: Arc<Frame>) {
        if self.described.len() == HELD {
            self.described.pop_front();
        }
        self.described.push_back(frame);
    }
}

impl Progress {
    /// Nothing done yet; those who refuse questions do so through `admission`.
    pub(super) fn new(admission: Arc<Admission>) -> Self {
        Self { admission, ..Self::default() }
    }

    /// What those who refuse questions share.
    pub(super) fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Units of work done and idle rounds made. It grows as long as the engine is alive.
    pub fn ticks(&self) -> u64 {
        self.units.load(Ordering::Relaxed)
    }

    /// Whether the model has answered on a picture.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// A copy of the figures.
    pub fn report(&self) -> Report {
        let figures = self.lock();
        let mut report = figures.report.clone();
        report.engine.stages = figures.stages.figures();
        report.engine.questions_refused = self.admission.refused();
        report
    }

    pub(super) fn tick(&self) {
        self.units.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    pub(super) fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.lock().report);
    }

    /// Adds times.
    pub(super) fn time(&self, add: impl FnOnce(&mut Stages)) {
        add(&mut self.lock().stages);
    }

    /// How long units of each kind took.
    pub fn units(&self) -> UnitTimes {
        self.lock().units.clone()
    }

    /// Counts a round: what was taken in, which took `intake`, and the unit behind it if there was one.
    pub(super) fn round(&self, intake: Duration, unit: Option<(Kind, Duration)>) {
        self.tick();
        let mut figures = self.lock();
        let Figures { report, stages, units } = &mut *figures;
        let engine = &mut report.engine;
        units.add(Kind::Intake, intake);
        engine.longest_unit_ms = engine.longest_unit_ms.max(millis(intake));
        if let Some((kind, time)) = unit {
            engine.units += 1;
            engine.longest_unit_ms = engine.longest_unit_ms.max(millis(time));
            engine.busy_s += time.as_secs_f64();
            stages.unit.add(time);
            units.add(kind, time);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A duration in milliseconds.
pub(super) fn millis(time: Duration) -> f32 {
    time.as_secs_f32() * 1000.0
}
