//! Sources of frames: what arrives, in which order, and what happens when nothing does.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use image::{ExtendedColorType, Rgb, RgbImage, codecs::jpeg::JpegEncoder};
use kernels::pixels::{BayerOrder, Samples};
use messages::{CameraPhase, CameraState};
use mobilevlmd::camera::world::{UNSEEN, World};
use mobilevlmd::camera::{self, CameraHandle, Frame, Network, PixelFormat, Wake};
use mobilevlmd::config::CameraConfig;

use crate::allocation;

/// Long enough for anything that ever happens.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running camera with the other ends of what it was given.
struct Running {
    camera: CameraHandle,
    wake: Wake,
    states: Receiver<CameraState>,
}

impl Running {
    fn start(source: &str, fps: f64) -> Self {
        let config = CameraConfig { name: "front".into(), source: source.into(), fps, ..Default::default() };
        let wake = Wake::default();
        let (told, states) = channel();
        let on_state = move |state| {
            // The test may have seen enough.
            let _ = told.send(state);
        };
        let camera = camera::spawn(&config, &Network::none(), wake.clone(), on_state).unwrap();
        Self { camera, wake, states }
    }

    /// The next frame that was not seen yet.
    fn frame(&self) -> Arc<Frame> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(frame) = self.camera.latest.take_new() {
                return frame;
            }
            self.wake.wait_until(deadline);
        }
        panic!("no frame in {PATIENCE:?}: {:?}", self.camera.status());
    }

    /// Waits for a phase; returns its state.
    fn phase(&self, phase: CameraPhase) -> CameraState {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.states.recv_timeout(left) {
                Ok(state) if state.phase == phase => return state,
                Ok(_) => {}
                Err(_) => panic!("never {phase:?}: {:?}", self.camera.status()),
            }
        }
    }
}

/// A folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("camera").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A JPEG picture of one grey value.
fn jpeg(value: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let pixels = [value; 32 * 16 * 3];
    JpegEncoder::new_with_quality(&mut bytes, 95).encode(&pixels, 32, 16, ExtendedColorType::Rgb8).unwrap();
    bytes
}

fn grey_of(frame: &Frame) -> u8 {
    frame.rgb().unwrap().get_pixel(3, 3).0[1]
}

#[test]
fn the_test_camera_delivers_frames_in_order() {
    let running = Running::start("test:", 200.0);
    let first = running.frame();
    assert_eq!((first.width, first.height, first.format), (640, 480, PixelFormat::Yuyv));
    let mut last = first;
    for _ in 0..20 {
        let frame = running.frame();
        assert!(frame.sequence > last.sequence);
        assert!(frame.captured > last.captured && frame.captured_at >= last.captured_at);
        last = frame;
    }
    assert_eq!(running.phase(CameraPhase::Live).camera, "front");
    let status = running.camera.status();
    assert!(status.frames >= 21 && status.frames > status.replaced, "{status:?}");
    assert_eq!((status.damaged, status.lost), (0, 0));
    assert!(status.frames_per_second > 0.0);
    assert!(status.source.contains("YUYV 640x480 at 200 fps"), "{}", status.source);
}

