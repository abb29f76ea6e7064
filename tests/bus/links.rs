//! Routers that go and come back, neighbours who do not read.

use std::time::{Duration, Instant};

use messages::Question;
use mobilevlmd::config::BusConfig;
use zenoh::Wait;

use super::fake::{CAMERA, DEVICE, Daemon, free_endpoint, router};
use super::{PATIENCE, client, session};

#[test]
fn a_router_may_go_and_come_back() {
    let endpoint = free_endpoint();
    let first = router(&endpoint);
    let config = BusConfig { mode: "client".into(), connect: vec![endpoint.clone()], ..BusConfig::default() };
    let daemon = Daemon::on(config, endpoint.clone(), 4);
    let listener = session(&endpoint);
    let captions =
        listener.declare_subscriber(format!("mobilevlm/{DEVICE}/camera/*/caption/json")).wait().unwrap();
    let comes = |what: &str| {
        let sample = captions.recv_timeout(PATIENCE).unwrap();
        assert!(sample.is_some(), "{what}");
    };
    comes("a caption through the router");

    first.close().wait().unwrap();
    let described = daemon.captions();
    daemon.wait_for_captions(described + 20);

    let second = router(&endpoint);
    // Everything that was declared is declared again: the token, the queryables, the publications.
    let client = client(&endpoint);
    assert_eq!(client.ask(CAMERA, &Question::new("back again"), |_| {}).unwrap().text, "back again");
    assert_eq!(client.status().unwrap().device, DEVICE);
    while captions.try_recv().unwrap().is_some() {}
    comes("a caption through the new router, to whoever was there before");
    second.close().wait().unwrap();
    daemon.stop();
}

/// Neighbours in a process of their own who subscribe to everything and read nothing, until they are killed.
pub(super) struct Deaf(std::process::Child);

const BE_DEAF: &str = "TEST_DEAF";

impl Deaf {
    pub(super) fn start(endpoint: &str, number: usize) -> Self {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["bus::links::be_deaf", "--exact", "--nocapture"]);
        command.env(BE_DEAF, format!("{endpoint} {number}")).stdin(std::process::Stdio::null());
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let out = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut lines = std::io::BufRead::lines(out).map_while(Result::ok);
        let deaf = Self(child);
        assert!(lines.any(|line| line == "deaf"), "they are there");
        deaf
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        // Both fail if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Does nothing unless [`Deaf`] started this process.
#[test]
fn be_deaf() {
    let Ok(what) = std::env::var(BE_DEAF) else { return };
    let (endpoint, number) = what.split_once(' ').unwrap();
    let sessions: Vec<_> = (0..number.parse().unwrap()).map(|_| session(endpoint)).collect();
    let is_deaf = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    for session in &sessions {
        let is_deaf = is_deaf.clone();
        let listen = session.declare_subscriber("mobilevlm/**").callback(move |_| {
            while is_deaf.load(std::sync::atomic::Ordering::Acquire) {
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        listen.background().wait().unwrap();
    }
    is_deaf.store(true, std::sync::atomic::Ordering::Release);
    println!("\ndeaf");
    std::thread::sleep(Duration::from_secs(3600));
}

#[test]
fn whoever_does_not_read_does_not_keep_others_from_hearing() {
    // Zenoh tells of it in its log only.
    mobilevlmd::journal::start("off");
    // Large enough to fill what the system holds for a connection.
    let daemon = Daemon::wordy(4, 800_000);
    let deaf = Deaf::start(&daemon.endpoint, 2);
    let listener = session(&daemon.endpoint);
    let captions =
        listener.declare_subscriber(format!("mobilevlm/{DEVICE}/camera/*/caption")).wait().unwrap();
    let described = daemon.captions();
    // More than the system holds for two connections.
    daemon.wait_for_captions(described + 100);
    let mut heard = 0;
    while heard < 50 {
        assert!(captions.recv_timeout(PATIENCE).unwrap().is_some(), "captions stopped after {heard}");
        heard += 1;
    }
    let client = client(&daemon.endpoint);
    assert!(client.ask(CAMERA, &Question::new("still there?"), |_| {}).is_ok());
    let start = Instant::now();
    while client.status().unwrap().bus.too_slow == 0 {
        assert!(start.elapsed() < PATIENCE, "nobody was disconnected");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(deaf);
    daemon.stop();
}
