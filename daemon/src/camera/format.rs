//! Layouts of the bytes of a frame.

use kernels::pixels::{BayerOrder, ChromaLines, PackedOrder, PairOrder, RgbOrder, Samples};

/// Layout of the bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// R, G, B bytes.
    Rgb24,
    /// B, G, R bytes.
    Bgr24,
    /// R, G, B, unused bytes.
    Rgbx32,
    /// B, G, R, unused bytes.
    Bgrx32,
    /// Unused, R, G, B bytes.
    Xrgb32,
    /// Unused, B, G, R bytes.
    Xbgr32,
    /// 8-bit luminance.
    Grey,
    /// 10-bit luminance in two bytes, the lower one first.
    Grey10,
    /// 10-bit luminance, four pixels in five bytes.
    Grey10Packed,
    /// 12-bit luminance in two bytes, the lower one first.
    Grey12,
    /// 16-bit luminance, the lower byte first.
    Grey16,
    /// 4:2:2 packed as Y0 U Y1 V.
    Yuyv,
    /// 4:2:2 packed as U Y0 V Y1.
    Uyvy,
    /// 4:2:2 packed as Y0 V Y1 U.
    Yvyu,
    /// 4:2:2 packed as V Y0 U Y1.
    Vyuy,
    /// 4:2:0, a plane of Y and a plane of U V pairs with the same stride.
    Nv12,
    /// 4:2:0, a plane of Y and a plane of V U pairs with the same stride.
    Nv21,
    /// 4:2:2, a plane of Y and a plane of U V pairs with the same stride.
    Nv16,
    /// 4:2:2, a plane of Y and a plane of V U pairs with the same stride.
    Nv61,
    /// 4:2:0, planes Y, U, V; the latter two have half the stride, rounded up.
    Yu12,
    /// 4:2:0, planes Y, V, U; the latter two have half the stride, rounded up.
    Yv12,
    /// 4:2:2, planes Y, U, V; the latter two have half the stride, rounded up.
    Yuv422p,
    /// The mosaic of a bare sensor.
    Bayer(BayerOrder, Samples),
    /// A JPEG picture, possibly without Huffman tables.
    Mjpeg,
}

/// What layouts have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Red, green and blue side by side.
    Rgb(RgbOrder),
    /// Luminance only.
    Grey(Samples),
    /// Two pixels in four bytes.
    Packed(PackedOrder),
    /// A plane of Y and one of pairs.
    Pairs(PairOrder, ChromaLines),
    /// Planes of Y, and of U and V in this order.
    Planar(PairOrder, ChromaLines),
    /// One colour of each pixel.
    Bayer(BayerOrder, Samples),
    /// Compressed.
    Jpeg,
}

impl PixelFormat {
    /// What it has in common with others.
    pub(super) fn shape(self) -> Shape {
        use ChromaLines::{One, Two};
        use PairOrder::{Uv, Vu};
        match self {
            Self::Rgb24 => Shape::Rgb(RgbOrder::Rgb),
            Self::Bgr24 => Shape::Rgb(RgbOrder::Bgr),
            Self::Rgbx32 => Shape::Rgb(RgbOrder::Rgbx),
            Self::Bgrx32 => Shape::Rgb(RgbOrder::Bgrx),
            Self::Xrgb32 => Shape::Rgb(RgbOrder::Xrgb),
            Self::Xbgr32 => Shape::Rgb(RgbOrder::Xbgr),
            Self::Grey => Shape::Grey(Samples::Bits8),
            Self::Grey10 => Shape::Grey(Samples::Bits10),
            Self::Grey10Packed => Shape::Grey(Samples::Packed10),
            Self::Grey12 => Shape::Grey(Samples::Bits12),
            Self::Grey16 => Shape::Grey(Samples::Bits16),
            Self::Yuyv => Shape::Packed(PackedOrder::Yuyv),
            Self::Uyvy => Shape::Packed(PackedOrder::Uyvy),
            Self::Yvyu => Shape::Packed(PackedOrder::Yvyu),
            Self::Vyuy => Shape::Packed(PackedOrder::Vyuy),
            Self::Nv12 => Shape::Pairs(Uv, Two),
            Self::Nv21 => Shape::Pairs(Vu, Two),
            Self::Nv16 => Shape::Pairs(Uv, One),
            Self::Nv61 => Shape::Pairs(Vu, One),
            Self::Yu12 => Shape::Planar(Uv, Two),
            Self::Yv12 => Shape::Planar(Vu, Two),
            Self::Yuv422p => Shape::Planar(Uv, One),
            Self::Bayer(order, samples) => Shape::Bayer(order, samples),
            Self::Mjpeg => Shape::Jpeg,
        }
    }

    /// Least bytes from one line of the first plane to the next; 0 for compressed formats. Lines of
    /// planes that share chroma are even, so that half of one is whole.
    pub(super) fn least_stride(self, width: u32) -> u32 {
        match self.shape() {
            Shape::Rgb(order) => width * order.pixel_bytes() as u32,
            Shape::Grey(samples) | Shape::Bayer(_, samples) => samples.line_bytes(width as usize) as u32,
            Shape::Packed(_) => 4 * width.div_ceil(2),
            Shape::Pairs(..) | Shape::Planar(..) => width.next_multiple_of(2),
            Shape::Jpeg => 0,
        }
    }

    /// Lines of plane `index` of a frame of `height` lines, and bytes from one to the next if that is
    /// `stride` for the first plane.
    pub(super) fn plane_shape(self, index: usize, height: usize, stride: usize) -> (usize, usize) {
        match self.shape() {
            _ if index == 0 => (height, stride),
            Shape::Planar(_, lines) => (lines.of(height), stride.div_ceil(2)),
            Shape::Pairs(_, lines) => (lines.of(height), stride),
            _ => (0, stride),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separate_planes_follow_the_layout_of_one() {
        let shapes = [0, 1, 2].map(|plane| PixelFormat::Yu12.plane_shape(plane, 5, 9));
        assert_eq!(shapes, [(5, 9), (3, 5), (3, 5)]);
        assert_eq!(PixelFormat::Yuv422p.plane_shape(1, 5, 9), (5, 5));
        assert_eq!(PixelFormat::Nv12.plane_shape(1, 5, 9), (3, 9));
        assert_eq!(PixelFormat::Nv16.plane_shape(1, 5, 9), (5, 9));
    }
}
