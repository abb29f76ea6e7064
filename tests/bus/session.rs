//! Opening the bus: what is refused and why, and zenoh's own files.

use std::path::{Path, PathBuf};

use messages::Question;
use mobilevlmd::bus::client::{Client, ClientError, Connect};
use mobilevlmd::bus::{Bus, BusError};
use mobilevlmd::config::BusConfig;

use super::fake::{CAMERA, DEVICE, Daemon, free_endpoint};
use super::try_client;

/// A folder for one test, removed at its end.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mobilevlm-bus-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to the system.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_session_that_cannot_be_opened_says_why() {
    let daemon = Daemon::start(1);
    let open = |config: BusConfig, device: &str| Bus::open(&config, device).err().unwrap().to_string();
    let config = |endpoint: &str| BusConfig { listen: vec![endpoint.into()], ..BusConfig::default() };
    let in_use = open(config(&daemon.endpoint), DEVICE);
    let remedy = "the address is in use; stop the other program or listen elsewhere";
    assert_eq!(in_use, format!("[bus] listen {}: {remedy}", daemon.endpoint));
    let free = free_endpoint();
    assert!(open(config(&free), "a/b").starts_with("device_name: the name \"a/b\" has '/'"));
    let lonely = BusConfig { mode: "client".into(), connect: vec![free.clone()], ..BusConfig::default() };
    assert!(open(lonely, DEVICE).starts_with(&format!("[bus] connect {free}: no router or peer answers")));

    let folder = Folder::new("bad");
    let path = folder.write("zenoh.json5", "{ mode: \"spectator\" }");
    let error =
        Bus::open(&BusConfig { zenoh_config: path.clone(), ..BusConfig::default() }, DEVICE).err().unwrap();
    assert!(matches!(&error, BusError::File { path: named, .. } if *named == path), "{error}");
    assert!(!error.to_string().contains('\n'), "{error}");
    daemon.stop();
}

/// The file passes through whole, here with users and passwords, and what it asks for holds.
#[test]
fn zenohs_own_file_is_obeyed() {
    let endpoint = free_endpoint();
    let folder = Folder::new("users");
    let users = folder.write("users.txt", "robot:secret\n");
    let file = |name: &str, mode: &str, place: &str, user: String| {
        let users = format!("transport: {{ auth: {{ usrpwd: {{ {user} }} }} }}");
        let ends = format!("{place}: {{ endpoints: [\"{endpoint}\"] }}");
        let quiet = "scouting: { multicast: { enabled: false } }";
        folder.write(name, &format!("{{ mode: \"{mode}\", {ends}, {quiet}, {users} }}"))
    };
    let own = format!("user: \"daemon\", password: \"d\", dictionary_file: {users:?}");
    let zenoh_config = file("daemon.json5", "peer", "listen", own);
    let daemon = Daemon::on(BusConfig { zenoh_config, ..BusConfig::default() }, endpoint.clone(), 4);

    let client = |name: &str, password: &str| {
        let user = format!("user: \"robot\", password: \"{password}\"");
        let zenoh_config = Some(file(name, "client", "connect", user));
        Client::connect(&Connect { connect: String::new(), zenoh_config, device: None })
    };
    let answer = client("known.json5", "secret").unwrap().ask(CAMERA, &Question::new("who am I?"), |_| {});
    assert_eq!(answer.unwrap().text, "who am I?");
    for refused in [client("wrong.json5", "guess"), try_client(&endpoint, None)] {
        assert!(matches!(refused, Err(ClientError::NoDaemon { .. })));
    }
    daemon.stop();
}
