//! The unit stands up to systemd's own checks, and the daemon to being started and stopped.

use std::fs;
use std::io::Read;
use std::ops::ControlFlow;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use messages::{AskError, CameraPhase, Question};
use mobilevlmd::bus::client::{Client, ClientError, Connect, Seen};
use mobilevlmd::cli::{Cli, Failure};
use mobilevlmd::config::{Config, Override, Sources};
use mobilevlmd::service;

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

/// How long anything may take before a test gives up: a hang must not hang the suite.
const PATIENCE: Duration = Duration::from_secs(120);

/// Makes the test program be the daemon: the arguments, with line ends between.
const BE_DAEMON: &str = "TEST_DAEMON_ARGUMENTS";

/// The daemon in a process of its own: the test program runs itself again.
pub(crate) fn daemon(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["service::be_the_daemon", "--exact", "--nocapture"])
        .env(BE_DAEMON, arguments.join("\n"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Does nothing unless [`daemon`] started this process.
#[test]
fn be_the_daemon() {
    let Ok(arguments) = std::env::var(BE_DAEMON) else { return };
    let cli = Cli::parse_from(std::iter::once("mobilevlmd").chain(arguments.split('\n')));
    match cli.run() {
        Ok(()) => std::process::exit(0),
        Err(failure) => {
            mobilevlmd::journal::failure(&failure.message);
            std::process::exit(failure.code.into());
        }
    }
}

/// A path for a socket that no other test uses; such paths are short.
fn socket(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("{name}-{}.sock", std::process::id()));
    // A leftover of another run with the same process id.
    let _ = fs::remove_file(&path);
    path
}

/// What the daemon tells its service manager until `wanted` is among it.
fn wait_for(manager: &UnixDatagram, wanted: &str) {
    let mut told = Vec::new();
    let mut bytes = [0; 4096];
    while !told.iter().any(|line| line == wanted) {
        let count =
            manager.recv(&mut bytes).unwrap_or_else(|error| panic!("no {wanted} after {told:?}: {error}"));
        told.extend(String::from_utf8_lossy(&bytes[..count]).lines().map(str::to_owned));
    }
}

#[test]
fn a_service_manager_hears_of_readiness_life_and_end() {
    let manager_path = socket("manager");
    let manager = UnixDatagram::bind(&manager_path).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let listen = format!("bus.listen=unixsock-stream/{}", socket("bus").display());
    let mut child = daemon(&["run", "--camera", "test:", "--set", &listen])
        .env("NOTIFY_SOCKET", &manager_path)
        .env("WATCHDOG_USEC", "1000000")
        .spawn()
        .expect("the daemon starts");
    wait_for(&manager, "READY=1");
    wait_for(&manager, "WATCHDOG=1");
    wait_for(&manager, "WATCHDOG=1");
    let told = Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]).status();
    assert!(told.expect("a shell").success());
    wait_for(&manager, "STOPPING=1");
    let status = child.wait().expect("the daemon ends");
    let mut log = String::new();
    child.stderr.take().expect("its log").read_to_string(&mut log).expect("text");
    assert!(status.success(), "{status}: {log}");
    assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
}

#[test]
fn what_cannot_run_ends_with_one_line_and_its_own_code() {
    for (arguments, code, expected) in [
        (&["run", "--set", "model.isa=mmx"][..], 78, "flag --set: model.isa: \"mmx\" is not accepted"),
        (&["run", "--config", "/nonexistent.toml"], 78, "/nonexistent.toml: "),
        (&["check", "--listen", "tcp/0.0.0.0:7447"], 78, "flag --listen: bus.listen[0]: "),
        (&["check", "--set", "bus.zenoh_config=/dev/null"], 1, "1 problem"),
        (&["run", "--model", "/nonexistent.gguf", "--listen", "tcp/127.0.0.1:0"], 1, "/nonexistent.gguf"),
        (&["run", "--camera", "a=test:red", "--listen", "tcp/127.0.0.1:0"], 78, "camera[0].source: "),
    ] {
        let output = daemon(arguments).output().expect("the daemon runs");
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().find(|line| line.starts_with("mobilevlmd: ")).unwrap_or_default();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(line.contains(expected), "{arguments:?}: \"{said}\" should contain \"{expected}\"");
        assert!(!said.contains("panicked"), "{said}");
    }
}

