//! How the bytes of a picture lie in memory.

use super::{Color, PixelsError, Plane, Size};

/// A picture that is not compressed.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// Pixels across and down.
    pub size: Size,
    /// Its bytes.
    pub planes: Planes<'a>,
    /// What their values stand for.
    pub color: Color,
}

impl Picture<'_> {
    /// Whether all bytes are there.
    pub fn check(&self) -> Result<(), PixelsError> {
        let Size { width, height } = self.size;
        let pairs = width.div_ceil(2);
        match self.planes {
            Planes::Rgb { order, rgb } => rgb.check("rgb", height, width.saturating_mul(order.pixel_bytes())),
            Planes::Grey { samples, grey } => grey.check("grey", height, samples.line_bytes(width)),
            Planes::Packed { yuv, .. } => yuv.check("yuv", height, pairs.saturating_mul(4)),
            Planes::Pairs { lines, y, uv, .. } => {
                y.check("y", height, width)?;
                uv.check("uv", lines.of(height), pairs.saturating_mul(2))
            }
            Planes::Planar { lines, y, u, v } => {
                y.check("y", height, width)?;
                u.check("u", lines.of(height), pairs)?;
                v.check("v", lines.of(height), pairs)
            }
            Planes::Bayer { samples, mosaic, .. } => mosaic.check("bayer", height, samples.line_bytes(width)),
        }
    }
}

/// The bytes of a picture.
#[derive(Clone, Copy, Debug)]
pub enum Planes<'a> {
    /// Red, green and blue of a pixel side by side.
    Rgb {
        /// The bytes of a pixel.
        order: RgbOrder,
        /// The pixels.
        rgb: Plane<'a>,
    },
    /// Luminance only, from black, 0, to white, the largest sample.
    Grey {
        /// The form of a sample.
        samples: Samples,
        /// The samples.
        grey: Plane<'a>,
    },
    /// Two pixels in four bytes share one U and one V. A line of odd width ends with a whole group.
    Packed {
        /// The bytes of a group.
        order: PackedOrder,
        /// The groups.
        yuv: Plane<'a>,
    },
    /// A plane of Y and one of U and V side by side, a pair for two pixels of a line, rounded up.
    Pairs {
        /// The bytes of a pair.
        order: PairOrder,
        /// Lines that share chroma.
        lines: ChromaLines,
        /// Luminance.
        y: Plane<'a>,
        /// Chroma.
        uv: Plane<'a>,
    },
    /// Planes of Y, U and V, one U and one V for two pixels of a line, rounded up.
    Planar {
        /// Lines that share chroma.
        lines: ChromaLines,
        /// Luminance.
        y: Plane<'a>,
        /// The difference to blue.
        u: Plane<'a>,
        /// The difference to red.
        v: Plane<'a>,
    },
    /// One colour of each pixel, as a sensor behind a mosaic of filters sees it.
    Bayer {
        /// The mosaic.
        order: BayerOrder,
        /// The form of a sample.
        samples: Samples,
        /// The samples.
        mosaic: Plane<'a>,
    },
}

/// The bytes of a pixel, first to last; `X` is unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the orders")]
pub enum RgbOrder {
    Rgb,
    Bgr,
    Rgbx,
    Bgrx,
    Xrgb,
    Xbgr,
}

impl RgbOrder {
    /// Bytes of a pixel.
    pub const fn pixel_bytes(self) -> usize {
        match self {
            RgbOrder::Rgb | RgbOrder::Bgr => 3,
            RgbOrder::Rgbx | RgbOrder::Bgrx | RgbOrder::Xrgb | RgbOrder::Xbgr => 4,
        }
    }

    /// Which bytes of a pixel are red, green and blue.
    pub const fn places(self) -> [usize; 3] {
        match self {
            RgbOrder::Rgb | RgbOrder::Rgbx => [0, 1, 2],
            RgbOrder::Bgr | RgbOrder::Bgrx => [2, 1, 0],
            RgbOrder::Xrgb => [1, 2, 3],
            RgbOrder::Xbgr => [3, 2, 1],
        }
    }
}

/// The bytes of two pixels, first to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the orders")]
pub enum PackedOrder {
    Yuyv,
    Uyvy,
    Yvyu,
    Vyuy,
}

impl PackedOrder {
    /// Which bytes of a group are the first Y, the second Y, U and V.
    pub const fn places(self) -> [usize; 4] {
        match self {
            PackedOrder::Yuyv => [0, 2, 1, 3],
            PackedOrder::Uyvy => [1, 3, 0, 2],
            PackedOrder::Yvyu => [0, 2, 3, 1],
            PackedOrder::Vyuy => [1, 3, 2, 0],
        }
    }
}

/// The bytes of a pair of chroma samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PairOrder {
    /// U, then V.
    Uv,
    /// V, then U.
    Vu,
}

/// Lines of pixels that share a line of chroma.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChromaLines {
    /// One: 4:2:2.
    One,
    /// Two, rounded up: 4:2:0.
    Two,
}

impl ChromaLines {
    /// Lines of chroma of a picture of `height` lines.
    pub const fn of(self, height: usize) -> usize {
        match self {
            ChromaLines::One => height,
            ChromaLines::Two => height.div_ceil(2),
        }
    }

    /// The line of chroma of a line of pixels.
    pub(crate) const fn line(self, line: usize) -> usize {
        match self {
            ChromaLines::One => line,
            ChromaLines::Two => line / 2,
        }
    }
}

/// The form of samples of 8 to 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Samples {
    /// A byte each.
    Bits8,
    /// The low 10 bits of two bytes each, the lower byte first.
    Bits10,
    /// The low 12 bits of two bytes each, the lower byte first.
    Bits12,
    /// Two bytes each, the lower byte first.
    Bits16,
    /// Four in five bytes: the high 8 bits of each, then the low 2 bits of all, first sample lowest.
    /// A line ends with a whole group.
    Packed10,
}

impl Samples {
    /// Bytes of a line of `width` samples.
    pub const fn line_bytes(self, width: usize) -> usize {
        match self {
            Samples::Bits8 => width,
            Samples::Bits10 | Samples::Bits12 | Samples::Bits16 => width.saturating_mul(2),
            Samples::Packed10 => width.div_ceil(4).saturating_mul(5),
        }
    }
}

/// The colours of the first two lines of a mosaic, which repeats: first line, second line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the orders")]
pub enum BayerOrder {
    Rggb,
    Grbg,
    Gbrg,
    Bggr,
}

impl BayerOrder {
    /// Column and line of the first red pixel, 0 or 1 each.
    pub const fn red_at(self) -> (usize, usize) {
        match self {
            BayerOrder::Rggb => (0, 0),
            BayerOrder::Grbg => (1, 0),
            BayerOrder::Gbrg => (0, 1),
            BayerOrder::Bggr => (1, 1),
        }
    }

    /// The colour of a pixel: 0 red, 1 green, 2 blue.
    pub const fn color_at(self, x: usize, y: usize) -> usize {
        let (red_x, red_y) = self.red_at();
        (x + red_x) % 2 + (y + red_y) % 2
    }
}
