//! A picture reduced to a grid of cells: their mean colour, and between what it lies if things move
//! a little.

use image::RgbImage;

/// Cells along the longer side. An object of 3 % of that side covers one of them wholly, wherever it
/// stands: two cells less a pixel always hold a whole one.
const CELLS: usize = 64;

/// Parts of a cell along each side.
const PARTS: usize = 2;

/// Parts by which things may move and be the same.
const REACH: usize = 1;

/// Lines that are read of a part at most, so that large pictures do not cost more than they tell.
const LINES: usize = 8;

/// Level from which on a pixel may have been brighter than the sensor can tell.
const GLARE: u8 = 250;

/// Red, green and blue.
pub(super) const CHANNELS: usize = 3;

/// How one side of a picture is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Side {
    pixels: usize,
    cells: usize,
}

impl Side {
    /// Parts of all cells; a side of one pixel cannot be cut.
    fn parts(&self) -> usize {
        (PARTS * self.cells).min(self.pixels)
    }

    /// First pixel of a part; that of one part too many is the length.
    fn start(&self, part: usize) -> usize {
        part * self.pixels / self.parts()
    }

    /// First pixel of a cell.
    fn start_of(&self, cell: usize) -> usize {
        self.start(cell * (self.parts() / self.cells))
    }

    /// Pixels of a cell.
    fn cell(&self, cell: usize) -> usize {
        self.start_of(cell + 1) - self.start_of(cell)
    }

    /// Pixels that leave a cell and enter it if the picture moves by one, to the one side and to the
    /// other.
    fn edges(&self, cell: usize) -> ((usize, usize), (usize, usize)) {
        let (start, end) = (self.start_of(cell), self.start_of(cell + 1));
        ((start, start.saturating_sub(1)), (end.min(self.pixels - 1), end - 1))
    }

    /// Parts at which the windows of a cell begin: its own, and half a cell to either side.
    fn windows(&self, cell: usize) -> std::ops::RangeInclusive<usize> {
        let last = self.parts().saturating_sub(PARTS);
        let own = PARTS * cell;
        own.saturating_sub(REACH).min(last)..=(own + REACH).min(last)
    }
}

/// How a picture is cut into cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Grid {
    across: Side,
    down: Side,
}

impl Grid {
    /// The grid of pictures of this size; the cells are about square.
    pub(super) fn new(width: usize, height: usize) -> Self {
        let longer = width.max(height).max(1);
        let side = |pixels: usize| {
            let cells = (pixels * CELLS).div_ceil(longer).min(pixels / PARTS).max(pixels.min(1));
            Side { pixels, cells }
        };
        Self { across: side(width), down: side(height) }
    }

    /// Cells of the picture.
    pub(super) fn cells(&self) -> usize {
        self.across.cells * self.down.cells
    }

    /// Cells across.
    pub(super) fn columns(&self) -> usize {
        self.across.cells
    }

    /// Pixels of the longer side.
    pub(super) fn longer(&self) -> usize {
        self.across.pixels.max(self.down.pixels)
    }

    fn parts(&self) -> usize {
        self.across.parts() * self.down.parts()
    }
}

/// One channel of a picture, a value for each cell in row order.
#[derive(Clone, Debug, Default)]
pub(super) struct Plane {
    /// Mean level, 0 to 255.
    pub(super) mean: Vec<f32>,
    /// Least and highest mean if the picture moves by half a cell.
    pub(super) low: Vec<f32>,
    pub(super) high: Vec<f32>,
    /// Share of the pixels that are so bright that the sensor cuts them off, 0 to 1.
    pub(super) glare: Vec<f32>,
    /// Levels by which the mean changes at most if the picture moves by a pixel across and down.
    pub(super) slope: Vec<f32>,
}

impl Plane {
    fn values(&self) -> [&Vec<f32>; 5] {
        [&self.mean, &self.low, &self.high, &self.glare, &self.slope]
    }

