//! Pictures in R, G, B as the frames of a camera: the converse of decoding a frame.

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, RgbImage};
use kernels::pixels::{BayerOrder, ChromaLines, Color, PairOrder, Samples, SensorColor, WhiteBalance};

use super::format::Shape;
use super::frame::{Frame, PixelFormat};

/// Quality of JPEG frames, from 1 to 100.
const JPEG_QUALITY: u8 = 90;

/// Writes `picture` into `frame` as a camera of `format` would: YUV is BT.601 of limited range, the
/// samples of a sensor are code values in balance. Memory of `frame` is reused; only JPEG needs more.
pub(super) fn encode(picture: &RgbImage, format: PixelFormat, frame: &mut Frame) {
    let (width, height) = picture.dimensions();
    (frame.width, frame.height) = (width, height);
    let sensor = SensorColor { balance: WhiteBalance::NONE, ..SensorColor::default() };
    (frame.format, frame.color) = (format, Color { sensor, ..Color::default() });
    frame.stride = format.least_stride(width);
    frame.bytes.clear();
    let bytes = &mut frame.bytes;
    match format.shape() {
        Shape::Rgb(order) => {
            let [r, g, b] = order.places();
            let put = |out: &mut [u8], pixel: [u8; 3]| {
                out.fill(255);
                (out[r], out[g], out[b]) = (pixel[0], pixel[1], pixel[2]);
            };
            each(picture, bytes, order.pixel_bytes(), put);
        }
        Shape::Grey(samples) => {
            each_sample(picture, bytes, samples, |pixel, _, _| grey(pixel));
        }
        Shape::Bayer(order, samples) => {
            each_sample(picture, bytes, samples, |pixel, x, y| pixel[BayerOrder::color_at(order, x, y)])
        }
        Shape::Packed(order) => {
            let [first, second, u, v] = order.places();
            groups(picture, bytes, |out, luma, chroma| {
                (out[first], out[second], out[u], out[v]) = (luma[0], luma[1], chroma[0], chroma[1]);
            });
        }
        Shape::Pairs(order, lines) => {
            luma_plane(picture, frame.stride, bytes);
            chroma_of(picture, lines, |[u, v]| match order {
                PairOrder::Uv => bytes.extend_from_slice(&[u, v]),
                PairOrder::Vu => bytes.extend_from_slice(&[v, u]),
            });
        }
        Shape::Planar(order, lines) => {
            luma_plane(picture, frame.stride, bytes);
            let (first, second) = if order == PairOrder::Uv { (0, 1) } else { (1, 0) };
            chroma_of(picture, lines, |uv| bytes.push(uv[first]));
            chroma_of(picture, lines, |uv| bytes.push(uv[second]));
        }
        Shape::Jpeg => {
            let encoder = JpegEncoder::new_with_quality(bytes, JPEG_QUALITY);
            let written = { encoder }.encode(picture, width, height, ExtendedColorType::Rgb8);
            if let Err(error) = written {
                tracing::warn!(%error, width, height, "cannot encode the picture as JPEG");
            }
        }
    }
}

/// Writes every pixel into `pixel_bytes` bytes.
fn each(picture: &RgbImage, bytes: &mut Vec<u8>, pixel_bytes: usize, put: impl Fn(&mut [u8], [u8; 3])) {
    bytes.resize(pixel_bytes * (picture.len() / 3), 0);
    for (out, pixel) in bytes.chunks_exact_mut(pixel_bytes).zip(picture.as_chunks::<3>().0) {
        put(out, *pixel);
    }
}

/// Luminance of full range.
fn grey([r, g, b]: [u8; 3]) -> u8 {
    ((77 * u32::from(r) + 150 * u32::from(g) + 29 * u32::from(b) + 128) >> 8) as u8
}

