//! Frames of other nodes: what arrives under a key is what the camera shows, whoever published it.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime};

use image::{ExtendedColorType, RgbImage, codecs::jpeg::JpegEncoder};
use messages::{CameraPhase, CameraState, Caption, Format, FrameStamp, encode};
use mobilevlmd::bus::client::{Client, ClientError, Connect, Seen};
use mobilevlmd::camera::{self, CameraHandle, Frame, Network, PixelFormat, Wake, network};
use mobilevlmd::config::CameraConfig;
use zenoh::sample::SourceInfo;
use zenoh::{Session, Wait};

use crate::bus::{free_endpoint, python};
use crate::service;

/// Long enough for anything that ever happens.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where frames are published.
const KEY: &str = "scout/front/image";

/// A session that listens at `endpoint`, or connects to it.
fn session(place: &str, endpoint: &str) -> Session {
    let mut config = zenoh::Config::default();
    config.insert_json5("mode", "\"peer\"").unwrap();
    config.insert_json5("listen/endpoints", "[]").unwrap();
    config.insert_json5(&format!("{place}/endpoints"), &format!("[\"{endpoint}\"]")).unwrap();
    config.insert_json5("scouting/multicast/enabled", "false").unwrap();
    zenoh::open(config).wait().unwrap()
}

/// A camera on the bus, with the other ends of what it was given.
struct Running {
    camera: CameraHandle,
    wake: Wake,
    states: Receiver<CameraState>,
}

impl Running {
    fn start(key: &str, session: &Session) -> Self {
        let config =
            CameraConfig { name: "far".into(), source: format!("zenoh:{key}"), ..CameraConfig::default() };
        let wake = Wake::default();
        let (told, states) = channel();
        let on_state = move |state| {
            // The test may have seen enough.
            let _ = told.send(state);
        };
        let network = Network::of(session.clone());
        Self { camera: camera::spawn(&config, &network, wake.clone(), on_state).unwrap(), wake, states }
    }

    /// Waits for a phase; returns its reason.
    fn phase(&self, phase: CameraPhase) -> String {
        loop {
            match self.states.recv_timeout(PATIENCE) {
                Ok(state) if state.phase == phase => return state.reason,
                Ok(_) => {}
                Err(_) => panic!("never {phase:?}: {:?}", self.camera.status()),
            }
        }
    }

    /// Publishes over and over with `put` until a frame comes that `is_wanted`.
    fn until(&self, put: impl Fn(), is_wanted: impl Fn(&Frame) -> bool) -> Arc<Frame> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            put();
            self.wake.wait_until(Instant::now() + Duration::from_millis(50));
            if let Some(frame) = self.camera.latest.take_new().filter(|frame| is_wanted(frame)) {
                return frame;
            }
        }
        panic!("no such frame: {:?}", self.camera.status());
    }
}

/// A JPEG picture of one grey value.
fn jpeg(grey: u8) -> Vec<u8> {
    let picture = RgbImage::from_pixel(48, 32, image::Rgb([grey; 3]));
    let mut bytes = Vec::new();
    JpegEncoder::new(&mut bytes).encode(&picture, 48, 32, ExtendedColorType::Rgb8).unwrap();
    bytes
}

fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64
}

/// The grey value of a frame.
fn grey(frame: &Frame) -> u8 {
    frame.rgb().unwrap().as_raw()[0]
}

#[test]
fn pictures_of_another_node_are_frames() {
    let endpoint = free_endpoint();
    let (daemon, robot) = (session("listen", &endpoint), session("connect", &endpoint));
    let camera = Running::start(KEY, &daemon);

    // Nothing but the payload: the time of arrival is the capture time.
    let before = now();
    let plain = camera.until(|| robot.put(KEY, jpeg(90)).wait().unwrap(), |_| true);
    assert_eq!((plain.width, plain.height, plain.format), (48, 32, PixelFormat::Mjpeg));
    assert!((before..=now()).contains(&plain.captured_at) && grey(&plain).abs_diff(90) <= 2);
    camera.phase(CameraPhase::Live);
    assert_eq!(camera.camera.status().source, format!("zenoh:{KEY}, MJPEG 48x32"));

    // With the stamp of another daemon: the capture time is its.
    let captured_at = now() - 700_000_000;
    let stamp = FrameStamp { camera: "front".into(), sequence: 40, captured_at };
    let stamp = encode(&stamp, Format::Json);
    let put = || robot.put(KEY, jpeg(120)).attachment(stamp.clone()).wait().unwrap();
    let stamped = camera.until(put, |frame| grey(frame).abs_diff(120) <= 2);
    assert_eq!(stamped.captured_at, captured_at);
    let age = stamped.captured.elapsed();
    assert!(age >= Duration::from_millis(700), "{age:?}");
    assert!(stamped.sequence > plain.sequence, "frames are numbered by the camera");

    // A clock that cannot be right is not followed.
    let stamp = FrameStamp { captured_at: now() + 3_600_000_000_000, ..FrameStamp::default() };
    let stamp = encode(&stamp, Format::Json);
    let put = || robot.put(KEY, jpeg(150)).attachment(stamp.clone()).wait().unwrap();
    let ahead = camera.until(put, |frame| grey(frame).abs_diff(150) <= 2);
    assert!(ahead.captured_at <= now());
}

