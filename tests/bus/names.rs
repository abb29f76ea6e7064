//! One daemon for each name.

use std::sync::Barrier;
use std::time::Duration;

use mobilevlmd::bus::{Bus, BusError};
use mobilevlmd::config::BusConfig;
use zenoh::Wait;

use super::fake::{DEVICE, Daemon, free_endpoint, router};
use super::session;

/// A daemon that reaches the others through a router.
fn behind(endpoint: &str) -> BusConfig {
    BusConfig { mode: "client".into(), connect: vec![endpoint.into()], ..BusConfig::default() }
}

fn refusal(opened: Result<Bus, BusError>) -> String {
    opened.err().expect("the name is taken").to_string()
}

#[test]
fn the_second_of_a_name_refuses_and_names_the_first() {
    let endpoint = free_endpoint();
    let router = router(&endpoint);
    let first = Daemon::on(behind(&endpoint), endpoint.clone(), 4);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let who = format!("taken by process {} on host {}", std::process::id(), host.trim());
    let refused = refusal(Bus::open(&behind(&endpoint), DEVICE));
    assert!(refused.starts_with(&format!("the name \"{DEVICE}\" is {who}")), "{refused}");
    // Another name is free, and so is this one as soon as the first has gone.
    Bus::open(&behind(&endpoint), "bench-2").unwrap().stop();
    first.stop();
    Bus::open(&behind(&endpoint), DEVICE).unwrap().stop();
    router.close().wait().unwrap();
}

#[test]
fn of_two_at_once_one_goes_on() {
    let endpoint = free_endpoint();
    let router = router(&endpoint);
    for _ in 0..3 {
        let start = Barrier::new(2);
        let open = || {
            start.wait();
            Bus::open(&behind(&endpoint), DEVICE)
        };
        let (one, other) = std::thread::scope(|scope| {
            let one = scope.spawn(open);
            (open(), one.join().unwrap())
        });
        let (winner, loser) = match (one, other) {
            (Ok(winner), loser) => (winner, loser),
            (loser, Ok(winner)) => (winner, loser),
            (Err(one), Err(other)) => panic!("both refuse: {one}, {other}"),
        };
        assert!(refusal(loser).contains("is taken by process"));
        winner.stop();
    }
    router.close().wait().unwrap();
}

#[test]
fn a_dead_one_blocks_nobody() {
    let endpoint = free_endpoint();
    let router = router(&endpoint);
    let dead = session(&endpoint);
    let alive = format!("mobilevlm/{DEVICE}/alive");
    let _token = dead.liveliness().declare_token(&alive).wait().unwrap();
    // It still holds the connection, and whatever it is asked.
    let (keep, kept) = std::sync::mpsc::channel();
    let _silent =
        dead.declare_queryable(&alive).callback(move |query| drop(keep.send(query))).wait().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    Bus::open(&behind(&endpoint), DEVICE).unwrap().stop();
    assert!(kept.try_iter().count() > 0, "it was asked");
    router.close().wait().unwrap();
}
