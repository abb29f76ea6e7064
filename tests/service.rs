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
use messages::{AskError, CameraPhase, CameraState, Caption, Question, Session};
use mobilevlmd::bus::client::{Client, ClientError, Connect, Seen};
use mobilevlmd::cli::{Cli, Failure};
use mobilevlmd::config::{Config, Override, Sources};
use mobilevlmd::service::{self, Order};
use zenoh::Wait;

/// Exposure that `systemd-analyze security` may find at most, in tenths.
const EXPOSURE: u32 = 20;

pub(crate) fn unit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/mobilevlmd.service");
    fs::read_to_string(path).expect("the unit")
}

/// The values of a key of the unit.
pub(crate) fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
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
    assert!(values(&unit, "ExecReload")[0].contains("kill -HUP ${MAINPID}"), "the signal that reloads");
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

/// What the daemon tells its service manager until a line beginning with `wanted` is among it.
fn wait_for(manager: &UnixDatagram, wanted: &str) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    let mut bytes = [0; 4096];
    while !told.iter().any(|line| line.starts_with(wanted)) {
        let count =
            manager.recv(&mut bytes).unwrap_or_else(|error| panic!("no {wanted} after {told:?}: {error}"));
        told.extend(String::from_utf8_lossy(&bytes[..count]).lines().map(str::to_owned));
    }
    told
}

