//! The repository's own rules. Each message says how to fix what it found.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use mobilevlmd::cli::Cli;

/// Lines of a source file at most.
const LONGEST_FILE: usize = 700;

/// Files that may be longer, each with its reason.
const LONG_FILES: [(&str, &str); 0] = [];

/// Where unsafe code may stand: files and folders.
const UNSAFE_PLACES: [&str; 12] = [
    "kernels/src/cpu",
    "kernels/src/cpu.rs",
    "kernels/src/cuda",
    "kernels/src/cuda.rs",
    "kernels/tests/cuda/",
    "kernels/src/pixels/convert.rs",
    "kernels/src/pixels/resize.rs",
    "kernels/src/heap.rs",
    "daemon/src/camera/v4l2",
    MAP,
    "tests/allocation.rs",
    "tests/gpu.rs",
];

/// The one file that maps model files into memory.
const MAP: &str = "daemon/src/model/files/map.rs";

/// The files that may await, beside the commands that talk on the bus.
const ASYNC_PLACES: [&str; 7] = [
    "daemon/src/bus",
    "daemon/src/service",
    "daemon/src/cli/ask.rs",
    "daemon/src/cli/snapshot.rs",
    "daemon/src/cli/status.rs",
    "daemon/src/cli/watch.rs",
    "tests/",
];

/// Licences that the binary may carry along.
const LICENCES: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// What each of our own crates may depend on, so that the small ones stay small.
const DIRECT_DEPENDENCIES: [(&str, &[&str]); 2] = [
    ("mobilevlm-messages", &["base64", "postcard", "serde", "serde_json", "thiserror"]),
    ("mobilevlm-kernels", &["cudarc", "half", "libc", "thiserror"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of the workspace").to_path_buf()
}

/// Every text file of the repository by its path from the root, build results and data left out.
fn texts() -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
            let is_left_out = matches!(name.as_str(), ".git" | "target" | "Cargo.lock")
                || (name.starts_with("tests/data/") && !name.ends_with(".md") && !name.ends_with(".py"));
            if is_left_out {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                texts.insert(name, text);
            }
        }
    }
    texts
}

fn sources() -> impl Iterator<Item = (String, String)> {
    texts().into_iter().filter(|(name, _)| name.ends_with(".rs"))
}

/// The lines of a source that are code, with their numbers: no comments, nothing from the unit
/// tests at its end.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn is_in(name: &str, places: &[&str]) -> bool {
    places.iter().any(|place| name.starts_with(place))
}

#[track_caller]
fn report(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn sources_look_alike() {
    let mut problems = Vec::new();
    for (name, text) in sources() {
        if !text.starts_with("//!") {
            problems.push(format!("{name}:1: begin with a line \"//! What this file is for.\""));
        }
        let lines = text.lines().count();
        if lines > LONGEST_FILE && !LONG_FILES.iter().any(|(long, _)| *long == name) {
            problems.push(format!("{name}: {lines} lines, split it (at most {LONGEST_FILE}) or list it in tests/tidy.rs with a reason"));
        }
        for (index, line) in text.lines().enumerate() {
            let place = format!("{name}:{}", index + 1);
            if let Some(character) = line.chars().find(|c| !c.is_ascii() || c.is_ascii_control()) {
                problems
                    .push(format!("{place}: {character:?}: sources are ASCII without tabs, write an escape"));
            }
            if line.ends_with(' ') {
                problems.push(format!("{place}: remove the space at the end"));
            }
        }
    }
    for (long, _) in LONG_FILES {
        let lines = fs::read_to_string(root().join(long)).map_or(0, |text| text.lines().count());
        if lines <= LONGEST_FILE {
            problems.push(format!(
                "{long}: no longer over {LONGEST_FILE} lines, take it off the list in tests/tidy.rs"
            ));
        }
    }
    report(problems);
}

#[test]
fn nothing_is_unfinished_or_switched_off() {
    let words = [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("#[ign", "ore"),
        concat!("should_", "panic"),
    ];
    let mut problems = Vec::new();
    for (name, text) in sources() {
        for (index, line) in text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(*word)) {
                problems.push(format!("{name}:{}: {word}: finish it, or leave it out", index + 1));
            }
        }
    }
    report(problems);
}

#[test]
fn nothing_names_a_machine_or_a_registry() {
    let words = [
        concat!("/wo", "rk/"),
        concat!("/tmp/", "wt"),
        concat!("/ro", "ot/"),
        concat!("crates", ".io/"),
        concat!("py", "pi.org"),
        concat!("python", "hosted"),
        concat!("deb.deb", "ian"),
    ];
    let mut problems = Vec::new();
    for (name, text) in texts() {
        for (index, line) in text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(*word)) {
                problems.push(format!(
                    "{name}:{}: {word}: take it out, it is true on one machine only",
                    index + 1
                ));
            }
        }
    }
    report(problems);
}

#[test]
fn unsafe_code_keeps_to_its_places() {
    let mut problems = Vec::new();
    for (name, text) in sources() {
        for (line_number, line) in code(&text) {
            let is_unsafe = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
                .iter()
                .any(|word| line.contains(word));
            if is_unsafe && name != "tests/tidy.rs" && !is_in(&name, &UNSAFE_PLACES) {
                problems.push(format!(
                    "{name}:{line_number}: unsafe stands in {} only",
                    UNSAFE_PLACES.join(", ")
                ));
            }
        }
    }
    report(problems);
}

