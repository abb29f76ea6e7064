//! What nodes send as a frame, known by its first bytes: a JPEG or PNG picture, or `sensor_msgs/Image` or
//! `sensor_msgs/CompressedImage` of ROS 2 in CDR.

mod ros_image;

use image::RgbImage;

use super::super::encode;
use super::super::frame::{Frame, FrameError, PixelFormat};
use super::super::jpeg;
use crate::model::preprocess::{PictureError, decode_picture};
use crate::ros::cdr::{self, CdrError};
use crate::ros::message::{CompressedImage, Image};

pub use ros_image::ImageError;
pub(crate) use ros_image::write as write_ros;

/// Most bytes of a frame: what the bus puts together from the network, too.
pub const MAX_BYTES: usize = 64 << 20;

/// Bytes of an unknown payload that are quoted.
const QUOTED: usize = 8;

/// Why a payload is no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Longer than any frame.
    #[error("a frame of {got} bytes, at most {MAX_BYTES} are read")]
    TooLong {
        /// Bytes there are.
        got: usize,
    },
    /// Nothing that is understood.
    #[error("a payload that begins with {start:02x?} (\"{encoding}\") is neither JPEG, PNG nor CDR")]
    Unknown {
        /// Its first bytes.
        start: Vec<u8>,
        /// What it is said to be.
        encoding: String,
    },
    /// CDR of another type.
    #[error("{image}; nor is it the other type of pictures: {compressed}")]
    Cdr {
        /// Why it is no `sensor_msgs/Image`.
        image: CdrError,
        /// Why it is no `sensor_msgs/CompressedImage`.
        compressed: CdrError,
    },
    /// A `sensor_msgs/Image` that cannot be shown.
    #[error("sensor_msgs/msg/Image: {0}")]
    Image(#[from] ImageError),
    /// A `sensor_msgs/CompressedImage` with another kind of file inside.
    #[error("sensor_msgs/msg/CompressedImage: the format \"{0}\" is not understood, send jpeg or png")]
    Compressed(String),
    /// A damaged JPEG picture, or one that is too large.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A damaged PNG picture, or one that is too large.
    #[error(transparent)]
    Picture(#[from] PictureError),
}

/// Writes the picture of a payload into `frame`: all but its times and its number. Returns the capture
/// time that is inside, in nanoseconds since the Unix epoch.
///
/// Sizes are checked before memory is spent. `encoding` is quoted in errors; what counts is the payload.
pub fn read(payload: &[u8], encoding: &str, frame: &mut Frame) -> Result<Option<u64>, PayloadError> {
    if payload.len() > MAX_BYTES {
        return Err(PayloadError::TooLong { got: payload.len() });
    }
    if let Some(read) = read_file(payload, frame) {
        return read.map(|()| None);
    }
    match payload {
        [0, 0 | 1, _, _, ..] => read_cdr(payload, frame),
        _ => {
            let start = payload.iter().copied().take(QUOTED).collect();
            Err(PayloadError::Unknown { start, encoding: encoding.chars().take(80).collect() })
        }
    }
}

/// A picture that is a frame of its own, for those who have no camera at hand.
///
/// Errors: those of [`read`].
pub fn frame_of(payload: &[u8]) -> Result<(Frame, Option<u64>), PayloadError> {
    let mut frame = Frame::empty();
    let stamp = read(payload, "", &mut frame)?;
    Ok((frame, stamp))
}

/// A picture file; `None` if it is none.
fn read_file(bytes: &[u8], frame: &mut Frame) -> Option<Result<(), PayloadError>> {
    match bytes {
        [0xff, 0xd8, ..] => Some(read_jpeg(bytes, frame)),
        [0x89, b'P', b'N', b'G', ..] => Some(read_png(bytes, frame)),
        _ => None,
    }
}

fn read_jpeg(bytes: &[u8], frame: &mut Frame) -> Result<(), PayloadError> {
    (frame.width, frame.height) = jpeg::dimensions(bytes)?;
    (frame.format, frame.stride) = (PixelFormat::Mjpeg, 0);
    frame.bytes.clear();
    frame.bytes.extend_from_slice(bytes);
    Ok(())
}

fn read_png(bytes: &[u8], frame: &mut Frame) -> Result<(), PayloadError> {
    let picture: RgbImage = decode_picture(bytes)?;
    encode::encode(&picture, PixelFormat::Rgb24, frame);
    Ok(())
}

/// The type is not written in the bytes; one that is not meant does not fit.
fn read_cdr(payload: &[u8], frame: &mut Frame) -> Result<Option<u64>, PayloadError> {
    let image = match cdr::decode::<Image<'_>>(payload) {
        Ok(image) => {
            ros_image::read(&image, frame)?;
            return Ok(image.header.stamp.nanos());
        }
        Err(error) => error,
    };
    match cdr::decode::<CompressedImage<'_>>(payload) {
        Ok(file) => {
            let format = || PayloadError::Compressed(file.format.as_str().chars().take(80).collect());
            read_file(file.data.0, frame).unwrap_or_else(|| Err(format()))?;
            Ok(file.header.stamp.nanos())
        }
        Err(compressed) => Err(PayloadError::Cdr { image, compressed }),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{ImageFormat, Rgb};

    use super::*;
    use crate::ros::cdr::{Bytes, Text};
    use crate::ros::message::{Header, Time};

    fn picture() -> RgbImage {
        RgbImage::from_fn(24, 16, |x, y| Rgb([(9 * x) as u8, (15 * y) as u8, 77]))
    }

    fn file(format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn header() -> Header<'static> {
        Header { stamp: Time { sec: 1_700_000_000, nanosec: 5 }, frame_id: Text::new("front") }
    }

    fn compressed(format: &str, data: &[u8]) -> Vec<u8> {
        cdr::encode(&CompressedImage { header: header(), format: Text::new(format), data: Bytes(data) })
    }

    /// Whether a payload shows the picture, but for losses of JPEG.
    fn shows_the_picture(payload: &[u8], off: u8) -> Option<u64> {
        let (frame, stamp) = frame_of(payload).unwrap();
        frame.check().unwrap();
        let shown = frame.rgb().unwrap();
        assert_eq!(shown.dimensions(), (24, 16));
        let worst = shown.iter().zip(picture().iter()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst.is_some_and(|worst| worst <= off), "{worst:?}");
        stamp
    }

    #[test]
    fn pictures_are_known_by_their_first_bytes() {
        for (format, name, off) in
            [(ImageFormat::Jpeg, "rgb8; jpeg compressed bgr8", 40), (ImageFormat::Png, "png", 0)]
        {
            assert_eq!(shows_the_picture(&file(format), off), None);
            let stamp = shows_the_picture(&compressed(name, &file(format)), off);
            assert_eq!(stamp, Some(1_700_000_000_000_000_005));
        }
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let error = |bytes: &[u8]| read(bytes, "image/jpeg", &mut Frame::empty()).unwrap_err();
        for bytes in [&b""[..], b"GIF89a", &[0xff], &[0, 1, 0], &[0, 3, 0, 0, 9]] {
            assert!(matches!(error(bytes), PayloadError::Unknown { .. }), "{bytes:?}");
        }
        let (jpeg, png) = (file(ImageFormat::Jpeg), file(ImageFormat::Png));
        assert!(matches!(error(&jpeg[..jpeg.len() / 2]), PayloadError::Frame(_)));
        assert!(matches!(error(&png[..png.len() / 2]), PayloadError::Picture(_)));
        assert!(matches!(error(&compressed("jpeg", &jpeg[..jpeg.len() / 2])), PayloadError::Frame(_)));
        let depth = "16UC1; compressedDepth png";
        assert_eq!(error(&compressed(depth, b"\0\0\0\0")), PayloadError::Compressed(depth.into()));
        assert!(matches!(error(&[0, 1, 0, 0, 1, 2, 3, 4]), PayloadError::Cdr { .. }));
        let mut huge = jpeg;
        huge.resize(MAX_BYTES + 1, 0);
        assert_eq!(error(&huge), PayloadError::TooLong { got: MAX_BYTES + 1 });
    }

    /// Bytes changed, cut off and repeated at places that a seeded generator chooses: an error or a frame
    /// that can be shown.
    #[test]
    fn mutations_are_refused_or_shown() {
        let data = vec![90; 24 * 16 * 3];
        let image = Image {
            header: header(),
            height: 16,
            width: 24,
            encoding: Text::new("rgb8"),
            is_bigendian: 0,
            step: 72,
            data: Bytes(&data),
        };
        let (jpeg, png) = (file(ImageFormat::Jpeg), file(ImageFormat::Png));
        let seeds = [cdr::encode(&image), compressed("jpeg", &jpeg), compressed("png", &png), jpeg, png];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |end: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 20) as usize % end.max(1)
        };
        let (mut shown, mut refused) = (0, 0);
        for round in 0..4000 {
            let mut bytes = seeds[round % seeds.len()].clone();
            for _ in 0..=below(3) {
                // Heads are where lengths are.
                let reach = if below(2) == 0 { bytes.len() } else { bytes.len().min(80) };
                let at = below(reach);
                match below(5) {
                    0 => bytes.truncate(at),
                    1 => bytes.extend_from_within(at..),
                    2 if at + 4 <= bytes.len() => bytes[at..at + 4].fill([0, 0x7f, 0x80, 0xff][below(4)]),
                    _ if at < bytes.len() => bytes[at] = below(256) as u8,
                    _ => {}
                }
            }
            match frame_of(&bytes) {
                Err(_) => refused += 1,
                Ok((frame, _)) => {
                    frame.check().unwrap();
                    // JPEG scans may still be damaged inside.
                    assert!(frame.rgb().is_ok() || frame.format == PixelFormat::Mjpeg);
                    shown += 1;
                }
            }
        }
        assert!(shown > 300 && refused > 300, "{shown} shown, {refused} refused");
    }
}
