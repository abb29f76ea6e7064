//! Rules on the engine: what they cost, what they answer, when their alerts begin and end; and
//! frames that show nothing new.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernels::{Cpu, CpuOptions, Device, KvDtype, Reference};
use messages::{Alert, AlertEnd, AlertEvent, AskError, Caption, Rule, RuleChange, RulePhase, RuleStatus};
use mobilevlmd::camera::{Frame, Latest, PixelFormat, Wake};
use mobilevlmd::changes::Changes;
use mobilevlmd::config::{CaptionConfig, Config};
use mobilevlmd::engine::{self, CameraInput, Change, EngineHandle, EngineOptions, EngineParts, Event};
use mobilevlmd::model::files::{LoadOptions, ModelFiles, ModelPaths};
use mobilevlmd::model::kv_cache::Sequence;
use mobilevlmd::model::preprocess::Preprocessor;
use mobilevlmd::model::prompt::{Turn, after_image, system_prefix};
use mobilevlmd::model::tokenizer::Tokenizer;
use mobilevlmd::model::yes_no::{Verdict, YesNo};
use mobilevlmd::model::{Input, KvOptions, MobileVlm};
use tokio::sync::mpsc;

/// How long anything in these tests may take before they give up.
const PATIENCE: Duration = Duration::from_secs(60);

const OPTIONS: LoadOptions = LoadOptions { dtype: None, vision_dtype: kernels::DType::Q8_0, exact: false };

fn files() -> ModelFiles {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/gguf/v1-tiny/model-q4_0.gguf");
    ModelFiles::open(&ModelPaths { model, ..ModelPaths::default() }).unwrap()
}

fn cpu() -> Cpu {
    Cpu::new(CpuOptions { threads: 1, ..CpuOptions::default() })
}

fn load<D: Device>(files: &ModelFiles, device: D) -> MobileVlm<D> {
    let kv = KvOptions { context: 512, pages: 80, dtype: KvDtype::F16 };
    MobileVlm::load(files, device, &OPTIONS, kv).unwrap()
}

fn preprocessor(files: &ModelFiles) -> Preprocessor {
    Preprocessor::new(files.vision.image, files.image_mean, files.image_std)
}

/// A frame of its own for every `colour`.
fn frame(sequence: u64, colour: u8, captured: Instant) -> Frame {
    let bytes = (0..64 * 48).flat_map(|i| [colour, (i % 64) as u8 * 4, (i / 64) as u8 ^ colour]).collect();
    Frame {
        sequence,
        captured_at: 1_000 + sequence,
        captured,
        width: 64,
        height: 48,
        stride: 64 * 3,
        format: PixelFormat::Rgb24,
        color: Default::default(),
        bytes,
    }
}

/// What a model that does nothing else answers to a rule on a frame.
fn one_shot<D: Device>(model: &mut MobileVlm<D>, files: &ModelFiles, colour: u8, question: &str) -> Verdict {
    let tokenizer = Tokenizer::from_source(&files.tokenizer).unwrap();
    let picture = frame(0, colour, Instant::now()).rgb().unwrap();
    model.encode(preprocessor(files).pixels(&picture));
    let (mut pass, mut sequence) = (model.pass().unwrap(), Sequence::default());
    let visual = model.visual_tokens();
    let tail = after_image(&tokenizer, &[Turn::ask(question)]);
    for input in [Input::Tokens(&system_prefix(&tokenizer)), Input::Visual(0..visual), Input::Tokens(&tail)] {
        model.forward(&mut pass, &mut sequence, input).unwrap();
    }
    let verdict = YesNo::new(&tokenizer).unwrap().read(model.logits(&pass));
    model.release(&mut sequence);
    verdict
}

/// A running engine with a camera that shows frames made by hand.
pub(crate) struct Rig {
    engine: EngineHandle,
    events: mpsc::Receiver<Event>,
    latest: Arc<Latest<Frame>>,
    frames: u64,
}

