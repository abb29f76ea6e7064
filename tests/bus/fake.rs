//! Cameras and an engine made up, so that only the bus is under test.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use messages::{
    Alert, AlertEnd, AlertEvent, Answer, AnswerPiece, AskError, CameraPhase, CameraState, CameraStatus,
    Caption, CaptionChange, CaptionPiece, CaptionSettings, Captioning, FrameChoice, FrameStamp, Rule,
    RuleChange, Rules, SessionList, Status,
};
use mobilevlmd::bus::{Bus, BusInputs, Traffic};
use mobilevlmd::camera::{Frame, PixelFormat, Wake};
use mobilevlmd::changes::Kept;
use mobilevlmd::config::{BusConfig, QuestionConfig, Ros2Config};
use mobilevlmd::engine::{Ask, AskSender, ControlRequest, ControlSender, Event, Reloaded, Reply};
use tokio::sync::mpsc;
use zenoh::{Session, Wait};

use super::PATIENCE;

pub(super) const DEVICE: &str = "bench-1";
pub(super) const CAMERA: &str = "front";
/// A camera that shows nothing.
pub(super) const DARK: &str = "dark";
pub(super) const FRAME: u64 = 7;

/// A question the engine neither answers nor gives up.
pub(super) const SAY_NOTHING: &str = "say nothing";

/// A question the engine forgets.
pub(super) const GIVE_UP: &str = "give up";

/// Ports below those the system gives to connections, so that nothing takes a free one before its listener does.
const PORTS: std::ops::Range<u32> = 16_000..32_000;

/// An endpoint nobody listens on, given to one caller only.
pub(crate) fn free_endpoint() -> String {
    static GIVEN: AtomicUsize = AtomicUsize::new(0);
    // Processes that run side by side begin at different ports.
    let first = std::process::id().wrapping_mul(97);
    loop {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed) as u32;
        let port = PORTS.start + first.wrapping_add(given) % PORTS.len() as u32;
        if TcpListener::bind(("127.0.0.1", port as u16)).is_ok() {
            return format!("tcp/127.0.0.1:{port}");
        }
    }
}

/// zenoh's router, reached at `endpoint`.
pub(super) fn router(endpoint: &str) -> Session {
    let mut config = zenoh::Config::default();
    config.insert_json5("mode", "\"router\"").unwrap();
    config.insert_json5("listen/endpoints", &format!("[\"{endpoint}\"]")).unwrap();
    config.insert_json5("scouting/multicast/enabled", "false").unwrap();
    zenoh::open(config).wait().unwrap()
}

