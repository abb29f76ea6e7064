//! The whole daemon behind the bus: test scene, built-in model, engine.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use messages::{Answer, AskError, Caption, Question, Status};

use super::fake::{DEVICE, free_endpoint};
use super::{PATIENCE, python, try_client};
use crate::service;

/// The camera of the README.
const CAMERA: &str = "test";

/// A running daemon; killed if the test fails.
struct Daemon(Child);

impl Daemon {
    /// Starts the daemon and waits until it is alive.
    fn start(endpoint: &str) -> Self {
        Self::start_with(endpoint, &[])
    }

    /// The same with more arguments.
    fn start_with(endpoint: &str, more: &[&str]) -> Self {
        let device = format!("device_name={DEVICE}");
        let camera = format!("{CAMERA}=test:");
        // Every frame is described, so that no test need wait until something happens.
        let all = "caption.change_threshold=0";
        let quiet = "log=error";
        let arguments = ["run", "--camera", &camera, "--listen", endpoint, "--set", &device];
        let arguments = [&arguments[..], &["--set", all, "--set", quiet], more].concat();
        let mut daemon = Self(service::daemon(&arguments).stderr(Stdio::inherit()).spawn().unwrap());
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = try_client(endpoint, None) {
            let ended = daemon.0.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "no daemon: {error}, {ended:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        daemon
    }

    /// Tells it to stop, as a service manager does, and expects a clean end.
    fn terminate(mut self) {
        let kill = format!("kill -TERM {}", self.0.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let status = self.0.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail if it has ended, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command of the program to its end.
fn command(arguments: &[&str], endpoint: &str) -> Output {
    let arguments = [arguments, &["--connect", endpoint]].concat();
    let mut output = service::daemon(&arguments).arg("--quiet").stdout(Stdio::piped()).output().unwrap();
    // The test program that plays the daemon says hello first.
    let hello = b"\nrunning 1 test\n";
    assert!(output.stdout.starts_with(hello), "{}", String::from_utf8_lossy(&output.stdout));
    output.stdout.drain(..hello.len());
    output
}

/// The first example of the README, with another endpoint, up to the first caption.
fn readme_example(endpoint: &str) -> String {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let block = readme.split("```python\n").nth(1).and_then(|rest| rest.split("```").next());
    let example = block.expect("the README shows Python").replace("tcp/127.0.0.1:7447", endpoint);
    assert!(example.contains(endpoint) && example.trim_end().ends_with("print(sample.payload.to_string())"));
    format!("{example}    break\n")
}

fn out(output: &Output) -> String {
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {err}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn the_daemon_serves_python_and_its_own_commands() {
    let endpoint = free_endpoint();
    let daemon = Daemon::start(&endpoint);
    python::run(&["bus/client.py", &endpoint, DEVICE, CAMERA]);
    let printed = python::run(&["-c", &readme_example(&endpoint)]);
    let caption: Caption = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    assert_eq!(caption.frame.camera, CAMERA);

    let command = |arguments: &[&str]| command(arguments, &endpoint);
    let captions = out(&command(&["watch", CAMERA, "--json", "--count", "2"]));
    let captions: Vec<Caption> = captions.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(captions.len() == 2 && captions[0].frame.sequence < captions[1].frame.sequence);
    assert!(out(&command(&["watch", "--count", "1"])).contains("Z test: "));

    let answer = out(&command(&["ask", CAMERA, "What moves?", "--max-tokens", "8", "--json"]));
    let answer: Answer = serde_json::from_str(&answer).unwrap();
    assert!(answer.tokens.generated <= 8 && answer.frame.camera == CAMERA);
    let text = out(&command(&["ask", CAMERA, "What moves?", "--max-tokens", "8"]));
    assert!(text.ends_with('\n') && text.len() > 1);

    let file = std::env::temp_dir().join(format!("mobilevlm-snapshot-{}.jpg", std::process::id()));
    let path = file.to_str().unwrap();
    assert!(out(&command(&["snapshot", CAMERA, "-o", path])).starts_with(path));
    assert!(image::open(&file).unwrap().width() > 0);
    out(&command(&["ask", CAMERA, "What is this?", "--picture", path, "--max-tokens", "4"]));
    std::fs::remove_file(&file).unwrap();

    let status: Status = serde_json::from_str(&out(&command(&["status", "--json"]))).unwrap();
    assert!(
        status.cameras[0].captions > 0 && status.engine.questions_answered > 0 && status.resident_bytes > 0
    );
    assert!(out(&command(&["status"])).starts_with(&format!("{DEVICE}: mobilevlmd ")));

    let refused = command(&["ask", "attic", "What is there?"]);
    assert_eq!(refused.status.code(), Some(1));
    let line = "mobilevlmd: unknown_camera: no camera \"attic\"; there are: test\n";
    assert_eq!(String::from_utf8_lossy(&refused.stderr), line);
    let refused = command(&["ask", CAMERA, "", "--json"]);
    let error: AskError = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!((error.kind(), refused.status.code()), ("bad_request", Some(1)));
    daemon.terminate();

    let nobody = command(&["status"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).starts_with("mobilevlmd: no daemon answers at "));
}

/// The Rust example, which cargo has built beside the tests.
fn robot(endpoint: &str) -> Output {
    let tests = std::env::current_exe().unwrap();
    let robot = tests.parent().and_then(Path::parent).unwrap().join("examples/robot");
    Command::new(&robot).arg(endpoint).output().unwrap_or_else(|error| {
        panic!("{}: {error}: `cargo test --workspace` builds it", robot.display());
    })
}

#[test]
fn the_examples_for_other_nodes_run() {
    let endpoint = free_endpoint();
    let daemon = Daemon::start(&endpoint);
    let printed = [python::run(&["examples/robot.py", &endpoint]), out(&robot(&endpoint))];
    for text in &printed {
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with(&format!("{DEVICE} sees through {CAMERA} with ")), "{text}");
        assert!(lines[1..4].iter().all(|line| line.contains(": ")), "{text}");
        assert!(!lines[4].is_empty() && lines[5].starts_with("(frame "), "{text}");
    }
    let events: Vec<_> = printed[0].lines().skip(6).collect();
    assert!(
        events[0].starts_with("alert example: began") && events[1].contains("rule_changed"),
        "{events:?}"
    );
    // The node in Rust depends on nothing of the daemon.
    let source = include_str!("../examples/robot.rs");
    let used: Vec<_> = source.lines().filter_map(|line| line.strip_prefix("use ")).collect();
    let allowed = ["std::", "messages::", "zenoh::"];
    assert!(used.iter().all(|path| allowed.iter().any(|crate_| path.starts_with(crate_))), "{used:?}");
    daemon.terminate();
}

#[test]
fn a_reader_who_has_seen_enough_ends_it_quietly() {
    let endpoint = free_endpoint();
    let daemon = Daemon::start(&endpoint);
    for arguments in [&["status"][..], &["watch"], &["watch", "--json"], &["ask", CAMERA, "What moves?"]] {
        let arguments = [arguments, &["--connect", &endpoint]].concat();
        let mut command = service::daemon(&arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        // Nobody reads on behind the greeting of the test program, as behind `head`.
        let mut greeting = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(greeting.any(|line| line.unwrap() == "running 1 test"));
        drop(greeting);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{arguments:?}: {}: {said}", output.status);
    }
    daemon.terminate();
}

#[test]
fn whoever_watches_waits_for_the_daemon() {
    let endpoint = free_endpoint();
    let daemon = Daemon::start(&endpoint);
    let arguments = ["watch", "--connect", &endpoint];
    let mut watch = service::daemon(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut wait_for = |words: &str| assert!(lines.any(|line| line.contains(words)), "{words}");
    wait_for("Z test: ");
    daemon.terminate();
    wait_for("the daemon is gone; waiting for it");
    let again = Daemon::start(&endpoint);
    wait_for("the daemon is there again");
    wait_for("Z test: ");
    watch.kill().unwrap();
    watch.wait().unwrap();
    again.terminate();
}

#[test]
fn changes_over_the_bus_outlast_the_daemon() {
    let endpoint = free_endpoint();
    let folder = std::env::temp_dir().join(format!("mobilevlm-kept-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let state = format!("state_dir={}", folder.display());
    let run = |action: &str| {
        let daemon = Daemon::start_with(&endpoint, &["--set", &state]);
        python::run(&["bus/kept.py", &endpoint, DEVICE, CAMERA, action]);
        daemon.terminate();
    };
    run("none");
    run("change");
    run("see");
    std::fs::write(folder.join("changes.json"), "{").unwrap();
    run("none");
    let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["changes.json.damaged"]);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_question_is_not_left_open_by_a_daemon_that_stops() {
    let endpoint = free_endpoint();
    let daemon = Daemon::start(&endpoint);
    let client = try_client(&endpoint, None).unwrap();
    let (begin, began) = std::sync::mpsc::channel();
    let asked = std::thread::spawn(move || {
        let question = Question { max_tokens: 1500, ..Question::new("Tell me everything.") };
        let outcome = client.ask(CAMERA, &question, |_| {
            // Only the first piece is waited for.
            let _ = begin.send(());
        });
        outcome.map(|answer| answer.frame.camera).map_err(|error| error.to_string())
    });
    began.recv_timeout(PATIENCE).expect("the answer begins");
    daemon.terminate();
    match asked.join().unwrap() {
        // It was quicker than the signal.
        Ok(camera) => assert_eq!(camera, CAMERA),
        Err(error) => assert_eq!(error, "cancelled: the daemon is stopping"),
    }
}