impl Rig {
    fn on<D: Device + 'static>(device: D, rules: Vec<Rule>, caption: CaptionConfig) -> Self {
        Self::start(device, rules, caption, Changes::default())
    }

    fn start<D: Device + 'static>(
        device: D,
        rules: Vec<Rule>,
        caption: CaptionConfig,
        changes: Changes,
    ) -> Self {
        let files = files();
        let (wake, config) = (Wake::default(), Config::default());
        let latest = Arc::new(Latest::new(wake.clone()));
        let max_age = Duration::from_secs(60);
        let parts = EngineParts {
            model: load(&files, device),
            tokenizer: Arc::new(Tokenizer::from_source(&files.tokenizer).unwrap()),
            preprocessor: preprocessor(&files),
            cameras: vec![CameraInput {
                name: "front".into(),
                latest: latest.clone(),
                max_age,
                describe: true,
            }],
            wake,
            options: EngineOptions {
                model_id: "tiny".into(),
                caption: CaptionConfig { max_tokens: 4, ..caption },
                question: config.question,
                rules,
                changes,
                foretold: None,
            },
        };
        let (engine, events) = engine::spawn(parts).unwrap();
        Self { engine, events, latest, frames: 0 }
    }

    pub(crate) fn new(rules: Vec<Rule>) -> Self {
        Self::with_changes(rules, Changes::default())
    }

    /// The same, where something was changed before.
    pub(crate) fn with_changes(rules: Vec<Rule>, changes: Changes) -> Self {
        let caption = CaptionConfig { change_threshold: 0.0, ..CaptionConfig::default() };
        Self::start(cpu(), rules, caption, changes)
    }

    /// Puts a frame in front of the camera. Returns its number.
    pub(crate) fn show(&mut self, colour: u8) -> u64 {
        // From the future, so that on a slow machine the camera does not seem to be gone.
        self.show_captured(colour, Instant::now() + Duration::from_secs(3600))
    }

    fn show_captured(&mut self, colour: u8, captured: Instant) -> u64 {
        self.frames += 1;
        self.latest.put(frame(self.frames, colour, captured));
        self.frames
    }

    /// The next caption, and the alerts that come before it.
    pub(crate) fn caption(&mut self) -> (Vec<Alert>, Caption) {
        let mut alerts = Vec::new();
        loop {
            match self.events.blocking_recv().expect("the engine runs") {
                Event::Caption(caption, _) => return (alerts, *caption),
                Event::Alert(alert, _) => alerts.push(*alert),
                Event::Piece(_) | Event::CameraRemoved(_) => {}
            }
        }
    }

    /// The next alert, whatever comes before it.
    pub(crate) fn alert(&mut self) -> Alert {
        loop {
            if let Event::Alert(alert, _) = self.events.blocking_recv().expect("the engine runs") {
                return *alert;
            }
        }
    }

    /// Makes a change and returns what there is then.
    pub(crate) fn change<C: Change>(&self, change: C) -> Result<C::State, AskError> {
        let answer = self.engine.control().send(change).unwrap();
        answer.blocking_recv().expect("the engine answers")
    }

    fn change_rules(&self, change: RuleChange) -> Result<Vec<Rule>, AskError> {
        self.change(change).map(|rules| rules.rules)
    }

    /// What the engine tells of itself.
    pub(crate) fn report(&self) -> engine::Report {
        self.engine.progress().report()
    }

    /// Waits until the engine has looked around so often.
    pub(crate) fn wait_for_rounds(&self, rounds: u64) {
        let last = self.engine.progress().ticks() + rounds;
        self.wait("round", |_| self.engine.progress().ticks() >= last);
    }

    fn statuses(&self) -> Vec<RuleStatus> {
        self.engine.progress().report().rules
    }

    /// Waits until something is so.
    fn wait(&self, what: &str, is_so: impl Fn(&engine::Report) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(&self.engine.progress().report()) {
            assert!(Instant::now() < deadline, "{what} does not come");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Stops the engine and returns the alerts that were not yet heard.
    pub(crate) fn stop(mut self) -> Vec<Alert> {
        self.engine.stop().unwrap();
        let mut alerts = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            if let Event::Alert(alert, _) = event {
                alerts.push(*alert);
            }
        }
        alerts
    }
}

