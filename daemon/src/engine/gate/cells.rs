//! A picture reduced to a grid of cells: their mean colour, and what a moving camera does to it.

use image::RgbImage;

/// Cells along the longer side. An object of 3 % of that side covers one of them wholly, wherever it
/// stands: two cells less a pixel always hold a whole one.
const CELLS: usize = 64;

/// Lines that are read of a cell at most, so that large pictures do not cost more than they tell.
const LINES: usize = 16;

/// Level from which on a pixel may have been brighter than the sensor can tell.
const GLARE: u8 = 250;

/// Red, green and blue.
pub(super) const CHANNELS: usize = 3;

/// How a picture is cut into cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Grid {
    width: usize,
    height: usize,
    /// Cells across.
    pub(super) columns: usize,
    /// Cells down.
    pub(super) rows: usize,
}

impl Grid {
    /// The grid of pictures of this size; the cells are about square.
    pub(super) fn new(width: usize, height: usize) -> Self {
        let longer = width.max(height).max(1);
        let along = |side: usize| (side * CELLS).div_ceil(longer).min(side);
        Self { width, height, columns: along(width), rows: along(height) }
    }

    /// Cells of the picture.
    pub(super) fn cells(&self) -> usize {
        self.columns * self.rows
    }

    /// Pixels of the longer side.
    pub(super) fn side(&self) -> usize {
        self.width.max(self.height)
    }

    /// First pixel of column `index` of cells; that of one column too many is the width.
    fn left(&self, index: usize) -> usize {
        index * self.width / self.columns
    }

    /// First line of row `index` of cells; that of one row too many is the height.
    fn top(&self, index: usize) -> usize {
        index * self.height / self.rows
    }
}

/// One channel of a picture, a value for each cell in row order.
#[derive(Clone, Debug, Default)]
pub(super) struct Plane {
    /// Mean level, 0 to 255.
    pub(super) mean: Vec<f32>,
    /// Share of the pixels that are so bright that the sensor cuts them off, 0 to 1.
    pub(super) glare: Vec<f32>,
    /// Levels by which the mean changes at most when the picture moves by a pixel across and down.
    pub(super) slope: Vec<f32>,
}

/// A picture reduced to cells.
#[derive(Debug, Default)]
pub(super) struct Cells {
    /// By channel.
    pub(super) planes: [Plane; CHANNELS],
    /// Sums of the pixel columns in a row of cells, and how many of their pixels are cut off.
    sums: Vec<u16>,
    glares: Vec<u16>,
}

impl Cells {
    /// Makes room for pictures of a size.
    pub(super) fn resize(&mut self, grid: &Grid) {
        self.sums.resize(CHANNELS * grid.width, 0);
        self.glares.resize(CHANNELS * grid.width, 0);
        for plane in &mut self.planes {
            for values in [&mut plane.mean, &mut plane.glare, &mut plane.slope] {
                values.resize(grid.cells(), 0.0);
            }
        }
    }

    /// Takes over the values of another picture of the same size.
    pub(super) fn copy_from(&mut self, other: &Self) {
        for (to, from) in self.planes.iter_mut().zip(&other.planes) {
            to.mean.copy_from_slice(&from.mean);
            to.glare.copy_from_slice(&from.glare);
            to.slope.copy_from_slice(&from.slope);
        }
    }

    /// Reduces a picture of the size of the grid.
    pub(super) fn read(&mut self, grid: &Grid, picture: &RgbImage) {
        let line = |y: usize| &picture.as_raw()[CHANNELS * grid.width * y..][..CHANNELS * grid.width];
        for row in 0..grid.rows {
            let (top, bottom) = (grid.top(row), grid.top(row + 1));
            let step = (bottom - top).div_ceil(LINES);
            self.sums.fill(0);
            self.glares.fill(0);
            for y in (top..bottom).step_by(step) {
                let sums = self.sums.iter_mut().zip(&mut self.glares);
                for ((sum, glare), &level) in sums.zip(line(y)) {
                    // At most 16 lines of 255 levels.
                    *sum = sum.wrapping_add(u16::from(level));
                    *glare = glare.wrapping_add(u16::from(level >= GLARE));
                }
            }
            let lines = (bottom - top).div_ceil(step);
            // Lines that enter a cell and leave it when the picture moves by one, up or down.
            let edges = [
                (line(bottom.min(grid.height - 1)), line(top)),
                (line(bottom - 1), line(top.saturating_sub(1))),
            ];
            for column in 0..grid.columns {
                self.measure(grid, (row, column), lines, edges);
            }
        }
    }

    /// Mean and slope of one cell, the sums of whose row stand ready.
    fn measure(
        &mut self,
        grid: &Grid,
        (row, column): (usize, usize),
        lines: usize,
        edges: [(&[u8], &[u8]); 2],
    ) {
        let (left, right) = (grid.left(column), grid.left(column + 1));
        let pixels = CHANNELS * left..CHANNELS * right;
        let (sum, glare) = (total(&self.sums[pixels.clone()]), total(&self.glares[pixels.clone()]));
        let down = edges.map(|(entering, leaving)| {
            let mut change = [0i32; CHANNELS];
            let pairs = entering[pixels.clone()].as_chunks::<CHANNELS>().0.iter();
            for (enter, leave) in pairs.zip(leaving[pixels.clone()].as_chunks::<CHANNELS>().0) {
                (0..CHANNELS).for_each(|c| change[c] += i32::from(enter[c]) - i32::from(leave[c]));
            }
            change
        });
        let at = |x: usize| CHANNELS * x..CHANNELS * (x + 1);
        let across = [(right.min(grid.width - 1), left), (right - 1, left.saturating_sub(1))]
            .map(|(enter, leave)| (&self.sums[at(enter)], &self.sums[at(leave)]));
        let (width, cell) = ((right - left) as f32, row * grid.columns + column);
        let (height, area) = ((grid.top(row + 1) - grid.top(row)) as f32, width * lines as f32);
        for (channel, plane) in self.planes.iter_mut().enumerate() {
            let across = across.map(|(enter, leave)| enter[channel].abs_diff(leave[channel]));
            let down = down.map(|change| change[channel].unsigned_abs());
            plane.mean[cell] = sum[channel] as f32 / area;
            plane.glare[cell] = glare[channel] as f32 / area;
            plane.slope[cell] =
                f32::from(across[0].max(across[1])) / area + down[0].max(down[1]) as f32 / (width * height);
        }
    }
}

/// Sums of pixels by channel.
fn total(pixels: &[u16]) -> [u32; CHANNELS] {
    let mut sum = [0; CHANNELS];
    for pixel in pixels.as_chunks::<CHANNELS>().0 {
        (0..CHANNELS).for_each(|channel| sum[channel] += u32::from(pixel[channel]));
    }
    sum
}
