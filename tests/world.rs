//! Words mean something: the built-in model in front of the world it was trained on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use messages::{AnswerPiece, Caption, FrameChoice, Question};
use mobilevlmd::camera::world::{DoorState, Happening, Scene, UNSEEN, World, judge_caption};
use mobilevlmd::camera::{Frame, Latest, PixelFormat, Wake};
use mobilevlmd::config::{CaptionConfig, Config};
use mobilevlmd::engine::{Ask, CameraInput, EngineHandle, Event};
use mobilevlmd::model::files::ModelSource;
use mobilevlmd::service;
use mobilevlmd::verify::Target;
use mobilevlmd::verify::world::{Condition, Options, Report, Run, Score, score};
use tokio::sync::mpsc;

/// The default engine behind a camera of which the test holds the schedule.
struct Rig {
    engine: EngineHandle,
    events: mpsc::Receiver<Event>,
    latest: Arc<Latest<Frame>>,
    frames: u64,
}

impl Rig {
    fn start() -> Self {
        let wake = Wake::default();
        let latest = Arc::new(Latest::new(wake.clone()));
        let camera = CameraInput {
            name: "hall".into(),
            latest: latest.clone(),
            max_age: Duration::from_secs(60),
            describe: true,
        };
        let caption = CaptionConfig { change_threshold: 0.0, ..CaptionConfig::default() };
        let config = Config { caption, ..Config::default() };
        let (engine, events, status) = service::start_engine(&config, vec![camera], wake).unwrap();
        assert!(status.weights.starts_with("built-in world model, "), "{}", status.weights);
        Self { engine, events, latest, frames: 0 }
    }

    /// The caption of a frame that shows `scene`.
    fn show(&mut self, scene: &Scene) -> Caption {
        let picture = scene.render(640, 480);
        let sequence = self.frames;
        self.frames += 1;
        self.latest.put(Frame {
            sequence,
            captured_at: 1_000 + sequence,
            captured: Instant::now(),
            width: 640,
            height: 480,
            stride: 3 * 640,
            format: PixelFormat::Rgb24,
            color: Default::default(),
            bytes: picture.into_raw(),
        });
        loop {
            match self.events.blocking_recv().expect("the engine runs") {
                Event::Caption(caption, _) if caption.frame.sequence == sequence => return *caption,
                _ => {}
            }
        }
    }

    /// The answer to a question about the frame shown last.
    fn ask(&self, text: &str) -> String {
        let (reply, mut pieces) = mpsc::channel(64);
        let question = Question { frame: FrameChoice::Sequence(self.frames - 1), ..Question::new(text) };
        let ask = Ask { camera: "hall".into(), question, arrived: Instant::now(), reply };
        self.engine.asks().send(ask).unwrap();
        loop {
            match pieces.blocking_recv().expect("a question has an end") {
                AnswerPiece::Text { .. } => {}
                AnswerPiece::Final(answer) => return answer.text,
                AnswerPiece::Error(error) => panic!("{text}: {error}"),
            }
        }
    }
}

/// Moments before and after an open door is blocked, with everything in plain view.
fn blockings() -> impl Iterator<Item = [Scene; 2]> {
    (1000..).filter_map(|number| {
        let world = World::new(UNSEEN + number);
        let blocked = Happening::Door(DoorState::Blocked);
        let event = world.events(0.0).take(12).find(|event| event.what == blocked)?;
        let plain = |seconds: f64, state| {
            let scene = world.at(seconds);
            (scene.is_clear() && scene.door_state() == Some(state)).then_some(scene)
        };
        let tenths = || (0..40).map(|tenth| f64::from(tenth) / 10.0);
        let before = tenths().find_map(|back| plain(event.begins - back, DoorState::Open))?;
        let after = tenths().find_map(|on| plain(event.at + on, DoorState::Blocked))?;
        Some([before, after])
    })
}

#[test]
fn a_door_that_is_blocked_is_told_and_answered() {
    let mut rig = Rig::start();
    for scenes in blockings().take(4) {
        for (scene, is_blocked) in scenes.iter().zip([false, true]) {
            let caption = rig.show(scene);
            let told = judge_caption(scene, &caption.text).door;
            assert_eq!((told.right, told.total), (1, 1), "{}", caption.text);
            let answer = rig.ask("Is the door blocked?");
            assert_eq!(answer.starts_with("Yes"), is_blocked, "{answer} ({})", caption.text);
        }
    }
    rig.engine.stop().unwrap();
}

fn scored(scenes: u32, conditions: &[Condition]) -> Report {
    let config = Config::default();
    assert_eq!(config.model.source(), ModelSource::BuiltIn);
    let options = Options {
        scenes,
        seed: 0,
        conditions: conditions.to_vec(),
        target: Target::of_config(&config.model),
        misses: 8,
    };
    let files = config.model.source().open().unwrap();
    score(&files, &config, &options, &mut |_, _| {}).unwrap()
}

/// What the first 40 scenes must give at least. The weights give 0.91, 0.97 and 0.98 on thousands of
/// scenes; 40 of them scatter by a twentieth, and another instruction set may round another way.
const LEAST_CAPTIONS: f64 = 0.75;
const LEAST_ATTRIBUTES: f64 = 0.9;
const LEAST_YES_NO: f64 = 0.94;

/// How far above the commonest answer somebody who sees nothing may come on so few questions.
const LUCK: f64 = 0.12;

#[test]
fn unseen_scenes_are_described_and_a_blank_picture_is_guessed_at() {
    let report = scored(40, &[Condition::Plain, Condition::Blank]);
    let [seen, blank] = &report.runs[..] else { panic!("two runs: {report}") };
    assert!(seen.caption.accuracy >= LEAST_CAPTIONS, "{seen}");
    assert!(seen.attributes.accuracy >= LEAST_ATTRIBUTES, "{seen}");
    assert!(seen.yes_no.accuracy >= LEAST_YES_NO, "{seen}");
    let is_guess = |score: &Score| score.accuracy <= score.guess.unwrap_or(0.0) + LUCK;
    assert!(is_guess(&blank.caption) && is_guess(&blank.attributes) && is_guess(&blank.yes_no), "{blank}");
    assert!(!is_guess(&seen.attributes) && !is_guess(&seen.yes_no), "{seen}");
}

#[test]
fn eight_bits_see_what_exact_arithmetic_sees() {
    let report = scored(30, &[Condition::Plain, Condition::Exact]);
    let [eight_bit, exact] = &report.runs[..] else { panic!("two runs: {report}") };
    let rate = |run: &Run| {
        let right = run.attributes.right + run.yes_no.right;
        right as f64 / (run.attributes.asked + run.yes_no.asked) as f64
    };
    assert!(rate(eight_bit) > rate(exact) - 0.01, "{report}");
}