/// Writes one sample of every pixel. High bits are repeated at the bottom, so that white is the
/// largest sample.
fn each_sample(
    picture: &RgbImage,
    bytes: &mut Vec<u8>,
    samples: Samples,
    value: impl Fn([u8; 3], usize, usize) -> u8,
) {
    let width = picture.width() as usize;
    let line_bytes = samples.line_bytes(width);
    bytes.resize(line_bytes * picture.height() as usize, 0);
    let lines = bytes.chunks_exact_mut(line_bytes).zip(picture.chunks_exact(3 * width));
    for (y, (out, line)) in lines.enumerate() {
        out.fill(0);
        for (x, pixel) in line.as_chunks::<3>().0.iter().enumerate() {
            put_sample(out, samples, x, value(*pixel, x, y));
        }
    }
}

/// Writes sample `x` of a line of zeros.
fn put_sample(line: &mut [u8], samples: Samples, x: usize, value: u8) {
    let wide = u16::from(value) << 8 | u16::from(value);
    let mut put = |word: u16| line[2 * x..2 * x + 2].copy_from_slice(&word.to_le_bytes());
    match samples {
        Samples::Bits8 => line[x] = value,
        Samples::Bits10 => put(wide >> 6),
        Samples::Bits12 => put(wide >> 4),
        Samples::Bits16 => put(wide),
        Samples::Packed10 => {
            line[x / 4 * 5 + x % 4] = value;
            line[x / 4 * 5 + 4] |= (value >> 6) << (2 * (x % 4));
        }
    }
}

/// Y of a pixel. The weights add up to 220 of 256, so that nothing wraps.
fn luma([r, g, b]: [u8; 3]) -> u8 {
    let [r, g, b] = [(66, r), (129, g), (25, b)].map(|(part, byte)| u32::from(byte).wrapping_mul(part));
    (r.wrapping_add(g).wrapping_add(b).wrapping_add((16 << 8) + 128) >> 8) as u8
}

/// U and V of a mean of pixels, whose sum of `1 << bits` pixels is given. Sums are below 1 << 10 and
/// the weights below 1 << 7, so that nothing wraps.
fn chroma([r, g, b]: [i32; 3], bits: u32) -> [u8; 2] {
    let offset = (128 << (8 + bits)) + (1 << (7 + bits));
    let dot = |weights: [i32; 3]| {
        let [r, g, b] = [(r, weights[0]), (g, weights[1]), (b, weights[2])].map(|(a, b)| a.wrapping_mul(b));
        (r.wrapping_add(g).wrapping_add(b).wrapping_add(offset) >> (8 + bits)) as u8
    };
    [dot([-38, -74, 112]), dot([112, -94, -18])]
}

/// Lines of pixels in groups of two; the last pixel of odd lines stands twice.
fn groups(picture: &RgbImage, bytes: &mut Vec<u8>, pack: impl Fn(&mut [u8; 4], [u8; 2], [u8; 2])) {
    let width = picture.width() as usize;
    bytes.resize(4 * width.div_ceil(2) * picture.height() as usize, 0);
    let pack = |out: &mut [u8; 4], first: [u8; 3], second: [u8; 3]| {
        let sum = std::array::from_fn(|i| i32::from(first[i]) + i32::from(second[i]));
        pack(out, [luma(first), luma(second)], chroma(sum, 1));
    };
    let lines = bytes.chunks_exact_mut(4 * width.div_ceil(2));
    for (out, line) in lines.zip(picture.chunks_exact(3 * width)) {
        let (out, (pairs, rest)) = (out.as_chunks_mut::<4>().0, line.as_chunks::<6>());
        for (out, &[r, g, b, s, h, c]) in out.iter_mut().zip(pairs) {
            pack(out, [r, g, b], [s, h, c]);
        }
        if let (Some(out), &[r, g, b]) = (out.last_mut(), rest) {
            pack(out, [r, g, b], [r, g, b]);
        }
    }
}

/// Y of all pixels, in lines of `stride` bytes.
fn luma_plane(picture: &RgbImage, stride: u32, bytes: &mut Vec<u8>) {
    for line in picture.chunks_exact(3 * picture.width() as usize) {
        let end = bytes.len() + stride as usize;
        bytes.extend(line.as_chunks::<3>().0.iter().map(|pixel| luma(*pixel)));
        bytes.resize(end, 0);
    }
}

