//! Breaks cameras of real drivers in every way those drivers allow, at random from a seed, and sees that
//! each comes back, that the others never notice, and that nothing grows.
//!
//! usage: churn [--cycles N] [--seconds S] [--seed N]     ends when both are reached; one JSON object a line
//!
//! It runs in the emulated machine of this folder: two cameras of the vivid driver and one on the USB host.

mod rig;
mod subject;
#[path = "../../random.rs"]
mod random;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use messages::CameraPhase;
use serde::Serialize;

use random::Random;
use rig::{Fault, Rig};
use subject::Subject;

/// A camera is live again so soon after it is usable.
const MOST_RECOVERY: Duration = Duration::from_secs(3);

/// How long anything may take before the churn gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Cycles after which memory is what it will be.
const WARM: u64 = 40;

/// What the process holds while all cameras are live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Held {
    resident_kib: u64,
    descriptors: usize,
    threads: usize,
    /// Buffers of drivers.
    buffers: usize,
}

impl Held {
    fn now() -> Self {
        let count = |folder: &str| std::fs::read_dir(folder).map_or(0, Iterator::count);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        Self {
            resident_kib: mobilevlmd::health::resident_bytes() / 1024,
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            buffers: maps.lines().filter(|line| line.contains("/dev/video")).count(),
        }
    }
}

/// How the cameras took a fault, over all its times.
#[derive(Debug, Default, Serialize)]
struct Taken {
    times: u64,
    /// From usable to the first good frame.
    longest_recovery_ms: u64,
    recovery_ms: u64,
    /// The longest time between two frames of a camera that was not concerned.
    longest_interval_of_others_ms: u64,
}

/// What is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Told<'a> {
    /// The times between frames while nothing is wrong.
    Quiet {
        longest_interval_ms: u64,
    },
    Held {
        cycle: u64,
        seconds: u64,
        held: Held,
    },
    Fault {
        fault: String,
        taken: &'a Taken,
    },
    States {
        phase: String,
        times: u64,
    },
    Problem {
        cycle: u64,
        fault: String,
        problem: String,
    },
    End {
        cycles: u64,
        seconds: u64,
        problems: u64,
        before: Held,
        after: Held,
        highest: Held,
    },
}

fn tell(told: &Told<'_>) {
    println!("{}", serde_json::to_string(told).expect("plain structures"));
}

fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}

struct Churn {
    rig: Rig,
    subjects: Vec<Subject>,
    random: Random,
    taken: BTreeMap<String, Taken>,
    phases: BTreeMap<String, u64>,
    problems: u64,
    cycle: u64,
}

impl Churn {
    fn new(seed: u64) -> Self {
        let rig = Rig::new();
        let subjects = rig.sources().map(|(name, source)| Subject::start(name, &source)).into();
        let (taken, phases) = (BTreeMap::new(), BTreeMap::new());
        Self { rig, subjects, random: Random(seed.max(1)), taken, phases, problems: 0, cycle: 0 }
    }

