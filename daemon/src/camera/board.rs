//! State and counters of a camera, written by its thread and read by anyone.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use messages::{CameraPhase, CameraState, CameraStatus};

use crate::wall_clock;

/// Told of every change of state, on the camera's thread.
pub(super) type OnState = Box<dyn Fn(CameraState) + Send>;

/// State and counters of a camera.
pub(super) struct Board {
    inner: Mutex<Inner>,
    on_state: Mutex<OnState>,
}

struct Inner {
    status: CameraStatus,
    rate: Rate,
    /// Changes of state that nobody took yet.
    changes: VecDeque<CameraState>,
}

/// Changes that wait to be taken. More than are taken in time are forgotten, the oldest first.
const MOST_CHANGES: usize = 64;

impl Board {
    /// A camera that is being opened.
    pub(super) fn new(camera: &str, source: &str, on_state: OnState) -> Self {
        let since = wall_clock::now();
        let state = CameraState { camera: camera.to_owned(), since, ..CameraState::default() };
        let status = CameraStatus { state, source: source.to_owned(), ..CameraStatus::default() };
        let changes = VecDeque::from([status.state.clone()]);
        Self {
            inner: Mutex::new(Inner { status, rate: Rate::new(), changes }),
            on_state: Mutex::new(on_state),
        }
    }

    /// State and counters as of now.
    pub(super) fn status(&self) -> CameraStatus {
        let inner = lock(&self.inner);
        let frames_per_second = inner.rate.at(Instant::now());
        CameraStatus { frames_per_second, ..inner.status.clone() }
    }

    /// What the camera is doing.
    pub(super) fn phase(&self) -> CameraPhase {
        lock(&self.inner).status.state.phase
    }

    /// Takes the changes of state since the last call, the first state included, oldest first.
    pub(super) fn changes(&self) -> Vec<CameraState> {
        lock(&self.inner).changes.drain(..).collect()
    }

    /// Tells of the first state.
    pub(super) fn announce(&self) {
        let state = lock(&self.inner).status.state.clone();
        lock(&self.on_state)(state);
    }

    /// Notes that the source is open and how it describes itself.
    pub(super) fn open(&self, source: String) {
        let mut inner = lock(&self.inner);
        inner.status.source = source;
        inner.rate = Rate::new();
        drop(inner);
        self.set(CameraPhase::Opening, "");
    }

    /// Changes the state and tells of it, if it is a change.
    pub(super) fn set(&self, phase: CameraPhase, reason: &str) {
        let mut inner = lock(&self.inner);
        let state = &mut inner.status.state;
        if state.phase == phase && state.reason == reason {
            return;
        }
        state.phase = phase;
        reason.clone_into(&mut state.reason);
        state.since = wall_clock::now();
        let state = state.clone();
        if inner.changes.len() == MOST_CHANGES {
            inner.changes.pop_front();
        }
        inner.changes.push_back(state.clone());
        drop(inner);
        lock(&self.on_state)(state);
    }

    /// Counts a frame and the frames the driver lost before it.
    pub(super) fn count_frame(&self, now: Instant, lost: u64) {
        let mut inner = lock(&self.inner);
        inner.rate.add(now);
        let status = &mut inner.status;
        status.frames += 1;
        status.lost += lost;
        let is_live = status.state.phase == CameraPhase::Live;
        drop(inner);
        if !is_live {
            self.set(CameraPhase::Live, "");
        }
    }

    /// Counts a frame that was replaced before anyone looked at it.
    pub(super) fn count_replaced(&self) {
        lock(&self.inner).status.replaced += 1;
    }

    /// Counts a frame that was dropped as damaged.
    pub(super) fn count_damaged(&self) {
        lock(&self.inner).status.damaged += 1;
    }
}

/// Frames per second over the last seconds.
struct Rate {
    times: VecDeque<Instant>,
}

/// How far back frames count, and how many of them at most.
const WINDOW: Duration = Duration::from_secs(3);
const MOST_TIMES: usize = 256;

impl Rate {
    fn new() -> Self {
        Self { times: VecDeque::with_capacity(MOST_TIMES) }
    }

    fn add(&mut self, now: Instant) {
        if self.times.len() == MOST_TIMES {
            self.times.pop_front();
        }
        self.times.push_back(now);
    }

    /// Frames per second at `now`. Slow sources are judged by their last two frames.
    fn at(&self, now: Instant) -> f32 {
        let recent = self.times.iter().rev().take_while(|time| now.duration_since(**time) < WINDOW).count();
        let count = recent.max(2);
        let (Some(last), Some(first)) = (self.times.back(), self.times.iter().rev().nth(count - 1)) else {
            return 0.0;
        };
        // A frame that is overdue slows the rate down to nothing.
        let overdue = now.duration_since(*last).saturating_sub(WINDOW);
        let seconds = (last.duration_since(*first) + overdue).as_secs_f32();
        if seconds > 0.0 { (count - 1) as f32 / seconds } else { 0.0 }
    }
}

/// Locks a mutex whose data stays valid even if a holder panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_the_last_seconds() {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let mut rate = Rate::new();
        assert_eq!(rate.at(at(0)), 0.0);
        rate.add(at(0));
        assert_eq!(rate.at(at(10)), 0.0);
        for i in 1..=100 {
            rate.add(at(40 * i));
        }
        assert!((rate.at(at(4000)) - 25.0).abs() < 0.01);
        assert!(rate.at(at(9000)) < 1.0);
    }

    #[test]
    fn only_changes_are_told() {
        let (sender, told) = std::sync::mpsc::channel();
        let board = Board::new("front", "test:", Box::new(move |state| sender.send(state.phase).unwrap()));
        board.open("test scene".into());
        board.count_frame(Instant::now(), 2);
        board.count_frame(Instant::now(), 0);
        board.count_replaced();
        board.set(CameraPhase::Gone, "unplugged");
        board.set(CameraPhase::Gone, "unplugged");
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [CameraPhase::Live, CameraPhase::Gone]);
        let changes = || board.changes().into_iter().map(|state| state.phase).collect::<Vec<_>>();
        assert_eq!(changes(), [CameraPhase::Opening, CameraPhase::Live, CameraPhase::Gone]);
        assert_eq!(changes(), []);
        let status = board.status();
        assert_eq!((status.frames, status.lost, status.replaced), (2, 2, 1));
        assert_eq!(status.state.reason, "unplugged");
    }
}
