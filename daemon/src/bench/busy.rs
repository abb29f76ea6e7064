//! How much slower stages get while other processes keep all cores busy.

use std::fmt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kernels::Device;
use serde::Serialize;

use super::engine::Wait;
use super::rounds::Bench;
use super::stage::{Work, name_of};
use super::{BenchError, Options};
use crate::model::files::ModelFiles;

/// Stages that are measured.
const WORKS: [Work; 3] = [Work::Encode, Work::Prefill, Work::Decode];

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct BusyReport {
    /// The device.
    pub device: String,
    /// The model.
    pub model: String,
    /// Other processes, each with as much to do as a core can take.
    pub others: usize,
    /// Stages with their times alone and beside the others.
    pub stages: Vec<Busy>,
}

/// A stage, measured alone and beside others in turn.
#[derive(Clone, Debug, Serialize)]
pub struct Busy {
    /// The stage.
    pub name: String,
    /// Alone.
    pub quiet: Wait,
    /// While others want all cores too.
    pub busy: Wait,
}

impl Busy {
    /// How many times as long the stage takes.
    pub fn ratio(&self) -> f64 {
        self.busy.median_ms / self.quiet.median_ms.max(f64::MIN_POSITIVE)
    }
}

/// Measures the stages of a model, as many other processes running in every other round as this one has
/// threads.
pub fn busy<D: Device>(files: &ModelFiles, device: D, options: &Options) -> Result<BusyReport, BenchError> {
    let name = device.name();
    let mut bench = Bench::load(files, device, &options.load)?;
    let mut stages = Vec::new();
    for work in WORKS {
        bench.round(work)?;
        let (mut quiet, mut busy): (Vec<Duration>, Vec<Duration>) = Default::default();
        for _ in 0..options.rounds.max(1) {
            quiet.push(bench.round(work)?.0);
            let others = Others::start(options.threads)?;
            busy.push(bench.round(work)?.0);
            drop(others);
        }
        let name = name_of(work, files, &options.load);
        stages.push(Busy { name, quiet: Wait::of(&quiet), busy: Wait::of(&busy) });
    }
    Ok(BusyReport { device: name, model: files.id.clone(), others: options.threads, stages })
}

/// Processes that compute without end until they are dropped.
struct Others(Vec<Child>);

impl Others {
    fn start(count: usize) -> Result<Self, BenchError> {
        let mut others = Self(Vec::with_capacity(count));
        for _ in 0..count {
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
            others.0.push(command.spawn().map_err(BenchError::Others)?);
        }
        Ok(others)
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that has ended already needs no end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl fmt::Display for BusyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} on {}, beside {} other processes that never rest",
            self.model, self.device, self.others
        )?;
        writeln!(f)?;
        write!(f, "{:<16} {:>10} {:>10} {:>8}", "stage", "quiet ms", "busy ms", "times")?;
        for stage in &self.stages {
            let Busy { name, quiet, busy } = stage;
            writeln!(f)?;
            let (quiet, busy) = (quiet.median_ms, busy.median_ms);
            write!(f, "{name:<16} {quiet:>10.1} {busy:>10.1} {:>8.2}", stage.ratio())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_end_with_their_owner() {
        let others = Others::start(2).expect("a shell");
        let ids: Vec<u32> = others.0.iter().map(Child::id).collect();
        assert!(ids.iter().all(|id| std::fs::exists(format!("/proc/{id}")).expect("readable")));
        drop(others);
        assert!(!ids.iter().any(|id| std::fs::exists(format!("/proc/{id}")).expect("readable")));
    }

    #[test]
    fn the_table_has_a_line_per_stage() {
        let wait = |ms| Wait::of(&[Duration::from_millis(ms)]);
        let stage = Busy { name: "encode_v2".into(), quiet: wait(500), busy: wait(1100) };
        let report = BusyReport { device: "cpu".into(), model: "m".into(), others: 2, stages: vec![stage] };
        let text = report.to_string();
        assert!(text.lines().any(|line| line.starts_with("encode_v2") && line.ends_with("2.20")), "{text}");
    }
}
