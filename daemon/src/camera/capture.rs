//! The camera thread: opens the source, passes its frames on, opens it again when it fails.
//!
//! What a camera is doing is told in phases:
//!
//! ```text
//! Opening -> Live                        the first frame
//! Opening, Live -> Stalled               no frame for too long; it is closed and opened again
//! Opening, Live -> Failing               refused, or an error; it is closed and opened again
//! Failing, Stalled -> Reopening          it failed again; from now on with longer pauses
//! Opening -> Absent                      it was never there
//! any -> Gone                            it was there and is not any more
//! any of these -> Opening                it could be opened, a frame is waited for
//! ```
//!
//! Attempts in vain change nothing of the phase, so that each change is told once.

use std::fmt::Write as _;
use std::io::PipeReader;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use messages::CameraPhase;

use super::backoff::Backoff;
use super::board::Board;
use super::frame::Frame;
use super::latest::Latest;
use super::pool::Pool;
use super::source::{Delivery, FrameSource, SourceError};
use super::v4l2::{Hotplug, Woken, wait};

/// Longest wait for a frame before the thread looks whether it is to stop.
const SLICE: Duration = Duration::from_millis(100);

/// After news of a device, before it is opened: its permissions and links follow, and news that
/// never end must not keep the thread busy.
const SETTLING: Duration = Duration::from_millis(20);

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// From opening to the first frame: some cameras take seconds to set their exposure.
    pub(super) first_frame: Duration,
    /// From frame to frame, or three intervals of slow sources.
    pub(super) next_frame: Duration,
    /// Before the first attempt to open it again; doubled by each failure.
    pub(super) shortest_retry: Duration,
    /// Before any attempt to open it again. Not everything that makes a camera usable again is told
    /// by the system.
    pub(super) longest_retry: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_frame: Duration::from_secs(15),
            next_frame: Duration::from_secs(2),
            shortest_retry: Duration::from_millis(250),
            longest_retry: Duration::from_secs(2),
        }
    }
}

/// Opens a source, as often as it is lost.
pub(super) type Open = Box<dyn FnMut() -> Result<Box<dyn FrameSource>, SourceError> + Send>;

/// Everything the camera thread owns.
pub(super) struct Capture {
    pub(super) open: Open,
    /// The source's file or device: when it appears, no more time is waited.
    pub(super) path: Option<PathBuf>,
    pub(super) latest: Arc<Latest<Frame>>,
    pub(super) board: Arc<Board>,
    /// Nothing is sent: the thread stops when the other end is dropped.
    pub(super) stop: PipeReader,
    pub(super) patience: Patience,
    /// Decides over the random part of pauses.
    pub(super) seed: u64,
}

/// Why frames stopped coming.
enum End {
    Stop,
    Ended,
    Stalled(String),
    Failed(SourceError),
}

/// What is known of a source over all its openings.
struct History {
    backoff: Backoff,
    /// Failures since the last frame.
    failures: u32,
    /// Whether it could be opened once.
    was_there: bool,
    /// There while the source is not open.
    hotplug: Option<Hotplug>,
}

impl Capture {
    /// Runs until the camera is stopped.
    pub(super) fn run(mut self) {
        self.board.announce();
        let mut pool = Pool::new();
        let mut sequence = 0;
        let Patience { shortest_retry, longest_retry, .. } = self.patience;
        let backoff = Backoff::new(shortest_retry, longest_retry, self.seed);
        let mut history = History { backoff, failures: 0, was_there: false, hotplug: None };
        loop {
            match (self.open)() {
                Err(error) => self.tell_failure(&error, &history),
                Ok(mut source) => {
                    history.was_there = true;
                    history.hotplug = None;
                    let (first, opened) = (sequence, Instant::now());
                    let (end, last) = self.pump(source.as_mut(), &mut pool, &mut sequence);
                    if sequence > first {
                        history.failures = 0;
                    }
                    if last.duration_since(opened) > longest_retry {
                        history.backoff.reset();
                    }
                    // Told before the source is closed, which can take a driver long.
                    match end {
                        End::Stop => return,
                        End::Ended => {
                            self.board.set(CameraPhase::Ended, "the last frame was delivered");
                            drop(source);
                            return self.rest();
                        }
                        End::Stalled(reason) => {
                            self.give_up_newest();
                            self.board.set(CameraPhase::Stalled, &reason);
                        }
                        End::Failed(error) => self.tell_failure(&error, &history),
                    }
                }
            }
            if self.stops_before_retry(&mut history) {
                return;
            }
        }
    }

