//! Pictures to R, G, B, pixel by pixel.

use crate::pixels::{
    BayerOrder, CODE_SHIFT, FACTOR_BITS, FULL, PairOrder, Picture, PixelsError, Plane, PlaneMut, Planes,
    Samples, Size, YuvColor, mirrored, sample_at, tones,
};

/// What [`crate::pixels::Converter::rgb`] writes, to the bit.
pub fn rgb(picture: &Picture<'_>, out: PlaneMut<'_>) -> Result<(), PixelsError> {
    let Size { width, height } = picture.size;
    picture.check()?;
    out.check("out", height, 3 * width)?;
    let tones = match picture.planes {
        Planes::Bayer { order, samples, mosaic } => {
            tones(picture.size, (order, samples), mosaic, picture.color.sensor)
        }
        _ => [[0; 1024]; 3],
    };
    for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
        let pixel = match picture.planes {
            Planes::Bayer { order, samples, mosaic } => {
                let colors = demosaiced(picture.size, (order, samples), mosaic, (x, y));
                [0, 1, 2].map(|c| tones[c][colors[c]])
            }
            _ => pixel(picture, x, y),
        };
        out.bytes[y * out.stride + 3 * x..][..3].copy_from_slice(&pixel);
    }
    Ok(())
}

fn line(plane: Plane<'_>, y: usize) -> &[u8] {
    &plane.bytes[y * plane.stride..]
}

/// A pixel that its own samples determine.
fn pixel(picture: &Picture<'_>, x: usize, y: usize) -> [u8; 3] {
    let color = picture.color.yuv;
    match picture.planes {
        Planes::Rgb { order, rgb } => {
            let pixel = &line(rgb, y)[order.pixel_bytes() * x..];
            order.places().map(|place| pixel[place])
        }
        Planes::Grey { samples, grey } => [(sample_at(samples, line(grey, y), x) / 4) as u8; 3],
        Planes::Packed { order, yuv } => {
            let group = &line(yuv, y)[x / 2 * 4..];
            let [y0, y1, u, v] = order.places().map(|place| group[place]);
            yuv_pixel(color, if x.is_multiple_of(2) { y0 } else { y1 }, u, v)
        }
        Planes::Pairs { order, lines, y: luma, uv } => {
            let pair = &line(uv, lines.line(y))[x / 2 * 2..];
            let (u, v) = match order {
                PairOrder::Uv => (pair[0], pair[1]),
                PairOrder::Vu => (pair[1], pair[0]),
            };
            yuv_pixel(color, line(luma, y)[x], u, v)
        }
        Planes::Planar { lines, y: luma, u, v } => {
            let [u, v] = [u, v].map(|plane| line(plane, lines.line(y))[x / 2]);
            yuv_pixel(color, line(luma, y)[x], u, v)
        }
        Planes::Bayer { .. } => unreachable!("a mosaic needs neighbours"),
    }
}

/// R = y (Y - black) + rv V, G = y (Y - black) - gu U - gv V, B = y (Y - black) + bu U, each product
/// rounded down to 4 fractional bits, the sum to the nearest integer.
fn yuv_pixel(color: YuvColor, y: u8, u: u8, v: u8) -> [u8; 3] {
    let factors = color.factors();
    let fraction = FACTOR_BITS + CODE_SHIFT - 16;
    let product = |code: i32, factor: i16| (code * i32::from(factor)) >> (FACTOR_BITS - fraction);
    let y = product(i32::from(y) - i32::from(factors.black), factors.y);
    let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
    [
        y + product(v, factors.rv),
        y - product(u, factors.gu) - product(v, factors.gv),
        y + product(u, factors.bu),
    ]
    .map(|sum| ((sum + (1 << fraction) / 2) >> fraction).clamp(0, 255) as u8)
}

type Filter = [[i32; 5]; 5];

/// Green where red or blue is.
const CROSS: Filter =
    [[0, 0, -2, 0, 0], [0, 0, 4, 0, 0], [-2, 4, 8, 4, -2], [0, 0, 4, 0, 0], [0, 0, -2, 0, 0]];
/// Red where blue is, blue where red is.
const DIAGONAL: Filter =
    [[0, 0, -3, 0, 0], [0, 4, 0, 4, 0], [-3, 0, 12, 0, -3], [0, 4, 0, 4, 0], [0, 0, -3, 0, 0]];
/// Red or blue where green is and the neighbours in its line have the colour.
const HORIZONTAL: Filter =
    [[0, 0, 1, 0, 0], [0, -2, 0, -2, 0], [-2, 8, 10, 8, -2], [0, -2, 0, -2, 0], [0, 0, 1, 0, 0]];
/// The same for the neighbours above and below.
const VERTICAL: Filter =
    [[0, 0, -2, 0, 0], [0, -2, 8, -2, 0], [1, 0, 10, 0, 1], [0, -2, 8, -2, 0], [0, 0, -2, 0, 0]];

/// Red, green and blue of a pixel of a mosaic as samples of 10 bits.
fn demosaiced(
    size: Size,
    (order, samples): (BayerOrder, Samples),
    mosaic: Plane<'_>,
    (x, y): (usize, usize),
) -> [usize; 3] {
    let filtered = |filter: &Filter| {
        let mut sum = 0;
        for (j, weights) in filter.iter().enumerate() {
            let line = line(mosaic, mirrored(y + j, size.height));
            for (i, weight) in weights.iter().enumerate() {
                sum += weight * i32::from(sample_at(samples, line, mirrored(x + i, size.width)));
            }
        }
        ((sum + 8) >> 4).clamp(0, FULL.into()) as usize
    };
    let own = sample_at(samples, line(mosaic, y), x) as usize;
    let is_red_line = y % 2 == order.red_at().1;
    match (order.color_at(x, y), is_red_line) {
        (0, _) => [own, filtered(&CROSS), filtered(&DIAGONAL)],
        (1, true) => [filtered(&HORIZONTAL), own, filtered(&VERTICAL)],
        (1, false) => [filtered(&VERTICAL), own, filtered(&HORIZONTAL)],
        _ => [filtered(&DIAGONAL), filtered(&CROSS), own],
    }
}
