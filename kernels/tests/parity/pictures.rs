//! Pictures in every layout, shared by the parity test and the benchmark.

use kernels::pixels::{
    BayerOrder, ChromaLines, Color, PackedOrder, PairOrder, Picture, Plane, Planes, RgbOrder, Samples,
    SensorColor, Size, ToneCurve, WhiteBalance, YuvColor, YuvMatrix, YuvRange,
};

/// How a picture lies in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Layout {
    Rgb(RgbOrder),
    Grey(Samples),
    Packed(PackedOrder),
    Pairs(PairOrder, ChromaLines),
    Planar(ChromaLines),
    Bayer(BayerOrder, Samples),
}

/// Every layout.
pub(crate) fn layouts() -> Vec<Layout> {
    use RgbOrder::{Bgr, Bgrx, Rgb, Rgbx, Xbgr, Xrgb};
    const SAMPLES: [Samples; 5] =
        [Samples::Bits8, Samples::Bits10, Samples::Bits12, Samples::Bits16, Samples::Packed10];
    let mut layouts: Vec<_> = [Rgb, Bgr, Rgbx, Bgrx, Xrgb, Xbgr].map(Layout::Rgb).into();
    layouts.extend(SAMPLES.map(Layout::Grey));
    use PackedOrder::{Uyvy, Vyuy, Yuyv, Yvyu};
    layouts.extend([Yuyv, Uyvy, Yvyu, Vyuy].map(Layout::Packed));
    for lines in [ChromaLines::One, ChromaLines::Two] {
        layouts.extend([PairOrder::Uv, PairOrder::Vu].map(|order| Layout::Pairs(order, lines)));
        layouts.push(Layout::Planar(lines));
    }
    for order in [BayerOrder::Rggb, BayerOrder::Grbg, BayerOrder::Gbrg, BayerOrder::Bggr] {
        layouts.extend(SAMPLES.map(|samples| Layout::Bayer(order, samples)));
    }
    layouts
}

/// Every meaning that the values of a layout can have.
#[allow(dead_code, reason = "the benchmark shares this file")]
pub(crate) fn colors(layout: Layout) -> Vec<Color> {
    use YuvMatrix::{Bt601, Bt709, Bt2020, Smpte240m};
    let yuv = |matrix| [YuvRange::Limited, YuvRange::Full].map(|range| YuvColor { matrix, range });
    let sensor = |balance, curve| SensorColor { black: 64, balance, curve };
    match layout {
        Layout::Rgb(_) | Layout::Grey(_) => vec![Color::default()],
        Layout::Packed(_) | Layout::Pairs(..) | Layout::Planar(_) => {
            let all = [Bt601, Bt709, Bt2020, Smpte240m].into_iter().flat_map(yuv);
            all.map(|yuv| Color { yuv, ..Color::default() }).collect()
        }
        Layout::Bayer(..) => [
            SensorColor::default(),
            sensor(WhiteBalance::NONE, ToneCurve::None),
            sensor(WhiteBalance::Gains([500, 256, 700]), ToneCurve::Srgb),
        ]
        .map(|sensor| Color { sensor, ..Color::default() })
        .into(),
    }
}

/// The planes of a picture, each with its stride.
pub(crate) struct Bytes {
    layout: Layout,
    size: Size,
    planes: Vec<(Vec<u8>, usize)>,
}

impl Bytes {
    /// A picture of `byte(n)` for byte `n` of each plane; each line has `padding` bytes more than
    /// it needs.
    pub(crate) fn new(layout: Layout, size: Size, padding: usize, byte: impl Fn(usize) -> u8) -> Self {
        let Size { width, height } = size;
        let pairs = width.div_ceil(2);
        let shapes = match layout {
            Layout::Rgb(order) => vec![(order.pixel_bytes() * width, height)],
            Layout::Grey(samples) | Layout::Bayer(_, samples) => vec![(samples.line_bytes(width), height)],
            Layout::Packed(_) => vec![(4 * pairs, height)],
            Layout::Pairs(_, lines) => vec![(width, height), (2 * pairs, lines.of(height))],
            Layout::Planar(lines) => {
                vec![(width, height), (pairs, lines.of(height)), (pairs, lines.of(height))]
            }
        };
        let mut next = 0;
        let mut plane = |(line, lines): (usize, usize)| {
            // The last line has no padding.
            let stride = line + padding;
            let bytes = (0..(lines - 1) * stride + line).map(|_| {
                next += 1;
                byte(next - 1)
            });
            (bytes.collect(), stride)
        };
        Self { layout, size, planes: shapes.into_iter().map(&mut plane).collect() }
    }

    /// The picture.
    pub(crate) fn picture(&self, color: Color) -> Picture<'_> {
        let plane = |i: usize| Plane { bytes: &self.planes[i].0, stride: self.planes[i].1 };
        let planes = match self.layout {
            Layout::Rgb(order) => Planes::Rgb { order, rgb: plane(0) },
            Layout::Grey(samples) => Planes::Grey { samples, grey: plane(0) },
            Layout::Packed(order) => Planes::Packed { order, yuv: plane(0) },
            Layout::Pairs(order, lines) => Planes::Pairs { order, lines, y: plane(0), uv: plane(1) },
            Layout::Planar(lines) => Planes::Planar { lines, y: plane(0), u: plane(1), v: plane(2) },
            Layout::Bayer(order, samples) => Planes::Bayer { order, samples, mosaic: plane(0) },
        };
        Picture { size: self.size, planes, color }
    }

    /// Bytes of all planes.
    #[allow(dead_code, reason = "the benchmark shares this file")]
    pub(crate) fn len(&self) -> usize {
        self.planes.iter().map(|(bytes, _)| bytes.len()).sum()
    }

    /// Takes the last byte of plane `i` away; `false` if there is no such plane.
    #[allow(dead_code, reason = "the benchmark shares this file")]
    pub(crate) fn cut(&mut self, i: usize) -> bool {
        self.planes.get_mut(i).and_then(|(bytes, _)| bytes.pop()).is_some()
    }
}
