//! Stages one at a time, each when a line asks for it: for a program that lets others take turns.
//!
//! A line names a stage as `--stages` does, or is `probe read`, `probe int8` or `probe f32` for what the
//! machine does right now, `rows` for the visual tokens of the picture, `logits` for those behind the
//! prompt. One line of JSON answers each, and one more comes first, when the model is loaded. Between
//! lines nothing runs.

use std::io::{self, BufRead, Write};

use kernels::Device;
use serde::Serialize;

use super::probe::Prober;
use super::report::Limit;
use super::rounds::Bench;
use super::stage::Work;
use super::{BenchError, Options, find, named};
use crate::model::files::ModelFiles;

/// What loaded.
#[derive(Serialize)]
struct Ready<'a> {
    model: &'a str,
    device: String,
    threads: usize,
    stages: Vec<&'a str>,
}

/// A stage done once.
#[derive(Serialize)]
struct Turn<'a> {
    stage: &'a str,
    ms: f64,
    tokens: usize,
    /// What bounds it.
    limit: &'static str,
    /// What it asks of that: 10^9 bytes or products.
    work: f64,
}

/// What the machine did.
#[derive(Serialize)]
struct Probe {
    limit: &'static str,
    /// 10^9 bytes or products per second.
    rate: f64,
}

#[derive(Serialize)]
struct Values {
    values: Vec<f32>,
}

/// Loads a model and answers the lines of `input` on `output` until there are no more.
pub fn turns<D: Device>(
    files: &ModelFiles,
    device: D,
    options: &Options,
    input: impl BufRead,
    mut output: impl Write,
) -> Result<(), BenchError> {
    let named = named(files, &options.load);
    let device_name = device.name();
    let prober = Prober::new(options.threads)?;
    let mut bench = Bench::load(files, device, &options.load)?;
    let ready = Ready {
        model: &files.id,
        device: device_name,
        threads: options.threads,
        stages: named.iter().map(|(_, name)| name.as_str()).collect(),
    };
    answer(&mut output, &ready)?;
    for line in input.lines() {
        let line = line.map_err(BenchError::Lines)?;
        match line.trim() {
            "rows" => answer(&mut output, &Values { values: bench.rows() })?,
            "logits" => answer(&mut output, &Values { values: bench.logits()? })?,
            word => match probed(word) {
                Some(limit) => {
                    answer(&mut output, &Probe { limit: limit.name(), rate: prober.sample(limit) })?;
                }
                None => {
                    let (work, name) = find(&named, word)?;
                    answer(&mut output, &turn(&mut bench, *work, name)?)?;
                }
            },
        }
    }
    Ok(())
}

/// The limit that a line asks to be probed.
fn probed(line: &str) -> Option<Limit> {
    let wanted = line.strip_prefix("probe ")?;
    [Limit::Read, Limit::Int8, Limit::F32].into_iter().find(|limit| limit.name() == wanted)
}

fn turn<'a, D: Device>(bench: &mut Bench<D>, work: Work, name: &'a str) -> Result<Turn<'a>, BenchError> {
    let demand = bench.demand(work);
    let (spent, is_finite) = bench.round(work)?;
    if !is_finite {
        return Err(BenchError::NotFinite { stage: name.into() });
    }
    Ok(Turn {
        stage: name,
        ms: spent.as_secs_f64() * 1e3,
        tokens: demand.tokens,
        limit: demand.limit.name(),
        work: demand.of_limit() / 1e9,
    })
}

fn answer(output: &mut impl Write, answer: &impl Serialize) -> Result<(), BenchError> {
    let line = serde_json::to_string(answer).map_err(io::Error::from);
    line.and_then(|line| writeln!(output, "{line}")).and_then(|()| output.flush()).map_err(BenchError::Lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_named_by_its_limit() {
        for (line, limit) in
            [("probe read", Limit::Read), ("probe int8", Limit::Int8), ("probe f32", Limit::F32)]
        {
            assert_eq!(probed(line), Some(limit));
        }
        for line in ["probe", "probe disk", "read", ""] {
            assert_eq!(probed(line), None, "{line}");
        }
    }
}