    /// Waits until every camera delivers; whether they all do.
    fn settle(&mut self) -> bool {
        let start = Instant::now();
        let is_settled = |subject: &Subject| subject.is_live() && subject.has_frame_since(start);
        while !self.subjects.iter().all(is_settled) && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(20));
        }
        self.subjects.iter().all(is_settled)
    }

    /// Breaks something, mends it and sees what the cameras make of it. Errors: what is wrong.
    fn cycle(&mut self, fault: Fault) -> Result<(), String> {
        if !self.settle() {
            return Err(format!("not live: {:?}", self.subjects));
        }
        for subject in &mut self.subjects {
            subject.begin();
        }
        let pause = self.random.interval(Duration::from_millis(300)).min(Duration::from_secs(2));
        let usable = self.rig.break_and_mend(fault, pause, &self.subjects)?;
        let mut problems = Vec::new();
        let mut recovery = Duration::ZERO;
        for (index, subject) in self.subjects.iter().enumerate() {
            if fault.interrupts(index) {
                match subject.wait_for_recovery(usable, PATIENCE) {
                    Some(time) if time <= MOST_RECOVERY => recovery = recovery.max(time),
                    time => problems.push(format!("{subject:?} came back after {time:?}")),
                }
            }
        }
        let mut interval = Duration::ZERO;
        for (index, subject) in self.subjects.iter_mut().enumerate() {
            let states = subject.take_states()?;
            for state in &states {
                *self.phases.entry(format!("{:?}", state.phase)).or_default() += 1;
            }
            let phases: Vec<_> = states.iter().map(|state| state.phase).collect();
            if !fault.concerns(index) {
                interval = interval.max(subject.longest_interval());
            }
            problems.extend(judge(fault, index, &phases, subject));
        }
        let taken = self.taken.entry(format!("{fault:?}")).or_default();
        taken.times += 1;
        taken.longest_recovery_ms = taken.longest_recovery_ms.max(millis(recovery));
        taken.recovery_ms += millis(recovery);
        taken.longest_interval_of_others_ms = taken.longest_interval_of_others_ms.max(millis(interval));
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }

    /// Churns for a number of cycles and seconds. Returns how many problems there were.
    fn run(&mut self, cycles: u64, seconds: u64) -> u64 {
        let start = Instant::now();
        self.quiet();
        let mut before = Held::now();
        let mut highest = before;
        while self.cycle < cycles || start.elapsed().as_secs() < seconds {
            let fault = Fault::pick(&mut self.random);
            if let Err(problem) = self.cycle(fault) {
                self.problems += 1;
                tell(&Told::Problem { cycle: self.cycle, fault: format!("{fault:?}"), problem });
                if self.problems == 10 {
                    break;
                }
            }
            self.cycle += 1;
            if self.cycle == WARM {
                self.settle();
                (before, highest) = (Held::now(), Held::now());
            } else if self.cycle.is_multiple_of(50) {
                self.settle();
                let held = Held::now();
                highest.resident_kib = highest.resident_kib.max(held.resident_kib);
                highest.descriptors = highest.descriptors.max(held.descriptors);
                highest.buffers = highest.buffers.max(held.buffers);
                tell(&Told::Held { cycle: self.cycle, seconds: start.elapsed().as_secs(), held });
            }
        }
        self.settle();
        let after = Held::now();
        for (fault, taken) in &self.taken {
            tell(&Told::Fault { fault: fault.clone(), taken });
        }
        for (phase, times) in &self.phases {
            tell(&Told::States { phase: phase.clone(), times: *times });
        }
        let (cycles, seconds, problems) = (self.cycle, start.elapsed().as_secs(), self.problems);
        tell(&Told::End { cycles, seconds, problems, before, after, highest });
        problems
    }

    /// Some seconds in which nothing is broken.
    fn quiet(&mut self) {
        self.settle();
        for subject in &mut self.subjects {
            subject.begin();
        }
        thread::sleep(Duration::from_secs(5));
        let longest = self.subjects.iter().map(Subject::longest_interval).max().unwrap_or_default();
        tell(&Told::Quiet { longest_interval_ms: millis(longest) });
    }
}

/// What is wrong with the phases that a camera went through.
fn judge(fault: Fault, index: usize, phases: &[CameraPhase], subject: &Subject) -> Option<String> {
    let wrong = |what: &str| Some(format!("{what}: {phases:?} of {subject:?}"));
    if !fault.interrupts(index) {
        return if phases.is_empty() { None } else { wrong("it was not interrupted") };
    }
    if phases.last() != Some(&CameraPhase::Live) {
        return wrong("it is not live");
    }
    let want = fault.phase();
    if !phases.contains(&want) {
        return wrong("its state should tell");
    }
    // Nothing is told twice.
    if phases.windows(2).any(|pair| pair[0] == pair[1] && pair[0] != CameraPhase::Gone) {
        return wrong("told twice");
    }
    None
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let value = |name: &str, default: u64| {
        let found = arguments.iter().position(|argument| argument == name);
        found.and_then(|index| arguments.get(index + 1)?.parse().ok()).unwrap_or(default)
    };
    let mut churn = Churn::new(value("--seed", 1));
    let problems = churn.run(value("--cycles", 200), value("--seconds", 0));
    if problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
