//! The shipped configuration of a fleet: who may do what, and what the daemon says of those it turns away.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use messages::Question;
use mobilevlmd::bus::BusError;
use mobilevlmd::bus::client::{Client, ClientError, Connect, Seen};
use mobilevlmd::config::BusConfig;
use zenoh::{Session, Wait};

use super::PATIENCE;
use super::fake::{CAMERA, DEVICE, Daemon, free_endpoint};
use super::session::Folder;
use crate::service;

/// How long nothing must come that is not allowed.
const SILENCE: Duration = Duration::from_millis(500);

/// The files of a fleet, with certificates of its own and another port.
struct Fleet {
    folder: Folder,
    endpoint: String,
}

impl Fleet {
    fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        let script = shipped("certificates");
        let output = Command::new("sh").arg(script).arg(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::copy(shipped("users.txt"), folder.path().join("users.txt")).unwrap();
        Self { endpoint: free_endpoint().replace("tcp/", "tls/"), folder }
    }

    /// A shipped file, moved to this folder and port, with further replacements.
    fn file(&self, name: &str, changes: &[(&str, &str)]) -> PathBuf {
        let folder = self.folder.path().to_str().unwrap();
        let places = [
            ("/etc/mobilevlmd/fleet", folder),
            ("tls/[::]:7447", &self.endpoint),
            ("tls/localhost:7447", &self.endpoint),
        ];
        let mut text = std::fs::read_to_string(shipped(name)).unwrap();
        for (old, new) in places.iter().chain(changes) {
            text = text.replace(old, new);
        }
        // Each time another file, so that two variants do not meet.
        self.folder.write(&format!("{}-{name}", changes.len()), &text)
    }

    fn connect(&self, zenoh_config: PathBuf) -> Result<Client, ClientError> {
        Client::connect(&Connect { connect: String::new(), zenoh_config: Some(zenoh_config), device: None })
    }

    fn session(&self, role: &str) -> Session {
        let config = zenoh::Config::from_file(self.file(&format!("{role}.json5"), &[])).unwrap();
        zenoh::open(config).wait().unwrap()
    }
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/fleet").join(name)
}

/// The first of what comes to a key within the time.
fn hear(session: &Session, key: &str, time: Duration) -> Option<String> {
    let subscriber = session.declare_subscriber(key).wait().unwrap();
    let sample = subscriber.recv_timeout(time).ok().flatten()?;
    Some(sample.payload().try_to_string().unwrap().into_owned())
}

/// The answers to a query, none if it is not let through.
fn answers(session: &Session, key: &str, payload: &str) -> Vec<String> {
    let replies = session.get(key).payload(payload).timeout(SILENCE).wait().unwrap();
    let text = |reply: zenoh::query::Reply| match reply.into_result() {
        Ok(sample) => Some(sample.payload().try_to_string().unwrap_or_default().into_owned()),
        // zenoh's own word for nobody's answer.
        Err(error) if error.payload().to_bytes().as_ref() == b"Timeout" => None,
        Err(error) => Some(error.payload().try_to_string().unwrap().into_owned()),
    };
    replies.into_iter().filter_map(text).collect()
}

#[test]
fn a_viewer_looks_and_an_operator_asks() {
    let fleet = Fleet::new("roles");
    let router =
        zenoh::open(zenoh::Config::from_file(fleet.file("router.json5", &[])).unwrap()).wait().unwrap();
    let zenoh_config = fleet.file("daemon.json5", &[]);
    let daemon = Daemon::on(BusConfig { zenoh_config, ..BusConfig::default() }, fleet.endpoint.clone(), 4);
    let root = format!("mobilevlm/{DEVICE}");
    let (viewer, operator) = (fleet.session("viewer"), fleet.session("operator"));

    for session in [&viewer, &operator] {
        for key in ["camera/*/caption/json", "camera/*/caption/partial/json", "status/json"] {
            let heard = hear(session, &format!("{root}/{key}"), PATIENCE);
            assert!(heard.is_some(), "{key}");
        }
        let state = answers(session, &format!("{root}/camera/{CAMERA}/state/json"), "");
        assert!(state.len() == 1 && state[0].contains("live"), "{state:?}");
        assert_eq!(answers(session, &format!("{root}/camera/{CAMERA}/frame"), "").len(), 1);
    }
    let look = fleet.connect(fleet.file("viewer.json5", &[])).unwrap();
    // What was said last comes at once, and alerts when they begin.
    let rule = r#"{"add": {"name": "door", "question": "Is the door open?"}}"#;
    let mut alerts = Vec::new();
    look.watch(None, false, |seen| match seen {
        Seen::Alert(alert) => {
            alerts.push(alert.rule);
            std::ops::ControlFlow::Break(())
        }
        _ => {
            if alerts.is_empty() {
                answers(&operator, &format!("{root}/control/rules"), rule);
            }
            std::ops::ControlFlow::Continue(())
        }
    })
    .unwrap();
    assert_eq!(alerts, ["door"]);

    let ask = format!("{root}/camera/{CAMERA}/ask");
    assert_eq!(answers(&operator, &ask, "who goes there?"), ["who goes there?"]);
    assert_eq!(answers(&viewer, &ask, "who goes there?"), Vec::<String>::new());
    let control = format!("{root}/control/captions");
    assert_eq!(answers(&operator, &control, "").len(), 1);
    assert_eq!(answers(&viewer, &control, "").len(), 0);
    let error = look.ask(CAMERA, &Question::new("who goes there?"), |_| {}).unwrap_err();
    assert!(error.to_string().contains("not let through from here"), "{error}");

    // Nobody but a daemon speaks.
    let alert = format!("{root}/alert/fire/json");
    let other = fleet.session("operator");
    let ears = other.declare_subscriber(&alert).wait().unwrap();
    let lie = other.declare_subscriber(format!("{root}/control/rules/json")).wait().unwrap();
    for liar in [&viewer, &operator] {
        liar.put(&alert, "fire").wait().unwrap();
        liar.put(format!("{root}/control/rules/json"), "none").wait().unwrap();
    }
    assert!(ears.recv_timeout(SILENCE).unwrap().is_none() && lie.try_recv().unwrap().is_none());

    // A role is a certificate and a password, not one of them.
    let borrowed =
        [("user: \"viewer\", password: \"CHANGE-ME-2\"", "user: \"operator\", password: \"CHANGE-ME-3\"")];
    let borrowed = fleet.connect(fleet.file("viewer.json5", &borrowed));
    assert!(matches!(borrowed, Err(ClientError::NoDaemon { .. })));
    for session in [viewer, operator, other, router] {
        session.close().wait().unwrap();
    }
    daemon.stop();
}

