//! What the engine tells of itself to the rest of the daemon.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use messages::{CacheStatus, EngineStatus};

use crate::camera::Frame;

/// Shared between the engine and whoever watches it.
#[derive(Debug, Default)]
pub struct Progress {
    units: AtomicU64,
    ready: AtomicBool,
    stop: AtomicBool,
    report: Mutex<Report>,
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
}

/// What the engine did for one camera.
#[derive(Clone, Debug, Default)]
pub struct CameraReport {
    /// Captions finished.
    pub captions: u64,
    /// Frames that were too old when their turn came.
    pub too_old: u64,
    /// Frames that could not be decoded.
    pub damaged: u64,
    /// Milliseconds from capture of the frame to the end of its last caption.
    pub caption_age_ms: f32,
    /// The frame described last: what the model saw.
    pub described: Option<Arc<Frame>>,
}

impl Progress {
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
        self.lock().clone()
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
        change(&mut self.lock());
    }

    /// Counts a unit that took `time`.
    pub(super) fn unit(&self, time: Duration) {
        self.tick();
        let mut report = self.lock();
        report.engine.units += 1;
        report.engine.longest_unit_ms = report.engine.longest_unit_ms.max(millis(time));
    }

    fn lock(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A duration in milliseconds.
pub(super) fn millis(time: Duration) -> f32 {
    time.as_secs_f32() * 1000.0
}
