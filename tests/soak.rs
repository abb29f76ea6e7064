//! Minutes of everything at once: two cameras, five rules, and callers who come at random and want all
//! that can be asked for. Every question ends once, nothing stops, nothing grows, and whatever was
//! said is what somebody says who has the model for himself, bit for bit.
//!
//! The suite takes the shortest time that shows it. `SOAK_SECONDS=600` takes ten minutes, `SOAK_SEED`
//! another stream of callers.

mod asked;
mod callers;
mod cameras;
mod heard;
mod watch;
mod witness;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use messages::{Latency, Rule};
use mobilevlmd::config::{CaptionConfig, Config, ModelConfig, QuestionConfig};
use mobilevlmd::engine::{EngineHandle, Event, Progress, Report};
use mobilevlmd::service;
use tokio::sync::mpsc;

use asked::{Asked, Kind};
use callers::Callers;
use cameras::{Cameras, NAMES};
use heard::Published;
use watch::Watch;
use witness::Witness;

/// How long nothing may happen before the test gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Time in the suite, and the stream of callers.
const SECONDS: u64 = 8;
const SEED: u64 = 0x5eed;

/// From frame to frame, and from caller to caller on average.
const FRAME: Duration = Duration::from_millis(50);
const CALLER: Duration = Duration::from_millis(20);

/// However slow the machine: answers, and captions and verdicts of each kind, before it may end.
const ANSWERS: usize = 100;
const BEATS: u64 = 5;

/// Set in the process that has its memory for itself.
const ALONE: &str = "SOAK_ALONE";

#[test]
fn everybody_is_answered_once_and_nothing_stops_or_grows() {
    if std::env::var_os(ALONE).is_some() {
        return soak(number("SOAK_SECONDS", SECONDS), number("SOAK_SEED", SEED));
    }
    let name = "soak::everybody_is_answered_once_and_nothing_stops_or_grows";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture"]).env(ALONE, "1").stdin(Stdio::null());
    // Whoever waits for minutes sees what is going on; else it is shown if it fails.
    let status = if std::env::var_os("SOAK_SECONDS").is_some() {
        command.status().unwrap()
    } else {
        let output = command.output().unwrap();
        print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        output.status
    };
    assert!(status.success(), "{status}");
}

/// A number of the environment.
fn number(variable: &str, default: u64) -> u64 {
    let given = std::env::var(variable).ok();
    given.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}: not a number")))
}

/// The daemon as it is shipped, but for a cache that is too small for all who come, and less patience
/// with scenes that do not change.
fn config() -> Config {
    let rule = |(name, question): (&str, &str)| Rule { cool_down_s: 0.0, ..Rule::new(name, question) };
    let rules = [
        ("open", "Is the door open?"),
        ("blocked", "Is the door blocked?"),
        ("person", "Is there a person?"),
        ("lamp", "Is the lamp on?"),
        ("two", "Are there two objects?"),
    ];
    let mut rules = rules.map(rule);
    // This one begins with the first picture, so that there is an alert for sure.
    (rules[0].threshold, rules[0].release_threshold) = (f64::MIN_POSITIVE, 0.0);
    Config {
        model: ModelConfig { context: 512, kv_cache_mib: 6, ..ModelConfig::default() },
        caption: CaptionConfig { at_least_every_s: 0.2, max_silence_s: 1.0, ..CaptionConfig::default() },
        question: QuestionConfig { queue: 16, deadline_s: 3600.0, ..QuestionConfig::default() },
        rules: rules.into(),
        ..Config::default()
    }
}

/// An engine and all who have to do with it.
struct Soak {
    engine: EngineHandle,
    progress: Arc<Progress>,
    events: mpsc::Receiver<Event>,
    rules: Vec<Rule>,
    cameras: Cameras,
    callers: Callers,
    published: Published,
}

impl Soak {
    fn start(config: &Config, seed: u64) -> Self {
        let cameras = Cameras::new();
        let (engine, events, _) =
            service::start_engine(config, cameras.inputs(), cameras.wake.clone()).unwrap();
        let (progress, callers) = (engine.progress(), Callers::new(seed, engine.asks()));
        let (rules, published) = (config.rules.clone(), Published::default());
        Self { engine, progress, events, rules, cameras, callers, published }
    }

    /// Hears everything that was said by now.
    fn listen(&mut self) {
        self.callers.listen();
        while let Ok(event) = self.events.try_recv() {
            self.published.hear(event, &self.rules);
        }
    }

    /// Waits until all questions are over.
    fn drain(&mut self) {
        let (mut open, mut since) = (usize::MAX, Instant::now());
        while self.callers.open() > 0 {
            if self.callers.open() != open {
                (open, since) = (self.callers.open(), Instant::now());
            }
            assert!(since.elapsed() < PATIENCE, "{open} questions have no end");
            thread::sleep(Duration::from_millis(1));
            self.listen();
        }
    }

