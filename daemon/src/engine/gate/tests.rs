//! Pictures made up: what is no change of the scene must not pass, a small object must.

use image::{Rgb, RgbImage};

use super::*;
use crate::camera::world::{Painter, UNSEEN, World};

/// The default of `caption.change_threshold`.
const THRESHOLD: f32 = 8.0;

const WIDTH: u32 = 640;
const HEIGHT: u32 = 480;

/// An object of 3 % of the width.
const SMALL: u32 = 19;

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A room, moved by some pixels: a wall with a gradient and fine stripes, a floor, a door, a window
/// with bars, and texture everywhere.
fn room_at(x: u32, y: u32) -> [f32; 3] {
    let (fx, fy) = (x as f32, y as f32);
    let texture = ((x * 7 + y * 13) % 11) as f32 - 5.0;
    let [r, g, b] = match (x, y) {
        (400..=470, 100..330) => [110.0, 60.0, 30.0],
        (80..=200, 60..=160) if x % 20 < 3 || y % 25 < 3 => [40.0, 40.0, 45.0],
        (80..=200, 60..=160) => [225.0, 230.0, 240.0],
        (_, 330..) => [90.0 + fx * 0.03, 80.0, 70.0 - fy * 0.02],
        _ if x.is_multiple_of(64) => [60.0, 60.0, 60.0],
        _ => [150.0 + fx * 0.05, 140.0 + fy * 0.1, 120.0],
    };
    [r + texture, g + texture, b + texture]
}

/// What stands before the lens and in the sensor.
#[derive(Clone, Copy)]
struct Shot {
    /// Place, side and colour levels added of a new object.
    object: Option<(u32, u32, u32, [f32; 3])>,
    /// The camera moved by so many pixels, at most 8.
    moved: (u32, u32),
    gain: f32,
    offset: [f32; 3],
    /// Strength and phase of bands of flicker.
    bands: (f32, f32),
    /// Standard deviation of the noise of a pixel, and its seed.
    noise: (f32, u64),
}

const STILL: Shot =
    Shot { object: None, moved: (4, 4), gain: 1.0, offset: [0.0; 3], bands: (0.0, 0.0), noise: (0.0, 0) };

impl Shot {
    fn picture(&self) -> RgbImage {
        let mut state = self.noise.1.wrapping_mul(1 << 32);
        RgbImage::from_fn(WIDTH, HEIGHT, |x, y| {
            let mut levels = room_at(x + self.moved.0, y + self.moved.1);
            if let Some((left, top, side, color)) = self.object
                && (left..left + side).contains(&x)
                && (top..top + side).contains(&y)
            {
                levels.iter_mut().zip(color).for_each(|(level, add)| *level += add);
            }
            let band = 1.0 + self.bands.0 * (y as f32 * 0.03 + self.bands.1).sin();
            for (level, offset) in levels.iter_mut().zip(self.offset) {
                // Eight uniform numbers make a bell of standard deviation sqrt(8 / 12).
                let bits = if self.noise.0 > 0.0 { random(&mut state) } else { 0 };
                let bell = (0..8).map(|i| (bits >> (8 * i) & 0xff) as f32 / 255.0 - 0.5).sum::<f32>();
                let noise = if self.noise.0 > 0.0 { self.noise.0 * bell / 0.8165 } else { 0.0 };
                *level = (*level * self.gain + offset) * band + noise;
            }
            Rgb(levels.map(|level| level.round().clamp(0.0, 255.0) as u8))
        })
    }

    fn noisy(self, sigma: f32, seed: u64) -> Self {
        Self { noise: (sigma, seed), ..self }
    }

    fn with(self, left: u32, top: u32, color: [f32; 3]) -> Self {
        Self { object: Some((left, top, SMALL, color)), ..self }
    }
}

/// A gate that has described the first of `shots` and looked at the others.
fn gate_after(shots: &[Shot]) -> Gate {
    let mut gate = Gate::default();
    assert_eq!(gate.difference(&shots[0].picture()), f32::INFINITY);
    gate.keep();
    for shot in &shots[1..] {
        gate.difference(&shot.picture());
    }
    gate
}

/// A gate that knows the noise of the room.
fn gate_at_noise(sigma: f32) -> Gate {
    gate_after(&[1, 2, 3].map(|seed| STILL.noisy(sigma, seed)))
}

const NOISES: [f32; 5] = [0.0, 1.0, 3.0, 6.0, 12.0];

#[test]
fn noise_is_no_change() {
    for sigma in NOISES {
        let mut gate = gate_at_noise(sigma);
        for seed in 10..14 {
            let difference = gate.difference(&STILL.noisy(sigma, seed).picture());
            assert!(difference < 0.5 * THRESHOLD, "noise {sigma}: {difference}");
        }
    }
}