/// A daemon whose messages are read.
struct Heard {
    child: Child,
    lines: Receiver<String>,
}

impl Heard {
    fn start(arguments: &[&str]) -> Self {
        let mut child = service::daemon(arguments).spawn().unwrap();
        let (send, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Self { child, lines }
    }

    /// The next line with these words.
    fn line(&self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line =
                self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("no line with \"{words}\" came"));
            if line.contains(words) {
                return line;
            }
        }
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        // Both fail if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn whoever_is_turned_away_is_told_of_in_the_journal() {
    let fleet = Fleet::new("strangers");
    let config = format!("bus.zenoh_config={}", fleet.file("router.json5", &[]).display());
    let name = format!("device_name={DEVICE}");
    let daemon = Heard::start(&["run", "--camera", "test=test:", "--set", &config, "--set", &name]);
    daemon.line("ready");

    let turned_away = |file: &str, changes: &[(&str, &str)], words: &str| {
        let refused = fleet.connect(fleet.file(file, changes));
        assert!(matches!(refused, Err(ClientError::NoDaemon { .. })), "{words}");
        let line = daemon.line("a connection was refused");
        assert!(line.contains(words) && line.contains("WARN"), "{line} should contain {words}");
    };
    turned_away(
        "viewer.json5",
        &[("CHANGE-ME-2", "guess")],
        "wrong password (the newest connection is from 127.0.0.1:",
    );
    turned_away("viewer.json5", &[("user: \"viewer\"", "user: \"mallory\"")], "unknown user");
    let nobody = ("auth: { usrpwd: { user: \"viewer\", password: \"CHANGE-ME-2\" } },", "");
    turned_away("viewer.json5", &[nobody, nobody], "no user and password");
    turned_away(
        "viewer.json5",
        &[("enable_mtls: true", "enable_mtls: false"), nobody, nobody],
        "no TLS connection: ",
    );
    let other = Fleet::new("other");
    let own = [other.folder.path().to_str().unwrap(), fleet.folder.path().to_str().unwrap()];
    let foreign =
        other.file("viewer.json5", &[("ca.pem", "ca-of-another.pem"), (&other.endpoint, &fleet.endpoint)]);
    std::fs::copy(format!("{}/ca.pem", own[1]), format!("{}/ca-of-another.pem", own[0])).unwrap();
    assert!(matches!(other.connect(foreign), Err(ClientError::NoDaemon { .. })));
    daemon.line("no TLS connection: ");

    let status = fleet.connect(fleet.file("operator.json5", &[])).unwrap().status().unwrap();
    assert!(status.bus.strangers >= 5 && status.bus.neighbours == 1, "{:?}", status.bus);
}

#[test]
fn an_open_door_must_be_meant() {
    let folder = Folder::new("exposed");
    let path = folder.write("zenoh.json5", "{ mode: \"peer\", listen: { endpoints: [\"tcp/0.0.0.0:0\"] } }");
    let open = BusConfig { zenoh_config: path.clone(), ..BusConfig::default() };
    let error = mobilevlmd::bus::check(&open).unwrap_err();
    assert!(matches!(error, BusError::Exposed { .. }));
    let expected =
        format!("{}: listens on tcp/0.0.0.0:0, which other machines reach, without TLS: ", path.display());
    assert!(error.to_string().starts_with(&expected), "{error}");
    mobilevlmd::bus::check(&BusConfig { allow_remote: true, ..open }).unwrap();
    for name in ["router.json5", "daemon.json5"] {
        mobilevlmd::bus::check(&BusConfig { zenoh_config: shipped(name), ..BusConfig::default() }).unwrap();
    }
}
