//! One captured frame.

use std::time::Instant;

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, RgbImage};
use kernels::pixels::{self, PixelsError, Plane, PlaneMut, Size, YuvColor};

use super::jpeg;

/// Most pixels of a frame on one side.
const MAX_SIDE: u32 = 8192;
/// Most pixels of a frame; decoded they take 96 MiB.
const MAX_PIXELS: u64 = 32 << 20;

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
    /// 8-bit luminance.
    Grey,
    /// 4:2:2 packed as Y0 U Y1 V.
    Yuyv,
    /// 4:2:2 packed as U Y0 V Y1.
    Uyvy,
    /// 4:2:0, a plane of Y and a plane of U V pairs with the same stride.
    Nv12,
    /// 4:2:0, planes Y, U, V; the latter two have half the stride, rounded up.
    Yu12,
    /// A JPEG picture, possibly without Huffman tables.
    Mjpeg,
}

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
    /// What YUV values stand for; without meaning for other formats.
    pub color: YuvColor,
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
            color: YuvColor::default(),
            bytes: Vec::new(),
        }
    }

    /// Whether the bytes can be the picture they claim to be: the size is sane and nothing is
    /// missing at the end. Cheap enough for every captured frame.
    pub fn check(&self) -> Result<(), FrameError> {
        if self.format == PixelFormat::Mjpeg {
            return jpeg::check(&self.bytes);
        }
        check_size(self.width, self.height)?;
        let (got, needed) = (self.bytes.len(), self.needed_bytes());
        if got < needed {
            return Err(self.pixels_error(PixelsError::Short { plane: "frame", got, needed }));
        }
        Ok(())
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
        if self.format == PixelFormat::Mjpeg {
            return jpeg::decode_into(&self.bytes, picture);
        }
        check_size(self.width, self.height)?;
        resize(picture, self.width, self.height);
        self.write_rgb(picture).map_err(|source| self.pixels_error(source))
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

    /// Converts the planes.
    fn write_rgb(&self, picture: &mut RgbImage) -> Result<(), PixelsError> {
        let size = Size { width: self.width as usize, height: self.height as usize };
        let stride = self.stride as usize;
        let rgb = PlaneMut { stride: 3 * size.width, bytes: picture };
        let all = Plane { bytes: &self.bytes, stride };
        match self.format {
            PixelFormat::Rgb24 => pixels::rgb_from_rgb24(size, all, rgb),
            PixelFormat::Bgr24 => pixels::rgb_from_bgr24(size, all, rgb),
            PixelFormat::Rgbx32 => pixels::rgb_from_rgbx32(size, all, rgb),
            PixelFormat::Bgrx32 => pixels::rgb_from_bgrx32(size, all, rgb),
            PixelFormat::Grey | PixelFormat::Mjpeg => pixels::rgb_from_grey(size, all, rgb),
            PixelFormat::Yuyv => pixels::rgb_from_yuyv(size, all, self.color, rgb),
            PixelFormat::Uyvy => pixels::rgb_from_uyvy(size, all, self.color, rgb),
            PixelFormat::Nv12 => {
                let (luma, chroma) = self.split(0, stride, size.height);
                let (y, uv) = (Plane { bytes: luma, stride }, Plane { bytes: chroma, stride });
                pixels::rgb_from_nv12(size, y, uv, self.color, rgb)
            }
            PixelFormat::Yu12 => {
                let half = stride.div_ceil(2);
                let (luma, chroma) = self.split(0, stride, size.height);
                let (_, last) = self.split(luma.len(), half, size.height.div_ceil(2));
                let y = Plane { bytes: luma, stride };
                let u = Plane { bytes: chroma, stride: half };
                let v = Plane { bytes: last, stride: half };
                pixels::rgb_from_yu12(size, y, u, v, self.color, rgb)
            }
        }
    }

    /// The plane of `lines` lines that begins at byte `from`, and what follows it. A plane that
    /// is cut short takes all there is.
    fn split(&self, from: usize, stride: usize, lines: usize) -> (&[u8], &[u8]) {
        let rest = &self.bytes[from..];
        rest.split_at(stride.saturating_mul(lines).min(rest.len()))
    }

    /// Least bytes of an uncompressed picture of this format, size and stride.
    pub(super) fn needed_bytes(&self) -> usize {
        let (width, height, stride) = (self.width as usize, self.height as usize, self.stride as usize);
        let plane = |lines: usize, stride: usize, line: usize| (lines - 1) * stride + line;
        let (across, down) = (width.div_ceil(2), height.div_ceil(2));
        match self.format {
            PixelFormat::Rgb24 | PixelFormat::Bgr24 => plane(height, stride, 3 * width),
            PixelFormat::Rgbx32 | PixelFormat::Bgrx32 => plane(height, stride, 4 * width),
            PixelFormat::Grey => plane(height, stride, width),
            PixelFormat::Yuyv | PixelFormat::Uyvy => plane(height, stride, 4 * across),
            PixelFormat::Nv12 => height * stride + plane(down, stride, 2 * across),
            PixelFormat::Yu12 => {
                let half = stride.div_ceil(2);
                height * stride + down * half + plane(down, half, across)
            }
            PixelFormat::Mjpeg => 0,
        }
    }

    fn pixels_error(&self, source: PixelsError) -> FrameError {
        FrameError::Pixels { format: self.format, width: self.width, height: self.height, source }
    }
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
    use super::*;

    /// A frame of one grey value whose chroma is neutral.
    fn flat(format: PixelFormat, value: u8) -> Frame {
        let (width, height) = (6, 4);
        let (stride, bytes) = match format {
            PixelFormat::Yuyv => (12, [value, 128].repeat(24)),
            PixelFormat::Uyvy => (12, [128, value].repeat(24)),
            PixelFormat::Nv12 | PixelFormat::Yu12 => (6, [vec![value; 24], vec![128; 12]].concat()),
            PixelFormat::Grey => (6, vec![value; 24]),
            PixelFormat::Rgb24 | PixelFormat::Bgr24 => (18, vec![value; 72]),
            PixelFormat::Rgbx32 | PixelFormat::Bgrx32 => (24, vec![value; 96]),
            PixelFormat::Mjpeg => (0, Vec::new()),
        };
        Frame { width, height, stride, format, bytes, ..Frame::empty() }
    }

    const RAW: [PixelFormat; 9] = [
        PixelFormat::Rgb24,
        PixelFormat::Bgr24,
        PixelFormat::Rgbx32,
        PixelFormat::Bgrx32,
        PixelFormat::Grey,
        PixelFormat::Yuyv,
        PixelFormat::Uyvy,
        PixelFormat::Nv12,
        PixelFormat::Yu12,
    ];

    fn is_yuv(format: PixelFormat) -> bool {
        matches!(format, PixelFormat::Yuyv | PixelFormat::Uyvy | PixelFormat::Nv12 | PixelFormat::Yu12)
    }

    #[test]
    fn every_raw_format_becomes_rgb() {
        let mut picture = RgbImage::new(2, 2);
        for format in RAW {
            // 126 of 16..=235 is 128 of 0..=255.
            let frame = flat(format, 126);
            frame.check().unwrap();
            frame.rgb_into(&mut picture).unwrap();
            assert_eq!(picture.dimensions(), (6, 4));
            let want = if is_yuv(format) { 128 } else { 126 };
            assert!(picture.iter().all(|&byte| byte == want), "{format:?}");
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
        let jpeg = flat(PixelFormat::Yuyv, 126).jpeg(90).unwrap();
        let shown = Frame { format: PixelFormat::Mjpeg, bytes: jpeg, ..Frame::empty() }.rgb().unwrap();
        assert_eq!(shown.dimensions(), (6, 4));
        assert!(shown.iter().all(|byte| byte.abs_diff(128) <= 1));
    }
}