/// The rules of absence of the README's map.
#[test]
fn modules_keep_their_promises() {
    let mut problems = Vec::new();
    let mut check = |name: &str, text: &str, words: &[&str], rule: &str| {
        for (number, line) in code(text) {
            if let Some(word) = words.iter().find(|word| line.contains(*word)) {
                problems.push(format!("{name}:{number}: {word}: {rule}"));
            }
        }
    };
    for (name, text) in sources() {
        if name == "tests/tidy.rs" {
            continue;
        }
        if name.starts_with("messages/src") || name.starts_with("kernels/src") && !name.contains("/probe") {
            let words = ["std::fs", "std::net", "std::env", "Instant::now", "SystemTime::now"];
            check(&name, &text, &words, "messages and kernels do no IO and read no clock: do it in daemon");
        }
        if !is_in(&name, &ASYNC_PLACES) {
            check(
                &name,
                &text,
                &["async fn", "async move", ".await"],
                "async lives at the bus only: use a thread and a bounded channel",
            );
        }
        if name.starts_with("daemon/") {
            let channels = ["unbounded_channel", "mpsc::channel()"];
            check(&name, &text, &channels, "channels are bounded: give it a capacity");
            if !name.starts_with("daemon/src/config") {
                check(
                    &name,
                    &text,
                    &["env::var"],
                    "environment variables are read in daemon/src/config only",
                );
            }
            check(&name, &text, &["\"mobilevlm/"], "keys of the bus are made by messages::keys only");
        }
    }
    report(problems);
}

fn metadata() -> serde_json::Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(cargo)
        .args(["metadata", "--offline", "--format-version=1", "--filter-platform", &host])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

#[test]
fn dependencies_are_free_and_few() {
    let metadata = metadata();
    let mut problems = Vec::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name");
        let licence = package["license"].as_str().unwrap_or("none");
        if !is_accepted(licence) {
            problems.push(format!(
                "{name}: licence {licence}: take another package, or add the licence to tests/tidy.rs if it allows what MIT does"
            ));
        }
        let own = DIRECT_DEPENDENCIES.iter().find(|(own, _)| *own == name);
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let dependency_name = dependency["name"].as_str().expect("a name");
            let is_normal = dependency["kind"].is_null();
            if own.is_some_and(|(_, allowed)| is_normal && !allowed.contains(&dependency_name)) {
                problems.push(format!("{name} must stay small: do without {dependency_name}"));
            }
        }
    }
    report(problems);
}

/// Whether an SPDX expression can be met with the licences we accept. `/` is an old way to write OR.
fn is_accepted(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let (accepted, rest) = any_of(&tokens);
    accepted && rest.is_empty()
}

fn any_of<'a>(tokens: &'a [&'a str]) -> (bool, &'a [&'a str]) {
    let (mut accepted, mut rest) = all_of(tokens);
    while rest.first() == Some(&"OR") {
        let (other, after) = all_of(&rest[1..]);
        (accepted, rest) = (accepted || other, after);
    }
    (accepted, rest)
}

fn all_of<'a>(tokens: &'a [&'a str]) -> (bool, &'a [&'a str]) {
    let (mut accepted, mut rest) = one(tokens);
    while rest.first() == Some(&"AND") {
        let (other, after) = one(&rest[1..]);
        (accepted, rest) = (accepted && other, after);
    }
    (accepted, rest)
}

fn one<'a>(tokens: &'a [&'a str]) -> (bool, &'a [&'a str]) {
    match tokens {
        ["(", inside @ ..] => {
            let (accepted, rest) = any_of(inside);
            (accepted && rest.first() == Some(&")"), rest.get(1..).unwrap_or_default())
        }
        [name, "WITH", exception, rest @ ..] => {
            (LICENCES.contains(&format!("{name} WITH {exception}").as_str()), rest)
        }
        [name, rest @ ..] => (LICENCES.contains(name), rest),
        [] => (false, &[]),
    }
}

#[test]
fn licence_expressions_are_understood() {
    for (expression, accepted) in [
        ("MIT", true),
        ("MIT OR GPL-3.0", true),
        ("MIT/Apache-2.0", true),
        ("MIT AND GPL-3.0", false),
        ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
        ("(GPL-2.0 OR GPL-3.0) AND MIT", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("GPL-3.0 WITH GCC-exception", false),
        ("MIT MIT", false),
        ("(MIT", false),
        ("", false),
    ] {
        assert_eq!(is_accepted(expression), accepted, "{expression}");
    }
}

#[test]
fn the_readme_names_what_exists() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let mut problems = Vec::new();
    for path in readme.split('`').skip(1).step_by(2) {
        let looks_like_a_path = !path.contains(char::is_whitespace)
            && ["daemon/", "kernels/", "messages/", "tests/", "systemd/", ".ci/"]
                .iter()
                .any(|top| path.starts_with(top));
        if looks_like_a_path && !root().join(path).exists() {
            problems.push(format!("README.md: `{path}` does not exist"));
        }
    }
    report(problems);
}

/// The words of a command line, where double quotes hold words together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('"').enumerate() {
        match index % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

#[test]
fn the_commands_of_the_readme_exist() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let commands: Vec<_> = readme
        .lines()
        .filter_map(|line| line.split("  #").next())
        .filter(|line| line.starts_with("mobilevlmd ") || line.starts_with("target/release/mobilevlmd "))
        .filter_map(|line| line.split(" && ").next())
        .collect();
    assert!(commands.len() >= 8, "the README shows the commands: {commands:?}");
    let problems = commands.iter().filter_map(|command| {
        let error = Cli::try_parse_from(words(command)).err()?;
        Some(format!("README.md: {command}: {error}"))
    });
    report(problems.collect());
}