    fn values_mut(&mut self) -> [&mut Vec<f32>; 5] {
        [&mut self.mean, &mut self.low, &mut self.high, &mut self.glare, &mut self.slope]
    }
}

/// A picture reduced to cells.
#[derive(Debug, Default)]
pub(super) struct Cells {
    /// By channel.
    pub(super) planes: [Plane; CHANNELS],
}

/// What a picture is reduced with; kept for its room.
#[derive(Debug, Default)]
pub(super) struct Reducer {
    /// Sums of the pixel columns in a row of parts, and how many of their pixels are cut off.
    sums: Vec<u16>,
    glares: Vec<u16>,
    /// Means and glare of the parts, by channel.
    means: [Vec<f32>; CHANNELS],
    shares: [Vec<f32>; CHANNELS],
    /// Means of one channel in windows of the size of a cell, one at each part.
    windows: Vec<f32>,
}

impl Cells {
    /// Makes room for pictures of a size.
    pub(super) fn resize(&mut self, grid: &Grid) {
        for values in self.planes.iter_mut().flat_map(Plane::values_mut) {
            values.resize(grid.cells(), 0.0);
        }
    }

    /// Takes over the values of another picture of the same size.
    pub(super) fn copy_from(&mut self, other: &Self) {
        for (to, from) in self.planes.iter_mut().zip(&other.planes) {
            for (to, from) in to.values_mut().into_iter().zip(from.values()) {
                to.copy_from_slice(from);
            }
        }
    }
}

impl Reducer {
    /// Makes room for pictures of a size.
    pub(super) fn resize(&mut self, grid: &Grid) {
        for values in [&mut self.sums, &mut self.glares] {
            values.resize(CHANNELS * grid.across.pixels, 0);
        }
        for values in self.means.iter_mut().chain(&mut self.shares) {
            values.resize(grid.parts(), 0.0);
        }
        self.windows.resize(grid.parts(), 0.0);
    }

    /// Reduces a picture of the size of the grid.
    pub(super) fn reduce(&mut self, grid: &Grid, picture: &RgbImage, cells: &mut Cells) {
        let bytes = CHANNELS * grid.across.pixels;
        let line = |y: usize| &picture.as_raw()[bytes * y..][..bytes];
        cells.planes.iter_mut().for_each(|plane| plane.slope.fill(0.0));
        for row in 0..grid.down.parts() {
            let (top, bottom) = (grid.down.start(row), grid.down.start(row + 1));
            let step = (bottom - top).div_ceil(LINES);
            self.sums.fill(0);
            self.glares.fill(0);
            for y in (top..bottom).step_by(step) {
                self.add(line(y));
            }
            self.finish(grid, row, (bottom - top).div_ceil(step));
            self.slope_across(grid, row, (bottom - top).div_ceil(step), cells);
        }
        for row in 0..grid.down.cells {
            let (first, last) = grid.down.edges(row);
            slope_down(grid, row, [(line(last.0), line(first.0)), (line(last.1), line(first.1))], cells);
        }
        for (channel, plane) in cells.planes.iter_mut().enumerate() {
            join(grid, (&self.means[channel], &self.shares[channel]), &mut self.windows, plane);
        }
    }

    /// Adds a line to the sums of its columns.
    fn add(&mut self, line: &[u8]) {
        for ((sum, glare), &level) in self.sums.iter_mut().zip(&mut self.glares).zip(line) {
            // At most 8 lines of 255 levels.
            *sum = sum.wrapping_add(u16::from(level));
            *glare = glare.wrapping_add(u16::from(level >= GLARE));
        }
    }

    /// Means of a row of parts, of which `lines` lines were added.
    fn finish(&mut self, grid: &Grid, row: usize, lines: usize) {
        let has_glare = self.glares.iter().fold(0, |any, glare| any | glare) > 0;
        let parts = grid.across.parts();
        for column in 0..parts {
            let (left, right) = (grid.across.start(column), grid.across.start(column + 1));
            let pixels = CHANNELS * left..CHANNELS * right;
            let (part, area) = (row * parts + column, ((right - left) * lines) as f32);
            let sum = total(&self.sums[pixels.clone()]);
            let glare = if has_glare { total(&self.glares[pixels]) } else { [0; CHANNELS] };
            for channel in 0..CHANNELS {
                self.means[channel][part] = sum[channel] as f32 / area;
                self.shares[channel][part] = glare[channel] as f32 / area;
            }
        }
    }

