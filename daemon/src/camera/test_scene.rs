//! A moving scene drawn by the daemon, so that there is something to see without a camera: a sky
//! over a meadow, a red ball that hops, a blue box that slides, a yellow triangle that drifts, and a
//! little noise as a sensor has it. It is a function of size, seed and frame number.

use std::time::{Duration, Instant};

use kernels::pixels::YuvColor;

use super::frame::{Frame, PixelFormat};
use super::pace::Pace;
use super::source::{Delivery, FrameSource, SourceError, Wanted};
use crate::wall_clock;

/// A colour as Y, U, V. Y keeps [`NOISE`] away from 0 and 255, so that noise never wraps.
type Color = [u8; 3];

const RED: Color = [81, 100, 212];
const BLUE: Color = [60, 200, 110];
const YELLOW: Color = [190, 40, 146];
const SKY_TOP: Color = [140, 160, 100];
const SKY_BOTTOM: Color = [200, 136, 122];
const MEADOW: Color = [110, 96, 104];

/// Largest change of Y by noise.
const NOISE: i64 = 3;
/// Bytes of the noise pattern that are added at a time, from a random place in twice as many.
const NOISE_BYTES: usize = 4096;

/// The scene: everything that does not change from frame to frame.
#[derive(Debug)]
pub struct Scene {
    width: usize,
    height: usize,
    seed: u64,
    background: Vec<u8>,
    noise: Vec<u8>,
}

impl Scene {
    /// A scene of `width` by `height` pixels; odd and tiny sizes are rounded up.
    pub fn new(width: u32, height: u32, seed: u64) -> Self {
        let (width, height) = (width.max(16).next_multiple_of(2) as usize, height.max(16) as usize);
        let mut background = Vec::with_capacity(2 * width * height);
        let horizon = height * 3 / 5;
        for line in 0..height {
            let color = if line < horizon { blend(SKY_TOP, SKY_BOTTOM, line, horizon) } else { MEADOW };
            for _ in 0..width / 2 {
                background.extend_from_slice(&pair(color));
            }
        }
        let noise = (0..2 * NOISE_BYTES as u64).map(|i| {
            let step = (mix(seed ^ mix(i)) % (2 * NOISE as u64 + 1)) as i64 - NOISE;
            if i % 2 == 0 { step as u8 } else { 0 }
        });
        Self { width, height, seed, background, noise: noise.collect() }
    }

    /// Pixels across and down.
    pub fn size(&self) -> (u32, u32) {
        (self.width as u32, self.height as u32)
    }

    /// Bytes of a frame: two a pixel.
    pub fn bytes(&self) -> usize {
        self.background.len()
    }

    /// Draws frame `number` as YUYV. `picture` holds [`Scene::bytes`] bytes.
    pub fn draw(&self, number: u64, picture: &mut [u8]) {
        picture.copy_from_slice(&self.background);
        self.draw_triangle(number, picture);
        self.draw_box(number, picture);
        self.draw_ball(number, picture);
        self.add_noise(number, picture);
    }

    /// A box that slides along the meadow from side to side.
    fn draw_box(&self, number: u64, picture: &mut [u8]) {
        let side = self.unit() / 5;
        let left = swing(number * 3 + self.start(1), self.width - side);
        let top = self.height * 3 / 4 - side / 2;
        for line in top..top + side {
            self.span(picture, line, left, left + side, BLUE);
        }
    }

    /// A ball that hops across the picture.
    fn draw_ball(&self, number: u64, picture: &mut [u8]) {
        let radius = self.unit() / 9;
        let x = radius + swing(number * 4 + self.start(2), self.width - 2 * radius);
        // One hop of 48 frames is a parabola, highest in the middle.
        let phase = (number + self.start(3)) as usize % 48;
        let rise = phase * (48 - phase) * (self.height / 2) / (24 * 24);
        let y = self.height - radius - rise;
        for line in y - radius..(y + radius).min(self.height) {
            let half = (radius * radius - line.abs_diff(y).pow(2)).isqrt();
            self.span(picture, line, x - half, x + half, RED);
        }
    }

    /// A triangle that drifts slowly through the sky.
    fn draw_triangle(&self, number: u64, picture: &mut [u8]) {
        let side = self.unit() / 4;
        let left = swing(number + self.start(4), self.width - side);
        let top = swing(number / 3 + self.start(5), self.height / 4);
        for line in 0..side {
            let half = line / 2;
            self.span(picture, top + line, left + side / 2 - half, left + side / 2 + half, YELLOW);
        }
    }

    /// Fills the pixels from `left` to before `right`, in whole pairs.
    fn span(&self, picture: &mut [u8], line: usize, left: usize, right: usize, color: Color) {
        let start = 2 * line * self.width;
        let pixels = &mut picture[start..start + 2 * self.width];
        let (pairs, color) = (pixels.as_chunks_mut::<4>().0, pair(color));
        pairs[left / 2..right.div_ceil(2)].fill(color);
    }

