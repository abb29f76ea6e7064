//! `mobilevlmd verify`: checks this build against reference data, or a model against the world it shall see.

use std::io::Write;
use std::path::PathBuf;

use kernels::cpu::IsaLevel;
use serde::Serialize;

use super::Failure;
use crate::gpu::DeviceChoice;
use crate::verify::tower::{Size, towers};
use crate::verify::{Options, Row, Summary, Target, VerifyError, verify};

pub mod world;

/// What only makes sense where a model is scored.
const OF_A_SCORE: [&str; 8] = ["scenes", "seed", "conditions", "misses", "config", "model", "mmproj", "set"];

/// Checks this build against a folder of reference data, or a model against scenes it never saw
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder: indexes in `goldens`, models in `checkpoints` and `gguf`.
    #[arg(required_unless_present_any = ["scenes", "tower"], conflicts_with_all = OF_A_SCORE)]
    dir: Option<PathBuf>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Instead of reference data: hold the vision part's default arithmetic against the exact one, on
    /// made-up towers at real dimensions with and without channels far louder than the others.
    #[arg(long, conflicts_with_all = ["dir", "scenes", "exact_only"])]
    tower: bool,
    /// Check the exact f32 path only, not the default path of `run`.
    #[arg(long, alias = "exact")]
    exact_only: bool,
    /// Check one instruction set instead of all of this processor's: scalar, avx2, avxvnni,
    /// avx512vnni, neon, dotprod, i8mm; or `reference`, the scalar specification.
    #[arg(long, value_name = "NAME")]
    isa: Option<String>,
    /// Check a GPU instead of the CPU: cuda, or cuda:N by its number.
    #[arg(long, value_name = "NAME", conflicts_with = "isa")]
    device: Option<DeviceChoice>,
    /// Threads; 0 takes the physical cores.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Print failed rows only.
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    world: world::WorldArgs,
}

#[derive(Serialize)]
struct Report {
    rows: Vec<Row>,
    passed: usize,
    failed: usize,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let target = match (args.device, args.isa.as_deref()) {
        (Some(device), _) => Some(target_of(device, args.threads)?),
        (None, isa) => isa.map(|name| target(name, args.threads)).transpose()?,
    };
    if args.tower {
        let target = target.unwrap_or_else(|| Target::best(args.threads));
        return show(args, |show| Ok(towers(Size::Real, target, show)));
    }
    let Some(dir) = &args.dir else { return args.world.run(target, args.threads, args.json) };
    let options = Options {
        dir: dir.clone(),
        exact_only: args.exact_only,
        targets: target.into_iter().collect(),
        threads: args.threads,
    };
    show(args, |show| verify(&options, show))
}

/// Prints the rows of a check as they come, then how many there were.
fn show(
    args: &Args,
    check: impl FnOnce(&mut dyn FnMut(&Row)) -> Result<Summary, VerifyError>,
) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut out = std::io::stdout().lock();
    let summary = check(&mut |row| {
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

/// The device to check, which has to be there.
fn target_of(device: DeviceChoice, threads: usize) -> Result<Target, Failure> {
    let target = match device {
        DeviceChoice::Cuda(ordinal) => Target::Cuda(ordinal),
        DeviceChoice::Reference => Target::Reference,
        DeviceChoice::Cpu | DeviceChoice::Auto => Target::best(threads),
    };
    target.check()?;
    Ok(target)
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn a_folder_or_scenes_are_checked() {
        for (text, accepted) in [
            ("verify tests/data", true),
            ("verify tests/data --exact --isa avx2", true),
            ("verify --world 2000", true),
            (
                "verify --world 40 --seed 7 --conditions plain,blank,jpeg --json --model m.gguf --isa avx2",
                true,
            ),
            ("verify --tower --isa avx2 --json", true),
            ("verify tests/data --exact --device cuda:1", true),
            ("verify tests/data --device gpu", false),
            ("verify tests/data --device cuda --isa avx2", false),
            ("verify --tower tests/data", false),
            ("verify --tower --world 5", false),
            ("verify", false),
            ("verify --world 0", false),
            ("verify --world 10 tests/data", false),
            ("verify --world 10 --exact-only", false),
            ("verify --world 10 --conditions fog", false),
            ("verify tests/data --seed 7", false),
            ("verify tests/data --misses 7", false),
            ("verify tests/data --model m.gguf", false),
        ] {
            let words = ["mobilevlmd"].into_iter().chain(text.split(' '));
            let parsed = Cli::try_parse_from(words);
            assert_eq!(parsed.is_ok(), accepted, "{text}: {parsed:?}");
        }
    }
}
