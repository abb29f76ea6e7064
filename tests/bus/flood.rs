//! A flood on the whole daemon: callers who ask faster than anybody can answer, among them some who leave and some
//! who send nonsense, and subscribers who never read. Every question ends once, the figures add up, captions go on, and
//! when all have left the daemon needs no more memory than before: one flood after the other.
//!
//! The suite takes a small one. `FLOOD=whole` takes 1,000 questions in a second from 50 callers, with 100
//! subscribers of which 10 never read.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use messages::{BusStatus, Status};
use mobilevlmd::bus::client::Client;
use zenoh::query::{ConsolidationMode, Reply};
use zenoh::{Session, Wait};

use super::fake::free_endpoint;
use super::links::Deaf;
use super::{PATIENCE, session, try_client};
use crate::service;

const DEVICE: &str = "flooded";
const CAMERA: &str = "test";

/// How much comes.
#[derive(Clone, Copy, Debug)]
struct Flood {
    callers: usize,
    /// Of them, those who leave when they have asked.
    leavers: usize,
    /// Questions of each, spread over a second.
    questions: usize,
    subscribers: usize,
    deaf: usize,
    /// How long captions are counted before, and after.
    look: Duration,
    /// One after the other.
    floods: usize,
}

const SMALL: Flood = Flood {
    callers: 10,
    leavers: 2,
    questions: 20,
    subscribers: 8,
    deaf: 2,
    look: Duration::from_secs(1),
    floods: 2,
};

const WHOLE: Flood = Flood {
    callers: 50,
    leavers: 5,
    questions: 20,
    subscribers: 90,
    deaf: 10,
    look: Duration::from_secs(10),
    floods: 3,
};

/// Memory that the daemon may need more than before when all have left, in bytes, after the last flood as after the
/// first: what is in use of the heap is scattered over more pages and, from the threads of a flood, over more heaps.
/// A flood takes 40 to 50 MiB meanwhile.
const LEFT: u64 = 16 << 20;

/// The daemon in a process of its own, so that its memory can be told; killed if the test fails.
struct Flooded(Child);

impl Flooded {
    fn start(endpoint: &str) -> Self {
        let (name, camera) = (format!("device_name={DEVICE}"), format!("{CAMERA}=test:"));
        let all = "caption.change_threshold=0";
        let arguments = ["run", "--camera", &camera, "--listen", endpoint, "--set", &name, "--set", all];
        let mut child = service::daemon(&arguments).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let flooded = Self(child);
        assert!(lines.any(|line| line.contains("ready")), "the daemon started");
        // It must not stop at a full pipe.
        std::thread::spawn(move || {
            lines.filter(|line| line.contains("WARN")).for_each(|line| println!("  {line}"))
        });
        flooded
    }
}

impl Flooded {
    /// Its threads.
    fn threads(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap();
        threads.trim().parse().unwrap()
    }
}

