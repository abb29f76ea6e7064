//! One captured frame.

use std::time::Instant;

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, RgbImage};
use kernels::pixels::{Color, Converter, PairOrder, Picture, PixelsError, Plane, PlaneMut, Planes, Size};

use super::format::Shape;
use super::jpeg;

pub use super::format::PixelFormat;

/// Most pixels of a frame on one side.
const MAX_SIDE: u32 = 8192;
/// Most pixels of a frame; decoded they take 96 MiB.
const MAX_PIXELS: u64 = 32 << 20;

/// One captured frame, as the source delivered it. Decoding is left to whoever looks at it, since
/// most frames are replaced by newer ones unseen.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Number of the frame, counted by the camera from 0 since the daemon started.
    pub sequence: u64,
    /// When it was captured: nanoseconds since the Unix epoch.
    pub captured_at: u64,
    /// When it was captured, on this process's clock: what ages are measured with.
    pub captured: Instant,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Bytes from one line of the first plane to the next; 0 for compressed formats.
    pub stride: u32,
    /// Layout of `bytes`.
    pub format: PixelFormat,
    /// What the values of YUV and of bare sensors stand for; without meaning for other formats.
    pub color: Color,
    /// The frame. Planes follow each other.
    pub bytes: Vec<u8>,
}

/// Why a frame cannot be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It has no pixels or too many.
    #[error(
        "a picture of {width}x{height} pixels; from 1 to {MAX_SIDE} a side and {MAX_PIXELS} in all are accepted"
    )]
    Size {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
    },
    /// The bytes end before the picture does.
    #[error("{format:?} picture of {width}x{height}: {source}")]
    Pixels {
        /// Layout of the bytes.
        format: PixelFormat,
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
        /// Which plane, and by how much.
        source: PixelsError,
    },
    /// The bytes are not a JPEG picture.
    #[error("not a JPEG picture: {0}")]
    NotJpeg(&'static str),
    /// The JPEG picture has no end.
    #[error("truncated JPEG picture: {got} bytes without an end marker")]
    Truncated {
        /// Bytes there are.
        got: usize,
    },
    /// The JPEG picture is damaged inside.
    #[error("damaged JPEG picture: {0}")]
    Decode(String),
    /// The picture cannot be written as JPEG.
    #[error("cannot encode the picture as JPEG: {0}")]
    Encode(String),
}

impl Frame {
    /// A frame of no pixels, to be filled by a source.
    pub(super) fn empty() -> Self {
        Self {
            sequence: 0,
            captured_at: 0,
            captured: Instant::now(),
            width: 0,
            height: 0,
            stride: 0,
            format: PixelFormat::Grey,
            color: Color::default(),
            bytes: Vec::new(),
        }
    }

    /// Whether the bytes can be the picture they claim to be: the size is sane and nothing is
    /// missing at the end. Cheap enough for every captured frame.
    pub fn check(&self) -> Result<(), FrameError> {
        let Some(picture) = self.picture() else { return jpeg::check(&self.bytes) };
        check_size(self.width, self.height)?;
        picture.check().map_err(|source| self.pixels_error(source))
    }

    /// The picture in R, G, B.
    pub fn rgb(&self) -> Result<RgbImage, FrameError> {
        let mut picture = RgbImage::default();
        self.rgb_into(&mut picture)?;
        Ok(picture)
    }

    /// The picture in R, G, B, written over `picture`, whose memory is reused. After an error
    /// the content of `picture` is unspecified.
    pub fn rgb_into(&self, picture: &mut RgbImage) -> Result<(), FrameError> {
        let Some(planes) = self.picture() else { return jpeg::decode_into(&self.bytes, picture) };
        check_size(self.width, self.height)?;
        planes.check().map_err(|source| self.pixels_error(source))?;
        resize(picture, self.width, self.height);
        let rgb = PlaneMut { stride: 3 * self.width as usize, bytes: picture };
        Converter::default().rgb(&planes, rgb).map_err(|source| self.pixels_error(source))
    }

