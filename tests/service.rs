//! The unit stands up to systemd's own checks, and the daemon to being started and stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clap::Parser;
use mobilevlmd::cli::{Cli, Failure};
use mobilevlmd::config::Config;

/// Exposure that `systemd-analyze security` may find at most, in tenths.
const EXPOSURE: u32 = 20;

fn unit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/mobilevlmd.service");
    fs::read_to_string(path).expect("the unit")
}

/// The values of a key of the unit.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// The unit in a folder of its own, starting a program that every machine has.
fn unit_that_can_start(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("mobilevlmd-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("temporary folder");
    let path = folder.join("mobilevlmd.service");
    fs::write(&path, unit().replace("/usr/bin/mobilevlmd", "/bin/true")).expect("temporary unit");
    path
}

fn analyze(arguments: &[&str]) -> Output {
    Command::new("systemd-analyze")
        .args(arguments)
        .arg(unit_that_can_start(arguments[0]))
        .env("SYSTEMD_LOG_COLOR", "0")
        .output()
        .expect("systemd-analyze is there: run .ci/setup")
}

#[test]
fn systemd_finds_nothing_to_say_about_the_unit() {
    let output = analyze(&["verify", "--man=no"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_unit_is_closed_to_what_it_does_not_need() {
    let output = analyze(&["security", "--offline=yes", "--no-pager", &format!("--threshold={EXPOSURE}")]);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{table}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_unit_and_the_program_fit_together() {
    let unit = unit();
    let command = values(&unit, "ExecStart");
    assert_eq!(command.len(), 1);
    Cli::try_parse_from(command[0].split_whitespace()).expect("the flags of ExecStart exist");

    let refused = Config { log: "loud".into(), ..Config::default() }.validate().expect_err("refused");
    let code = Failure::config(&refused).code.to_string();
    assert_eq!(values(&unit, "RestartPreventExitStatus"), [code]);
    assert_eq!(values(&unit, "Type"), ["notify"]);
}