#[test]
fn a_shift_of_exposure_is_no_change() {
    for sigma in [0.0, 3.0] {
        let mut gate = gate_at_noise(sigma);
        let steps = [(1.0, 8.0), (1.1, 0.0), (0.85, 0.0), (1.25, 0.0), (0.7, 0.0), (1.2, -20.0), (1.0, 30.0)];
        for (seed, (gain, offset)) in (20..).zip(steps) {
            let shot = Shot { gain, offset: [offset; 3], ..STILL.noisy(sigma, seed) };
            let difference = gate.difference(&shot.picture());
            assert!(difference < THRESHOLD, "noise {sigma}, x{gain} +{offset}: {difference}");
        }
        let white = Shot { offset: [10.0, 0.0, -12.0], ..STILL.noisy(sigma, 30) };
        let difference = gate.difference(&white.picture());
        assert!(difference < THRESHOLD, "white balance, noise {sigma}: {difference}");
    }
}

#[test]
fn flicker_is_no_change() {
    let mut gate = gate_at_noise(2.0);
    for step in 0..6 {
        let bands = Shot { bands: (0.04, step as f32), ..STILL.noisy(2.0, 40 + step) };
        let whole = Shot { gain: 1.0 + 0.05 * (step as f32).sin(), ..STILL.noisy(2.0, 50 + step) };
        for (name, shot) in [("bands", bands), ("whole picture", whole)] {
            let difference = gate.difference(&shot.picture());
            assert!(difference < THRESHOLD, "{name}, step {step}: {difference}");
        }
    }
}

#[test]
fn a_pixel_of_shake_is_no_change() {
    let mut gate = gate_at_noise(2.0);
    for (seed, moved) in (60..).zip([(3, 4), (5, 4), (4, 3), (4, 5), (3, 3), (5, 5), (5, 3)]) {
        let difference = gate.difference(&Shot { moved, ..STILL.noisy(2.0, seed) }.picture());
        assert!(difference < THRESHOLD, "moved to {moved:?}: {difference}");
    }
}

#[test]
fn a_small_new_object_is_a_change_wherever_it_stands() {
    for (sigma, contrast) in [(0.0, 16.0), (1.0, 20.0), (3.0, 25.0), (6.0, 30.0), (12.0, 40.0)] {
        let mut gate = gate_at_noise(sigma);
        for (seed, (left, top)) in (70..).zip([(250, 40), (255, 45), (301, 217), (33, 401), (530, 377)]) {
            for sign in [1.0, -1.0] {
                let shot = STILL.noisy(sigma, seed).with(left, top, [sign * contrast; 3]);
                let difference = gate.difference(&shot.picture());
                assert!(difference > THRESHOLD, "noise {sigma}, {sign}, at {left},{top}: {difference}");
            }
        }
    }
}

#[test]
fn colour_alone_is_a_change() {
    let mut gate = gate_at_noise(2.0);
    let difference = gate.difference(&STILL.noisy(2.0, 80).with(300, 250, [30.0, -15.0, 0.0]).picture());
    assert!(difference > THRESHOLD, "{difference}");
}

#[test]
fn an_object_is_seen_through_exposure_flicker_and_shake() {
    let mut gate = gate_at_noise(2.0);
    let object = STILL.with(301, 217, [45.0; 3]);
    for (seed, shot) in (90..).zip([
        Shot { gain: 1.15, ..object },
        Shot { gain: 0.8, ..object },
        Shot { bands: (0.04, 1.0), ..object },
        Shot { moved: (5, 3), ..object },
    ]) {
        let difference = gate.difference(&shot.noisy(2.0, seed).picture());
        assert!(difference > THRESHOLD, "shot {seed}: {difference}");
    }
}

#[test]
fn large_changes_are_changes() {
    let mut gate = gate_at_noise(2.0);
    let large = |side, color| Shot { object: Some((100, 40, side, color)), ..STILL.noisy(2.0, 100) };
    for (name, shot) in [
        ("half of the picture", large(400, [50.0, 40.0, 30.0])),
        ("another view", Shot { moved: (140, 90), ..STILL.noisy(2.0, 101) }),
        ("a pan", Shot { moved: (14, 4), ..STILL.noisy(2.0, 102) }),
        ("darkness", Shot { gain: 0.0, ..STILL.noisy(2.0, 103) }),
        ("glare", Shot { gain: 6.0, ..STILL }),
    ] {
        let difference = gate.difference(&shot.picture());
        assert!(difference > 2.0 * THRESHOLD, "{name}: {difference}");
    }
}