impl Drop for Flooded {
    fn drop(&mut self) {
        // Both fail if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How questions of all callers ended.
#[derive(Default)]
struct Ends {
    answered: AtomicU64,
    overloaded: AtomicU64,
    malformed: AtomicU64,
    other: AtomicU64,
    /// Replies behind an end, and questions without one.
    wrong: AtomicU64,
}

impl Ends {
    /// Hears all replies to a question.
    fn listen(self: &Arc<Self>) -> Listener {
        Listener { ends: self.clone(), ended: AtomicU64::new(0) }
    }

    fn total(&self) -> u64 {
        [&self.answered, &self.overloaded, &self.malformed, &self.other]
            .map(|number| number.load(Ordering::Acquire))
            .iter()
            .sum()
    }
}

struct Listener {
    ends: Arc<Ends>,
    ended: AtomicU64,
}

impl Listener {
    fn hear(&self, reply: Reply) {
        let one = |number: &AtomicU64| {
            number.fetch_add(1, Ordering::AcqRel);
        };
        let end = match reply.into_result() {
            // Only the last reply to a question in words has an attachment.
            Ok(sample) if sample.attachment().is_none() => {
                return if self.ended.load(Ordering::Acquire) > 0 {
                    one(&self.ends.wrong)
                };
            }
            Ok(_) => &self.ends.answered,
            Err(error) => match error.payload().try_to_string().unwrap_or_default().split(':').next() {
                Some("overloaded") => &self.ends.overloaded,
                Some("bad_request" | "too_long") => &self.ends.malformed,
                _ => &self.ends.other,
            },
        };
        one(end);
        one(&self.ended);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.ended.load(Ordering::Acquire) != 1 {
            self.ends.wrong.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// What a caller sends as his question of this number: every fifth is nonsense of some size.
fn payload(caller: usize, number: usize) -> Vec<u8> {
    match number % 5 {
        4 => vec![0xff; 1 << (caller * 7 % 20)],
        _ => b"What do you see?".to_vec(),
    }
}

/// Asks all questions, spread over a second. Returns when the last was asked.
fn ask_all(session: &Session, caller: usize, questions: usize, ends: Option<&Arc<Ends>>) {
    let start = Instant::now();
    let key = format!("mobilevlm/{DEVICE}/camera/{CAMERA}/ask");
    for number in 0..questions {
        let due = start + Duration::from_secs(1) * number as u32 / questions as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let query = session.get(&key).payload(payload(caller, number)).timeout(PATIENCE);
        let query = query.consolidation(ConsolidationMode::None);
        match ends {
            Some(ends) => {
                let listener = ends.listen();
                query.callback(move |reply| listener.hear(reply)).wait().unwrap();
            }
            None => drop(query.wait().unwrap()),
        }
    }
}

/// A session as on another machine. On this one zenoh maps the memory that large payloads are shared in, 16 MiB for
/// each neighbour, into the daemon.
fn remote(endpoint: &str) -> Session {
    let mut config = zenoh::Config::default();
    config.insert_json5("mode", "\"client\"").unwrap();
    config.insert_json5("connect/endpoints", &format!("[\"{endpoint}\"]")).unwrap();
    config.insert_json5("transport/shared_memory/enabled", "false").unwrap();
    zenoh::open(config).wait().unwrap()
}

/// Captions in a time.
fn rate(captions: &AtomicU64, time: Duration) -> f64 {
    let (before, start) = (captions.load(Ordering::Acquire), Instant::now());
    std::thread::sleep(time);
    (captions.load(Ordering::Acquire) - before) as f64 / start.elapsed().as_secs_f64()
}

/// Waits until nothing is open, and tells how things are then.
fn settled(client: &Client) -> Status {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = client.status().unwrap();
        if status.bus.open == 0 && status.engine.questions_waiting == 0 {
            return status;
        }
        assert!(Instant::now() < deadline, "{:?}", status.bus);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_flood_leaves_everything_as_it_was() {
    let flood = if std::env::var_os("FLOOD").is_some_and(|size| size == "whole") { WHOLE } else { SMALL };
    println!("{flood:?}");
    let endpoint = free_endpoint();
    let daemon = Flooded::start(&endpoint);
    let client = try_client(&endpoint, None).unwrap();
    let captions = Arc::new(AtomicU64::new(0));
    let ear = session(&endpoint);
    let count = captions.clone();
    let key = format!("mobilevlm/{DEVICE}/camera/{CAMERA}/caption");
    let _ear = ear
        .declare_subscriber(&key)
        .callback(move |_| {
            count.fetch_add(1, Ordering::AcqRel);
        })
        .wait()
        .unwrap();
    let before_rate = rate(&captions, flood.look);
    let before = settled(&client).resident_bytes;
    for _ in 0..flood.floods {
        let most = run(&flood, &daemon, (&endpoint, &client), &captions);
        let rest = calm(&client, before + LEFT);
        let figures = [before, most, rest].map(|bytes| bytes as f64 / 1024.0 / 1024.0);
        println!("  resident MiB before all, right after, when all have left: {figures:.1?}");
    }
    let after_rate = rate(&captions, flood.look);
    println!("  captions per second: {before_rate:.1} before all, {after_rate:.1} at last");
    assert!(after_rate > 0.0, "captions went on");
}

/// One flood, from the first who connects to the last who leaves. Returns the resident memory before they leave.
fn run(flood: &Flood, daemon: &Flooded, (endpoint, client): (&str, &Client), captions: &AtomicU64) -> u64 {
    let sessions: Vec<_> = (0..flood.subscribers + flood.callers).map(|_| remote(endpoint)).collect();
    let (subscribers, callers) = sessions.split_at(flood.subscribers);
    for subscriber in subscribers {
        subscriber.declare_subscriber("mobilevlm/**").callback(drop).background().wait().unwrap();
    }
    let deaf = Deaf::start(endpoint, flood.deaf);
    let before = settled(client);

    let (ends, start) = (Arc::new(Ends::default()), Instant::now());
    let (leavers, stayers) = callers.split_at(flood.leavers);
    std::thread::scope(|scope| {
        let ends = &ends;
        for (caller, session) in stayers.iter().enumerate() {
            scope.spawn(move || ask_all(session, caller, flood.questions, Some(ends)));
        }
        for (caller, session) in leavers.iter().enumerate() {
            scope.spawn(move || {
                ask_all(session, caller, flood.questions, None);
                session.close().wait().unwrap();
            });
        }
    });
    let asked_for = start.elapsed();
    let stayed = (stayers.len() * flood.questions) as u64;
    let heard_during = captions.load(Ordering::Acquire);
    let mut threads = daemon.threads();
    while ends.total() < stayed {
        assert!(start.elapsed() < PATIENCE, "{} of {stayed} questions ended", ends.total());
        std::thread::sleep(Duration::from_millis(5));
        threads = threads.max(daemon.threads());
    }
    let ended_after = start.elapsed();
    let after = settled(client);
    rate(captions, flood.look);
    let during_rate = (captions.load(Ordering::Acquire) - heard_during) as f64
        / (start.elapsed() - asked_for).as_secs_f64();
    tell(&ends, &before.bus, &after.bus);
    println!(
        "  asked for {:.2} s, the last of those who stayed ended after {:.2} s; {during_rate:.1} captions per second \
         since; {threads} threads at most",
        asked_for.as_secs_f64(),
        ended_after.as_secs_f64()
    );
    check(flood, &ends, (&before.bus, &after.bus));
    let tasks: u64 = service::values(&service::unit(), "TasksMax")[0].parse().unwrap();
    assert!(threads < tasks, "{threads} threads, {tasks} are allowed");
    sessions.into_iter().for_each(|session| session.close().wait().unwrap());
    drop(deaf);
    after.resident_bytes
}

/// Waits until the daemon needs no more memory than this.
fn calm(client: &Client, limit: u64) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let resident = settled(client).resident_bytes;
        if resident <= limit {
            return resident;
        }
        assert!(Instant::now() < deadline, "{resident} bytes are resident, at most {limit} are expected");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn tell(ends: &Ends, before: &BusStatus, after: &BusStatus) {
    let [answered, overloaded, malformed, other, wrong] =
        [&ends.answered, &ends.overloaded, &ends.malformed, &ends.other, &ends.wrong]
            .map(|n| n.load(Ordering::Acquire));
    println!(
        "  callers who stayed: {answered} answered, {overloaded} overloaded, {malformed} malformed, {other} other, {wrong} wrong"
    );
    println!("  daemon: {before:?} before, {after:?} after");
}

/// What the callers counted and what the daemon counted are the same.
fn check(flood: &Flood, ends: &Ends, (before, after): (&BusStatus, &BusStatus)) {
    let number = |number: &AtomicU64| number.load(Ordering::Acquire);
    let all = (flood.callers * flood.questions) as u64;
    assert_eq!(after.questions - before.questions, all, "every question was counted");
    let failed = |status: &BusStatus| status.failed.total();
    assert_eq!(
        after.answered - before.answered + failed(after) - failed(before),
        all,
        "every question ended once"
    );
    assert_eq!((number(&ends.wrong), number(&ends.other)), (0, 0), "no caller heard two ends, or none");
    let left = (flood.leavers * flood.questions) as u64;
    for (heard, counted) in [
        (&ends.answered, after.answered - before.answered),
        (&ends.overloaded, after.failed.overloaded - before.failed.overloaded),
        (&ends.malformed, after.failed.bad_request - before.failed.bad_request),
    ] {
        assert!(
            (number(heard)..=number(heard) + left).contains(&counted),
            "{} heard, {counted} counted",
            number(heard)
        );
    }
    assert!(number(&ends.answered) > 0, "some were answered");
}