const QUESTIONS: [&str; 5] = [
    "Is the door open?",
    "Is there a person?",
    "Do you see a red ball to the left of the lamp, or anything else that is red?",
    "Is it dark?",
    "Yes or no: is the floor wet?",
];

/// A rule that is on whatever is answered.
pub(crate) fn always(name: &str, question: &str) -> Rule {
    Rule { threshold: 1e-30, release_threshold: 0.0, cool_down_s: 0.0, ..Rule::new(name, question) }
}

/// Rules on a busy engine answer what the model says that does nothing else, bit for bit.
fn check_answers<D: Device + 'static>(device: impl Fn() -> D) {
    let files = files();
    let rules = (0..5).map(|i| always(&format!("r{i}"), QUESTIONS[i])).collect();
    let caption = CaptionConfig { change_threshold: 0.0, ..CaptionConfig::default() };
    let mut rig = Rig::on(device(), rules, caption);
    let mut model = load(&files, device());
    for (round, colour) in (1..).zip([10, 150]) {
        rig.show(colour);
        rig.wait("evaluation", |report| report.rules.iter().all(|rule| rule.evaluations == round));
        for (status, question) in rig.statuses().iter().zip(QUESTIONS) {
            let want = one_shot(&mut model, &files, colour, question);
            let got = (status.p_yes.unwrap(), status.p_either.unwrap());
            assert_eq!(got, (want.p_yes as f32, want.p_either as f32), "{question} on {colour}");
        }
    }
    assert_eq!(rig.stop().len(), 10, "five begins and five ends");
}

#[test]
fn rules_answer_as_a_model_that_does_nothing_else() {
    check_answers(cpu);
    check_answers(|| Reference);
}

#[test]
fn a_rule_costs_its_own_tokens_only() {
    let tokenizer = Tokenizer::from_source(&files().tokenizer).unwrap();
    let tail = |question: &str| after_image(&tokenizer, &[Turn::ask(question)]).len() as u64;
    let shared = system_prefix(&tokenizer).len() as u32 + 144;
    let computed = |rules: Vec<Rule>| {
        let mut rig = Rig::new(rules);
        let (mut prompts, count) = (0, rig.statuses().len() as u64);
        for colour in [10, 90] {
            rig.show(colour);
            let (alerts, caption) = rig.caption();
            for Alert { tokens, .. } in alerts {
                assert_eq!((tokens.cached, tokens.generated), (shared, 0));
            }
            prompts += u64::from(caption.tokens.prompt - caption.tokens.cached + caption.tokens.generated);
            rig.wait("evaluation", |report| report.rules.iter().all(|rule| rule.evaluations > 0));
        }
        rig.wait("second evaluation", |report| report.rules.iter().all(|rule| rule.evaluations == 2));
        let report = rig.engine.progress().report();
        assert_eq!((report.engine.images, report.rules.len() as u64), (2, count));
        (report.cache.positions_computed, prompts)
    };
    let (without, prompts) = computed(Vec::new());
    assert_eq!(without, 2 * 144 + prompts);
    let rules = QUESTIONS.iter().enumerate().map(|(i, question)| always(&format!("r{i}"), question));
    let (with, _) = computed(rules.collect());
    assert_eq!(with - without, 2 * QUESTIONS.iter().map(|question| tail(question)).sum::<u64>());
}