    fn add_noise(&self, number: u64, picture: &mut [u8]) {
        for (i, bytes) in picture.chunks_mut(NOISE_BYTES).enumerate() {
            let random = mix(self.seed ^ mix(number).wrapping_add(i as u64));
            let from = (random as usize % NOISE_BYTES) & !1;
            for (byte, noise) in bytes.iter_mut().zip(&self.noise[from..]) {
                *byte = byte.wrapping_add(*noise);
            }
        }
    }

    /// The shorter side, which shapes are measured by.
    fn unit(&self) -> usize {
        self.width.min(self.height)
    }

    /// Where in its path a shape begins.
    fn start(&self, shape: u64) -> u64 {
        mix(self.seed.wrapping_mul(31).wrapping_add(shape)) % 4096
    }
}

/// There and back between 0 and `length`, a step at a time.
fn swing(step: u64, length: usize) -> usize {
    let at = step as usize % (2 * length.max(1));
    at.min(2 * length.max(1) - at)
}

/// The colour `part` of `whole` of the way from `a` to `b`.
fn blend(a: Color, b: Color, part: usize, whole: usize) -> Color {
    std::array::from_fn(|i| ((usize::from(a[i]) * (whole - part) + usize::from(b[i]) * part) / whole) as u8)
}

/// Two pixels of one colour.
fn pair([y, u, v]: Color) -> [u8; 4] {
    [y, u, y, v]
}

/// Scatters the bits of `x` (the finalizer of splitmix64).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The scene as a camera.
#[derive(Debug)]
pub(super) struct TestSource {
    scene: Scene,
    pace: Pace,
    number: u64,
}

impl TestSource {
    /// 640x480 at 30 frames per second unless asked otherwise.
    pub(super) fn new(seed: u64, wanted: Wanted) -> Self {
        let or = |value: u32, default| if value == 0 { default } else { value.min(4096) };
        let scene = Scene::new(or(wanted.width, 640), or(wanted.height, 480), seed);
        Self { scene, pace: Pace::new(wanted.fps, 30.0), number: 0 }
    }
}

impl FrameSource for TestSource {
    fn describe(&self) -> String {
        let (width, height) = self.scene.size();
        format!("test scene {}, YUYV {width}x{height} at {} fps", self.scene.seed, self.pace.fps())
    }

    fn interval(&self) -> Duration {
        self.pace.interval()
    }

    fn next_frame(&mut self, frame: &mut Frame, wait: Duration) -> Result<Delivery, SourceError> {
        if !self.pace.wait(wait) {
            return Ok(Delivery::Nothing);
        }
        (frame.captured, frame.captured_at) = (Instant::now(), wall_clock::now());
        (frame.width, frame.height) = self.scene.size();
        frame.stride = 2 * frame.width;
        (frame.format, frame.color) = (PixelFormat::Yuyv, YuvColor::default());
        frame.bytes.resize(self.scene.bytes(), 0);
        self.scene.draw(self.number, &mut frame.bytes);
        self.number += 1;
        Ok(Delivery::Frame { lost: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(scene: &Scene, number: u64) -> Vec<u8> {
        let mut picture = vec![0; scene.bytes()];
        scene.draw(number, &mut picture);
        picture
    }

    #[test]
    fn a_frame_depends_on_seed_and_number_only() {
        let scene = Scene::new(640, 480, 5);
        assert_eq!(drawn(&scene, 12), drawn(&Scene::new(640, 480, 5), 12));
        assert_ne!(drawn(&scene, 12), drawn(&scene, 13));
        assert_ne!(drawn(&scene, 12), drawn(&Scene::new(640, 480, 6), 12));
    }

    #[test]
    fn any_size_is_drawn_for_a_long_time() {
        for (width, height) in [(1, 1), (16, 16), (17, 33), (336, 336), (99, 1000), (1280, 720)] {
            let scene = Scene::new(width, height, u64::MAX);
            for number in (0..3000).step_by(7) {
                drawn(&scene, number);
            }
            drawn(&scene, u64::MAX / 8);
        }
    }

    #[test]
    fn all_colours_are_there_and_noise_is_light() {
        let scene = Scene::new(640, 480, 0);
        let picture = drawn(&scene, 40);
        for color in [RED, BLUE, YELLOW, MEADOW] {
            let near = |group: &&[u8]| {
                group[1] == color[1]
                    && group[3] == color[2]
                    && i64::from(group[0].abs_diff(color[0])) <= NOISE
            };
            assert!(picture.chunks(4).filter(near).count() > 1000, "{color:?}");
        }
    }
}