    /// Waits until all questions are over and the engine finds nothing to do for some rounds.
    fn rest(&mut self) -> Report {
        self.drain();
        let (mut units, mut ticks, start) = (u64::MAX, 0, Instant::now());
        loop {
            self.listen();
            let report = self.progress.report();
            if report.engine.units != units {
                (units, ticks) = (report.engine.units, self.progress.ticks());
            } else if self.progress.ticks() >= ticks + 5 {
                return report;
            }
            assert!(start.elapsed() < PATIENCE, "it does not come to rest: {report:?}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Lets both cameras be looked at once more. Returns how things are when nobody wants anything:
    /// in the cache are the system prompt and what the cameras see.
    fn settle(&mut self) -> Report {
        self.cameras.show();
        for camera in 0..NAMES.len() {
            let from = self.cameras.shown(camera) - 1;
            self.callers.ask(Asked { camera, ..Asked::new(Kind::Fresh { from }) });
        }
        self.rest()
    }

    /// Frames and callers come, for so long and until enough has happened.
    fn run(&mut self, watch: &mut Watch, time: Duration) {
        let start = Instant::now();
        let (mut next_frame, mut next_caller) = (start, start);
        let mut next_line = start;
        loop {
            let now = Instant::now();
            if now >= next_frame {
                self.cameras.show();
                next_frame = now + FRAME;
            }
            while now >= next_caller {
                self.callers.arrive(&self.cameras);
                next_caller += self.callers.pause(CALLER);
            }
            self.listen();
            watch.look(&self.cameras);
            let answers = self.callers.answers.len();
            if now - start >= time && answers >= ANSWERS && watch.fewest() >= BEATS {
                return;
            }
            if now >= next_line {
                println!(
                    "  {:4.0} s: {} asked, {answers} answered",
                    (now - start).as_secs_f64(),
                    self.callers.sent
                );
                next_line += Duration::from_secs(60);
            }
            let left = next_frame.min(next_caller).saturating_duration_since(Instant::now());
            thread::sleep(left.min(Duration::from_millis(2)));
        }
    }
}

fn soak(seconds: u64, seed: u64) {
    println!("soak of {seconds} s with seed {seed}: {} cameras", NAMES.len());
    let config = config();
    let mut soak = Soak::start(&config, seed);
    let before = soak.settle();
    // One after the other, so that each is refused for what it is.
    for asked in Callers::doomed() {
        soak.callers.ask(asked);
        soak.drain();
    }
    let mut watch = Watch::new(soak.progress.clone(), &soak.cameras);
    soak.run(&mut watch, Duration::from_secs(seconds));
    soak.drain();
    soak.callers.end_talks();
    let after = soak.settle();
    tell(&soak, &after);
    watch.finish();
    println!("  pages in use: {} before, {} after", before.cache.pages_used, after.cache.pages_used);
    check(&soak, &before, &after);
    compare(soak, &config);
}

/// Tells what was asked and done.
fn tell(soak: &Soak, report: &Report) {
    let Callers { sent, left, refused, answers, .. } = &soak.callers;
    println!("  {sent} asked, {} answered, {left} left, refused: {refused:?}", answers.len());
    let shown: Vec<_> = (0..NAMES.len()).map(|camera| soak.cameras.shown(camera)).collect();
    let described: Vec<_> = report.cameras.iter().map(|camera| (camera.captions, camera.unchanged)).collect();
    println!("  frames shown: {shown:?}, described and unchanged: {described:?}");
    let engine = &report.engine;
    let wait = |what: &str, latency: &Latency| {
        let Latency { count, median_ms, p99_ms, worst_ms } = latency;
        println!(
            "  {what}: median {median_ms:.1}, p99 {p99_ms:.1} of the last, worst {worst_ms:.1} ms of {count}"
        );
    };
    wait("questions until their turn", &engine.stages.queue);
    wait("questions until their first token", &engine.stages.first_token);
    wait("questions until their end", &engine.stages.answer);
    wait("captions from the capture", &engine.stages.caption);
    wait("units", &engine.stages.unit);
    println!(
        "  {} units, {} pictures, {} pictures and turns of talk given up",
        engine.units, engine.images, report.cache.evicted
    );
    println!("  sessions computed again: {}, drafts: {:?}", engine.sessions_recomputed, engine.drafts);
    println!(
        "  questions waited for {} units at most, {} are promised",
        report.waits.most, report.waits.promised
    );
}

/// Everybody has had an end, nobody waited too long, nothing is left behind.
fn check(soak: &Soak, before: &Report, after: &Report) {
    let Callers { sent, left, refused, answers, .. } = &soak.callers;
    let engine = &after.engine;
    let ended = engine.questions_answered + engine.questions_failed + engine.questions_refused;
    assert_eq!(ended, *sent, "a question has no end or two");
    assert_eq!(answers.len() as u64 + left + refused.values().sum::<u64>(), *sent);
    for kind in asked::WRONG.iter().chain(&["overloaded", "deadline", "no_frame"]) {
        assert!(refused.contains_key(kind), "{kind} was never seen: {refused:?}");
    }
    assert!(after.waits.most <= after.waits.promised, "{:?}", after.waits);
    assert_eq!((engine.sessions, engine.jobs, engine.questions_waiting), (0, 0, 0));
    assert_eq!(after.cache.pages_used, before.cache.pages_used, "pages were lost");
    assert!(answers.len() >= ANSWERS);
}

/// Stops the engine and says everything again.
fn compare(soak: Soak, config: &Config) {
    let Soak { engine, mut events, rules, mut cameras, callers, mut published, .. } = soak;
    engine.stop().unwrap();
    while let Some(event) = events.blocking_recv() {
        published.hear(event, &rules);
    }
    assert_eq!(published.ringing(), 0, "an alert has no end");
    let mut witness = Witness::new(config, &mut cameras);
    let answers = witness.check_answers(callers.answers);
    let captions = witness.check_captions(&published.captions, config);
    witness.check_alerts(&published.alerts, &rules);
    let (of, alerts) = (published.captions.len(), published.alerts.len());
    println!("  said again, bit for bit: {answers} answers, {captions} of {of} captions, {alerts} alerts");
    assert!(captions > 0 && alerts > 0);
}