/// Two colours and a threshold between what is answered on them: no on the first, yes on the second.
fn contrast() -> (u8, u8, Rule) {
    let files = files();
    let mut model = load(&files, cpu());
    let mut p_yes = |colour| (one_shot(&mut model, &files, colour, QUESTIONS[0]).p_yes, colour);
    let mut answers: Vec<(f64, u8)> = [0, 60, 120, 180, 240].map(&mut p_yes).to_vec();
    answers.sort_by(|a, b| a.0.total_cmp(&b.0));
    let ((low, no), (high, yes)) = (answers[0], answers[4]);
    assert!(low < high, "{answers:?}");
    let (threshold, release_threshold) = (low + 0.75 * (high - low), low + 0.25 * (high - low));
    (no, yes, Rule { threshold, release_threshold, cool_down_s: 0.0, ..Rule::new("door", QUESTIONS[0]) })
}

#[test]
fn alerts_begin_and_end_with_the_frames_that_caused_them() {
    let (no, yes, rule) = contrast();
    let mut rig = Rig::new(vec![rule]);
    let mut story = Vec::new();
    for colour in [no, yes, yes, no, no, yes] {
        let shown = rig.show(colour);
        let (alerts, caption) = rig.caption();
        assert_eq!(caption.frame.sequence, shown);
        story.push((shown, alerts));
    }
    let events: Vec<_> =
        story.iter().flat_map(|(shown, alerts)| alerts.iter().map(|alert| (*shown, alert))).collect();
    let kinds: Vec<_> = events.iter().map(|(shown, alert)| (*shown, alert.event)).collect();
    let ended = AlertEvent::Ended(AlertEnd::Answer);
    assert_eq!(kinds, [(2, AlertEvent::Began), (4, ended), (6, AlertEvent::Began)]);
    for (shown, alert) in &events {
        assert_eq!((alert.frame.sequence, alert.frame.captured_at), (*shown, 1_000 + shown));
        assert_eq!((alert.rule.as_str(), alert.camera(), alert.model_id.as_str()), ("door", "front", "tiny"));
        assert_eq!((alert.question.as_str(), alert.first == alert.began), (QUESTIONS[0], true));
    }
    assert_eq!(events[1].1.began, events[0].1.frame);
    let status = &rig.statuses()[0];
    assert_eq!((status.evaluations, status.alerts, status.phase), (6, 2, RulePhase::Active));
    let last = rig.stop();
    assert_eq!(
        last.iter().map(|alert| alert.event).collect::<Vec<_>>(),
        [AlertEvent::Ended(AlertEnd::Stopping)]
    );
}

#[test]
fn rules_are_changed_while_the_engine_runs() {
    let mut rig = Rig::new(Vec::new());
    rig.show(1);
    rig.caption();
    let (door, dog) = (always("door", "Is the door open?"), always("dog", "Is there a dog?"));
    assert_eq!(rig.change_rules(RuleChange::Get), Ok(Vec::new()));
    assert_eq!(rig.change_rules(RuleChange::Add(door.clone())), Ok(vec![door.clone()]));
    // The picture in the cache is asked about, without a new frame.
    let began = rig.alert();
    assert_eq!((began.event, began.rule.as_str(), began.frame.sequence), (AlertEvent::Began, "door", 1));
    assert_eq!(rig.change_rules(RuleChange::Add(dog.clone())), Ok(vec![door.clone(), dog.clone()]));
    assert_eq!(rig.alert().rule, "dog");
    // What stays the same goes on; what is changed ends and begins anew.
    let changed = Rule { question: "Is the gate open?".into(), ..door.clone() };
    assert_eq!(
        rig.change_rules(RuleChange::Set(vec![dog.clone(), changed.clone()])).map(|rules| rules.len()),
        Ok(2)
    );
    let (ended, began) = (rig.alert(), rig.alert());
    assert_eq!((ended.event, ended.question), (AlertEvent::Ended(AlertEnd::RuleChanged), door.question));
    assert_eq!((began.event, began.question), (AlertEvent::Began, changed.question.clone()));
    rig.wait("status", |report| {
        let names: Vec<_> = report.rules.iter().map(|rule| (rule.rule.as_str(), rule.evaluations)).collect();
        names == [("dog", 1), ("door", 1)]
    });
    assert_eq!(rig.change_rules(RuleChange::Remove("dog".into())), Ok(vec![changed]));
    assert_eq!(rig.alert().event, AlertEvent::Ended(AlertEnd::RuleChanged));
    // Three bytes, of which each is a token.
    let long = rig.change_rules(RuleChange::Add(always("long", &"\u{2603}".repeat(170))));
    assert!(matches!(long, Err(AskError::TooLong { limit: 100..512, .. })), "{long:?}");
    assert_eq!(rig.change_rules(RuleChange::Set(Vec::new())), Ok(Vec::new()));
    rig.stop();
}

