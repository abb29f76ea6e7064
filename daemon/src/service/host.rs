//! What the bus shows of the daemon: its status, its cameras and their frames.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

use messages::{BusStatus, CameraPhase, CameraState, CameraStatus, ModelStatus, Status};

use crate::bus::{BusInputs, Feed};
use crate::camera::{CameraHandle, Frame};
use crate::engine::Progress;
use crate::health;
use crate::wall_clock;

/// The parts of the daemon that can be looked at.
pub(super) struct Host {
    /// Name on the bus.
    pub(super) device: String,
    /// When the daemon started.
    pub(super) start: Instant,
    /// The model in use.
    pub(super) model: ModelStatus,
    /// What the engine tells of itself.
    pub(super) progress: Arc<Progress>,
    /// The cameras, in the order of the configuration.
    pub(super) cameras: RwLock<Vec<CameraHandle>>,
    /// Those of them whose frames are published.
    pub(super) feeds: RwLock<Vec<Feed>>,
}

impl Host {
    /// The cameras; the list stays whole even if a holder panicked.
    pub(super) fn handles(&self) -> RwLockReadGuard<'_, Vec<CameraHandle>> {
        self.cameras.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the cameras by what `exchange` makes of them.
    pub(super) fn exchange<E>(
        &self,
        exchange: impl FnOnce(Vec<CameraHandle>) -> Result<Vec<CameraHandle>, E>,
    ) -> Result<(), E> {
        let mut cameras = self.cameras.write().unwrap_or_else(PoisonError::into_inner);
        *cameras = exchange(std::mem::take(&mut *cameras))?;
        Ok(())
    }

    /// Makes these the cameras whose frames are published.
    pub(super) fn publish(&self, feeds: Vec<Feed>) {
        *self.feeds.write().unwrap_or_else(PoisonError::into_inner) = feeds;
    }

    /// The daemon in one line that changes only when something happens.
    pub(super) fn summary(&self) -> String {
        let cameras = self.cameras();
        let live = cameras.iter().filter(|camera| camera.phase == CameraPhase::Live).count();
        let lost: Vec<_> = cameras
            .iter()
            .filter(|camera| camera.phase != CameraPhase::Live)
            .map(|camera| format!("{} {:?}", camera.camera, camera.phase).to_lowercase())
            .collect();
        let comma = if lost.is_empty() { "" } else { ", " };
        format!("{}: {live} of {} cameras live{comma}{}", self.model.id, cameras.len(), lost.join(", "))
    }
}

impl BusInputs for Host {
    fn status(&self) -> Status {
        let report = self.progress.report();
        let handles = self.handles();
        let cameras = handles.iter().map(|camera| {
            let described = report.camera(&camera.name);
            let mut status = camera.status();
            status.state.unchanged_since = described.unchanged_since;
            CameraStatus {
                captions: described.captions,
                too_old: described.too_old,
                failed: described.failed,
                unchanged: described.unchanged,
                damaged: status.damaged + described.damaged,
                caption_age_ms: described.caption_age_ms,
                ..status
            }
        });
        Status {
            device: self.device.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_s: self.start.elapsed().as_secs_f64(),
            written_at: wall_clock::now(),
            model: self.model.clone(),
            engine: report.engine,
            cache: report.cache,
            resident_bytes: health::resident_bytes(),
            temperature_c: health::temperature_c(),
            cameras: cameras.collect(),
            rules: report.rules,
            // The bus knows itself.
            bus: BusStatus::default(),
        }
    }

    fn cameras(&self) -> Vec<CameraState> {
        let report = self.progress.report();
        let state = |camera: &CameraHandle| CameraState {
            unchanged_since: report.camera(&camera.name).unchanged_since,
            ..camera.status().state
        };
        self.handles().iter().map(state).collect()
    }

    fn camera_changes(&self) -> Vec<CameraState> {
        let report = self.progress.report();
        let handles = self.handles();
        let changes = handles.iter().flat_map(|camera| {
            let unchanged_since = report.camera(&camera.name).unchanged_since;
            camera.changes().into_iter().map(move |state| CameraState { unchanged_since, ..state })
        });
        changes.collect()
    }

    fn feeds(&self) -> Vec<Feed> {
        self.feeds.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count_sent(&self, camera: &str, is_sent: bool) {
        if let Some(handle) = self.handles().iter().find(|handle| handle.name == camera) {
            handle.count_sent(is_sent);
        }
    }

    /// Held are the newest frame, the ones described last and the one asked about last.
    fn frame(&self, camera: &str, sequence: Option<u64>) -> Option<Arc<Frame>> {
        let handles = self.handles();
        let newest = handles.iter().find(|handle| handle.name == camera)?.latest.newest();
        let Some(sequence) = sequence else { return newest };
        let seen = self.progress.report().camera(camera);
        let described = seen.described.iter().rev().chain(&seen.asked);
        newest.iter().chain(described).find(|frame| frame.sequence == sequence).cloned()
    }
}