    /// Adds what a move across by a pixel does to a row of parts to the slopes of their cells.
    fn slope_across(&self, grid: &Grid, row: usize, lines: usize, cells: &mut Cells) {
        let row = row * grid.down.cells / grid.down.parts();
        let at = |x: usize| &self.sums[CHANNELS * x..CHANNELS * (x + 1)];
        let parts = grid.down.parts() / grid.down.cells;
        for column in 0..grid.across.cells {
            let (first, last) = grid.across.edges(column);
            let pairs = [(at(last.0), at(first.0)), (at(last.1), at(first.1))];
            let area = (grid.across.cell(column) * lines * parts) as f32;
            for (channel, plane) in cells.planes.iter_mut().enumerate() {
                let change = pairs.map(|(enter, leave)| enter[channel].abs_diff(leave[channel]));
                plane.slope[row * grid.across.cells + column] += f32::from(change[0].max(change[1])) / area;
            }
        }
    }
}

/// Adds what a move down by a pixel does to the slopes of a row of cells; `lines` are those that enter
/// and leave.
fn slope_down(grid: &Grid, row: usize, lines: [(&[u8], &[u8]); 2], cells: &mut Cells) {
    for column in 0..grid.across.cells {
        let (left, width) = (grid.across.start_of(column), grid.across.cell(column));
        let pixels = CHANNELS * left..CHANNELS * (left + width);
        let changes = lines.map(|(entering, leaving)| {
            let mut change = [0i32; CHANNELS];
            let pairs = entering[pixels.clone()].as_chunks::<CHANNELS>().0.iter();
            for (enter, leave) in pairs.zip(leaving[pixels.clone()].as_chunks::<CHANNELS>().0) {
                (0..CHANNELS).for_each(|c| change[c] += i32::from(enter[c]) - i32::from(leave[c]));
            }
            change
        });
        let area = (width * grid.down.cell(row)) as f32;
        for (channel, plane) in cells.planes.iter_mut().enumerate() {
            let change = changes.map(|change| change[channel].unsigned_abs());
            plane.slope[row * grid.across.cells + column] += change[0].max(change[1]) as f32 / area;
        }
    }
}

/// Joins parts to cells, and to all windows of the size of a cell that begin half a cell around it.
fn join(grid: &Grid, (means, shares): (&[f32], &[f32]), windows: &mut [f32], plane: &mut Plane) {
    let parts = grid.across.parts();
    // A side of one pixel has one part for a cell: it counts twice.
    let (right, below) = (parts.min(PARTS) - 1, grid.down.parts().min(PARTS) - 1);
    let joined = |values: &[f32], part: usize| {
        let (upper, lower) = (&values[part..], &values[part + below * parts..]);
        0.25 * (upper[0] + upper[right] + lower[0] + lower[right])
    };
    let (rows, columns) = (grid.down.parts() - below, parts - right);
    for row in 0..rows {
        for column in 0..columns {
            windows[row * parts + column] = joined(means, row * parts + column);
        }
    }
    for row in 0..grid.down.cells {
        let lines = grid.down.windows(row);
        for column in 0..grid.across.cells {
            let (cell, span) = (row * grid.across.cells + column, grid.across.windows(column));
            let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
            for line in lines.clone() {
                for &mean in &windows[line * parts + span.start()..=line * parts + span.end()] {
                    (low, high) = (low.min(mean), high.max(mean));
                }
            }
            let own = (below + 1) * row * parts + (right + 1) * column;
            plane.mean[cell] = windows[own];
            plane.glare[cell] = joined(shares, own);
            (plane.low[cell], plane.high[cell]) = (low, high);
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