#[test]
fn what_is_missed_or_damaged_is_counted() {
    let endpoint = free_endpoint();
    let (daemon, robot) = (session("listen", &endpoint), session("connect", &endpoint));
    let camera = Running::start("scout/*/image", &daemon);
    let publisher = robot.declare_publisher(KEY).wait().unwrap();
    let number = std::cell::Cell::new(0);
    let put = |bytes: Vec<u8>| {
        number.set(number.get() + 10);
        publisher.put(bytes).source_info(SourceInfo::new(publisher.id(), number.get())).wait().unwrap();
    };
    camera.until(|| put(jpeg(10)), |_| true);
    let lost = camera.camera.status().lost;
    camera.until(|| put(jpeg(200)), |frame| grey(frame) > 150);
    assert!(camera.camera.status().lost >= lost + 9, "nine numbers are missing before each frame");

    let cut = jpeg(77);
    let cut = &cut[..cut.len() - 40];
    camera.until(
        || {
            put(cut.to_vec());
            std::thread::sleep(Duration::from_millis(20));
            put(b"no picture".to_vec());
            std::thread::sleep(Duration::from_millis(20));
            put(jpeg(50));
        },
        |frame| camera.camera.status().damaged >= 2 && grey(frame) < 100,
    );
}

#[test]
fn a_publisher_who_leaves_is_missed_and_found_again() {
    let endpoint = free_endpoint();
    let daemon = session("listen", &endpoint);
    let camera = Running::start("mobilevlm/scout/camera/front/frame", &daemon);
    let alone = camera.phase(CameraPhase::Absent);
    let key = "mobilevlm/scout/camera/front/frame";
    assert_eq!(alone, format!("no frames under {key} on the bus: no other node is connected"));

    let robot = session("connect", &endpoint);
    assert!(camera.phase(CameraPhase::Absent).ends_with("device \"scout\" is not there"));
    let token = robot.liveliness().declare_token("mobilevlm/scout/alive").wait().unwrap();
    assert!(camera.phase(CameraPhase::Absent).contains("is there, but its camera is not live"));
    camera.until(|| robot.put(key, jpeg(9)).wait().unwrap(), |_| true);
    camera.phase(CameraPhase::Live);

    drop(token);
    robot.close().wait().unwrap();
    assert_eq!(camera.phase(CameraPhase::Stalled), "no frame for 2 s");
    assert!(camera.phase(CameraPhase::Gone).ends_with("no other node is connected"));
    let robot = session("connect", &endpoint);
    camera.until(|| robot.put(key, jpeg(9)).wait().unwrap(), |_| true);
    camera.phase(CameraPhase::Live);
}

/// A message of ROS 2 as another CDR writer makes it, and what it shows.
#[derive(serde::Deserialize)]
struct Written {
    name: String,
    payload: Vec<u8>,
    rgb: Vec<u8>,
}

#[test]
fn images_of_ros_are_frames_in_every_layout() {
    let printed = python::run(&["network/ros.py", "print"]);
    let mut count = 0;
    for line in printed.lines() {
        let Written { name, payload, rgb } = serde_json::from_str(line).unwrap();
        let (frame, stamp) = network::frame_of(&payload).unwrap();
        frame.check().unwrap();
        assert_eq!(stamp, Some(1_700_000_000_000_000_123), "{name}");
        assert_eq!((frame.width, frame.height), (6, 4), "{name}");
        let shown = frame.rgb().unwrap();
        let worst = shown.iter().zip(&rgb).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        // Brightness from 16 to 235 has fewer levels, and factors of colours are rounded.
        let is_rounded = ["yuv", "nv", "bayer"].iter().any(|prefix| name.starts_with(prefix));
        assert!(worst <= if is_rounded { 2 } else { 0 }, "{name}: {worst}");
        count += 1;
    }
    assert_eq!(count, 26, "thirteen layouts in two byte orders");
}

#[test]
fn a_ros_publisher_is_a_camera() {
    let endpoint = free_endpoint();
    let daemon = session("listen", &endpoint);
    let camera = Running::start("0/front/image_raw/**", &daemon);
    let hash = "RIHS01_d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47";
    let key = format!("0/front/image_raw/sensor_msgs::msg::dds_::Image_/{hash}");
    let publisher = std::thread::spawn({
        let endpoint = endpoint.clone();
        move || python::run(&["network/ros.py", "publish", &endpoint, &key])
    });
    let frame = camera.until(|| (), |_| true);
    assert_eq!((frame.width, frame.height, frame.format), (6, 4, PixelFormat::Rgb24));
    assert_eq!(frame.rgb().unwrap().as_raw()[..6], [10, 200, 0, 40, 200, 7]);
    let age = Duration::from_nanos(now() - frame.captured_at);
    assert!(age >= Duration::from_millis(50) && age < PATIENCE, "captured 50 ms before it was sent: {age:?}");
    drop(camera);
    publisher.join().unwrap();
}