/// Sends a signal to a process.
fn signal(name: &str, process: &std::process::Child) {
    let kill = format!("kill -{name} {}", process.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
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
    signal("TERM", &child);
    wait_for(&manager, "STOPPING=1");
    let status = child.wait().expect("the daemon ends");
    let mut log = String::new();
    child.stderr.take().expect("its log").read_to_string(&mut log).expect("text");
    assert!(status.success(), "{status}: {log}");
    assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
}

/// Writes a configuration file that a daemon may read at any time.
fn write_config(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("a temporary file");
    fs::rename(&new, path).expect("replaced");
}

/// Captions of a camera.
fn captions(client: &Client, camera: &str, count: usize) -> Vec<Caption> {
    let mut captions = Vec::new();
    let outcome = client.watch(Some(camera), false, |seen| {
        if let Seen::Caption(caption) = seen {
            captions.push(caption);
        }
        if captions.len() < count { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    outcome.expect("captions");
    captions
}

#[test]
fn a_running_daemon_takes_up_another_configuration() {
    let manager_path = socket("reload-manager");
    let manager = UnixDatagram::bind(&manager_path).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let endpoint = format!("unixsock-stream/{}", socket("reload").display());
    let path = std::env::temp_dir().join(format!("mobilevlmd-reload-{}.toml", std::process::id()));
    let camera = |name: &str, source: &str| format!("[[camera]]\nname = '{name}'\nsource = '{source}'\n");
    let config = |prompt_id: &str, cameras: &str| {
        let caption = format!("prompt_id = '{prompt_id}'\nchange_threshold = 0\nperiod_s = 0.1\n");
        format!("device_name = 'robot'\n[caption]\n{caption}[bus]\nlisten = ['{endpoint}']\n{cameras}")
    };
    let stays = camera("stays", "test:");
    write_config(&path, &config("old", &format!("{stays}{}", camera("leaves", "test:1"))));
    let mut child = daemon(&["run", "--config", path.to_str().expect("text")])
        .env("NOTIFY_SOCKET", &manager_path)
        .spawn()
        .expect("the daemon starts");
    wait_for(&manager, "READY=1");
    let client = Client::connect(&Connect { connect: endpoint.clone(), zenoh_config: None, device: None });
    let client = client.expect("it listens");
    assert_eq!(captions(&client, "leaves", 1)[0].prompt_id, "old");
    let before = captions(&client, "stays", 1).remove(0);
    let talk = |text: &str| Question {
        session: Some(Session { name: "talk".into(), ..Session::default() }),
        max_tokens: 8,
        ..Question::new(text)
    };
    assert_eq!(client.ask("stays", &talk("What is there?"), |_| {}).expect("an answer").turns, 0);

    let listener = crate::bus::session(&endpoint);
    let states =
        listener.declare_subscriber("mobilevlm/robot/camera/leaves/state/json").wait().expect("heard");

    // Other cameras and another prompt; one key has to wait for a restart.
    let comes = camera("comes", "test:2");
    write_config(&path, &format!("state_dir = '/nowhere'\n{}", config("new", &format!("{comes}{stays}"))));
    signal("HUP", &child);
    let told = wait_for(&manager, "RELOADING=1");
    assert!(told.iter().any(|line| line.starts_with("MONOTONIC_USEC=")), "{told:?}");
    wait_for(&manager, "READY=1");
    assert_eq!(captions(&client, "comes", 1)[0].prompt_id, "new");
    while captions(&client, "stays", 1)[0].prompt_id != "new" {}
    let status = client.status().expect("a status");
    let names: Vec<_> = status.cameras.iter().map(|camera| camera.state.camera.as_str()).collect();
    assert_eq!(names, ["comes", "stays"]);
    let stayed = &status.cameras[1];
    assert!(stayed.frames > before.frame.sequence && stayed.captions >= 2, "it was closed: {stayed:?}");
    let answer = client.ask("stays", &talk("And now?"), |_| {}).expect("an answer");
    assert_eq!((answer.turns, answer.recomputed), (1, false), "its conversation goes on");
    let gone = client.ask("leaves", &talk("What is there?"), |_| {});
    assert!(matches!(gone, Err(ClientError::Refused { error: AskError::UnknownCamera { .. } })), "{gone:?}");

    let next_state = || {
        let state = states.recv_timeout(PATIENCE).expect("not closed").expect("another state");
        serde_json::from_slice::<CameraState>(&state.payload().to_bytes()).expect("a state")
    };
    while next_state().reason != "it is no longer in the configuration" {}

    // A bad file is refused whole.
    write_config(&path, &config("bad", "[[camera]]\nname = 'x'\nsource = 'nothing'\n"));
    signal("HUP", &child);
    let told = wait_for(&manager, "READY=1");
    let is_told = |line: &String| line.contains("is refused: ") && line.contains("camera[0].source: ");
    assert!(told.iter().any(is_told), "{told:?}");
    assert_eq!(captions(&client, "stays", 1)[0].prompt_id, "new");
    assert_eq!(client.status().expect("a status").cameras.len(), 2);

    signal("TERM", &child);
    let status = child.wait().expect("the daemon ends");
    let mut log = String::new();
    child.stderr.take().expect("its log").read_to_string(&mut log).expect("text");
    assert!(status.success(), "{status}: {log}");
    assert!(log.contains("waits for a restart keys=\"state_dir\"") && !log.contains("ERROR"), "{log}");
    fs::remove_file(&path).expect("removed");
}

#[test]
fn what_cannot_run_ends_with_one_line_and_its_own_code() {
    let long = format!("caption.prompt={}", "lamp ".repeat(600));
    for (arguments, code, expected) in [
        (&["run", "--set", "model.isa=mmx"][..], 78, "flag --set: model.isa: \"mmx\" is not accepted"),
        (&["run", "--config", "/nonexistent.toml"], 78, "/nonexistent.toml: "),
        (&["check", "--listen", "tcp/0.0.0.0:7447"], 78, "flag --listen: bus.listen[0]: "),
        (&["check", "--set", "bus.zenoh_config=/dev/null"], 1, "1 problem"),
        (&["run", "--model", "/nonexistent.gguf", "--listen", "tcp/127.0.0.1:0"], 1, "/nonexistent.gguf"),
        (&["run", "--camera", "a=test:red", "--listen", "tcp/127.0.0.1:0"], 78, "camera[0].source: "),
        (
            &["run", "--set", &long, "--set", "model.context=512", "--listen", "tcp/127.0.0.1:0"],
            78,
            "captions: prompt in tokens is ",
        ),
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
    let (stop, orders) = tokio::sync::mpsc::channel::<Order>(1);
    thread::scope(|scope| {
        let service = scope.spawn(|| service::run(config, || sources.load(), || Ok(orders)));
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
        let captions = captions(client, "front", 3);
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
        assert_eq!(phases, [CameraPhase::Live, CameraPhase::Absent]);
        assert!(status.cameras[0].captions >= 3);
    });
}
