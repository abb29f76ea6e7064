//! The comparison with llama.cpp and candle, as far as it goes without them.

use std::path::Path;
use std::process::Command;

use crate::bus::python;

#[test]
fn programs_take_turns_and_the_table_says_what_they_took() {
    python::run(&["peer/check.py"]);
}

#[test]
fn wrong_options_are_refused_before_anything_is_built() {
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("peer/run");
    for (arguments, complaint) in [
        (["--rounds", "0"], "\"0\" is no number from 1 to 1000"),
        (["--threads", "two"], "\"two\" is no number"),
        (
            ["--stages", "encode,draw"],
            "unknown name \"draw\", expected some of encode, prefill, decode, decode192",
        ),
        (["--types", "q4_0,"], "unknown name \"\""),
        (["--quick", "1"], "unrecognized arguments"),
    ] {
        let output = Command::new(&run).args(arguments).output().expect("python3");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(complaint), "{arguments:?}: {said}");
    }
}
