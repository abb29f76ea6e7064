//! The camera thread: opens the source, passes its frames on, opens it again when it fails.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use messages::CameraPhase;

use super::board::Board;
use super::frame::Frame;
use super::latest::Latest;
use super::pool::Pool;
use super::source::{Delivery, FrameSource, SourceError};

/// Longest wait for a frame before the thread looks whether it is to stop.
const SLICE: Duration = Duration::from_millis(100);

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// From opening to the first frame: some cameras take seconds to set their exposure.
    pub(super) first_frame: Duration,
    /// From frame to frame, or three intervals of slow sources.
    pub(super) next_frame: Duration,
    /// Before the first attempt to open it again; doubled by each failure.
    pub(super) shortest_retry: Duration,
    /// Before any attempt to open it again.
    pub(super) longest_retry: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_frame: Duration::from_secs(15),
            next_frame: Duration::from_secs(2),
            shortest_retry: Duration::from_millis(250),
            longest_retry: Duration::from_secs(5),
        }
    }
}

/// Opens a source, as often as it is lost.
pub(super) type Open = Box<dyn FnMut() -> Result<Box<dyn FrameSource>, SourceError> + Send>;

/// Everything the camera thread owns.
pub(super) struct Capture {
    pub(super) open: Open,
    pub(super) latest: Arc<Latest<Frame>>,
    pub(super) board: Arc<Board>,
    /// Nothing is sent: the thread stops when the other end is dropped.
    pub(super) stop: Receiver<()>,
    pub(super) patience: Patience,
}

/// Why frames stopped coming.
enum End {
    Stop,
    Ended,
    Stalled(String),
    Failed(SourceError),
}

impl Capture {
    /// Runs until the camera is stopped.
    pub(super) fn run(mut self) {
        self.board.announce();
        let mut pool = Pool::new();
        let mut sequence = 0;
        let mut retry = self.patience.shortest_retry;
        loop {
            let opened = Instant::now();
            match (self.open)() {
                Err(error) => self.board.set(error.phase(), &error.to_string()),
                Ok(source) => match self.pump(source, &mut pool, &mut sequence) {
                    End::Stop => return,
                    End::Ended => {
                        self.board.set(CameraPhase::Ended, "the last frame was delivered");
                        return self.rest();
                    }
                    End::Stalled(reason) => self.board.set(CameraPhase::Reopening, &reason),
                    End::Failed(error) => {
                        if error.phase() == CameraPhase::Gone {
                            self.latest.lose();
                        }
                        self.board.set(error.phase(), &error.to_string());
                    }
                },
            }
            if opened.elapsed() > self.patience.longest_retry {
                retry = self.patience.shortest_retry;
            }
            if self.stops_within(retry) {
                return;
            }
            retry = (2 * retry).min(self.patience.longest_retry);
        }
    }

    /// Passes on frames until they stop coming. The source is closed on return.
    fn pump(&self, mut source: Box<dyn FrameSource>, pool: &mut Pool, sequence: &mut u64) -> End {
        self.board.open(source.describe());
        let next_limit = self.patience.next_frame.max(source.interval().saturating_mul(3));
        let mut limit = self.patience.first_frame.max(next_limit);
        let mut last = Instant::now();
        let mut damage = String::new();
        while self.stop.try_recv() != Err(TryRecvError::Disconnected) {
            let mut shared = pool.take();
            let frame = Arc::get_mut(&mut shared).expect("the pool gives frames that nobody else holds");
            let delivery = match source.next_frame(frame, SLICE) {
                Ok(Delivery::Frame { lost }) => match frame.check() {
                    Ok(()) => Delivery::Frame { lost },
                    Err(error) => Delivery::Damaged(error.to_string()),
                },
                Ok(other) => other,
                Err(error) => return End::Failed(error),
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
                Delivery::Ended => return End::Ended,
            }
            pool.give(shared);
            // After a frame nothing has elapsed, however long this thread was kept from running.
            if !is_frame && last.elapsed() > limit {
                let reason = stall_reason(limit, &damage);
                self.board.set(CameraPhase::Stalled, &reason);
                return End::Stalled(reason);
            }
        }
        End::Stop
    }

    /// Waits for `time` or the order to stop; whether it came.
    fn stops_within(&self, time: Duration) -> bool {
        !matches!(self.stop.recv_timeout(time), Err(RecvTimeoutError::Timeout))
    }

    /// Waits for the order to stop.
    fn rest(&self) {
        // Either way of returning means stop.
        let _ = self.stop.recv();
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
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel, sync_channel};

    use messages::CameraState;

    use super::super::frame::PixelFormat;
    use super::super::latest::Wake;
    use super::*;

    /// What a scripted source does when it is asked for a frame.
    #[derive(Clone, Copy, Debug)]
    enum Act {
        Frame,
        Short,
        Silence,
        End,
        Unplug,
    }