/// A bus with nothing real behind it. Dropped without being stopped, as by a test that fails, it ends all the same.
pub(super) struct Daemon {
    pub(super) endpoint: String,
    /// States that cameras went through and that the bus has not taken yet.
    pub(super) changes: Arc<Mutex<Vec<CameraState>>>,
    bus: Option<Bus>,
    engine: Arc<Engine>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Daemon {
    /// Starts a bus that lets `queue` questions wait, its engine and a camera that is described all the time.
    pub(super) fn start(queue: usize) -> Self {
        let endpoint = free_endpoint();
        Self::on(BusConfig { listen: vec![endpoint.clone()], ..BusConfig::default() }, endpoint, queue)
    }

    /// The same, reached at `endpoint` by clients.
    pub(super) fn on(config: BusConfig, endpoint: String, queue: usize) -> Self {
        Self::with_ros(config, Ros2Config::default(), endpoint, queue)
    }

    /// The same, with nodes of ROS 2 in mind.
    pub(super) fn with_ros(config: BusConfig, ros2: Ros2Config, endpoint: String, queue: usize) -> Self {
        Self::with_captions((config, ros2), endpoint, queue, 0)
    }

    /// With captions of at least so many bytes.
    pub(super) fn wordy(queue: usize, bytes: usize) -> Self {
        let endpoint = free_endpoint();
        let config = BusConfig { listen: vec![endpoint.clone()], ..BusConfig::default() };
        Self::with_captions((config, Ros2Config::default()), endpoint, queue, bytes)
    }

    fn with_captions(
        (config, ros2): (BusConfig, Ros2Config),
        endpoint: String,
        queue: usize,
        bytes: usize,
    ) -> Self {
        let mut bus = Bus::open(&config, DEVICE).unwrap();
        let (asks, questions_in) = AskSender::channel(queue, Wake::default());
        let (events_out, events) = mpsc::channel(64);
        let question = QuestionConfig { queue, ..QuestionConfig::default() };
        let (control, changes) = ControlSender::channel(Wake::default());
        let kept = Kept::open(None);
        let states = Arc::new(Mutex::new(now()));
        let inputs = Arc::new(Inputs { changes: states.clone() });
        bus.serve(Traffic { inputs, asks, control, kept, events, question, ros2 }).unwrap();
        let (engine, stop) = (Arc::new(Engine::default()), Arc::new(AtomicBool::new(false)));
        let answering = engine.clone();
        let stopping = stop.clone();
        let describing = engine.clone();
        let threads = vec![
            std::thread::spawn(move || answering.answer(questions_in)),
            std::thread::spawn({
                let events_out = events_out.clone();
                move || make_changes(changes, &events_out)
            }),
            std::thread::spawn(move || describe(&events_out, &stopping, &describing.captions, bytes)),
        ];
        Self { endpoint, changes: states, bus: Some(bus), engine, stop, threads }
    }

    /// Captions that the bus has taken.
    pub(super) fn captions(&self) -> usize {
        self.engine.captions.load(Ordering::Acquire)
    }

    /// Waits until there are so many of them.
    pub(super) fn wait_for_captions(&self, number: usize) {
        wait("caption", || self.captions() >= number);
    }

    /// Waits until the engine has had `number` questions.
    pub(super) fn wait_for_questions(&self, number: usize) {
        wait("question", || self.engine.questions.load(Ordering::Acquire) >= number);
    }

    /// Waits until nobody waits any more for `number` of the questions the engine does not answer.
    pub(super) fn wait_for_abandoned(&self, number: usize) {
        wait("abandoned question", || {
            let silent = self.engine.silent.lock().unwrap();
            silent.iter().filter(|reply| reply.is_closed()).count() >= number
        });
    }

    /// Stops the bus and sees that nothing of it is left.
    pub(super) fn stop(mut self) {
        // The bus waits for the last results.
        self.stop.store(true, Ordering::Release);
        self.bus.take().unwrap().stop();
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// The cameras as they are.
fn now() -> Vec<CameraState> {
    vec![state(CAMERA, CameraPhase::Live, 1), state(DARK, CameraPhase::Gone, 1)]
}

/// A state since some nanosecond.
pub(super) fn state(camera: &str, phase: CameraPhase, since: u64) -> CameraState {
    let reason = if phase == CameraPhase::Gone { "no such device".into() } else { String::new() };
    CameraState { camera: camera.into(), phase, reason, since, unchanged_since: None }
}

/// What the bus reads of the cameras.
struct Inputs {
    /// States that they went through and that were not taken yet.
    changes: Arc<Mutex<Vec<CameraState>>>,
}

impl BusInputs for Inputs {
    fn status(&self) -> Status {
        let cameras = self
            .cameras()
            .into_iter()
            .map(|state| CameraStatus { state, ..CameraStatus::default() })
            .collect();
        Status { device: DEVICE.into(), version: "0.0.0".into(), cameras, ..Status::default() }
    }

    fn cameras(&self) -> Vec<CameraState> {
        now()
    }

    fn camera_changes(&self) -> Vec<CameraState> {
        std::mem::take(&mut *self.changes.lock().unwrap())
    }

    fn frame(&self, camera: &str, sequence: Option<u64>) -> Option<Arc<Frame>> {
        let held = camera == CAMERA && sequence.is_none_or(|number| number == FRAME);
        held.then(|| {
            Arc::new(Frame {
                sequence: FRAME,
                captured_at: stamp().captured_at,
                captured: Instant::now(),
                width: 64,
                height: 48,
                stride: 3 * 64,
                format: PixelFormat::Rgb24,
                color: Default::default(),
                bytes: vec![90; 3 * 64 * 48],
            })
        })
    }
}

fn stamp() -> FrameStamp {
    FrameStamp { camera: CAMERA.into(), sequence: FRAME, captured_at: 1_700_000_000_000_000_000 }
}

fn wait(what: &str, mut come: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !come() {
        assert!(Instant::now() < deadline, "no {what} came");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What is known of questions taken.
#[derive(Default)]
struct Engine {
    questions: AtomicUsize,
    captions: AtomicUsize,
    silent: Mutex<Vec<Reply>>,
}

impl Engine {
    /// Repeats every question word by word.
    fn answer(&self, mut questions: mpsc::Receiver<Ask>) {
        while let Some(Ask { question, reply, .. }) = questions.blocking_recv() {
            let no_picture = match &question.frame {
                FrameChoice::Picture(bytes) => image::load_from_memory(bytes).err(),
                _ => None,
            };
            let send = |piece| reply.blocking_send(piece).unwrap();
            match (question.text.as_str(), no_picture) {
                (SAY_NOTHING, _) => self.silent.lock().unwrap().push(reply),
                (GIVE_UP, _) => drop(reply),
                (_, Some(error)) => {
                    let reason = format!("the picture cannot be read: {error}");
                    send(AnswerPiece::Error(AskError::BadRequest { reason }));
                }
                (text, None) => {
                    for (index, word) in (0..).zip(text.split_inclusive(' ')) {
                        send(AnswerPiece::Text { index, text: word.into() });
                    }
                    let answer = Answer { text: text.into(), frame: stamp(), ..Answer::default() };
                    send(AnswerPiece::Final(Answer { model_id: "made-up".into(), ..answer }));
                }
            }
            self.questions.fetch_add(1, Ordering::Release);
        }
    }
}

/// Keeps rules and how cameras are described. Every rule is on as long as it is in the list; no session
/// is open.
fn make_changes(mut changes: mpsc::Receiver<ControlRequest>, events: &mpsc::Sender<Event>) {
    let (mut rules, mut captions) = (Rules::default(), CaptionSettings::default());
    let values = |camera: &str| Captioning {
        camera: camera.into(),
        prompt: "Describe the scene.".into(),
        prompt_id: "scene".into(),
        max_tokens: 48,
        ..Captioning::default()
    };
    let configured = [values(CAMERA), values("dark")];
    captions.cameras = configured.to_vec();
    // Whoever asked may have left.
    while let Some(request) = changes.blocking_recv() {
        match request {
            ControlRequest::Rules(change, outcome) => {
                let revision = rules.revision + u64::from(change != RuleChange::Get);
                let changed = change.apply(&rules.rules, &[], &[CAMERA.into(), "dark".into()]);
                if let Ok(changed) = &changed {
                    tell_alerts(&rules.rules, changed, events);
                    rules = Rules { rules: changed.clone(), revision };
                }
                let _ = outcome.send(changed.map(|_| rules.clone()));
            }
            ControlRequest::Captions(change, outcome) => {
                let changed = change.apply(&captions.cameras, &configured);
                if let Ok(cameras) = &changed {
                    captions.revision += u64::from(change != CaptionChange::Get);
                    captions.cameras.clone_from(cameras);
                }
                let _ = outcome.send(changed.map(|_| captions.clone()));
            }
            ControlRequest::Sessions(_, outcome) => drop(outcome.send(Ok(SessionList::default()))),
            ControlRequest::Reload(_, outcome) => drop(outcome.send(Ok(Reloaded::default()))),
        }
    }
}

/// Ends the alerts of rules that are gone and begins those of new ones.
fn tell_alerts(rules: &[Rule], changed: &[Rule], events: &mpsc::Sender<Event>) {
    let ended = AlertEvent::Ended(AlertEnd::RuleChanged);
    let gone = rules.iter().filter(|rule| !changed.contains(rule)).map(|rule| (rule, ended));
    let new = changed.iter().filter(|rule| !rules.contains(rule));
    for (rule, event) in gone.chain(new.map(|rule| (rule, AlertEvent::Began))) {
        let (name, question) = (rule.name.clone(), rule.question.clone());
        let alert = Alert { rule: name, question, event, frame: stamp(), ..Alert::default() };
        let alert = Alert { model_id: "made-up".into(), p_yes: 0.75, began: stamp(), ..alert };
        events.blocking_send(Event::Alert(Box::new(alert), Instant::now())).unwrap();
    }
}

/// Describes the same frame over and over, in pieces, with captions of at least `bytes` bytes.
fn describe(events: &mpsc::Sender<Event>, stop: &AtomicBool, captions: &AtomicUsize, bytes: usize) {
    let words = ["A red", " box", " moves."];
    let more = ".".repeat(bytes);
    while !stop.load(Ordering::Acquire) {
        let captured = Instant::now();
        for (index, text) in (0..).zip(words) {
            let piece = CaptionPiece { frame: stamp(), index, text: text.into() };
            if events.blocking_send(Event::Piece(piece)).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let text = format!("{}{more}", words.concat());
        let mut caption = Caption { text, frame: stamp(), ..Caption::default() };
        caption.model_id = "made-up".into();
        caption.prompt_id = "scene".into();
        if events.blocking_send(Event::Caption(Box::new(caption), captured)).is_err() {
            return;
        }
        captions.fetch_add(1, Ordering::Release);
    }
}
