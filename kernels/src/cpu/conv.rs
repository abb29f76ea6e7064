//! Operations on grids of positions.

use super::isa::Isa;
use super::lanes::{Kernel, Lanes, dispatch};
use super::rows::{Formula, least_rows, update};
use super::threads::Pool;
use crate::device::Grid;
use crate::tensor::HostTensor;

/// What a 3x3 convolution is made of.
#[derive(Clone, Copy)]
pub(super) struct Depthwise<'a> {
    pub(super) x: &'a HostTensor,
    pub(super) grid: Grid,
    pub(super) weight: &'a HostTensor,
    pub(super) bias: Option<&'a HostTensor>,
    pub(super) stride: usize,
}

pub(super) fn depthwise3x3(isa: Isa, pool: &Pool, conv: Depthwise<'_>, out: &mut HostTensor) {
    let Depthwise { x, grid, weight, bias, stride } = conv;
    let channels = x.cols();
    assert_eq!(x.rows(), grid.len(), "positions of the grid");
    assert_eq!((weight.rows(), weight.cols()), (9, channels), "shape of the weight");
    assert!(bias.is_none_or(|bias| (bias.rows(), bias.cols()) == (1, channels)), "shape of the bias");
    assert_eq!(out.cols(), channels, "channels of the result");
    let width = grid.width.div_ceil(stride);
    out.set_rows(width * grid.height.div_ceil(stride));
    pool.rows(out.data_mut(), channels, least_rows(9 * channels), &|first, rows| {
        for (i, out) in rows.chunks_exact_mut(channels).enumerate() {
            let (y, x) = ((first + i) / width * stride, (first + i) % width * stride);
            dispatch(isa, Position { conv, x, y, out });
        }
    });
}

/// One position of the result.
struct Position<'a> {
    conv: Depthwise<'a>,
    /// Of the square's middle.
    x: usize,
    y: usize,
    out: &'a mut [f32],
}

impl Kernel for Position<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Depthwise { x, grid, weight, bias, .. } = self.conv;
        match bias {
            Some(bias) => self.out.copy_from_slice(bias.row(0)),
            None => self.out.fill(0.0),
        }
        for tap in 0..9 {
            // One more than the position, so that the padding in front of 0 stays unsigned.
            let (in_y, in_x) = (self.y + tap / 3, self.x + tap % 3);
            if (1..=grid.height).contains(&in_y) && (1..=grid.width).contains(&in_x) {
                let position = (in_y - 1) * grid.width + in_x - 1;
                update(lanes, AddProduct, self.out, [x.row(position), weight.row(tap)]);
            }
        }
    }
}

pub(super) fn average_pool2x2(isa: Isa, pool: &Pool, x: &HostTensor, grid: Grid, out: &mut HostTensor) {
    assert_eq!(x.rows(), grid.len(), "positions of the grid");
    assert!(grid.width.is_multiple_of(2) && grid.height.is_multiple_of(2), "sides are even");
    assert_eq!(out.cols(), x.cols(), "channels of the result");
    let (channels, width) = (x.cols(), grid.width / 2);
    out.set_rows(grid.len() / 4);
    pool.rows(out.data_mut(), channels, least_rows(channels), &|first, rows| {
        for (i, out) in rows.chunks_exact_mut(channels).enumerate() {
            let corner = (first + i) / width * 2 * grid.width + (first + i) % width * 2;
            let square = [corner, corner + 1, corner + grid.width, corner + grid.width + 1];
            dispatch(isa, MeanOfFour { square: square.map(|position| x.row(position)), out });
        }
    });
}

/// One position of a pooled grid.
struct MeanOfFour<'a> {
    square: [&'a [f32]; 4],
    out: &'a mut [f32],
}

impl Kernel for MeanOfFour<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        update(lanes, QuarterSum, self.out, self.square);
    }
}

pub(super) fn column_mean(isa: Isa, pool: &Pool, x: &HostTensor, out: &mut HostTensor) {
    assert_eq!(out.cols(), x.cols(), "channels of the result");
    out.set_rows(1);
    pool.rows(out.data_mut(), 1, least_rows(x.rows()), &|first, out| {
        dispatch(isa, Columns { x, first, out });
    });
}

/// Means of the columns from `first` on.
struct Columns<'a> {
    x: &'a HostTensor,
    first: usize,
    out: &'a mut [f32],
}

impl Kernel for Columns<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        /// Rows summed before they join the total, so that rounding errors stay small.
        const GROUP: usize = 24;
        /// Columns summed at a time.
        const STRIP: usize = 64;
        let last = self.first + self.out.len();
        for (strip, out) in (self.first..last).step_by(STRIP).zip(self.out.chunks_mut(STRIP)) {
            let columns = strip..strip + out.len();
            out.fill(0.0);
            for group in (0..self.x.rows()).step_by(GROUP) {
                let mut sums = [0.0; STRIP];
                let sums = &mut sums[..out.len()];
                for row in group..self.x.rows().min(group + GROUP) {
                    update(lanes, Add, sums, [&self.x.row(row)[columns.clone()]]);
                }
                update(lanes, Add, out, [sums]);
            }
            update(lanes, DivideBy(self.x.rows() as f32), out, []);
        }
    }
}

pub(super) fn scale_columns(isa: Isa, pool: &Pool, x: &mut HostTensor, scale: &HostTensor) {
    assert_eq!((scale.rows(), scale.cols()), (1, x.cols()), "shape of the scale");
    let cols = x.cols();
    pool.rows(x.data_mut(), cols, least_rows(cols), &|_, rows| {
        for row in rows.chunks_exact_mut(cols) {
            dispatch(isa, ScaleRow { row, scale: scale.row(0) });
        }
    });
}

/// One row times the scale.
struct ScaleRow<'a> {
    row: &'a mut [f32],
    scale: &'a [f32],
}

impl Kernel for ScaleRow<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        update(lanes, Multiply, self.row, [self.scale]);
    }
}

#[derive(Clone, Copy)]
struct Add;

impl Formula<1> for Add {
    #[inline(always)]
    fn at<L: Lanes>(self, lanes: L, x: L::V, [y]: [L::V; 1]) -> L::V {
        lanes.add(x, y)
    }
}

#[derive(Clone, Copy)]
struct Multiply;

impl Formula<1> for Multiply {
    #[inline(always)]
    fn at<L: Lanes>(self, lanes: L, x: L::V, [y]: [L::V; 1]) -> L::V {
        lanes.mul(x, y)
    }
}

#[derive(Clone, Copy)]
struct AddProduct;

impl Formula<2> for AddProduct {
    #[inline(always)]
    fn at<L: Lanes>(self, lanes: L, x: L::V, [a, b]: [L::V; 2]) -> L::V {
        lanes.fma(a, b, x)
    }
}

#[derive(Clone, Copy)]
struct QuarterSum;

impl Formula<4> for QuarterSum {
    #[inline(always)]
    fn at<L: Lanes>(self, lanes: L, _: L::V, [a, b, c, d]: [L::V; 4]) -> L::V {
        lanes.mul(lanes.add(lanes.add(a, b), lanes.add(c, d)), lanes.splat(0.25))
    }
}

#[derive(Clone, Copy)]
struct DivideBy(f32);

impl Formula<0> for DivideBy {
    #[inline(always)]
    fn at<L: Lanes>(self, lanes: L, x: L::V, []: [L::V; 0]) -> L::V {
        lanes.div(x, lanes.splat(self.0))
    }
}
