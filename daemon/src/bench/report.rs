//! What a run found, as a table for people and as JSON for programs.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::BenchError;
use super::probe::Limits;

/// By how much probes of a machine at rest may differ, 1 being all of what it does.
pub(super) const TOLERANCE: f64 = 0.1;

/// What bounds a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Reading memory.
    Read,
    /// Products of 8-bit integers.
    Int8,
    /// Products of f32 numbers.
    F32,
}

impl Limit {
    /// The name in tables and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Limit::Read => "read",
            Limit::Int8 => "int8",
            Limit::F32 => "f32",
        }
    }
}

/// A timed stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// The whole stage: the median of the rounds that count.
    pub time: Duration,
    /// From the quickest to the slowest of these rounds, 1 being the median.
    pub spread: f64,
    /// Rounds that do not count, as the machine was another one beside them.
    pub discarded: usize,
    /// What the machine did at the same time: the median of probes between the rounds, 10^9 per second.
    pub rate: f64,
    /// Tokens made or taken in.
    pub tokens: usize,
    /// Products it needs.
    pub macs: u64,
    /// Bytes of weights, keys and values it reads.
    pub bytes: u64,
    /// What bounds it.
    pub limit: Limit,
    /// The longest stretch of it that nothing can interrupt.
    pub longest_unit: Duration,
}

/// The projector's part of encoding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProjectorShare {
    /// Numbers it has.
    pub parameters: u64,
    /// Part of the time, 1 being all of it.
    pub share: f64,
}

/// A stage in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StageReport {
    /// Milliseconds of the whole stage, the median of the rounds.
    pub ms: f64,
    /// Tokens per second.
    pub tok_s: f64,
    /// Bytes read, 10^9 per second.
    pub gb_s: f64,
    /// Products, 10^9 per second.
    pub gmac_s: f64,
    /// Part of what this machine could do at the same time, 1 being all of it.
    pub fraction_of_limit: f64,
    /// What it could do, 10^9 bytes or products per second.
    pub limit: f64,
    /// From the quickest round to the slowest, 1 being the median.
    pub spread: f64,
    /// Rounds that do not count: a probe beside them was more than a tenth off the median of all.
    pub discarded: usize,
}

/// A whole run. As JSON it is `{"limits": {...}, "stages": {name: {...}}}`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What this machine can do.
    pub limits: Limits,
    /// Stages in the order they were asked for.
    #[serde(serialize_with = "as_map")]
    pub stages: Vec<(String, StageReport)>,
    #[serde(skip)]
    device: String,
    #[serde(skip)]
    subject: String,
    #[serde(skip)]
    timings: Vec<(String, Timing)>,
    #[serde(skip)]
    projector: Option<ProjectorShare>,
}