/// Runs the service with `flags` while `visit` looks at it over the bus.
fn with_service(name: &str, flags: Vec<Override>, visit: impl FnOnce(&Client)) {
    let endpoint = format!("unixsock-stream/{}", socket(name).display());
    let listen = Override::flag("--listen", "bus.listen", vec![endpoint.clone()]);
    let sources = Sources {
        file: Some("/dev/null".into()),
        flags: flags.into_iter().chain([listen]).collect(),
        ..Sources::default()
    };
    let config = sources.load().expect("a valid configuration");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    thread::scope(|scope| {
        let service = scope.spawn(|| service::run(&config, async { drop(stopped.await) }));
        let start = Instant::now();
        let connect = Connect { connect: endpoint, zenoh_config: None, device: None };
        let client = loop {
            match Client::connect(&connect) {
                Ok(client) => break client,
                Err(error) => assert!(start.elapsed() < PATIENCE && !service.is_finished(), "{error}"),
            }
            thread::sleep(Duration::from_millis(50));
        };
        visit(&client);
        drop(stop);
        service.join().expect("no panic").expect("a clean end");
    });
}

#[test]
fn a_moving_scene_becomes_captions_and_answers() {
    let cameras =
        Override::flag("--camera", "camera", vec!["front=test:".into(), "gone=v4l2:/dev/nonexistent".into()]);
    let name = Override::flag("--set", "device_name", vec!["robot".into()]);
    // Every frame, so that the test need not wait until something happens.
    let all = Override::flag("--set", "caption.change_threshold", vec!["0".into()]);
    // But one a second, so that what an answer is about can still be asked for.
    let slow = Override::flag("--set", "caption.period_s", vec!["1".into()]);
    with_service("pipeline", vec![cameras, name, all, slow], |client| {
        assert_eq!(client.device(), "robot");
        let mut captions = Vec::new();
        client
            .watch(Some("front"), false, |seen| {
                if let Seen::Caption(caption) = seen {
                    captions.push(caption);
                }
                if captions.len() < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
            .expect("captions");
        for pair in captions.windows(2) {
            assert!(pair[0].frame.sequence < pair[1].frame.sequence, "captions follow the scene");
            assert!(pair[0].frame.captured_at < pair[1].frame.captured_at);
        }
        let last = &captions[2];
        assert_eq!((last.frame.camera.as_str(), last.prompt_id.as_str()), ("front", "scene"));
        assert!(last.age_ms > 0.0 && last.tokens.generated > 0 && last.timings.prefill_ms > 0.0, "{last:?}");
        assert!(!last.model_id.is_empty());

        let question = Question { max_tokens: 8, ..Question::new("What do you see?") };
        let mut pieces = String::new();
        let answer = client.ask("front", &question, |piece| pieces.push_str(piece)).expect("an answer");
        assert!(answer.text.starts_with(&pieces), "{pieces:?} begins {:?}", answer.text);
        assert!(answer.tokens.generated <= 8 && answer.tokens.cached > 0, "{:?}", answer.tokens);

        let (jpeg, stamp) =
            client.snapshot("front", Some(answer.frame.sequence)).expect("what the model saw");
        assert_eq!(stamp, answer.frame);
        assert!(image::load_from_memory(&jpeg).is_ok());

        let refused = client.ask("gone", &question, |_| {});
        assert!(
            matches!(refused, Err(ClientError::Refused { error: AskError::NoFrame { .. } })),
            "{refused:?}"
        );

        let status = client.status().expect("a status");
        assert!(status.resident_bytes > 0 && status.engine.units > 0 && status.model.weight_bytes > 0);
        let phases: Vec<_> = status.cameras.iter().map(|camera| camera.state.phase).collect();
        assert_eq!(phases, [CameraPhase::Live, CameraPhase::Gone]);
        assert!(status.cameras[0].captions >= 3);
    });
}
