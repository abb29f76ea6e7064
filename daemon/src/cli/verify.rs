//! `mobilevlmd verify`: Checks this build against reference data.

use std::io::Write;
use std::path::PathBuf;

use kernels::cpu::IsaLevel;
use serde::Serialize;

use super::Failure;
use crate::verify::{Options, Row, Target, verify};

/// Checks this build on this machine against a folder of reference data.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder: indexes in `goldens`, models in `checkpoints` and `gguf`.
    dir: PathBuf,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Check the exact f32 path only, not the default path of `run`.
    #[arg(long, alias = "exact")]
    exact_only: bool,
    /// Check one instruction set instead of all of this processor's: scalar, avx2, avx512vnni; or
    /// `reference`, the scalar specification.
    #[arg(long, value_name = "NAME")]
    isa: Option<String>,
    /// Threads; 0 takes the physical cores.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Print failed rows only.
    #[arg(long)]
    quiet: bool,
}

#[derive(Serialize)]
struct Report {
    rows: Vec<Row>,
    passed: usize,
    failed: usize,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let targets = args.isa.as_deref().map(|name| target(name, args.threads)).transpose()?;
    let options = Options {
        dir: args.dir.clone(),
        exact_only: args.exact_only,
        targets: targets.into_iter().collect(),
        threads: args.threads,
    };
    let mut rows = Vec::new();
    let mut out = std::io::stdout().lock();
    let summary = verify(&options, &mut |row| {
        if args.json {
            rows.push(row.clone());
        } else if !(args.quiet && row.passed) {
            // A closed pipe ends the output, not the check: the exit code still counts.
            let _ = writeln!(out, "{row}");
        }
    })?;
    let (passed, failed) = (summary.passed, summary.failed);
    if args.json {
        serde_json::to_writer(&mut out, &Report { rows, passed, failed })?;
        writeln!(out)?;
    } else {
        writeln!(out, "{passed} passed, {failed} failed")?;
    }
    if failed > 0 || passed == 0 {
        return Err(Failure::new(format!("{failed} of {} checks failed", passed + failed)));
    }
    Ok(())
}

fn target(name: &str, threads: usize) -> Result<Target, Failure> {
    if name == "reference" {
        return Ok(Target::Reference);
    }
    let isa: IsaLevel = name.parse().map_err(Failure::new)?;
    if !kernels::Cpu::available().contains(&isa) {
        return Err(Failure::new(format!("this processor does not have {isa}")));
    }
    Ok(Target::Cpu { isa, threads })
}
