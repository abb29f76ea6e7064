//! A camera of the daemon, watched: when its frames came and which states it told.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use messages::{CameraPhase, CameraState, CameraStatus};
use mobilevlmd::camera::{self, CameraHandle, Network, Wake};
use mobilevlmd::config::CameraConfig;

/// How often the watcher looks whether it is to end.
const SLICE: Duration = Duration::from_millis(100);

/// What was seen of a camera.
#[derive(Default)]
struct Seen {
    /// When the newest frame was captured, and when it was there.
    newest: Option<(Instant, Instant)>,
    longest_interval: Duration,
    /// States told since the cycle began, and when.
    states: Vec<(Instant, CameraState)>,
}

/// A camera and whoever takes its frames.
pub(crate) struct Subject {
    handle: CameraHandle,
    seen: Arc<Mutex<Seen>>,
    /// What the bus would have been given by now.
    at_begin: CameraStatus,
    stop: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

impl Subject {
    /// Starts a camera of small and few frames.
    pub(crate) fn start(name: &str, source: &str) -> Self {
        let config = CameraConfig {
            name: name.into(),
            source: source.into(),
            width: 320,
            height: 180,
            fps: 10.0,
            ..CameraConfig::default()
        };
        let (seen, wake) = (Arc::new(Mutex::new(Seen::default())), Wake::default());
        let told = seen.clone();
        let on_state = move |state| lock(&told).states.push((Instant::now(), state));
        let handle =
            camera::spawn(&config, &Network::none(), wake.clone(), on_state).expect("a camera's thread");
        let stop = Arc::new(AtomicBool::new(false));
        let (latest, noted, stopping) = (handle.latest.clone(), seen.clone(), stop.clone());
        let watcher = thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                wake.wait_until(Instant::now() + SLICE);
                if let Some(frame) = latest.take_new() {
                    lock(&noted).note(frame.captured);
                }
            }
        });
        let at_begin = handle.status();
        Self { handle, seen, at_begin, stop, watcher: Some(watcher) }
    }

    /// Counters as they are, and as they were when the cycle began.
    pub(crate) fn counters(&self) -> (CameraStatus, &CameraStatus) {
        (self.handle.status(), &self.at_begin)
    }

    pub(crate) fn is_live(&self) -> bool {
        self.handle.status().state.phase == CameraPhase::Live
    }

    pub(crate) fn has_frame_since(&self, time: Instant) -> bool {
        lock(&self.seen).newest.is_some_and(|(captured, _)| captured > time)
    }

    /// Begins to measure.
    pub(crate) fn begin(&mut self) {
        self.at_begin = self.handle.status();
        // States told before the first cycle.
        self.handle.changes();
        let mut seen = lock(&self.seen);
        seen.longest_interval = Duration::ZERO;
        seen.states.clear();
    }

    /// The longest time between two frames since the cycle began.
    pub(crate) fn longest_interval(&self) -> Duration {
        lock(&self.seen).longest_interval
    }

    /// Waits until a phase was told since the cycle began; when it was.
    pub(crate) fn wait_for(&self, phase: CameraPhase, patience: Duration) -> Option<Instant> {
        let told =
            |seen: &Seen| seen.states.iter().find(|(_, state)| state.phase == phase).map(|told| told.0);
        self.poll(patience, told)
    }

    /// The time from `usable` to the first good frame that was captured after it and after the camera was
    /// interrupted.
    pub(crate) fn wait_for_recovery(&self, usable: Instant, patience: Duration) -> Option<Duration> {
        let interrupted = |seen: &Seen| {
            seen.states.iter().find(|(_, state)| state.phase != CameraPhase::Live).map(|told| told.0)
        };
        let since = self.poll(patience, interrupted)?.max(usable);
        let good = |seen: &Seen| {
            let is_live = seen.states.last().is_some_and(|(_, state)| state.phase == CameraPhase::Live);
            let newest = seen.newest.filter(|(captured, _)| is_live && *captured > since);
            newest.map(|(_, there)| there)
        };
        Some(self.poll(patience, good)?.saturating_duration_since(usable))
    }

    /// The states told since the cycle began. Errors: what waited for the bus is something else.
    pub(crate) fn take_states(&mut self) -> Result<Vec<CameraState>, String> {
        let told: Vec<_> = lock(&self.seen).states.drain(..).map(|(_, state)| state).collect();
        let published = self.handle.changes();
        if told == published { Ok(told) } else { Err(format!("told {told:?}, for the bus {published:?}")) }
    }

    fn poll<T>(&self, patience: Duration, found: impl Fn(&Seen) -> Option<T>) -> Option<T> {
        let start = Instant::now();
        loop {
            let value = found(&lock(&self.seen));
            if value.is_some() || start.elapsed() > patience {
                return value;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Seen {
    fn note(&mut self, captured: Instant) {
        let now = Instant::now();
        if let Some((last, _)) = self.newest {
            self.longest_interval = self.longest_interval.max(captured.saturating_duration_since(last));
        }
        self.newest = Some((captured, now));
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(watcher) = self.watcher.take() {
            // It only fails by a panic, which was printed.
            let _ = watcher.join();
        }
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CameraStatus { state, source, frames, .. } = self.handle.status();
        let phases: Vec<_> = lock(&self.seen).states.iter().map(|(_, state)| state.phase).collect();
        write!(
            f,
            "{} ({source}, {frames} frames, {phases:?}, {:?} {})",
            state.camera, state.phase, state.reason
        )
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