#[test]
fn slow_changes_add_up() {
    let mut gate = gate_at_noise(1.0);
    let mut passed = None;
    for step in 0..40u64 {
        let shot = STILL.noisy(1.0, 200 + step).with(301, 217, [step as f32; 3]);
        if gate.difference(&shot.picture()) > THRESHOLD {
            passed = Some(step);
            gate.keep();
            break;
        }
    }
    let step = passed.expect("40 levels are a change");
    assert!(step > 6, "{step} levels are less than the threshold");
    let same = gate.difference(&STILL.noisy(1.0, 300).with(301, 217, [step as f32; 3]).picture());
    assert!(same < THRESHOLD, "it was described: {same}");
    let gone = gate.difference(&STILL.noisy(1.0, 301).picture());
    assert!(gone > THRESHOLD, "its going is a change too: {gone}");
}

#[test]
fn a_scene_full_of_motion_does_not_close_the_gate() {
    let mut gate = gate_after(&[STILL]);
    for step in 0..30u32 {
        let view = Shot { moved: (step * 11 % 97, step * 7 % 53), ..STILL };
        gate.difference(&view.picture());
        gate.keep();
    }
    let last = Shot { moved: (29 * 11 % 97, 29 * 7 % 53), ..STILL };
    let difference = gate.difference(&last.with(301, 217, [60.0; 3]).picture());
    assert!(difference > THRESHOLD, "{difference}");
}

#[test]
fn sizes_change_and_are_odd() {
    let mut gate = Gate::default();
    for (width, height) in [(640, 480), (0, 0), (1, 1), (1, 900), (700, 1), (63, 64), (65, 3), (1920, 1080)] {
        let flat = |level| RgbImage::from_pixel(width, height, Rgb([level; 3]));
        assert_eq!(gate.difference(&flat(90)), f32::INFINITY, "{width}x{height}");
        gate.keep();
        if width == 0 {
            continue;
        }
        assert_eq!(gate.difference(&flat(90)), 0.0, "{width}x{height}");
        assert!(gate.difference(&flat(240)) > THRESHOLD, "{width}x{height}");
        gate.forget();
        assert_eq!(gate.difference(&flat(90)), f32::INFINITY, "{width}x{height}");
    }
}

#[test]
fn darkness_is_left_and_entered_once() {
    let mut gate = gate_at_noise(1.0);
    let dark = |seed| Shot { gain: 0.0, ..STILL }.noisy(1.0, seed).picture();
    assert!(gate.difference(&dark(1)) > THRESHOLD);
    gate.keep();
    assert!(gate.difference(&dark(2)) < THRESHOLD);
    assert!(gate.difference(&STILL.noisy(1.0, 3).picture()) > THRESHOLD);
}

/// How often something was, and how often the gate told it to be a change.
#[derive(Default)]
struct Tally {
    told: u32,
    all: u32,
}

impl Tally {
    fn count(&mut self, is_told: bool) {
        self.told += u32::from(is_told);
        self.all += 1;
    }

    fn percent(&self) -> f64 {
        100.0 * f64::from(self.told) / f64::from(self.all)
    }
}

#[test]
fn what_happens_in_a_world_is_a_change_and_rest_is_not() {
    let (mut painter, mut picture) = (Painter::default(), RgbImage::default());
    let (mut events, mut still, mut swaying) = (Tally::default(), Tally::default(), Tally::default());
    for seed in 0..12 {
        let (world, mut gate) = (World::new(UNSEEN + seed), Gate::default());
        let mut look = |gate: &mut Gate, seconds: f64| {
            painter.draw(&world.at(seconds), 320, 240, &mut picture);
            gate.difference(&picture) > THRESHOLD
        };
        let mut described = 0.0;
        for _ in 0..12 {
            let rest = world.next_rest(described + 8.0);
            let is_told = look(&mut gate, rest);
            if described > 0.0 && world.events(described).take_while(|event| event.at < rest).count() > 0 {
                events.count(is_told);
            }
            gate.keep();
            described = rest;
            // At rest objects sway, seldom by more than the gate allows; persons shift from foot to foot.
            let tally = if world.at(rest).person.is_some() { &mut swaying } else { &mut still };
            for step in 1..=8 {
                tally.count(look(&mut gate, rest + 0.4 * f64::from(step)));
            }
        }
    }
    let [events, still, swaying] = [events, still, swaying].map(|tally| (tally.percent(), tally.all));
    println!("told: {events:.1?} % of changes, {still:.1?} % of rest, {swaying:.1?} % with persons");
    assert!(events.0 > 98.0 && events.1 > 50 && still.0 < 10.0, "{events:?}, {still:?}, {swaying:?}");
}