#[test]
fn the_test_camera_shows_its_world_in_every_format() {
    let world = World::new(UNSEEN + 3);
    for (source, format) in [
        ("test:3", PixelFormat::Yuyv),
        ("test:3?format=UYVY", PixelFormat::Uyvy),
        ("test:3?format=NV12", PixelFormat::Nv12),
        ("test:3?format=YU12", PixelFormat::Yu12),
        ("test:3?format=RGB3", PixelFormat::Rgb24),
        ("test:3?format=BGR3", PixelFormat::Bgr24),
        ("test:3?format=XB24", PixelFormat::Rgbx32),
        ("test:3?format=XR24", PixelFormat::Bgrx32),
        ("test:3?format=YVYU", PixelFormat::Yvyu),
        ("test:3?format=NV21", PixelFormat::Nv21),
        ("test:3?format=NV16", PixelFormat::Nv16),
        ("test:3?format=YV12", PixelFormat::Yv12),
        ("test:3?format=422P", PixelFormat::Yuv422p),
        ("test:3?format=BX24", PixelFormat::Xrgb32),
        ("test:3?format=RX24", PixelFormat::Xbgr32),
        ("test:3?format=RGGB", PixelFormat::Bayer(BayerOrder::Rggb, Samples::Bits8)),
        ("test:3?format=BA10", PixelFormat::Bayer(BayerOrder::Grbg, Samples::Bits10)),
        ("test:3?format=GB12", PixelFormat::Bayer(BayerOrder::Gbrg, Samples::Bits12)),
        ("test:3?format=BYR2", PixelFormat::Bayer(BayerOrder::Bggr, Samples::Bits16)),
        ("test:3?format=pRAA", PixelFormat::Bayer(BayerOrder::Rggb, Samples::Packed10)),
        ("test:3?format=MJPG", PixelFormat::Mjpeg),
    ] {
        let running = Running::start(source, 100.0);
        let frame = running.frame();
        assert_eq!(frame.format, format);
        let drawn = world.at(frame.sequence as f64 / 100.0).render(frame.width, frame.height);
        let shown = frame.rgb().unwrap();
        let apart: u64 = shown.iter().zip(drawn.iter()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        let apart = apart as f64 / shown.len() as f64;
        assert!(apart < 4.0, "{source} frame {}: {apart} of 255 apart", frame.sequence);
    }
}

#[test]
fn a_camera_without_colours_shows_its_world_in_grey() {
    let world = World::new(UNSEEN + 3);
    for name in ["GREY", "Y10", "Y10P", "Y12", "Y16"] {
        let running = Running::start(&format!("test:3?format={name}"), 100.0);
        let frame = running.frame();
        let drawn = world.at(frame.sequence as f64 / 100.0).render(frame.width, frame.height);
        let shown = frame.rgb().unwrap();
        for (shown, drawn) in shown.pixels().zip(drawn.pixels()) {
            let [r, g, b] = drawn.0.map(f64::from);
            let grey = 0.299 * r + 0.587 * g + 0.114 * b;
            assert!(
                shown.0.iter().all(|byte| (f64::from(*byte) - grey).abs() <= 2.0),
                "{name}: {shown:?}, not {grey}"
            );
        }
    }
}

#[test]
fn hostile_sizes_and_strides_are_refused_without_a_panic() {
    const FORMATS: [&str; 12] =
        ["RGB3", "XR24", "GREY", "Y10P", "Y16", "YUYV", "NV12", "NV61", "YV12", "422P", "pBAA", "RG12"];
    let mut dice = 7u64;
    let mut roll = |sides: usize| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) as usize % sides
    };
    let (mut shown, mut refused) = (0, 0);
    for name in FORMATS {
        let running = Running::start(&format!("test:3?format={name}"), 100.0);
        let whole = running.frame();
        for _ in 0..60 {
            let mut frame = (*whole).clone();
            let sides = [0, 1, 2, 3, 17, 639, 640, 641, 8191, 8192, 8193, u32::MAX];
            let side = |roll: &mut dyn FnMut(usize) -> usize| sides[roll(sides.len())];
            match roll(4) {
                0 => frame.width = side(&mut roll),
                1 => frame.height = side(&mut roll),
                2 => frame.stride = [0, 1, 639, 640, 1 << 31, u32::MAX][roll(6)],
                _ => {}
            }
            if roll(2) == 0 {
                frame.bytes.truncate(roll(whole.bytes.len() + 1));
            }
            let is_whole = frame.check().is_ok();
            match frame.rgb() {
                Ok(picture) => {
                    assert!(is_whole, "{name} {}x{} is shown", frame.width, frame.height);
                    assert_eq!(picture.dimensions(), (frame.width, frame.height));
                    shown += 1;
                }
                Err(error) => {
                    assert!(!is_whole && !error.to_string().is_empty(), "{name}: {error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(shown > 50 && refused > 200, "{shown} shown, {refused} refused");
}

#[test]
fn the_newest_frame_wins() {
    let running = Running::start("test:", 200.0);
    let first = running.frame();
    while running.camera.status().replaced < 5 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let next = running.frame();
    assert!(next.sequence > first.sequence + 5, "frame {} after {}", next.sequence, first.sequence);
}

#[test]
fn a_reader_that_keeps_a_frame_keeps_its_content() {
    let running = Running::start("test:", 200.0);
    let kept = running.frame();
    let copy = kept.bytes.clone();
    for _ in 0..30 {
        running.frame();
    }
    assert!(copy == kept.bytes, "a held frame was drawn over");
}

#[test]
fn a_folder_is_shown_in_the_order_of_names_and_ends() {
    let folder = folder("once");
    for (i, value) in [40u8, 80, 120].into_iter().enumerate() {
        fs::write(folder.join(format!("{i}.jpg")), jpeg(value)).unwrap();
    }
    RgbImage::from_pixel(8, 8, Rgb([160; 3])).save(folder.join("9.png")).unwrap();
    fs::write(folder.join("notes.txt"), "no picture").unwrap();
    let running = Running::start(&format!("file:{}?once", folder.display()), 5.0);
    let shown: Vec<u8> = (0..4).map(|_| grey_of(&running.frame())).collect();
    for (got, want) in shown.iter().zip([40u8, 80, 120, 160]) {
        assert!(got.abs_diff(want) <= 2, "{shown:?}");
    }
    running.phase(CameraPhase::Ended);
    assert_eq!(running.camera.status().frames, 4);
}

#[test]
fn a_recording_starts_over_and_damaged_pictures_are_left_out() {
    let folder = folder("recording");
    let path = folder.join("two.mjpeg");
    let mut file = fs::File::create(&path).unwrap();
    let damaged = &jpeg(200)[..100];
    file.write_all(&[&jpeg(50), damaged, &jpeg(90)].concat()).unwrap();
    let running = Running::start(&format!("file:{}", path.display()), 50.0);
    let shown: Vec<u8> = (0..6).map(|_| grey_of(&running.frame())).collect();
    assert!(shown.iter().all(|grey| grey.abs_diff(50) <= 2 || grey.abs_diff(90) <= 2), "{shown:?}");
    let status = running.camera.status();
    assert!(status.frames >= 6 && status.damaged >= 1, "{status:?}");
}

#[test]
fn a_camera_that_sends_garbage_only_counts_it() {
    let folder = folder("garbage");
    fs::write(folder.join("a.jpg"), &jpeg(9)[..80]).unwrap();
    fs::write(folder.join("b.png"), b"\x89PNG\r\n\x1a\nrubbish").unwrap();
    let running = Running::start(&format!("file:{}", folder.display()), 100.0);
    while running.camera.status().damaged < 4 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(running.camera.status().frames, 0);
    assert_eq!(running.camera.status().state.phase, CameraPhase::Opening);
}

#[test]
fn an_absent_device_is_told_with_its_path_while_another_camera_goes_on() {
    let absent = Running::start("v4l2:/dev/video-that-is-not-there", 0.0);
    let other = Running::start("test:", 100.0);
    let state = absent.phase(CameraPhase::Absent);
    assert_eq!(state.reason, "/dev/video-that-is-not-there: no such device or file");
    for _ in 0..10 {
        other.frame();
    }
    assert_eq!(absent.camera.status().state.phase, CameraPhase::Absent);
    assert_eq!(other.camera.status().state.phase, CameraPhase::Live);
}

#[test]
fn a_source_that_appears_later_is_found() {
    let folder = folder("later");
    let path = folder.join("picture.jpg");
    let running = Running::start(&format!("file:{}", path.display()), 20.0);
    running.phase(CameraPhase::Absent);
    // Moved into place, so that it is never seen half written.
    fs::write(folder.join("part"), jpeg(70)).unwrap();
    fs::rename(folder.join("part"), &path).unwrap();
    running.phase(CameraPhase::Live);
    assert!(grey_of(&running.frame()).abs_diff(70) <= 2);
}

#[test]
fn something_that_is_no_camera_says_so() {
    let running = Running::start("v4l2:/dev/null", 0.0);
    let state = running.phase(CameraPhase::Failing);
    assert!(state.reason.starts_with("/dev/null: not a capture device"), "{}", state.reason);
}

#[test]
fn an_unknown_source_is_refused_naming_the_known_ones() {
    let config = CameraConfig { name: "front".into(), source: "rtsp://x".into(), ..Default::default() };
    let error = camera::spawn(&config, &Network::none(), Wake::default(), |_| {}).unwrap_err().to_string();
    assert!(
        error.contains("camera \"front\"")
            && error.contains("v4l2:/dev/video0, file:PATH, test: or zenoh:KEY"),
        "{error}"
    );
    assert_eq!(camera::probe(&config).unwrap_err().to_string(), error);
}

#[test]
fn a_snapshot_of_any_camera_is_a_jpeg_that_others_can_read() {
    let running = Running::start("test:", 30.0);
    let bytes = running.frame().jpeg(80).unwrap();
    let shown = image::load_from_memory_with_format(&bytes, image::ImageFormat::Jpeg).unwrap();
    assert_eq!((shown.width(), shown.height()), (640, 480));
}

#[test]
fn a_camera_does_not_allocate_once_it_is_live() {
    static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
    let config =
        CameraConfig { name: "front".into(), source: "test:".into(), fps: 200.0, ..Default::default() };
    let wake = Wake::default();
    let on_state = |state: CameraState| {
        if state.phase == CameraPhase::Live {
            allocation::count_calls_in(&ALLOCATIONS);
        }
    };
    let camera = camera::spawn(&config, &Network::none(), wake.clone(), on_state).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    // Like the engine, the reader holds the last two frames it took.
    let mut held: [Option<Arc<Frame>>; 2] = [None, None];
    let take = |held: &mut [Option<Arc<Frame>>; 2]| {
        while !camera.latest.has_new() {
            assert!(Instant::now() < deadline, "{:?}", camera.status());
            wake.wait_until(deadline);
        }
        held.rotate_left(1);
        // The older one is let go before a newer one is taken: two are the most.
        held[1] = None;
        held[1] = camera.latest.take_new();
    };
    take(&mut held);
    take(&mut held);
    // While two are held, one is shown and one is filled, the camera has all the frames it needs.
    let both_held_at = camera.status().frames;
    while camera.status().frames < both_held_at + 4 {
        assert!(Instant::now() < deadline, "{:?}", camera.status());
        wake.wait_until(deadline);
    }
    let warm = ALLOCATIONS.load(Ordering::Relaxed);
    assert!(warm > 0, "the first frames need memory; is the camera's thread counted?");
    for _ in 0..100 {
        take(&mut held);
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), warm, "allocations in 100 frames");
}
