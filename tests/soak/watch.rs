//! What the engine tells of itself while it runs: captions and rules go on, memory stays what it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mobilevlmd::engine::{Progress, Report};
use mobilevlmd::health;

use super::PATIENCE;
use super::cameras::{Cameras, NAMES, index_of};

/// How often it is looked at, and how often memory is.
const EVERY: Duration = Duration::from_millis(50);
const MEMORY_EVERY: Duration = Duration::from_millis(500);

/// A camera without a caption, or a rule without a verdict on a camera, for so many units of work has
/// stopped, if so many frames were there to be looked at: enough for some to be new, or for the
/// longest silence to be over.
const STOPPED: (u64, u64) = (1000, 40);

/// Bytes by which memory may grow once all kinds of work have been done: what the test itself keeps
/// of answers and captions, and what allocators of many threads hold back.
const SLACK: u64 = 16 << 20;

/// Something that must go on.
struct Beat {
    name: String,
    camera: usize,
    count: u64,
    /// Units done and frames shown when the count grew last.
    at: (u64, u64),
    /// Most units from one to the next.
    longest: u64,
}

impl Beat {
    fn new(name: String, camera: usize) -> Self {
        Self { name, camera, count: 0, at: (0, 0), longest: 0 }
    }

    fn see(&mut self, count: u64, now: (u64, u64)) {
        let (units, frames) = (now.0 - self.at.0, now.1 - self.at.1);
        if count > self.count {
            self.longest = self.longest.max(units);
            (self.count, self.at) = (count, now);
        } else {
            let is_alive = units < STOPPED.0 || frames < STOPPED.1;
            assert!(is_alive, "{} stopped after {count}: {units} units, {frames} frames", self.name);
        }
    }
}

/// Watches over an engine.
pub(super) struct Watch {
    progress: Arc<Progress>,
    beats: Vec<Beat>,
    next: Instant,
    next_memory: Instant,
    /// Resident bytes and pages in use, in even steps.
    memory: Vec<(u64, u32)>,
    ticks: (u64, Instant),
}

impl Watch {
    /// Begins to watch cameras and rules that are at work.
    pub(super) fn new(progress: Arc<Progress>, cameras: &Cameras) -> Self {
        let now = Instant::now();
        let captions = NAMES.iter().enumerate().map(|(camera, name)| Beat::new((*name).into(), camera));
        let report = progress.report();
        let rules = report
            .rules
            .iter()
            .map(|rule| Beat::new(format!("{} on {}", rule.rule, rule.camera), index_of(&rule.camera)));
        let beats = captions.chain(rules).collect();
        // Room for all, so that it is not the watch that grows.
        let memory = Vec::with_capacity(1 << 14);
        let mut watch = Self { progress, beats, next: now, next_memory: now, memory, ticks: (0, now) };
        watch.beats.iter_mut().for_each(|beat| beat.at = (report.engine.units, cameras.shown(beat.camera)));
        watch.look(cameras);
        watch
    }

    /// Looks whether everything goes on, if it is time.
    pub(super) fn look(&mut self, cameras: &Cameras) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + EVERY;
        let report = self.progress.report();
        let counts = counts(&report);
        for (beat, count) in self.beats.iter_mut().zip(counts) {
            beat.see(count, (report.engine.units, cameras.shown(beat.camera)));
        }
        if now >= self.next_memory {
            self.next_memory = now + MEMORY_EVERY;
            self.memory.push((health::resident_bytes(), report.cache.pages_used));
        }
        let ticks = self.progress.ticks();
        if ticks > self.ticks.0 {
            self.ticks = (ticks, now);
        }
        assert!(now - self.ticks.1 < PATIENCE, "the engine stands still: {report:?}");
    }

    /// How often the slowest of all that must go on has come.
    pub(super) fn fewest(&self) -> u64 {
        self.beats.iter().map(|beat| beat.count).min().unwrap_or(0)
    }

    /// Sees that memory stayed what it was, and tells how it was.
    pub(super) fn finish(self) {
        for Beat { name, count, longest, .. } in &self.beats {
            println!("  {name}: {count} times, at most {longest} units from one to the next");
        }
        let quarter = self.memory.len() / 4;
        let most = |samples: &[(u64, u32)]| samples.iter().map(|(bytes, _)| *bytes).max().unwrap_or(0);
        let (early, late) = (most(&self.memory[..quarter]), most(&self.memory[2 * quarter..]));
        let step = (self.memory.len() / 8).max(1);
        let told =
            self.memory.iter().step_by(step).map(|(bytes, pages)| {
                format!("{:.1} MiB ({pages} pages)", *bytes as f64 / f64::from(1 << 20))
            });
        println!("  memory: {}", told.collect::<Vec<_>>().join(", "));
        assert!(quarter > 0, "too short a time to tell anything of memory");
        assert!(late <= early + SLACK, "memory grew from {early} to {late} bytes");
    }
}

/// Captions of each camera, then verdicts of each rule on each camera.
fn counts(report: &Report) -> impl Iterator<Item = u64> {
    let captions = report.cameras.iter().map(|camera| camera.captions);
    captions.chain(report.rules.iter().map(|rule| rule.evaluations))
}
