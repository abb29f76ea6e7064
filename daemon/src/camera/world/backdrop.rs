//! What is behind the things, the light on them and the lens before them.

use super::dice::Dice;

/// R, G, B from 0 to 255.
pub(super) type Rgb = [f32; 3];

/// Muted colours that no object has.
const WALLS: [Rgb; 7] = [
    [188.0, 176.0, 154.0],
    [150.0, 162.0, 176.0],
    [158.0, 172.0, 154.0],
    [152.0, 152.0, 150.0],
    [184.0, 160.0, 150.0],
    [160.0, 158.0, 170.0],
    [128.0, 136.0, 142.0],
];
const FLOORS: [Rgb; 5] = [
    [156.0, 136.0, 112.0],
    [118.0, 118.0, 120.0],
    [104.0, 120.0, 124.0],
    [134.0, 116.0, 108.0],
    [140.0, 142.0, 130.0],
];
/// Pairs of the sky's upper and lower colour.
const SKIES: [[Rgb; 2]; 3] = [
    [[138.0, 172.0, 204.0], [186.0, 202.0, 212.0]],
    [[148.0, 156.0, 166.0], [188.0, 190.0, 190.0]],
    [[150.0, 160.0, 190.0], [206.0, 186.0, 172.0]],
];
const MEADOWS: [Rgb; 3] = [[142.0, 156.0, 104.0], [166.0, 160.0, 112.0], [124.0, 138.0, 100.0]];
const DOORS: [Rgb; 3] = [[116.0, 74.0, 44.0], [92.0, 98.0, 108.0], [142.0, 108.0, 78.0]];

/// Wall and floor, or sky and meadow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Backdrop {
    pub(super) is_outdoors: bool,
    /// Where the floor begins, from the upper edge.
    pub(super) horizon: f32,
    pub(super) upper: Surface,
    pub(super) lower: Surface,
    /// Colour of a closed door.
    pub(super) door: Rgb,
}

/// One half of the backdrop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Surface {
    pub(super) top: Rgb,
    pub(super) bottom: Rgb,
    /// Width of upright stripes in heights of the frame.
    pub(super) stripe: f32,
    /// How much darker every other stripe is, from 0.
    pub(super) contrast: f32,
    /// Height of lying bands, as of planks; 0 has none.
    pub(super) band: f32,
}

impl Backdrop {
    pub(super) fn new(dice: &mut Dice) -> Self {
        let is_outdoors = dice.chance(0.28);
        let horizon = dice.between(0.62, 0.7);
        let (upper, lower) = if is_outdoors {
            let [top, bottom] = dice.pick(&SKIES);
            let sky = Surface { top, bottom, stripe: 1.0, contrast: 0.0, band: 0.0 };
            (sky, Surface::new(dice.pick(&MEADOWS), 0.0, dice))
        } else {
            let contrast = if dice.chance(0.5) { dice.between(0.03, 0.09) } else { 0.0 };
            let wall = Surface::new(dice.pick(&WALLS), contrast, dice);
            let mut floor = Surface::new(dice.pick(&FLOORS), 0.0, dice);
            floor.band = if dice.chance(0.5) { dice.between(0.05, 0.09) } else { 0.0 };
            (wall, floor)
        };
        Self { is_outdoors, horizon, upper, lower, door: dice.pick(&DOORS) }
    }
}

impl Surface {
    fn new(color: Rgb, contrast: f32, dice: &mut Dice) -> Self {
        let (top, bottom) = (dice.between(0.92, 1.06), dice.between(0.92, 1.06));
        let stripe = dice.between(0.04, 0.16);
        Self { top: color.map(|c| c * top), bottom: color.map(|c| c * bottom), stripe, contrast, band: 0.0 }
    }
}

/// Light on the whole scene.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Light {
    /// Factors of R, G and B in the middle of the frame.
    pub(super) tint: Rgb,
    /// Relative change of brightness from the middle to the right edge.
    pub(super) across: f32,
    /// Relative change of brightness from the middle to the lower edge.
    pub(super) down: f32,
}

impl Light {
    pub(super) fn new(dice: &mut Dice) -> Self {
        let brightness = dice.between(0.78, 1.08);
        let tint = std::array::from_fn(|_| brightness * dice.between(0.95, 1.05));
        Self { tint, across: dice.between(-0.12, 0.12), down: dice.between(-0.1, 0.1) }
    }
}

/// What the camera adds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Lens {
    /// Standard deviation of the blur, in heights of the frame.
    pub(super) blur: f32,
    /// Standard deviation of the noise of a pixel, of 255.
    pub(super) noise: f32,
    /// Farthest the camera shakes, in heights of the frame.
    pub(super) shake: f32,
    /// Where in its path the shaking starts.
    pub(super) phase: [f32; 4],
}

impl Lens {
    pub(super) fn new(dice: &mut Dice) -> Self {
        Self {
            blur: if dice.chance(0.6) { dice.between(0.0, 0.0024) } else { 0.0 },
            noise: dice.between(1.0, 7.0),
            shake: if dice.chance(0.5) { dice.between(0.001, 0.008) } else { 0.0 },
            phase: std::array::from_fn(|_| dice.between(0.0, std::f32::consts::TAU)),
        }
    }

    /// How far the picture has moved at `seconds`.
    pub(super) fn offset(&self, seconds: f64) -> (f32, f32) {
        let swing = |rate: f64, phase: f32| (rate * seconds + f64::from(phase)).sin() as f32;
        let [a, b, c, d] = self.phase;
        (self.shake * swing(11.0, a) * swing(3.1, b), self.shake * swing(9.0, c) * swing(4.3, d))
    }
}