#[test]
fn the_alert_of_a_camera_that_is_gone_ends() {
    let mut rig = Rig::new(vec![always("door", "Is the door open?")]);
    let Some(long_ago) = Instant::now().checked_sub(Duration::from_secs(8)) else { return };
    rig.show_captured(5, long_ago);
    let (began, ended) = (rig.alert(), rig.alert());
    assert_eq!((began.event, ended.event), (AlertEvent::Began, AlertEvent::Ended(AlertEnd::CameraGone)));
    assert_eq!(ended.frame, began.frame);
    assert!(ended.age_ms >= 8000.0);
    assert_eq!(rig.statuses()[0].phase, RulePhase::Quiet);
    rig.show(5);
    assert_eq!(rig.alert().event, AlertEvent::Began);
    rig.stop();
}

#[test]
fn frames_that_show_nothing_new_are_not_described() {
    let caption = CaptionConfig { max_silence_s: 0.0, ..CaptionConfig::default() };
    let rule = Rule { min_duration_s: 100.0, ..always("door", "Is the door open?") };
    let mut rig = Rig::on(cpu(), vec![rule], caption);
    let start = Instant::now();
    let described = rig.show_captured(60, start);
    assert_eq!(rig.caption().1.unchanged_since, None);
    let stamp = 1_000 + described;
    rig.wait("evaluation", |report| report.rules[0].evaluations == 1);
    for round in 1..=3u64 {
        // Frames of the same scene; a bit of time passes for the rule with each.
        let shown = rig.show_captured(60, start + Duration::from_secs(40 * round));
        rig.wait("look", |report| report.cameras[0].unchanged == round);
        let report = rig.engine.progress().report();
        assert_eq!(report.cameras[0].unchanged_since, Some(stamp));
        assert_eq!((report.engine.images, report.rules[0].evaluations), (1, 1));
        if round == 3 {
            let alert = rig.alert();
            assert_eq!((alert.event, alert.frame.sequence), (AlertEvent::Began, shown));
            assert_eq!(alert.first.sequence, described);
        }
    }
    rig.show_captured(200, start + Duration::from_secs(200));
    let (_, caption) = rig.caption();
    assert_eq!((caption.frame.sequence, caption.unchanged_since), (rig.frames, None));
    assert_eq!(rig.engine.progress().report().cameras[0].unchanged_since, None);
    rig.stop();
}

#[test]
fn silence_ends_after_its_time() {
    let caption = CaptionConfig { max_silence_s: 0.2, ..CaptionConfig::default() };
    let mut rig = Rig::on(cpu(), Vec::new(), caption);
    let first = rig.show(60);
    rig.caption();
    let deadline = Instant::now() + PATIENCE;
    let images = |rig: &Rig| rig.engine.progress().report().engine.images;
    while images(&rig) < 2 {
        assert!(Instant::now() < deadline, "never described again");
        rig.show(60);
        std::thread::sleep(Duration::from_millis(20));
    }
    let (_, again) = rig.caption();
    assert_eq!(again.unchanged_since, Some(1_000 + first));
    assert!(again.frame.sequence > first);
    rig.stop();
}