    /// The picture as a JPEG file. A frame that is one already is passed through, completed with
    /// Huffman tables if it has none; others are encoded at `quality` from 1 to 100.
    pub fn jpeg(&self, quality: u8) -> Result<Vec<u8>, FrameError> {
        if self.format == PixelFormat::Mjpeg {
            return jpeg::complete(&self.bytes).map(|bytes| bytes.into_owned());
        }
        let picture = self.rgb()?;
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, quality.clamp(1, 100))
            .encode(picture.as_raw(), self.width, self.height, ExtendedColorType::Rgb8)
            .map_err(|error| FrameError::Encode(error.to_string()))?;
        Ok(bytes)
    }

    /// Where the bytes of which plane are; `None` for compressed formats.
    fn picture(&self) -> Option<Picture<'_>> {
        let size = Size { width: self.width as usize, height: self.height as usize };
        let stride = self.stride as usize;
        let all = Plane { bytes: &self.bytes, stride };
        let planes = match self.format.shape() {
            Shape::Jpeg => return None,
            Shape::Rgb(order) => Planes::Rgb { order, rgb: all },
            Shape::Grey(samples) => Planes::Grey { samples, grey: all },
            Shape::Packed(order) => Planes::Packed { order, yuv: all },
            Shape::Bayer(order, samples) => Planes::Bayer { order, samples, mosaic: all },
            Shape::Pairs(order, lines) => {
                let (luma, chroma) = split(&self.bytes, stride, size.height);
                let (y, uv) = (Plane { bytes: luma, stride }, Plane { bytes: chroma, stride });
                Planes::Pairs { order, lines, y, uv }
            }
            Shape::Planar(order, lines) => {
                let half = stride.div_ceil(2);
                let (luma, rest) = split(&self.bytes, stride, size.height);
                let (first, second) = split(rest, half, lines.of(size.height));
                let (u, v) = match order {
                    PairOrder::Uv => (first, second),
                    PairOrder::Vu => (second, first),
                };
                let [y, u, v] =
                    [(luma, stride), (u, half), (v, half)].map(|(bytes, stride)| Plane { bytes, stride });
                Planes::Planar { lines, y, u, v }
            }
        };
        Some(Picture { size, planes, color: self.color })
    }

    /// Least bytes of an uncompressed picture of this format, size and stride.
    pub(super) fn needed_bytes(&self) -> usize {
        let (height, stride) = (self.height as usize, self.stride as usize);
        let line = self.format.least_stride(self.width) as usize;
        match self.format.shape() {
            Shape::Jpeg => 0,
            Shape::Pairs(_, lines) => (height + lines.of(height) - 1) * stride + line,
            Shape::Planar(_, lines) => {
                height * stride + (2 * lines.of(height) - 1) * stride.div_ceil(2) + line / 2
            }
            _ => (height - 1) * stride + line,
        }
    }

    fn pixels_error(&self, source: PixelsError) -> FrameError {
        FrameError::Pixels { format: self.format, width: self.width, height: self.height, source }
    }
}

/// The plane of `lines` lines at the beginning of `bytes`, and what follows it. A plane that is cut
/// short takes all there is.
fn split(bytes: &[u8], stride: usize, lines: usize) -> (&[u8], &[u8]) {
    bytes.split_at(stride.saturating_mul(lines).min(bytes.len()))
}

/// Whether a picture of this size is worth looking at.
pub(super) fn check_size(width: u32, height: u32) -> Result<(), FrameError> {
    let fits = (1..=MAX_SIDE).contains(&width)
        && (1..=MAX_SIDE).contains(&height)
        && u64::from(width) * u64::from(height) <= MAX_PIXELS;
    if fits { Ok(()) } else { Err(FrameError::Size { width, height }) }
}

/// Gives `picture` a size, keeping its memory.
pub(super) fn resize(picture: &mut RgbImage, width: u32, height: u32) {
    if picture.dimensions() != (width, height) {
        let mut bytes = std::mem::take(picture).into_raw();
        bytes.resize(3 * width as usize * height as usize, 0);
        *picture = RgbImage::from_raw(width, height, bytes).expect("three bytes a pixel");
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::super::encode::{RAW, encode};
    use super::*;

    /// A frame of one grey value whose chroma is neutral.
    fn flat(format: PixelFormat, value: u8) -> Frame {
        let mut frame = Frame::empty();
        encode(&RgbImage::from_pixel(6, 4, Rgb([value; 3])), format, &mut frame);
        frame
    }

    #[test]
    fn every_raw_format_becomes_rgb() {
        let mut picture = RgbImage::new(2, 2);
        for format in RAW {
            let frame = flat(format, 128);
            frame.check().unwrap();
            frame.rgb_into(&mut picture).unwrap();
            assert_eq!(picture.dimensions(), (6, 4));
            assert!(picture.iter().all(|&byte| byte == 128), "{format:?}: {:?}", &picture.as_raw()[..3]);
        }
    }

    #[test]
    fn one_byte_less_is_refused_everywhere() {
        for format in RAW {
            let mut frame = flat(format, 50);
            frame.bytes.pop();
            assert!(matches!(frame.check(), Err(FrameError::Pixels { .. })), "{format:?}");
            assert!(matches!(frame.rgb(), Err(FrameError::Pixels { .. })), "{format:?}");
            frame.bytes.clear();
            assert!(matches!(frame.rgb(), Err(FrameError::Pixels { .. })), "{format:?}");
        }
    }

    #[test]
    fn sizes_out_of_bounds_are_refused() {
        for (width, height) in [(0, 4), (4, 0), (8193, 1), (8192, 8192), (u32::MAX, u32::MAX)] {
            let frame = Frame { width, height, ..flat(PixelFormat::Grey, 1) };
            assert_eq!(frame.check(), Err(FrameError::Size { width, height }));
            assert_eq!(frame.rgb(), Err(FrameError::Size { width, height }));
        }
    }

    #[test]
    fn a_snapshot_shows_the_picture() {
        let jpeg = flat(PixelFormat::Yuyv, 128).jpeg(90).unwrap();
        let shown = Frame { format: PixelFormat::Mjpeg, bytes: jpeg, ..Frame::empty() }.rgb().unwrap();
        assert_eq!(shown.dimensions(), (6, 4));
        assert!(shown.iter().all(|byte| byte.abs_diff(128) <= 1));
    }
}
