//! Pictures in R, G, B as the frames of a camera: the converse of decoding a frame.

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, RgbImage};
use kernels::pixels::YuvColor;

use super::frame::{Frame, PixelFormat};

/// Quality of JPEG frames, from 1 to 100.
const JPEG_QUALITY: u8 = 90;

/// Writes `picture` into `frame` as a camera of `format` would: YUV is BT.601 of limited range.
/// Memory of `frame` is reused; only JPEG needs more.
pub(super) fn encode(picture: &RgbImage, format: PixelFormat, frame: &mut Frame) {
    let (width, height) = picture.dimensions();
    (frame.width, frame.height) = (width, height);
    (frame.format, frame.color) = (format, YuvColor::default());
    frame.stride = stride(format, width);
    frame.bytes.clear();
    let bytes = &mut frame.bytes;
    match format {
        PixelFormat::Rgb24 => bytes.extend_from_slice(picture),
        PixelFormat::Bgr24 => each(picture, bytes, |[r, g, b]| [b, g, r]),
        PixelFormat::Rgbx32 => each(picture, bytes, |[r, g, b]| [r, g, b, 255]),
        PixelFormat::Bgrx32 => each(picture, bytes, |[r, g, b]| [b, g, r, 255]),
        PixelFormat::Grey => each(picture, bytes, |[r, g, b]| {
            [((77 * u32::from(r) + 150 * u32::from(g) + 29 * u32::from(b) + 128) >> 8) as u8]
        }),
        PixelFormat::Yuyv => pairs(picture, bytes, |[y, z], [u, v]| [y, u, z, v]),
        PixelFormat::Uyvy => pairs(picture, bytes, |[y, z], [u, v]| [u, y, v, z]),
        PixelFormat::Nv12 => {
            luma_plane(picture, frame.stride, bytes);
            squares(picture, |uv| bytes.extend_from_slice(&uv));
        }
        PixelFormat::Yu12 => {
            luma_plane(picture, frame.stride, bytes);
            squares(picture, |[u, _]| bytes.push(u));
            squares(picture, |[_, v]| bytes.push(v));
        }
        PixelFormat::Mjpeg => {
            let encoder = JpegEncoder::new_with_quality(bytes, JPEG_QUALITY);
            let written = { encoder }.encode(picture, width, height, ExtendedColorType::Rgb8);
            if let Err(error) = written {
                tracing::warn!(%error, width, height, "cannot encode the picture as JPEG");
            }
        }
    }
}

/// Bytes of a line of the first plane; 0 for compressed formats. Lines of YUV are even.
pub(super) fn stride(format: PixelFormat, width: u32) -> u32 {
    match format {
        PixelFormat::Rgb24 | PixelFormat::Bgr24 => 3 * width,
        PixelFormat::Rgbx32 | PixelFormat::Bgrx32 => 4 * width,
        PixelFormat::Grey => width,
        PixelFormat::Yuyv | PixelFormat::Uyvy => 4 * width.div_ceil(2),
        PixelFormat::Nv12 | PixelFormat::Yu12 => width.next_multiple_of(2),
        PixelFormat::Mjpeg => 0,
    }
}

fn each<const N: usize>(picture: &RgbImage, bytes: &mut Vec<u8>, convert: impl Fn([u8; 3]) -> [u8; N]) {
    bytes.resize(N * (picture.len() / 3), 0);
    for (out, pixel) in bytes.as_chunks_mut::<N>().0.iter_mut().zip(picture.as_chunks::<3>().0) {
        *out = convert(*pixel);
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

/// Lines of pixels in pairs; the last pixel of odd lines stands twice.
fn pairs(picture: &RgbImage, bytes: &mut Vec<u8>, pack: impl Fn([u8; 2], [u8; 2]) -> [u8; 4]) {
    let width = picture.width() as usize;
    bytes.resize(4 * width.div_ceil(2) * picture.height() as usize, 0);
    let lines = bytes.chunks_exact_mut(4 * width.div_ceil(2));
    for (out, line) in lines.zip(picture.chunks_exact(3 * width)) {
        let (out, (pairs, rest)) = (out.as_chunks_mut::<4>().0, line.as_chunks::<6>());
        for (out, &[r, g, b, s, h, c]) in out.iter_mut().zip(pairs) {
            *out = pack_pair([r, g, b], [s, h, c], &pack);
        }
        if let (Some(out), &[r, g, b]) = (out.last_mut(), rest) {
            *out = pack_pair([r, g, b], [r, g, b], &pack);
        }
    }
}

fn pack_pair(first: [u8; 3], second: [u8; 3], pack: impl Fn([u8; 2], [u8; 2]) -> [u8; 4]) -> [u8; 4] {
    let sum = std::array::from_fn(|i| i32::from(first[i]) + i32::from(second[i]));
    pack([luma(first), luma(second)], chroma(sum, 1))
}

/// Y of all pixels, in lines of `stride` bytes.
fn luma_plane(picture: &RgbImage, stride: u32, bytes: &mut Vec<u8>) {
    for line in picture.chunks_exact(3 * picture.width() as usize) {
        let end = bytes.len() + stride as usize;
        bytes.extend(line.as_chunks::<3>().0.iter().map(|pixel| luma(*pixel)));
        bytes.resize(end, 0);
    }
}

/// U and V of all squares of four pixels; pixels at odd edges stand twice.
fn squares(picture: &RgbImage, mut put: impl FnMut([u8; 2])) {
    let (width, height) = picture.dimensions();
    for top in (0..height).step_by(2) {
        for left in (0..width).step_by(2) {
            let (right, bottom) = ((left + 1).min(width - 1), (top + 1).min(height - 1));
            let corners = [(left, top), (right, top), (left, bottom), (right, bottom)];
            let mut sum = [0; 3];
            for (x, y) in corners {
                for (sum, byte) in sum.iter_mut().zip(picture.get_pixel(x, y).0) {
                    *sum += i32::from(byte);
                }
            }
            put(chroma(sum, 2));
        }
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    const FORMATS: [PixelFormat; 9] = [
        PixelFormat::Rgb24,
        PixelFormat::Bgr24,
        PixelFormat::Rgbx32,
        PixelFormat::Bgrx32,
        PixelFormat::Yuyv,
        PixelFormat::Uyvy,
        PixelFormat::Nv12,
        PixelFormat::Yu12,
        PixelFormat::Mjpeg,
    ];

    /// Slow gradients of different direction in each channel.
    fn gradients(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([(40 + 2 * x) as u8, (200 - 2 * y) as u8, (90 + x + y) as u8])
        })
    }

    #[test]
    fn every_format_decodes_to_the_picture() {
        for (width, height) in [(40, 24), (33, 17), (1, 1)] {
            let picture = gradients(width, height);
            for format in FORMATS {
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

    #[test]
    fn grey_is_the_luminance() {
        let mut frame = Frame::empty();
        let picture = RgbImage::from_fn(3, 1, |x, _| Rgb([[255, 0, 0], [0, 255, 0], [9, 9, 9]][x as usize]));
        encode(&picture, PixelFormat::Grey, &mut frame);
        frame.check().unwrap();
        assert_eq!(frame.bytes, [77, 149, 9]);
    }
}
