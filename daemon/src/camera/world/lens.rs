//! What light and camera do to a picture: shading, blur and noise.

use std::sync::LazyLock;

use super::dice::Dice;
use super::scene::Scene;

/// Numbers of the noise pattern, of which a piece from a random place is used at a time.
const PATTERN: usize = 1 << 14;
/// Bytes of a picture that are given noise at a time.
const PIECE: usize = 3 << 10;
/// Standard deviation of the noise pattern.
const DEVIATION: f32 = 24.0;
/// Fixed point number 1 of factors, and its bits.
const ONE: f32 = (1 << ONE_BITS) as f32;
const ONE_BITS: u32 = 7;
const ONE_HALF: u16 = 1 << (ONE_BITS - 1);
/// Most variance that one pass of blur adds, in pixels squared.
const PASS: f32 = 0.5;
/// Most passes of blur.
const PASSES: usize = 6;

/// Noise of a sensor: nearly normal, of standard deviation [`DEVIATION`].
static NOISE: LazyLock<Vec<i8>> = LazyLock::new(|| {
    let mut dice = Dice::new(0, 0);
    let mut normal = || {
        let sum: f32 = (0..6).map(|_| dice.unit()).sum();
        // Six uniform numbers have variance 1/2.
        ((sum - 3.0) * std::f32::consts::SQRT_2 * DEVIATION).round().clamp(-127.0, 127.0) as i8
    };
    (0..PATTERN).map(|_| normal()).collect()
});

/// Applies light and lens and keeps the memory that it needs for the next picture.
#[derive(Debug, Default)]
pub(super) struct Optics {
    /// Factors of the bytes of a line, of [`ONE`].
    gains: Vec<u16>,
    /// The line before the current one.
    above: Vec<u8>,
    /// The current line before it was changed.
    line: Vec<u8>,
}

impl Optics {
    /// Applies light, blur and noise of `scene` to a picture in R, G, B.
    pub(super) fn apply(&mut self, scene: &Scene, width: usize, height: usize, rgb: &mut [u8]) {
        self.blur(scene.lens.blur * height as f32, width, rgb);
        self.set_gains(scene, width);
        let strength = (256.0 * scene.lens.noise / DEVIATION).clamp(0.0, 255.0) as i16;
        let mut dice = Dice::new(scene.noise, 0);
        for (line, pixels) in rgb.chunks_exact_mut(3 * width).enumerate() {
            let down = 2.0 * (line as f32 + 0.5) / height as f32 - 1.0;
            let light = (ONE * (1.0 + scene.light.down * down)) as u16;
            let pieces = pixels.chunks_mut(PIECE).zip(self.gains.chunks(PIECE));
            for (pixels, gains) in pieces {
                let from = dice.below(PATTERN - PIECE);
                expose(pixels, gains, light, &NOISE[from..from + PIECE], strength);
            }
        }
    }

    fn set_gains(&mut self, scene: &Scene, width: usize) {
        self.gains.clear();
        for column in 0..width {
            let across = 2.0 * (column as f32 + 0.5) / width as f32 - 1.0;
            let light = ONE * (1.0 + scene.light.across * across);
            self.gains.extend(scene.light.tint.map(|tint| (light * tint) as u16));
        }
    }

    /// Blurs by a standard deviation of `pixels`.
    fn blur(&mut self, pixels: f32, width: usize, rgb: &mut [u8]) {
        let variance = pixels * pixels;
        if variance < 0.02 {
            return;
        }
        let passes = ((variance / PASS).ceil() as usize).clamp(1, PASSES);
        let side = (128.0 * (variance / passes as f32).min(PASS)) as u16;
        for _ in 0..passes {
            self.blur_once(side, width, rgb);
        }
    }

    /// One pass in which the neighbours of a pixel weigh `side` of 256 each.
    fn blur_once(&mut self, side: u16, width: usize, rgb: &mut [u8]) {
        let bytes = 3 * width;
        self.above.clear();
        self.above.extend_from_slice(&rgb[..bytes]);
        self.line.resize(bytes, 0);
        let mut rest = rgb;
        while rest.len() >= bytes {
            let (current, below) = rest.split_at_mut(bytes);
            // Down first: the line above as it was, the line below not yet changed.
            self.line.copy_from_slice(current);
            let next: &[u8] = if below.len() >= bytes { &below[..bytes] } else { &self.line };
            for (((byte, &above), &middle), &next) in
                current.iter_mut().zip(&self.above).zip(&self.line).zip(next)
            {
                *byte = weigh(side, above, middle, next);
            }
            std::mem::swap(&mut self.above, &mut self.line);
            self.blur_line(side, current);
            rest = below;
        }
    }

    /// Across one line; the pixels at its ends stay.
    fn blur_line(&mut self, side: u16, line: &mut [u8]) {
        self.line.copy_from_slice(line);
        if line.len() < 9 {
            return;
        }
        let inner = line.len() - 6;
        let neighbours = self.line.iter().zip(&self.line[3..]).zip(&self.line[6..]);
        for (byte, ((&left, &middle), &right)) in line[3..3 + inner].iter_mut().zip(neighbours) {
            *byte = weigh(side, left, middle, right);
        }
    }
}

/// The mean of three bytes of which the outer ones weigh `side` of 256 each. At most 255 * 256 + 128
/// is computed with, so that nothing wraps.
fn weigh(side: u16, before: u8, middle: u8, after: u8) -> u8 {
    let sides = (u16::from(before) + u16::from(after)).wrapping_mul(side);
    let center = u16::from(middle).wrapping_mul(256 - 2 * side);
    (sides.wrapping_add(center).wrapping_add(128) >> 8) as u8
}

/// Multiplies bytes by their gains and by `light`, each of [`ONE`], and adds noise of `strength` of
/// 256. Gains are below 1.4 and `light` is below 1.2, `strength` below 1, so that nothing wraps; the
/// loop becomes SIMD since nothing is checked.
fn expose(pixels: &mut [u8], gains: &[u16], light: u16, noise: &[i8], strength: i16) {
    for ((byte, &gain), &noise) in pixels.iter_mut().zip(gains).zip(noise) {
        let lit = u16::from(*byte).wrapping_mul(gain).wrapping_add(ONE_HALF) >> ONE_BITS;
        let lit = lit.wrapping_mul(light).wrapping_add(ONE_HALF) >> ONE_BITS;
        let noise = i16::from(noise).wrapping_mul(strength).wrapping_add(128) >> 8;
        *byte = (lit as i16).wrapping_add(noise).clamp(0, 255) as u8;
    }
}
