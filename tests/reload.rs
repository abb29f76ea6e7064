//! Another configuration while the engine runs: cameras come and go, the others do not notice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use messages::{
    Alert, AlertEnd, AlertEvent, AskError, Caption, CaptionChange, FrameChoice, NewCaptioning, Question,
    RuleChange, Session, SessionChange,
};
use mobilevlmd::camera::{Frame, Latest, PixelFormat, Wake};
use mobilevlmd::changes::Changes;
use mobilevlmd::config::{CaptionConfig, Config, ModelConfig};
use mobilevlmd::engine::{Ask, CameraInput, Change, EngineHandle, Event, Reload, Reloaded, Report};
use mobilevlmd::service;
use tokio::sync::mpsc;

use crate::engine::collect;
use crate::random::Random;
use crate::rules::always;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

type Slot = Arc<Latest<Frame>>;

/// An engine with the built-in model, and cameras that show frames made by hand.
struct Stage {
    config: Config,
    wake: Wake,
    engine: EngineHandle,
    events: mpsc::Receiver<Event>,
    cameras: Vec<(String, Slot)>,
    frames: u64,
    alerts: Vec<Alert>,
    removed: Vec<String>,
}

fn config() -> Config {
    Config {
        model: ModelConfig { threads: 1, context: 512, kv_cache_mib: 16, ..ModelConfig::default() },
        caption: CaptionConfig { change_threshold: 0.0, max_tokens: 6, ..CaptionConfig::default() },
        rules: vec![always("door", "Is the door open?")],
        ..Config::default()
    }
}

fn inputs(cameras: &[(String, Slot)]) -> Vec<CameraInput> {
    let max_age = Duration::from_secs(60);
    let input = |(name, latest): &(String, Slot)| {
        let (name, latest) = (name.clone(), latest.clone());
        CameraInput { name, latest, max_age, describe: true }
    };
    cameras.iter().map(input).collect()
}

impl Stage {
    fn new(names: &[&str]) -> Self {
        let (config, wake) = (config(), Wake::default());
        let slot = |name: &&str| ((*name).to_owned(), Arc::new(Latest::new(wake.clone())));
        let cameras: Vec<_> = names.iter().map(slot).collect();
        let (engine, events, _) = service::start_engine(&config, inputs(&cameras), wake.clone()).unwrap();
        let (alerts, removed) = (Vec::new(), Vec::new());
        Self { config, wake, engine, events, cameras, frames: 0, alerts, removed }
    }

    fn slot(&self, name: &str) -> &Slot {
        &self.cameras.iter().find(|(known, _)| known == name).expect("a camera of this name").1
    }

    /// Shows a new frame. Returns its number.
    fn show(&mut self, name: &str) -> u64 {
        self.frames += 1;
        let colour = (self.frames * 37) as u8;
        let bytes = (0..64 * 48).flat_map(|i| [colour, (i % 64) as u8 * 4, 255 - colour]).collect();
        self.slot(name).put(Frame {
            sequence: self.frames,
            captured_at: self.frames,
            captured: Instant::now(),
            width: 64,
            height: 48,
            stride: 64 * 3,
            format: PixelFormat::Rgb24,
            color: Default::default(),
            bytes,
        });
        self.frames
    }

    /// Waits for the caption of a frame, and for its verdict.
    fn described(&mut self, sequence: u64) -> Caption {
        loop {
            match self.events.blocking_recv().expect("the engine runs") {
                Event::Caption(caption, _) if caption.frame.sequence == sequence => return *caption,
                event => self.note(event),
            }
        }
    }