    struct Scripted(std::vec::IntoIter<Act>);

    impl FrameSource for Scripted {
        fn describe(&self) -> String {
            "scripted".into()
        }

        fn interval(&self) -> Duration {
            Duration::ZERO
        }

        fn next_frame(&mut self, frame: &mut Frame, wait: Duration) -> Result<Delivery, SourceError> {
            (frame.width, frame.height, frame.stride, frame.format) = (2, 2, 2, PixelFormat::Grey);
            match self.0.next().unwrap_or(Act::Silence) {
                Act::Frame => frame.bytes.resize(4, 7),
                Act::Short => frame.bytes.clear(),
                Act::End => return Ok(Delivery::Ended),
                Act::Unplug => return Err(SourceError::Lost("/dev/video9".into())),
                Act::Silence => {
                    std::thread::sleep(wait.min(Duration::from_millis(5)));
                    return Ok(Delivery::Nothing);
                }
            }
            Ok(Delivery::Frame { lost: 0 })
        }
    }

    /// Runs a camera whose source is opened with these results in turn, the last one for ever, until
    /// it told of `states` states. Returns them and the camera's board.
    fn states(script: &[Option<&[Act]>], states: usize) -> (Vec<CameraState>, Arc<Board>) {
        let mut openings: Vec<Option<Vec<Act>>> = script.iter().map(|acts| acts.map(<[_]>::to_vec)).collect();
        let open = move || {
            let acts = if openings.len() > 1 { openings.remove(0) } else { openings[0].clone() };
            match acts {
                Some(acts) => Ok(Box::new(Scripted(acts.into_iter())) as Box<dyn FrameSource>),
                None => Err(SourceError::Absent("/dev/video9".into())),
            }
        };
        let (told, states_told): (Sender<CameraState>, _) = channel();
        let told = Mutex::new(told);
        let on_state = Box::new(move |state| {
            // Nobody listens any more once enough was told.
            let _ = told.lock().unwrap().send(state);
        });
        let board = Arc::new(Board::new("front", "scripted", on_state));
        let (stop, stopped) = sync_channel(0);
        let millis = Duration::from_millis;
        let patience = Patience {
            first_frame: millis(1000),
            next_frame: millis(100),
            shortest_retry: millis(1),
            longest_retry: millis(4),
        };
        let latest = Arc::new(Latest::new(Wake::default()));
        let capture = Capture { open: Box::new(open), latest, board: board.clone(), stop: stopped, patience };
        let thread = std::thread::spawn(move || capture.run());
        let states = states_told.iter().take(states).collect();
        drop(stop);
        thread.join().unwrap();
        (states, board)
    }

    fn phases(states: &[CameraState]) -> Vec<CameraPhase> {
        states.iter().map(|state| state.phase).collect()
    }

    #[test]
    fn an_absent_camera_is_gone_until_it_is_there() {
        let (states, _) = states(&[None, None, None, Some(&[Act::Frame])], 4);
        use CameraPhase::{Gone, Live, Opening};
        assert_eq!(phases(&states), [Opening, Gone, Opening, Live]);
        assert_eq!(states[1].reason, "/dev/video9: no such device or file");
        assert_eq!(states[3].reason, "");
    }

    #[test]
    fn a_camera_that_falls_silent_is_opened_again() {
        let (states, board) = states(&[Some(&[Act::Frame, Act::Frame]), Some(&[Act::Frame]), None], 6);
        use CameraPhase::{Live, Opening, Reopening, Stalled};
        assert_eq!(phases(&states), [Opening, Live, Stalled, Reopening, Opening, Live]);
        assert_eq!(states[2].reason, "no frame for 0.1 s");
        assert_eq!(board.status().frames, 3);
    }

    #[test]
    fn an_unplugged_camera_is_gone_and_comes_back() {
        let (states, _) = states(&[Some(&[Act::Frame, Act::Unplug]), None, Some(&[Act::Frame])], 6);
        use CameraPhase::{Gone, Live, Opening};
        assert_eq!(phases(&states), [Opening, Live, Gone, Gone, Opening, Live]);
        assert!(states[2].reason.contains("unplugged"));
    }

    #[test]
    fn damaged_frames_are_counted_and_never_shown() {
        let (states, board) = states(&[Some(&[Act::Short, Act::Short, Act::Frame, Act::Short]), None], 3);
        assert_eq!(states[1].phase, CameraPhase::Live);
        assert!(states[2].reason.starts_with("no frame for 0.1 s; the last one was damaged: Grey"));
        let status = board.status();
        assert_eq!((status.frames, status.damaged), (1, 3));
    }

    #[test]
    fn a_finite_source_ends() {
        let (states, board) = states(&[Some(&[Act::Frame, Act::Frame, Act::End])], 3);
        assert_eq!(states[2].phase, CameraPhase::Ended);
        assert_eq!(board.status().frames, 2);
    }
}
