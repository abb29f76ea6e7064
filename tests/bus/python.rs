//! The Python interpreter with the zenoh package that `.ci/setup` prepares.

use std::path::PathBuf;
use std::process::Command;

/// Runs Python in the folder of the tests, expects it to end well and returns what it printed.
pub(crate) fn run(arguments: &[&str]) -> String {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let python = tests.join("..").join(target).join("venv/bin/python");
    assert!(python.exists(), "{} is missing: run .ci/setup once", python.display());
    let output = Command::new(&python).arg("-B").args(arguments).current_dir(&tests).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?} failed, {}:\n{out}{err}", output.status);
    out.into_owned()
}