    /// A frame from before a fault is not described after it.
    fn give_up_newest(&self) {
        if self.latest.expire() {
            self.board.count_replaced();
        }
    }

    /// Tells what went wrong, unless it was told before.
    fn tell_failure(&self, error: &SourceError, history: &History) {
        self.give_up_newest();
        let phase = match error.phase() {
            CameraPhase::Absent if history.was_there => CameraPhase::Gone,
            CameraPhase::Failing if history.failures > 0 => CameraPhase::Reopening,
            phase => phase,
        };
        if phase == CameraPhase::Gone {
            self.latest.lose();
            // First it refuses, then its node disappears: that is one change.
            if matches!(error, SourceError::Absent(_)) && self.board.phase() == CameraPhase::Gone {
                return;
            }
        }
        self.board.set(phase, &error.to_string());
    }

    /// Passes on frames until they stop coming. Returns why, and when the last one came, or when it
    /// began.
    fn pump(&self, source: &mut dyn FrameSource, pool: &mut Pool, sequence: &mut u64) -> (End, Instant) {
        self.board.open(source.describe());
        let next_limit = self.patience.next_frame.max(source.interval().saturating_mul(3));
        let mut limit = self.patience.first_frame.max(next_limit);
        let mut last = Instant::now();
        let mut damage = String::new();
        while wait(&self.stop, None, Duration::ZERO) != Woken::Stop {
            let mut shared = pool.take();
            let frame = Arc::get_mut(&mut shared).expect("the pool gives frames that nobody else holds");
            let delivery = match source.next_frame(frame, SLICE) {
                Ok(Delivery::Frame { lost }) => match frame.check() {
                    Ok(()) => Delivery::Frame { lost },
                    Err(error) => Delivery::Damaged(error.to_string()),
                },
                Ok(other) => other,
                Err(error) => return (End::Failed(error), last),
            };
            let is_frame = matches!(delivery, Delivery::Frame { .. });
            match delivery {
                Delivery::Frame { lost } => {
                    frame.sequence = *sequence;
                    *sequence += 1;
                    (last, limit) = (Instant::now(), next_limit);
                    self.board.count_frame(last, lost);
                    if self.latest.put(shared.clone()) {
                        self.board.count_replaced();
                    }
                }
                Delivery::Damaged(reason) => {
                    self.board.count_damaged();
                    damage = reason;
                }
                Delivery::Nothing => {}
                Delivery::Ended => return (End::Ended, last),
            }
            pool.give(shared);
            // After a frame nothing has elapsed, however long this thread was kept from running.
            if !is_frame && last.elapsed() > limit {
                return (End::Stalled(stall_reason(limit, &damage)), last);
            }
        }
        (End::Stop, last)
    }

    /// Waits before the next attempt, less if the source appears; whether the camera is to stop.
    fn stops_before_retry(&self, history: &mut History) -> bool {
        history.failures = history.failures.saturating_add(1);
        let mut time = history.backoff.next();
        if history.hotplug.is_none() {
            history.hotplug = self.path.as_deref().and_then(|path| Hotplug::new(path).ok());
            // What appeared before that is found soon too.
            time = time.min(self.patience.shortest_retry);
        }
        match wait(&self.stop, history.hotplug.as_mut(), time) {
            Woken::Stop => true,
            Woken::Time => false,
            Woken::News => {
                history.backoff.reset();
                wait(&self.stop, None, SETTLING) == Woken::Stop
            }
        }
    }

    /// Waits for the order to stop.
    fn rest(&self) {
        while wait(&self.stop, None, Duration::MAX) != Woken::Stop {}
    }
}

fn stall_reason(limit: Duration, damage: &str) -> String {
    let mut reason = format!("no frame for {} s", limit.as_secs_f32());
    if !damage.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(reason, "; the last one was damaged: {damage}");
    }
    reason
}

#[cfg(test)]
mod tests;
