//! The bus: a Python client subscribes, asks and is answered; every question ends once.

mod daemon;
mod fake;
mod fleet;
mod flood;
mod links;
mod names;
pub(crate) mod python;
mod ros;
mod session;

use std::ops::ControlFlow;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use messages::{AskError, CameraPhase, CameraState, Format, FrameChoice, Question, decode};
use mobilevlmd::bus::client::{Client, ClientError, Connect, Seen};
use mobilevlmd::config::BusConfig;
use zenoh::Wait;
use zenoh::query::{ConsolidationMode, Reply};
use zenoh::sample::SourceInfo;

pub(crate) use fake::free_endpoint;
use fake::{CAMERA, DARK, DEVICE, Daemon, FRAME, GIVE_UP, SAY_NOTHING, state};

/// How long anything in these tests may take before they give up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client as soon as the daemon is found, which behind a router is later than its start.
fn client(endpoint: &str) -> Client {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match try_client(endpoint, None) {
            Ok(client) => return client,
            Err(ClientError::NoDaemon { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn try_client(endpoint: &str, device: Option<&str>) -> Result<Client, ClientError> {
    Client::connect(&Connect { connect: endpoint.into(), zenoh_config: None, device: device.map(Into::into) })
}

/// The typed error of a question.
fn refusal(client: &Client, camera: &str, question: &Question) -> AskError {
    match client.ask(camera, question, |_| {}) {
        Err(ClientError::Refused { error }) => error,
        other => panic!("a typed error is expected: {other:?}"),
    }
}

#[test]
fn a_python_client_is_served() {
    let daemon = Daemon::start(4);
    python::run(&["bus/client.py", &daemon.endpoint, DEVICE, CAMERA]);
    daemon.stop();
}

#[test]
fn a_client_is_served() {
    let daemon = Daemon::start(4);
    let client = client(&daemon.endpoint);
    assert_eq!(client.device(), DEVICE);

    let mut pieces = Vec::new();
    let answer =
        client.ask(CAMERA, &Question::new("one two three"), |piece| pieces.push(piece.to_string())).unwrap();
    assert_eq!(answer.text, "one two three");
    assert_eq!(pieces, ["one ", "two ", "three"]);

    assert_eq!(client.status().unwrap().device, DEVICE);
    let (jpeg, stamp) = client.snapshot(CAMERA, None).unwrap();
    assert_eq!((stamp.camera.as_str(), stamp.sequence), (CAMERA, FRAME));
    let picture = image::load_from_memory(&jpeg).unwrap();
    assert_eq!((picture.width(), picture.height()), (64, 48));

    let mut text = String::new();
    client
        .watch(None, true, |seen| match seen {
            Seen::Piece(piece) => {
                if piece.index == 0 {
                    text.clear();
                }
                text.push_str(&piece.text);
                ControlFlow::Continue(())
            }
            Seen::Caption(caption) if text.is_empty() || !caption.text.starts_with(&text) => {
                ControlFlow::Continue(())
            }
            Seen::Alert(_) | Seen::Missed(_) | Seen::Gone | Seen::Back => ControlFlow::Continue(()),
            Seen::Caption(caption) => {
                assert!(caption.age_ms > 0.0);
                ControlFlow::Break(())
            }
        })
        .unwrap();
    daemon.stop();
}

#[test]
fn every_state_of_a_camera_is_published_once() {
    let daemon = Daemon::start(1);
    let session = session(&daemon.endpoint);
    let (told, states) = channel();
    let key = format!("mobilevlm/{DEVICE}/camera/{DARK}/state");
    let hear = move |sample: zenoh::sample::Sample| {
        let state: CameraState = decode(&sample.payload().to_bytes(), Format::Postcard).unwrap();
        // The test may have heard enough.
        let _ = told.send((state.phase, state.since));
    };
    let subscriber = session.declare_subscriber(key).callback(hear).wait().unwrap();
    let next = || states.recv_timeout(PATIENCE).expect("another state");

    // It takes a while until the daemon knows of the subscriber: states go by until the first is heard.
    let mut since = 10;
    let first = loop {
        daemon.changes.lock().unwrap().push(state(DARK, CameraPhase::Absent, since));
        // One who is known early hears how the camera was at the start, too.
        if let Ok((CameraPhase::Absent, first)) = states.recv_timeout(Duration::from_millis(300)) {
            break first;
        }
        since += 1;
    };
    for late in first + 1..=since {
        assert_eq!(next(), (CameraPhase::Absent, late));
    }
    use CameraPhase::{Failing, Gone, Live, Opening, Reopening};
    // A camera goes through them between two looks of the bus.
    let passed = [Opening, Live, Failing, Reopening, Opening, Live, Gone];
    let passed: Vec<_> = passed.into_iter().zip(1000..).collect();
    let changes = passed.iter().map(|&(phase, since)| state(DARK, phase, since));
    daemon.changes.lock().unwrap().extend(changes);
    for want in passed {
        assert_eq!(next(), want);
    }
    drop(subscriber);
    daemon.stop();
}

#[test]
fn a_router_carries_it() {
    let endpoint = free_endpoint();
    let router = fake::router(&endpoint);
    for mode in ["client", "peer"] {
        let listen = if mode == "peer" { vec!["tcp/127.0.0.1:0".into()] } else { Vec::new() };
        let connect = vec![endpoint.clone()];
        let daemon = Daemon::on(
            BusConfig { mode: mode.into(), listen, connect, ..BusConfig::default() },
            endpoint.clone(),
            4,
        );
        let client = client(&endpoint);
        let answer = client.ask(CAMERA, &Question::new("far away"), |_| {}).unwrap();
        assert_eq!(answer.text, "far away");
        let mut captions = 0;
        let count = |seen| match seen {
            Seen::Caption(_) if captions == 1 => ControlFlow::Break(()),
            _ => {
                captions += 1;
                ControlFlow::Continue(())
            }
        };
        client.watch(Some(CAMERA), false, count).unwrap();
        daemon.stop();
    }
    router.close().wait().unwrap();
}

#[test]
fn what_is_not_there_is_said() {
    let daemon = Daemon::start(4);
    let client = client(&daemon.endpoint);
    let message = |error: ClientError| error.to_string();
    let camera = "unknown_camera: no camera \"attic\"; there are: front, dark";
    assert_eq!(message(client.ask("attic", &Question::new("a"), |_| {}).unwrap_err()), camera);
    assert_eq!(message(client.snapshot("attic", None).unwrap_err()), camera);
    assert_eq!(message(client.watch(Some("attic"), false, |_| ControlFlow::Break(())).unwrap_err()), camera);
    let dark = "no_frame: camera \"dark\" has delivered none yet: no such device";
    assert_eq!(message(client.snapshot("dark", None).unwrap_err()), dark);
    let old = "no_frame: frame 3 of camera \"front\" is not held any more, or not yet there";
    assert_eq!(message(client.snapshot(CAMERA, Some(3)).unwrap_err()), old);

    let other = message(try_client(&daemon.endpoint, Some("kitchen")).err().unwrap());
    assert_eq!(other, format!("no device \"kitchen\" at {}; there are: {DEVICE}", daemon.endpoint));
    let endpoint = free_endpoint();
    let nobody = message(try_client(&endpoint, None).err().unwrap());
    assert!(nobody.starts_with(&format!("no daemon answers at {endpoint}; start one with ")), "{nobody}");
    daemon.stop();
}

#[test]
fn a_full_queue_is_said() {
    let daemon = Daemon::start(1);
    let client = client(&daemon.endpoint);
    let silent = Question { deadline_ms: 20_000, ..Question::new(SAY_NOTHING) };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| refusal(&client, CAMERA, &silent));
        daemon.wait_for_questions(1);
        let second = refusal(&client, CAMERA, &Question::new("anything"));
        assert!(matches!(second, AskError::Overloaded { retry_after_ms: 1.. }), "{second:?}");
        daemon.stop();
        assert_eq!(first.join().unwrap(), AskError::Cancelled { reason: "the daemon is stopping".into() });
    });
}

#[test]
fn an_engine_that_fails_its_question_does_not_silence_it() {
    let daemon = Daemon::start(4);
    let client = client(&daemon.endpoint);
    let late = refusal(&client, CAMERA, &Question { deadline_ms: 50, ..Question::new(SAY_NOTHING) });
    assert_eq!(late, AskError::Deadline { deadline_ms: 50 });
    let lost = refusal(&client, CAMERA, &Question::new(GIVE_UP));
    assert_eq!(lost, AskError::Internal { reason: "the engine gave the question up".into() });
    let picture = Question { frame: FrameChoice::Picture(vec![1, 2, 3]), ..Question::new("What is this?") };
    assert_eq!(refusal(&client, CAMERA, &picture).kind(), "bad_request");
    assert!(client.ask(CAMERA, &Question::new("still there?"), |_| {}).is_ok());
    daemon.stop();
}

/// A session as any robot's node would open one.
pub(crate) fn session(endpoint: &str) -> zenoh::Session {
    let mut config = zenoh::Config::default();
    config.insert_json5("mode", "\"client\"").unwrap();
    config.insert_json5("connect/endpoints", &format!("[\"{endpoint}\"]")).unwrap();
    zenoh::open(config).wait().unwrap()
}

#[test]
fn a_question_names_one_camera() {
    let daemon = Daemon::start(4);
    let session = session(&daemon.endpoint);
    let replies = session.get("mobilevlm/*/camera/*/ask").payload("What is there?").wait().unwrap();
    let error =
        |reply: Reply| reply.into_result().unwrap_err().payload().try_to_string().unwrap().into_owned();
    let errors: Vec<String> = replies.iter().map(error).collect();
    assert_eq!(errors, ["bad_request: one camera at a time: the key names front, dark"]);
    daemon.stop();
}

#[test]
fn nobody_thinks_for_a_caller_who_left() {
    let daemon = Daemon::start(4);
    let key = format!("mobilevlm/{DEVICE}/camera/{CAMERA}/ask");
    let named = session(&daemon.endpoint);
    let anonymous = session(&daemon.endpoint);
    let source = SourceInfo::new(named.id(), 0);
    let _first = named.get(&key).payload(SAY_NOTHING).source_info(source).timeout(PATIENCE).wait().unwrap();
    let _second = anonymous.get(&key).payload(SAY_NOTHING).timeout(PATIENCE).wait().unwrap();
    daemon.wait_for_questions(2);
    named.close().wait().unwrap();
    daemon.wait_for_abandoned(1);
    anonymous.close().wait().unwrap();
    daemon.wait_for_abandoned(2);
    daemon.stop();
}

#[test]
fn many_questions_at_once_each_end_once() {
    let daemon = Daemon::start(3);
    let session = session(&daemon.endpoint);
    let ask = |number: usize| {
        let replies = session
            .get(format!("mobilevlm/{DEVICE}/camera/{CAMERA}/ask"))
            .payload(format!("one two {number}"))
            .consolidation(ConsolidationMode::None)
            .timeout(PATIENCE);
        replies.wait().unwrap()
    };
    let open: Vec<_> = (0..40).map(ask).collect();
    let mut answered = 0;
    for (number, replies) in open.into_iter().enumerate() {
        let (mut pieces, mut ends) = (String::new(), Vec::new());
        for reply in replies {
            assert!(ends.is_empty(), "nothing follows the end");
            match reply.into_result() {
                Ok(sample) => {
                    let text = sample.payload().try_to_string().unwrap().into_owned();
                    if sample.attachment().is_some() { ends.push(text) } else { pieces.push_str(&text) }
                }
                Err(error) => ends.push(error.payload().try_to_string().unwrap().into_owned()),
            }
        }
        let [end] = ends.as_slice() else { panic!("question {number} ended {} times", ends.len()) };
        if pieces.is_empty() {
            assert!(end.starts_with("overloaded: too many questions wait; try again in "), "{end}");
        } else {
            assert_eq!((&pieces, end), (end, &format!("one two {number}")));
            answered += 1;
        }
    }
    assert!(answered > 0);
    daemon.stop();
}