/// U and V of all pixels that share them; pixels at odd edges stand twice.
fn chroma_of(picture: &RgbImage, lines: ChromaLines, mut put: impl FnMut([u8; 2])) {
    let (width, height) = picture.dimensions();
    let (down, bits) = match lines {
        ChromaLines::One => (1, 1),
        ChromaLines::Two => (2, 2),
    };
    for top in (0..height).step_by(down) {
        for left in (0..width).step_by(2) {
            let mut sum = [0; 3];
            for y in top..top + down as u32 {
                for x in [left, left + 1] {
                    let pixel = picture.get_pixel(x.min(width - 1), y.min(height - 1));
                    for (sum, byte) in sum.iter_mut().zip(pixel.0) {
                        *sum += i32::from(byte);
                    }
                }
            }
            put(chroma(sum, bits));
        }
    }
}

/// Every format that is not compressed, of mosaics one for each form of sample and each order.
#[cfg(test)]
pub(super) const RAW: [PixelFormat; 29] = {
    use BayerOrder::{Bggr, Gbrg, Grbg, Rggb};
    use PixelFormat::{
        Bayer, Bgr24, Bgrx32, Grey, Grey10, Grey10Packed, Grey12, Grey16, Nv12, Nv16, Nv21, Nv61, Rgb24,
        Rgbx32, Uyvy, Vyuy, Xbgr32, Xrgb32, Yu12, Yuv422p, Yuyv, Yv12, Yvyu,
    };
    use Samples::{Bits8, Bits10, Bits12, Bits16, Packed10};
    [
        Rgb24,
        Bgr24,
        Rgbx32,
        Bgrx32,
        Xrgb32,
        Xbgr32,
        Grey,
        Grey10,
        Grey10Packed,
        Grey12,
        Grey16,
        Yuyv,
        Uyvy,
        Yvyu,
        Vyuy,
        Nv12,
        Nv21,
        Nv16,
        Nv61,
        Yu12,
        Yv12,
        Yuv422p,
        Bayer(Rggb, Bits8),
        Bayer(Grbg, Bits10),
        Bayer(Gbrg, Bits12),
        Bayer(Bggr, Bits16),
        Bayer(Rggb, Packed10),
        Bayer(Bggr, Packed10),
        Bayer(Gbrg, Bits8),
    ]
};

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    /// Slow gradients of different direction in each channel.
    fn gradients(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([(40 + 2 * x) as u8, (200 - 2 * y) as u8, (90 + x + y) as u8])
        })
    }

    #[test]
    fn every_format_decodes_to_the_picture() {
        for (width, height) in [(40, 24), (33, 17), (2, 2)] {
            let colored = gradients(width, height);
            for format in RAW.into_iter().chain([PixelFormat::Mjpeg]) {
                let is_grey = matches!(format.shape(), Shape::Grey(_));
                let picture = if is_grey { greyed(&colored) } else { colored.clone() };
                let mut frame = Frame::empty();
                encode(&picture, format, &mut frame);
                frame.check().unwrap();
                let shown = frame.rgb().unwrap();
                assert_eq!(shown.dimensions(), (width, height));
                let worst = shown.iter().zip(picture.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                let allowed = if format == PixelFormat::Mjpeg { 16 } else { 5 };
                assert!(worst <= allowed, "{format:?} {width}x{height}: {worst}");
            }
        }
    }

    fn greyed(picture: &RgbImage) -> RgbImage {
        RgbImage::from_fn(picture.width(), picture.height(), |x, y| Rgb([grey(picture.get_pixel(x, y).0); 3]))
    }

    #[test]
    fn grey_is_the_luminance() {
        let mut frame = Frame::empty();
        let picture = RgbImage::from_fn(3, 1, |x, _| Rgb([[255, 0, 0], [0, 255, 0], [9, 9, 9]][x as usize]));
        encode(&picture, PixelFormat::Grey, &mut frame);
        frame.check().unwrap();
        assert_eq!(frame.bytes, [77, 149, 9]);
    }

    #[test]
    fn a_picture_of_one_pixel_has_every_format() {
        for format in RAW {
            let mut frame = Frame::empty();
            encode(&gradients(1, 1), format, &mut frame);
            frame.check().unwrap();
            assert_eq!(frame.rgb().unwrap().dimensions(), (1, 1), "{format:?}");
        }
    }
}