/// A daemon in a process of its own; killed if the test fails.
struct Daemon(Child);

impl Daemon {
    /// Starts a daemon on a configuration and waits until it is alive.
    fn start(name: &str, endpoint: &str, config: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("network");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{name}.toml"));
        let own = format!("device_name = \"{name}\"\nlog = \"error\"\n{config}");
        std::fs::write(&file, own).unwrap();
        let arguments = ["run", "--config", file.to_str().unwrap(), "--listen", endpoint];
        let mut daemon = Self(service::daemon(&arguments).stderr(Stdio::inherit()).spawn().unwrap());
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = client(endpoint, name) {
            let ended = daemon.0.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "no {name}: {error}, {ended:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail if it has ended, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn client(endpoint: &str, device: &str) -> Result<Client, ClientError> {
    let device = Some(device.to_owned());
    Client::connect(&Connect { connect: endpoint.into(), zenoh_config: None, device })
}

#[test]
fn frames_as_captured_arrive_unchanged_in_shared_memory_and_beside_it() {
    let picture = RgbImage::from_fn(61, 37, |x, y| {
        let mixed = x * 7919 + y * 104_729;
        image::Rgb([mixed as u8, (mixed >> 5) as u8, (x * y) as u8])
    });
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("network");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("shared.png");
    picture.save(&file).unwrap();
    let endpoint = free_endpoint();
    let config = format!(
        "[bus]\nshared_memory_mib = 4\n\
         [[camera]]\nname = \"still\"\nsource = \"file:{}\"\npublish_fps = 20",
        file.display()
    );
    let _daemon = Daemon::start("sharing", &endpoint, &config);
    // Without shared memory a neighbour is as one of another user: the segments are closed to him.
    for is_shared in [true, false] {
        let mut config = zenoh::Config::default();
        config.insert_json5("mode", "\"client\"").unwrap();
        config.insert_json5("connect/endpoints", &format!("[\"{endpoint}\"]")).unwrap();
        config.insert_json5("transport/shared_memory/enabled", &is_shared.to_string()).unwrap();
        let viewer = zenoh::open(config).wait().unwrap();
        let frames = viewer.declare_subscriber("mobilevlm/sharing/camera/still/frame/raw").wait().unwrap();
        for _ in 0..3 {
            let sample = frames.recv_timeout(PATIENCE).unwrap().expect("a frame");
            assert_eq!(sample.payload().as_shm().is_some(), is_shared);
            let (frame, stamp) = network::frame_of(&sample.payload().to_bytes()).unwrap();
            assert_eq!(stamp, Some(frame_stamp(&sample).captured_at));
            assert_eq!(frame.rgb().unwrap(), picture);
        }
    }
}

/// What comes beside a frame.
fn frame_stamp(sample: &zenoh::sample::Sample) -> FrameStamp {
    let attachment = sample.attachment().expect("a stamp");
    messages::decode(&attachment.to_bytes(), Format::Json).unwrap()
}

#[test]
fn a_camera_node_serves_another_daemon_and_viewers() {
    let (near, far) = (free_endpoint(), free_endpoint());
    let camera_node = "[bus]\nshared_memory_mib = 4\n\
        [[camera]]\nname = \"front\"\nsource = \"test:\"\npublish_fps = 10";
    let _camera_node = Daemon::start("scout", &near, camera_node);
    python::run(&["network/watch.py", &near, "scout", "front"]);
    let gpu_node = format!(
        "[bus]\nconnect = [\"{near}\"]\n[caption]\nchange_threshold = 0.0\nperiod_s = 1.0\n\
        [[camera]]\nname = \"far\"\nsource = \"zenoh:mobilevlm/scout/camera/front/frame\"\n\
        [[camera]]\nname = \"raw\"\nsource = \"zenoh:mobilevlm/scout/camera/front/frame/raw\""
    );
    let _gpu_node = Daemon::start("base", &far, &gpu_node);
    let viewer = client(&far, "base").unwrap();
    let mut seen: Vec<Caption> = Vec::new();
    viewer
        .watch(None, false, |said| {
            if let Seen::Caption(caption) = said {
                seen.push(caption);
            }
            let of = |camera: &str| seen.iter().filter(|caption| caption.frame.camera == camera).count();
            if of("far") >= 3 && of("raw") >= 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    // The picture that the model saw is shown while it is held, with the capture time of the camera node.
    let caption = seen.last().unwrap();
    assert!(!caption.text.is_empty() && caption.age_ms > 0.0, "{caption:?}");
    let (jpeg, stamp) = viewer.snapshot(&caption.frame.camera, Some(caption.frame.sequence)).unwrap();
    assert_eq!(stamp, caption.frame);
    assert_eq!(image::load_from_memory(&jpeg).unwrap().width(), 640);
    let status = viewer.status().unwrap();
    assert!(status.cameras.iter().all(|camera| camera.frames > 0 && camera.state.phase == CameraPhase::Live));
    assert!(client(&near, "scout").unwrap().status().unwrap().cameras[0].published > 0);
}