    /// Shows a frame and waits for its caption.
    fn describe(&mut self, name: &str) -> Caption {
        let sequence = self.show(name);
        let caption = self.described(sequence);
        assert_eq!(caption.frame.camera, name);
        caption
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Alert(alert, _) => self.alerts.push(*alert),
            Event::CameraRemoved(camera) => self.removed.push(camera),
            Event::Caption(..) | Event::Piece(_) => {}
        }
    }

    fn listen(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.note(event);
        }
    }

    fn change<C: Change>(&self, change: C) -> Result<C::State, AskError> {
        self.engine.control().send(change).unwrap().blocking_recv().expect("the engine answers")
    }

    /// The cameras of these names from now on; a mark behind a name makes it another camera.
    fn reload(&mut self, names: &[&str], changes: Changes) -> Result<Reloaded, AskError> {
        let next = |name: &&str| {
            let plain = name.trim_end_matches('!').to_owned();
            let known = self.cameras.iter().find(|(known, _)| known == name);
            (plain, known.map_or_else(|| Arc::new(Latest::new(self.wake.clone())), |(_, slot)| slot.clone()))
        };
        let cameras: Vec<_> = names.iter().map(next).collect();
        let Config { caption, question, rules, .. } = self.config.clone();
        let reload = Reload { cameras: inputs(&cameras), caption, question, rules, changes };
        let outcome = self.change(reload)?;
        self.cameras = cameras;
        Ok(outcome)
    }

    fn ask(&self, camera: &str, question: Question) -> mpsc::Receiver<messages::AnswerPiece> {
        let (reply, pieces) = mpsc::channel(64);
        let ask = Ask { camera: camera.into(), question, arrived: Instant::now(), reply };
        self.engine.asks().send(ask).unwrap();
        pieces
    }

    fn names(&self) -> Vec<String> {
        self.report().cameras.into_iter().map(|report| report.camera).collect()
    }

    fn report(&self) -> Report {
        self.engine.progress().report()
    }

    /// Waits until nothing runs. Returns how things are then.
    fn rest(&mut self) -> Report {
        let deadline = Instant::now() + PATIENCE;
        let (mut units, mut ticks) = (u64::MAX, 0);
        loop {
            self.listen();
            let (report, now) = (self.report(), self.engine.progress().ticks());
            if report.engine.units != units || report.engine.jobs > 0 {
                (units, ticks) = (report.engine.units, now);
            } else if now >= ticks + 5 {
                return report;
            }
            assert!(Instant::now() < deadline, "it does not come to rest: {report:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Begins and ends of alerts by camera, in order.
    fn story(&self, camera: &str) -> Vec<AlertEvent> {
        self.alerts.iter().filter(|alert| alert.camera() == camera).map(|alert| alert.event).collect()
    }
}

fn within(name: &str) -> Question {
    let session = Some(Session { name: name.into(), ..Session::default() });
    Question { session, max_tokens: 4, ..Question::new("What is there?") }
}

#[test]
fn cameras_come_and_go_and_the_others_stay() {
    let mut stage = Stage::new(&["front", "rear"]);
    stage.describe("front");
    stage.describe("rear");
    stage.rest();
    for camera in ["front", "rear"] {
        collect(stage.ask(camera, within("talk"))).expect("answered");
        assert_eq!(stage.story(camera), [AlertEvent::Began], "{camera}");
    }
    let settings = stage.reload(&["door", "front"], Changes::default()).expect("taken up");
    let captions = settings.captions.expect("the cameras are others");
    let named: Vec<_> = captions.cameras.iter().map(|values| values.camera.as_str()).collect();
    assert_eq!((named.as_slice(), captions.revision), (&["door", "front"][..], 1));
    assert_eq!(settings.rules, None, "the rules are the same");
    assert_eq!(stage.names(), ["door", "front"]);
    stage.rest();
    assert_eq!(stage.story("rear"), [AlertEvent::Began, AlertEvent::Ended(AlertEnd::CameraGone)]);
    assert_eq!(stage.removed, ["rear"]);

    // What is known of the one that stays is known still.
    assert_eq!(stage.report().camera("front").captions, 1);
    let answer = collect(stage.ask("front", within("talk"))).expect("answered");
    assert_eq!((answer.turns, answer.recomputed), (1, false));
    assert_eq!(stage.story("front"), [AlertEvent::Began], "its alert goes on");
    let sessions = stage.change(SessionChange::Get).expect("told").sessions;
    assert_eq!(sessions.iter().map(|talk| talk.camera.as_str()).collect::<Vec<_>>(), ["front"]);
    let refused = collect(stage.ask("rear", within("talk"))).expect_err("refused");
    let known = vec!["door".to_owned(), "front".to_owned()];
    assert_eq!(refused, AskError::UnknownCamera { camera: "rear".into(), known });

    // The new one is described and watched.
    stage.describe("door");
    stage.describe("front");
    stage.rest();
    assert_eq!(stage.story("door"), [AlertEvent::Began]);
    let watched: Vec<_> = stage.report().rules.into_iter().map(|rule| rule.camera).collect();
    assert_eq!(watched, ["door", "front"]);

    // Another camera of the same name is another camera.
    stage.reload(&["door!", "front"], Changes::default()).expect("taken up");
    stage.rest();
    assert_eq!(stage.story("door"), [AlertEvent::Began, AlertEvent::Ended(AlertEnd::CameraGone)]);
    assert_eq!(stage.report().camera("door").captions, 0);
    assert_eq!(stage.removed, ["rear"], "there is a camera of that name");
    stage.describe("door");
    stage.engine.stop().unwrap();
}

#[test]
fn what_the_model_cannot_do_changes_nothing() {
    let mut stage = Stage::new(&["front"]);
    stage.describe("front");
    let kept = stage.config.clone();
    let long = "lamp ".repeat(600);
    stage.config.caption.prompt.clone_from(&long);
    let error = stage.reload(&["rear"], Changes::default()).expect_err("refused");
    assert_eq!(error.kind(), "too_long");
    stage.config = kept.clone();
    stage.config.rules.push(always("long", &long));
    let error = stage.reload(&["rear"], Changes::default()).expect_err("refused");
    assert_eq!(error.kind(), "too_long");
    assert_eq!(stage.names(), ["front"]);
    let rules = stage.change(RuleChange::Get).expect("told");
    assert_eq!((rules.rules, rules.revision), (kept.rules, 0));
    assert_eq!(stage.change(CaptionChange::Get).expect("told").revision, 0);
    stage.describe("front");
    stage.engine.stop().unwrap();
}

#[test]
fn what_was_changed_over_the_bus_stands_over_a_new_configuration() {
    let mut stage = Stage::new(&["front", "rear"]);
    let prompt_id = |id: &str| NewCaptioning { prompt_id: Some(id.into()), ..NewCaptioning::default() };
    let mut changes = Changes {
        rules: None,
        captions: BTreeMap::from([("front".into(), prompt_id("list")), ("attic".into(), prompt_id("lost"))]),
    };
    stage.config.caption.prompt_id = "new".into();
    stage.config.rules = vec![always("lamp", "Is the lamp on?")];
    let settings = stage.reload(&["front", "rear"], changes.clone()).expect("taken up");
    let ids: Vec<_> = settings.captions.expect("changed").cameras.into_iter().map(|c| c.prompt_id).collect();
    assert_eq!(ids, ["list", "new"]);
    assert_eq!(settings.rules.expect("changed").rules, stage.config.rules);
    assert_eq!(stage.reload(&["front", "rear"], changes.clone()), Ok(Reloaded::default()), "nothing is new");

    // Rules of the bus hold as long as their cameras are there.
    let mut rear = always("dog", "Is there a dog?");
    rear.cameras = vec!["rear".into()];
    changes.rules = Some(vec![rear.clone()]);
    let settings = stage.reload(&["front", "rear"], changes.clone()).expect("taken up");
    assert_eq!(settings.rules.expect("changed").rules, [rear]);
    let settings = stage.reload(&["front"], changes).expect("taken up");
    assert_eq!(settings.rules.expect("changed").rules, stage.config.rules);
    assert_eq!(stage.describe("front").prompt_id, "list");
    stage.engine.stop().unwrap();
}

#[test]
fn reloads_at_any_time_leave_nothing_behind() {
    const SETS: [&[&str]; 6] =
        [&["a", "b", "c"], &["c", "a"], &["b"], &["b!", "c"], &["c!", "b", "a!"], &["a"]];
    let mut stage = Stage::new(&["a"]);
    stage.describe("a");
    let before = stage.rest();
    let random = &mut Random(0x5eed);
    let (mut answered, mut refused) = (0, BTreeMap::<&str, u32>::new());
    for _ in 0..60 {
        for (name, _) in stage.cameras.clone() {
            stage.show(&name);
        }
        let ask = |index| match index % 3 {
            0 => within("talk"),
            1 => Question { frame: FrameChoice::Fresh, max_tokens: 4, ..Question::new("Is it dark?") },
            _ => Question { max_tokens: 40, ..Question::new("What do you see?") },
        };
        let names: Vec<_> = stage.cameras.iter().map(|(name, _)| name.clone()).collect();
        let asked: Vec<_> = (0..random.below(5))
            .map(|index| stage.ask(&names[random.below(names.len() as u64) as usize], ask(index)))
            .collect();
        std::thread::sleep(Duration::from_micros(random.below(15_000)));
        stage.reload(SETS[random.below(SETS.len() as u64) as usize], Changes::default()).expect("taken up");
        for pieces in asked {
            match collect(pieces) {
                Ok(_) => answered += 1,
                Err(error) => *refused.entry(error.kind()).or_default() += 1,
            }
        }
    }
    assert!(answered > 0 && refused["cancelled"] > 0, "{answered} answered, refused: {refused:?}");
    stage.reload(&["a!"], Changes::default()).expect("taken up");
    stage.describe("a");
    let after = stage.rest();
    assert_eq!(after.cache.pages_used, before.cache.pages_used, "pages were lost");
    assert_eq!((after.engine.sessions, after.engine.questions_waiting), (0, 0));
    for camera in ["a", "b", "c"] {
        for (index, event) in stage.story(camera).into_iter().enumerate() {
            let is_begin = event == AlertEvent::Began;
            assert_eq!(is_begin, index % 2 == 0, "{camera}: an alert has no end or two");
        }
    }
    stage.engine.stop().unwrap();
}
