//! Two cameras in front of worlds that the test draws itself, so that every frame can be had again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use image::RgbImage;
use mobilevlmd::camera::world::{Painter, UNSEEN, World};
use mobilevlmd::camera::{Frame, Latest, PixelFormat, Wake};
use mobilevlmd::engine::CameraInput;

/// The cameras by name.
pub(super) const NAMES: [&str; 2] = ["hall", "yard"];

/// The worlds before them, counted from [`UNSEEN`].
const WORLDS: [u64; 2] = [0, 7];

/// Size of a frame in pixels.
const SIZE: (u32, u32) = (320, 240);

/// Seconds of a world from one frame to the next: its time runs faster than the clock.
const STEP: f64 = 0.25;

/// Both cameras. Of a frame only its digest is kept: drawn again it must be the same to the last bit.
pub(super) struct Cameras {
    pub(super) wake: Wake,
    worlds: [World; 2],
    latest: [Arc<Latest<Frame>>; 2],
    digests: [Vec<u64>; 2],
    painter: Painter,
    picture: RgbImage,
}

impl Cameras {
    /// Cameras that have shown nothing.
    pub(super) fn new() -> Self {
        let wake = Wake::default();
        Self {
            worlds: WORLDS.map(|number| World::new(UNSEEN + number)),
            latest: NAMES.map(|_| Arc::new(Latest::new(wake.clone()))),
            digests: [Vec::new(), Vec::new()],
            painter: Painter::default(),
            picture: RgbImage::default(),
            wake,
        }
    }

    /// What the engine is given.
    pub(super) fn inputs(&self) -> Vec<CameraInput> {
        let input = |(name, latest): (&&str, &Arc<Latest<Frame>>)| CameraInput {
            name: (*name).into(),
            latest: latest.clone(),
            max_age: Duration::from_secs(600),
            describe: true,
        };
        NAMES.iter().zip(&self.latest).map(input).collect()
    }

    /// Frames shown by a camera.
    pub(super) fn shown(&self, camera: usize) -> u64 {
        self.digests[camera].len() as u64
    }

    /// Shows the next frame of every camera.
    pub(super) fn show(&mut self) {
        for camera in 0..NAMES.len() {
            let sequence = self.shown(camera);
            self.draw(camera, sequence);
            self.digests[camera].push(digest(&self.picture));
            self.latest[camera].put(Frame {
                sequence,
                captured_at: stamp(sequence),
                captured: Instant::now(),
                width: SIZE.0,
                height: SIZE.1,
                stride: 3 * SIZE.0,
                format: PixelFormat::Rgb24,
                color: Default::default(),
                bytes: self.picture.as_raw().clone(),
            });
        }
    }

    /// A frame as it was shown.
    pub(super) fn again(&mut self, camera: usize, sequence: u64) -> &RgbImage {
        self.draw(camera, sequence);
        let shown = self.digests[camera][sequence as usize];
        assert_eq!(digest(&self.picture), shown, "{} {sequence} is not what was shown", NAMES[camera]);
        &self.picture
    }

    fn draw(&mut self, camera: usize, sequence: u64) {
        let scene = self.worlds[camera].at(sequence as f64 * STEP);
        self.painter.draw(&scene, SIZE.0, SIZE.1, &mut self.picture);
    }
}

/// The capture time that a frame carries.
pub(super) fn stamp(sequence: u64) -> u64 {
    1_000_000 + sequence
}

/// Which camera has this name.
pub(super) fn index_of(name: &str) -> usize {
    NAMES.iter().position(|known| *known == name).unwrap_or_else(|| panic!("a camera \"{name}\""))
}

fn digest(picture: &RgbImage) -> u64 {
    let mut hasher = DefaultHasher::new();
    picture.as_raw().hash(&mut hasher);
    hasher.finish()
}
