//! The shift of exposure between two pictures: a straight line that most cells agree on.

/// Rounds of weighing the cells by how well they agree.
const ROUNDS: usize = 3;

/// The strongest shift that passes as one of exposure: as a factor, and in levels at the mean.
const MOST_GAIN: f32 = 2.0;
const MOST_SHIFT: f32 = 64.0;

/// Cells darker or brighter than this are cut off by the sensor and tell nothing of exposure.
const DARKEST: f32 = 4.0;
const BRIGHTEST: f32 = 251.0;

/// Cells that are asked at most; they are spread over the picture.
const MOST_ASKED: usize = 512;

/// The least share of the cells that must tell of exposure.
const LEAST_SHARE: f32 = 0.125;

/// Standard deviation of a normal distribution by its median absolute deviation.
const SIGMA_BY_MEDIAN: f32 = 1.4826;

/// Cells that agree to so many levels agree wholly.
const AGREEMENT: f32 = 0.5;

/// Levels of the newer picture as a function of those of the older one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fit {
    gain: f32,
    offset: f32,
}

impl Fit {
    const NONE: Self = Self { gain: 1.0, offset: 0.0 };

    /// The line from `old` to `new` means of cells. `scratch` has the same length.
    pub(super) fn new(old: &[f32], new: &[f32], scratch: &mut [f32]) -> Self {
        let telling = |(old, new): (&f32, &f32)| {
            let range = DARKEST..=BRIGHTEST;
            (range.contains(old) && range.contains(new)).then_some((*old, *new))
        };
        let step = step(old.len());
        let pairs = || old.iter().zip(new).step_by(step).filter_map(telling);
        let mut count = 0;
        for (value, (old, new)) in scratch.iter_mut().zip(pairs()) {
            *value = new - old;
            count += 1;
        }
        if (count * step) as f32 <= LEAST_SHARE * old.len() as f32 {
            return Self::NONE;
        }
        let mut fit = Self { gain: 1.0, offset: median(&mut scratch[..count]) };
        for _ in 0..ROUNDS {
            for (value, (old, new)) in scratch.iter_mut().zip(pairs()) {
                *value = (new - fit.line(old)).abs();
            }
            let scale = 2.0 * (SIGMA_BY_MEDIAN * median(&mut scratch[..count])).max(AGREEMENT);
            fit = fit.improved(pairs(), scale);
        }
        fit
    }

    /// The level that is expected where there was `old`.
    pub(super) fn expect(&self, old: f32) -> f32 {
        self.line(old).clamp(0.0, 255.0)
    }

    /// Levels by which a pixel at the upper end is cut off, or was cut off and reappears.
    pub(super) fn cut(&self) -> f32 {
        (self.line(255.0) - 255.0).abs()
    }

    fn line(&self, old: f32) -> f32 {
        self.gain * old + self.offset
    }

    /// Least squares with less weight for cells that are far off by `scale`, within the limits.
    fn improved(&self, pairs: impl Iterator<Item = (f32, f32)>, scale: f32) -> Self {
        let (mut weights, mut olds, mut news, mut squares, mut products) = (0f64, 0f64, 0f64, 0f64, 0f64);
        for (old, new) in pairs {
            let off = (new - self.line(old)) / scale;
            let weight = f64::from(1.0 / (1.0 + off * off).powi(2));
            let (old, new) = (f64::from(old), f64::from(new));
            weights += weight;
            olds += weight * old;
            news += weight * new;
            squares += weight * old * old;
            products += weight * old * new;
        }
        let (old, new) = (olds / weights, news / weights);
        let variance = squares / weights - old * old;
        // A picture of one level tells of no gain.
        let gain = if variance > 4.0 { (products / weights - old * new) / variance } else { 1.0 };
        let gain = (gain as f32).clamp(1.0 / MOST_GAIN, MOST_GAIN);
        let shift = ((new - old) as f32).clamp(-MOST_SHIFT, MOST_SHIFT);
        Self { gain, offset: old as f32 + shift - gain * old as f32 }
    }
}

/// The median of `values`, which are reordered and not empty.
pub(super) fn median(values: &mut [f32]) -> f32 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}

/// The standard deviation that most of `new - old` have around their median. `scratch` is as long.
pub(super) fn spread(old: &[f32], new: &[f32], scratch: &mut [f32]) -> f32 {
    let differences = old.iter().zip(new).step_by(step(old.len())).map(|(old, new)| new - old);
    let mut count = 0;
    for (value, difference) in scratch.iter_mut().zip(differences) {
        *value = difference;
        count += 1;
    }
    let values = &mut scratch[..count];
    let center = median(values);
    values.iter_mut().for_each(|value| *value = (*value - center).abs());
    SIGMA_BY_MEDIAN * median(values)
}

/// Of how many cells one is asked.
fn step(cells: usize) -> usize {
    cells.div_ceil(MOST_ASKED)
}
