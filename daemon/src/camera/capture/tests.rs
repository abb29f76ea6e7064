//! Every change of a camera's phase, by sources that follow a script.

use std::io::{self, PipeWriter};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;

use messages::CameraState;

use super::super::frame::PixelFormat;
use super::super::latest::Wake;
use super::super::{CameraHandle, ReadyCamera};
use super::*;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// What a scripted source does when it is asked for a frame.
#[derive(Clone, Copy, Debug)]
enum Act {
    Frame,
    Short,
    End,
    Unplug,
    Fail,
}

/// How an attempt to open it ends.
#[derive(Clone, Debug)]
enum Attempt {
    /// It opens, does this and falls silent.
    Open(&'static [Act]),
    Absent,
    Busy,
    Denied,
    Replaced,
}

use Act::{End as Finish, Fail, Frame as Show, Short, Unplug};
use Attempt::{Absent, Busy, Denied, Open as Opens, Replaced};

struct Scripted(std::slice::Iter<'static, Act>);

impl FrameSource for Scripted {
    fn describe(&self) -> String {
        "scripted".into()
    }

    fn interval(&self) -> Duration {
        Duration::ZERO
    }

    fn next_frame(&mut self, frame: &mut Frame, wait: Duration) -> Result<Delivery, SourceError> {
        (frame.width, frame.height, frame.stride, frame.format) = (2, 2, 2, PixelFormat::Grey);
        let path = Path::new("/dev/video9");
        match self.0.next() {
            Some(Show) => frame.bytes.resize(4, 7),
            Some(Short) => frame.bytes.clear(),
            Some(Finish) => return Ok(Delivery::Ended),
            Some(Unplug) => return Err(SourceError::Lost(path.into())),
            Some(Fail) => return Err(SourceError::io(path, "take a frame", error(libc::EIO))),
            None => {
                std::thread::sleep(wait.min(Duration::from_millis(5)));
                return Ok(Delivery::Nothing);
            }
        }
        Ok(Delivery::Frame { lost: 0 })
    }
}

fn error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl Attempt {
    fn result(&self) -> Result<Box<dyn FrameSource>, SourceError> {
        let path = PathBuf::from("/dev/video9");
        match self {
            Opens(acts) => Ok(Box::new(Scripted(acts.iter()))),
            Absent => Err(SourceError::Absent(path)),
            Busy => Err(SourceError::Busy(path)),
            Denied => Err(SourceError::Denied(path)),
            Replaced => Err(SourceError::Replaced { path, name: "Other".into() }),
        }
    }
}

/// Opens as the script says, and for ever as it says last.
fn opener(script: &[Attempt]) -> Open {
    let mut script = script.to_vec();
    Box::new(move || if script.len() > 1 { script.remove(0).result() } else { script[0].result() })
}

/// A running camera thread.
struct Running {
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
    states: Receiver<CameraState>,
    board: Arc<Board>,
    latest: Arc<Latest<Frame>>,
}

impl Running {
    /// Starts a camera that waits `retry` between attempts, less if `path` appears.
    fn start(open: Open, path: Option<PathBuf>, retry: Duration) -> Self {
        let (told, states) = channel();
        let told = Mutex::new(told);
        let on_state = Box::new(move |state| {
            // Nobody listens any more once enough was told.
            let _ = told.lock().unwrap().send(state);
        });
        let board = Arc::new(Board::new("front", "scripted", on_state));
        let latest = Arc::new(Latest::new(Wake::default()));
        let (stopped, stop) = io::pipe().unwrap();
        let patience = Patience {
            first_frame: Duration::from_millis(200),
            next_frame: Duration::from_millis(100),
            shortest_retry: retry,
            longest_retry: 4 * retry,
        };
        let (board_there, latest_there) = (board.clone(), latest.clone());
        let capture = Capture {
            open,
            path,
            latest: latest_there,
            board: board_there,
            stop: stopped,
            patience,
            seed: 1,
        };
        let thread = std::thread::spawn(move || capture.run());
        Self { stop: Some(stop), thread: Some(thread), states, board, latest }
    }

    /// The next change of state.
    fn next(&self) -> CameraState {
        self.states.recv_timeout(LONG).unwrap_or_else(|_| panic!("nothing after {:?}", self.board.status()))
    }

    fn stop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs a script until it told of `count` states; nothing else was told before it stopped.
fn states(script: &[Attempt], count: usize) -> (Vec<CameraState>, Arc<Board>) {
    let mut running = Running::start(opener(script), None, Duration::from_millis(1));
    let told = (0..count).map(|_| running.next()).collect();
    running.stop();
    (told, running.board.clone())
}

/// The phases that a script goes through, and the reason for each.
#[track_caller]
fn check(script: &[Attempt], want: &[(CameraPhase, &str)]) {
    let (told, board) = states(script, want.len());
    for (i, (state, (phase, reason))) in told.iter().zip(want).enumerate() {
        assert_eq!(state.phase, *phase, "change {i} of {told:?}");
        assert!(state.reason.contains(reason) && state.reason.is_empty() == reason.is_empty(), "{state:?}");
    }
    assert!(told.is_sorted_by_key(|state| state.since));
    // What waits for the bus is what was told.
    assert_eq!(board.changes()[..told.len()], told);
}

const OPENING: (CameraPhase, &str) = (CameraPhase::Opening, "");
const LIVE: (CameraPhase, &str) = (CameraPhase::Live, "");
const STALLED: (CameraPhase, &str) = (CameraPhase::Stalled, "no frame for 0.1 s");
const ABSENT: (CameraPhase, &str) = (CameraPhase::Absent, "/dev/video9: no such device or file");
const GONE: (CameraPhase, &str) = (CameraPhase::Gone, "/dev/video9: the device was unplugged");
const FAILING: (CameraPhase, &str) = (CameraPhase::Failing, "take a frame: ");

#[test]
fn an_absent_camera_is_absent_until_it_is_there() {
    check(&[Absent, Absent, Absent, Opens(&[Show])], &[OPENING, ABSENT, OPENING, LIVE]);
}

#[test]
fn a_camera_that_falls_silent_is_opened_again() {
    let silent = [Opens(&[Show, Show]), Opens(&[Show]), Absent];
    check(&silent, &[OPENING, LIVE, STALLED, OPENING, LIVE, STALLED]);
}

#[test]
fn a_camera_that_never_shows_anything_has_more_time() {
    let first = (CameraPhase::Stalled, "no frame for 0.2 s");
    check(&[Opens(&[]), Opens(&[Show])], &[OPENING, first, OPENING, LIVE]);
}

#[test]
fn an_unplugged_camera_is_gone_once_although_its_node_goes_later() {
    let script = [Opens(&[Show, Unplug]), Absent, Absent, Opens(&[Show])];
    check(&script, &[OPENING, LIVE, GONE, OPENING, LIVE]);
}

#[test]
fn a_camera_whose_node_is_still_there_after_unplugging_is_tried_in_vain() {
    // The driver refuses the open node, a new one and then none at all.
    let script = [Opens(&[Show, Unplug]), Opens(&[Unplug]), Absent, Opens(&[Show])];
    check(&script, &[OPENING, LIVE, GONE, OPENING, GONE, OPENING, LIVE]);
}

#[test]
fn an_error_before_the_node_disappears_is_told_first() {
    let gone = (CameraPhase::Gone, "no such device or file");
    check(&[Opens(&[Show, Fail]), Absent, Opens(&[Show])], &[OPENING, LIVE, FAILING, gone, OPENING, LIVE]);
}

#[test]
fn one_error_is_followed_by_a_new_start() {
    check(&[Opens(&[Show, Fail]), Opens(&[Show])], &[OPENING, LIVE, FAILING, OPENING, LIVE]);
}

#[test]
fn errors_in_a_row_are_told_once_each_and_end_in_pauses() {
    let busy = (CameraPhase::Reopening, "busy");
    let denied = (CameraPhase::Reopening, "permission denied");
    check(
        &[Opens(&[Show, Fail]), Busy, Busy, Busy, Denied, Denied, Opens(&[Show])],
        &[OPENING, LIVE, FAILING, busy, denied, OPENING, LIVE],
    );
    let first = (CameraPhase::Failing, "busy");
    check(&[Busy, Busy, Busy, Opens(&[Show])], &[OPENING, first, busy, OPENING, LIVE]);
}

#[test]
fn another_camera_in_its_place_is_not_it() {
    let replaced = (CameraPhase::Gone, "/dev/video9: another camera now (Other)");
    check(
        &[Opens(&[Show, Unplug]), Absent, Replaced, Replaced, Opens(&[Show])],
        &[OPENING, LIVE, GONE, replaced, OPENING, LIVE],
    );
}

#[test]
fn a_finite_source_ends() {
    let ended = (CameraPhase::Ended, "the last frame was delivered");
    check(&[Opens(&[Show, Show, Finish])], &[OPENING, LIVE, ended]);
}

#[test]
fn damaged_frames_are_counted_and_never_shown() {
    let (states, board) = states(&[Opens(&[Short, Short, Show, Short]), Absent], 3);
    assert!(states[2].reason.starts_with("no frame for 0.1 s; the last one was damaged: Grey"));
    let status = board.status();
    assert_eq!((status.frames, status.damaged), (1, 3));
}

#[test]
fn a_frame_from_before_a_fault_is_not_new_after_it() {
    for script in [&[Show, Fail][..], &[Show]] {
        let running = Running::start(opener(&[Opens(script), Busy]), None, Duration::from_millis(1));
        while !matches!(running.next().phase, CameraPhase::Failing | CameraPhase::Stalled) {}
        assert!(running.latest.newest().is_some() && !running.latest.has_new(), "{script:?}");
        assert!(!running.latest.is_lost(), "a fault may pass");
        assert_eq!(running.board.status().replaced, 1);
    }
    let running = Running::start(opener(&[Opens(&[Show, Unplug]), Absent]), None, Duration::from_millis(1));
    while running.next().phase != CameraPhase::Gone {}
    assert!(running.latest.is_lost());
}

#[test]
fn a_camera_that_appears_is_opened_long_before_the_next_attempt() {
    let folder = std::env::temp_dir().join(format!("capture-appears-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("video9");
    let node = path.clone();
    let open: Open = Box::new(move || if node.exists() { Opens(&[Show]).result() } else { Absent.result() });
    let mut running = Running::start(open, Some(path.clone()), 10 * LONG);
    assert_eq!(running.next().phase, CameraPhase::Opening);
    assert_eq!(running.next().phase, CameraPhase::Absent);
    // The camera may not have begun to look out: nodes that appear one after the other are seen.
    let appearing = Instant::now();
    while let Err(RecvTimeoutError::Timeout) = running.states.recv_timeout(Duration::from_millis(50)) {
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, "").unwrap();
        assert!(appearing.elapsed() < LONG, "{:?}", running.board.status());
    }
    assert_eq!(running.next().phase, CameraPhase::Live);
    running.stop();
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_order_to_stop_ends_a_pause_between_attempts() {
    let mut running = Running::start(opener(&[Absent]), None, 10 * LONG);
    while running.next().phase != CameraPhase::Absent {}
    // It would take ten minutes otherwise.
    running.stop();
}

#[test]
fn a_driver_that_never_returns_holds_up_neither_other_cameras_nor_the_end() {
    let start = |name: &str, open: Open| -> CameraHandle {
        let ready = ReadyCamera {
            name: name.into(),
            latest: Arc::new(Latest::new(Wake::default())),
            source: "scripted".into(),
            open,
            path: None,
            patience: Patience::default(),
        };
        ready.start(|_| {}).unwrap()
    };
    let (held, hold) = channel::<()>();
    let hold = Mutex::new(hold);
    let stuck: Open = Box::new(move || {
        // Until the test ends.
        let _ = hold.lock().unwrap().recv();
        Absent.result()
    });
    let stuck = start("stuck", stuck);
    let other = start("other", opener(&[Opens(&[Show; 50])]));
    let begin = Instant::now();
    while other.status().frames < 50 {
        assert!(begin.elapsed() < LONG, "{:?}", other.status());
        std::thread::sleep(Duration::from_millis(1));
    }
    other.stop();
    // Returns although the thread does not.
    stuck.stop();
    drop(held);
}
