//! Whether a camera's picture differs from the one that was described last.
//!
//! Both pictures are compared cell by cell, and the cell that differs most decides, so that a small
//! object counts as much as a large one. What is no change of the scene is taken out first: a shift
//! of exposure or white balance by a robust fit over all cells, light that the sensor cuts off by its
//! share of the cell, bands of flicker by the median of each row, noise by its measured size. Shake of
//! the camera, and things that only sway, stay between what a cell would show if it lay half a cell,
//! a hundredth of the width, further to any side; finer patterns than that by what one pixel of shake
//! would do to the cell. The comparison is with the picture described last,
//! not with the one before, so that slow changes add up.

mod cells;
mod fit;

use image::RgbImage;

use cells::{CHANNELS, Cells, Grid, Reducer};
use fit::{Fit, median, spread};

/// Noise is allowed for up to this many times its standard deviation. Of 9000 values ten times a
/// second less than one a day is further off.
const SIGMAS: f32 = 6.5;

/// The largest noise of a cell's mean that is believed, in levels: a camera that pans is not noisy.
const MOST_NOISE: f32 = 4.0;

/// Pixels of shake that are allowed for, in a picture of [`SHAKE_SIDE`] pixels.
const SHAKE: f32 = 1.0;
const SHAKE_SIDE: f32 = 640.0;

/// The share of an exposure shift by which the fit may be wrong: real curves are not straight.
const FIT_ERROR: f32 = 0.2;

/// The strongest band of flicker that is taken out, in levels.
const MOST_FLICKER: f32 = 8.0;

/// Cells of a row from which on its median tells of flicker.
const LEAST_ROW: usize = 16;

/// Compares a camera's pictures with the one described last. After the first picture of a size
/// nothing is allocated.
#[derive(Debug, Default)]
pub(super) struct Gate {
    grid: Grid,
    /// The picture described last.
    described: Cells,
    has_described: bool,
    /// The newest picture, and the one before.
    newest: Cells,
    previous: Cells,
    has_previous: bool,
    /// Standard deviation of the difference of a cell's means in two pictures of one scene.
    noise: [f32; CHANNELS],
    reducer: Reducer,
    /// One value for each cell.
    residuals: Vec<f32>,
    scratch: Vec<f32>,
}

impl Gate {
    /// By how many levels of 255 some place of the newest picture differs from the picture described
    /// last, beyond all that is allowed for. Infinite if there is nothing to compare with: nothing
    /// described, or another size.
    pub(super) fn difference(&mut self, picture: &RgbImage) -> f32 {
        let grid = Grid::new(picture.width() as usize, picture.height() as usize);
        if grid != self.grid {
            self.begin(grid);
        }
        if grid.cells() == 0 {
            return f32::INFINITY;
        }
        std::mem::swap(&mut self.newest, &mut self.previous);
        self.reducer.reduce(&grid, picture, &mut self.newest);
        self.measure_noise();
        self.has_previous = true;
        if !self.has_described {
            return f32::INFINITY;
        }
        (0..CHANNELS).map(|channel| self.difference_in(channel)).fold(0.0, f32::max)
    }

    /// From now on pictures are compared with the newest one, which is being described.
    pub(super) fn keep(&mut self) {
        self.described.copy_from(&self.newest);
        self.has_described = self.has_previous;
    }

    /// The next picture differs in any case.
    pub(super) fn forget(&mut self) {
        self.has_described = false;
    }

    /// Begins anew with pictures of another size.
    fn begin(&mut self, grid: Grid) {
        self.grid = grid;
        for cells in [&mut self.described, &mut self.newest, &mut self.previous] {
            cells.resize(&grid);
        }
        self.reducer.resize(&grid);
        self.residuals.resize(grid.cells(), 0.0);
        self.scratch.resize(grid.cells(), 0.0);
        (self.has_described, self.has_previous) = (false, false);
        self.noise = [MOST_NOISE / 4.0; CHANNELS];
    }

    /// Follows the noise: quickly down and slowly up, since a moving scene looks like noise.
    fn measure_noise(&mut self) {
        if !self.has_previous {
            return;
        }
        for (channel, noise) in self.noise.iter_mut().enumerate() {
            let (new, old) = (&self.newest.planes[channel].mean, &self.previous.planes[channel].mean);
            let measured = spread(old, new, &mut self.scratch);
            *noise = if measured < *noise {
                *noise + 0.3 * (measured - *noise)
            } else {
                measured.min(1.2 * *noise + 0.05).min(MOST_NOISE)
            };
        }
    }

    fn difference_in(&mut self, channel: usize) -> f32 {
        let (old, new) = (&self.described.planes[channel], &self.newest.planes[channel]);
        let fit = Fit::new(&old.mean, &new.mean, &mut self.scratch);
        for (value, (old, new)) in self.residuals.iter_mut().zip(old.mean.iter().zip(&new.mean)) {
            *value = new - fit.expect(*old);
        }
        let columns = self.grid.columns();
        let noise = SIGMAS * self.noise[channel];
        let shake = SHAKE * (self.grid.longer() as f32 / SHAKE_SIDE).max(1.0);
        let mut most = 0f32;
        for (row, residuals) in self.residuals.chunks_mut(columns).enumerate() {
            let band = band(residuals);
            for cell in row * columns..(row + 1) * columns {
                let (before, now) = (fit.expect(old.mean[cell]), new.mean[cell] - band);
                let range = (fit.expect(old.low[cell]), fit.expect(old.high[cell]));
                let appeared = outside(now, range);
                let vanished = outside(before, (new.low[cell] - band, new.high[cell] - band));
                let shifted = FIT_ERROR * (before - old.mean[cell]).abs();
                let cut = fit.cut() * old.glare[cell].max(new.glare[cell]);
                let shaken = shake * old.slope[cell].max(new.slope[cell]);
                most = most.max(appeared.max(vanished) - noise - shifted - cut - shaken);
            }
        }
        most
    }
}

/// By how much a value lies outside of a range.
fn outside(value: f32, (low, high): (f32, f32)) -> f32 {
    (low - value).max(value - high).max(0.0)
}

/// The band of flicker in a row of residuals, which are reordered.
fn band(residuals: &mut [f32]) -> f32 {
    if residuals.len() < LEAST_ROW {
        return 0.0;
    }
    median(residuals).clamp(-MOST_FLICKER, MOST_FLICKER)
}

#[cfg(test)]
mod tests;