fn as_map<S: Serializer>(stages: &[(String, StageReport)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(stages.iter().map(|(name, stage)| (name, stage)))
}

impl Report {
    /// A report on `subject`, measured on `device`, without any stage.
    pub fn new(device: &str, subject: &str) -> Self {
        Self {
            limits: Limits::default(),
            stages: Vec::new(),
            device: device.into(),
            subject: subject.into(),
            timings: Vec::new(),
            projector: None,
        }
    }

    /// Adds a stage.
    pub fn add(&mut self, name: &str, timing: Timing) {
        self.timings.push((name.into(), timing));
    }

    /// Adds the projector's part of encoding.
    pub fn projector(&mut self, share: ProjectorShare) {
        self.projector = Some(share);
    }

    /// Ends the run, `limits` being the best seen in it.
    pub fn finish(&mut self, limits: Limits) {
        self.limits = limits;
        self.stages = self.timings.iter().map(|(name, timing)| (name.clone(), in_numbers(timing))).collect();
    }

    /// Puts the stages into the order of `names`.
    pub fn order(&mut self, names: &[String]) {
        self.timings.sort_by_key(|(name, _)| names.iter().position(|wanted| wanted == name));
        self.finish(self.limits);
    }

    /// Fails if a stage is faster than the machine by more than probes differ.
    pub fn check(&self) -> Result<(), BenchError> {
        for ((name, timing), (_, stage)) in self.timings.iter().zip(&self.stages) {
            let fraction = stage.fraction_of_limit;
            if !(0.0..=1.0 + TOLERANCE).contains(&fraction) {
                let limit = timing.limit.name();
                return Err(BenchError::BeatsLimit { stage: name.clone(), limit, fraction });
            }
        }
        Ok(())
    }
}

fn in_numbers(timing: &Timing) -> StageReport {
    let seconds = timing.time.as_secs_f64();
    let (gb_s, gmac_s) = (timing.bytes as f64 / seconds / 1e9, timing.macs as f64 / seconds / 1e9);
    let fraction_of_limit = match timing.limit {
        Limit::Read => gb_s / timing.rate,
        Limit::Int8 | Limit::F32 => gmac_s / timing.rate,
    };
    StageReport {
        ms: seconds * 1e3,
        tok_s: timing.tokens as f64 / seconds,
        gb_s,
        gmac_s,
        fraction_of_limit,
        limit: timing.rate,
        spread: timing.spread,
        discarded: timing.discarded,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limits { read_gb_s, int8_gmac_s, f32_gmac_s } = self.limits;
        writeln!(f, "{} on {}", self.subject, self.device)?;
        writeln!(f)?;
        writeln!(
            f,
            "limits: read {read_gb_s:.1} GB/s, int8 {int8_gmac_s:.0} GMAC/s, f32 {f32_gmac_s:.0} GMAC/s"
        )?;
        writeln!(f)?;
        writeln!(
            f,
            "{:<16} {:>9} {:>7} {:>8} {:>7} {:>8}  {:<20} {:>9} {:>12}",
            "stage", "ms", "spread", "tok/s", "GB/s", "GMAC/s", "of limit", "discarded", "longest unit"
        )?;
        for ((name, timing), (_, stage)) in self.timings.iter().zip(&self.stages) {
            let StageReport { ms, tok_s, gb_s, gmac_s, fraction_of_limit, limit, spread, discarded } = stage;
            let limit = format!("{:.1} % {} {limit:.1}", fraction_of_limit * 100.0, timing.limit.name());
            let spread = format!("{:.0} %", spread * 100.0);
            let unit = timing.longest_unit.as_secs_f64() * 1e3;
            writeln!(
                f,
                "{name:<16} {ms:>9.1} {spread:>7} {tok_s:>8.1} {gb_s:>7.1} {gmac_s:>8.1}  {limit:<20} \
                 {discarded:>9} {unit:>9.1} ms"
            )?;
        }
        if let Some(ProjectorShare { parameters, share }) = self.projector {
            let millions = parameters as f64 / 1e6;
            writeln!(f)?;
            writeln!(f, "projector: {millions:.1} M parameters, {:.1} % of encoding", share * 100.0)?;
        }
        writeln!(f)?;
        writeln!(f, "published for 1.7B, not measured here: decode 21.5 tok/s on a Snapdragon 888 CPU,")?;
        write!(f, "65.3 tok/s on a Jetson AGX Orin")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { read_gb_s: 40.0, int8_gmac_s: 800.0, f32_gmac_s: 200.0 };

    fn timing(limit: Limit) -> Timing {
        Timing {
            time: Duration::from_millis(500),
            spread: 0.25,
            discarded: 1,
            rate: match limit {
                Limit::Read => LIMITS.read_gb_s,
                Limit::Int8 => LIMITS.int8_gmac_s,
                Limit::F32 => LIMITS.f32_gmac_s,
            },
            tokens: 10,
            macs: 200_000_000_000,
            bytes: 10_000_000_000,
            limit,
            longest_unit: Duration::from_millis(20),
        }
    }

    fn report(limit: Limit) -> Report {
        let mut report = Report::new("cpu-scalar-1t", "synthetic tiny");
        report.add("decode_q4_0", timing(limit));
        report.add("encode_v2", timing(Limit::Int8));
        report.finish(LIMITS);
        report
    }

    #[test]
    fn json_has_limits_and_stages_and_nothing_else() {
        let json = serde_json::to_value(report(Limit::Read)).unwrap();
        let keys = |value: &serde_json::Value| {
            let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
            keys.sort_unstable();
            keys.join(" ")
        };
        assert_eq!(keys(&json), "limits stages");
        assert_eq!(keys(&json["limits"]), "f32_gmac_s int8_gmac_s read_gb_s");
        assert_eq!(keys(&json["stages"]), "decode_q4_0 encode_v2");
        let stage = &json["stages"]["decode_q4_0"];
        assert_eq!(keys(stage), "discarded fraction_of_limit gb_s gmac_s limit ms spread tok_s");
        let numbers = ["ms", "tok_s", "gb_s", "gmac_s", "fraction_of_limit"].map(|key| stage[key].as_f64());
        assert_eq!(numbers, [500.0, 20.0, 20.0, 400.0, 0.5].map(Some));
    }

    #[test]
    fn stages_are_held_against_their_own_limit() {
        for (limit, fraction) in [(Limit::Read, 0.5), (Limit::Int8, 0.5), (Limit::F32, 2.0)] {
            let report = report(limit);
            assert_eq!(report.stages[0].1.fraction_of_limit, fraction);
            assert_eq!(report.check().is_ok(), fraction <= 1.0, "{limit:?}");
        }
        let error = report(Limit::F32).check().unwrap_err().to_string();
        assert!(error.contains("decode_q4_0") && error.contains("f32"), "{error}");
    }

    #[test]
    fn stages_come_in_the_order_asked_for() {
        let mut report = report(Limit::Read);
        report.order(&["encode_v2".into(), "decode_q4_0".into()]);
        let names: Vec<_> = report.stages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["encode_v2", "decode_q4_0"]);
    }

    #[test]
    fn the_table_has_a_line_per_stage() {
        let text = report(Limit::Read).to_string();
        assert!(text.contains("limits: read 40.0 GB/s, int8 800 GMAC/s, f32 200 GMAC/s"), "{text}");
        assert!(
            text.lines().any(|line| line.starts_with("decode_q4_0") && line.contains("50.0 % read 40.0"))
        );
    }
}
