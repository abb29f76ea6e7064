//! `sensor_msgs/Image`: names of pixel layouts, rows and their padding.

use kernels::pixels::{BayerOrder, Samples};

use super::super::super::frame::{Frame, FrameError, PixelFormat, check_size};
use crate::ros::cdr::{self, Bytes, Text};
use crate::ros::message::{Header, Image, Time};

/// Names of layouts that frames can have as they are. The first of a layout is the one that is written.
const LAYOUTS: [(&str, PixelFormat); 20] = [
    ("rgb8", PixelFormat::Rgb24),
    ("bgr8", PixelFormat::Bgr24),
    ("8UC3", PixelFormat::Bgr24),
    ("rgba8", PixelFormat::Rgbx32),
    ("bgra8", PixelFormat::Bgrx32),
    ("8UC4", PixelFormat::Bgrx32),
    ("mono8", PixelFormat::Grey),
    ("8UC1", PixelFormat::Grey),
    ("yuv422", PixelFormat::Uyvy),
    ("uyvy", PixelFormat::Uyvy),
    ("yuv422_yuy2", PixelFormat::Yuyv),
    ("yuyv", PixelFormat::Yuyv),
    ("nv12", PixelFormat::Nv12),
    ("nv21", PixelFormat::Nv21),
    ("i420", PixelFormat::Yu12),
    ("yu12", PixelFormat::Yu12),
    ("bayer_rggb8", PixelFormat::Bayer(BayerOrder::Rggb, Samples::Bits8)),
    ("bayer_grbg8", PixelFormat::Bayer(BayerOrder::Grbg, Samples::Bits8)),
    ("bayer_gbrg8", PixelFormat::Bayer(BayerOrder::Gbrg, Samples::Bits8)),
    ("bayer_bggr8", PixelFormat::Bayer(BayerOrder::Bggr, Samples::Bits8)),
];

/// Layouts of 16 bits, of which the upper 8 are taken, and what those are.
const WIDE: [(&str, PixelFormat); 5] = [
    ("mono16", PixelFormat::Grey),
    ("bayer_rggb16", PixelFormat::Bayer(BayerOrder::Rggb, Samples::Bits8)),
    ("bayer_grbg16", PixelFormat::Bayer(BayerOrder::Grbg, Samples::Bits8)),
    ("bayer_gbrg16", PixelFormat::Bayer(BayerOrder::Gbrg, Samples::Bits8)),
    ("bayer_bggr16", PixelFormat::Bayer(BayerOrder::Bggr, Samples::Bits8)),
];

/// Why an image cannot be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// An encoding that is not a picture, or not a known one.
    #[error(
        "the encoding \"{0}\" is not understood; send rgb8, bgr8, rgba8, bgra8, mono8, mono16, yuv422, yuv422_yuy2, \
         nv12, nv21, bayer_rggb8 or another order or 16 of bayer"
    )]
    Encoding(String),
    /// Rows overlap.
    #[error("a step of {step} bytes, but {width} pixels of {encoding} take {needed}")]
    Step {
        /// Bytes from one row to the next.
        step: u32,
        /// Pixels across.
        width: u32,
        /// The pixels' layout.
        encoding: &'static str,
        /// Bytes of a row.
        needed: u32,
    },
    /// The rows are not all there.
    #[error("{got} bytes of pixels, but {height} rows need {needed}")]
    Short {
        /// Bytes there are.
        got: usize,
        /// Rows.
        height: u32,
        /// Bytes there should be.
        needed: u64,
    },
    /// No pixels or too many.
    #[error(transparent)]
    Size(#[from] FrameError),
}

/// Writes an image into `frame`. Nothing is allocated beyond the bytes that the image has.
pub(super) fn read(image: &Image<'_>, frame: &mut Frame) -> Result<(), ImageError> {
    check_size(image.width, image.height)?;
    let name = image.encoding.as_str();
    if let Some(&(name, format)) = WIDE.iter().find(|(wide, _)| *wide == name) {
        return read_wide(image, (name, format), frame);
    }
    let known = LAYOUTS.iter().find(|(known, _)| *known == name);
    let (name, format) = *known.ok_or_else(|| ImageError::Encoding(name.chars().take(80).collect()))?;
    let row = format.least_stride(image.width);
    check_rows(image, name, row)?;
    (frame.width, frame.height, frame.stride) = (image.width, image.height, image.step);
    (frame.format, frame.color) = (format, Default::default());
    let needed = frame.needed_bytes();
    let data = image.data.0;
    let pixels = data.get(..needed).ok_or(ImageError::Short {
        got: data.len(),
        height: image.height,
        needed: needed as u64,
    })?;
    frame.bytes.clear();
    frame.bytes.extend_from_slice(pixels);
    Ok(())
}

/// Takes the upper byte of every pixel.
fn read_wide(
    image: &Image<'_>,
    (name, format): (&'static str, PixelFormat),
    frame: &mut Frame,
) -> Result<(), ImageError> {
    let row = 2 * image.width;
    check_rows(image, name, row)?;
    (frame.width, frame.height, frame.stride) = (image.width, image.height, image.width);
    (frame.format, frame.color) = (format, Default::default());
    frame.bytes.clear();
    let upper = usize::from(image.is_bigendian == 0);
    let rows = image.data.0.chunks(image.step as usize).take(image.height as usize);
    for pixels in rows.map(|bytes| bytes[..row as usize].as_chunks::<2>().0) {
        frame.bytes.extend(pixels.iter().map(|pixel| pixel[upper]));
    }
    Ok(())
}

/// Whether rows of `row` bytes do not overlap and the last one of the first plane is there.
fn check_rows(image: &Image<'_>, encoding: &'static str, row: u32) -> Result<(), ImageError> {
    if image.step < row {
        return Err(ImageError::Step { step: image.step, width: image.width, encoding, needed: row });
    }
    let needed = u64::from(image.step) * u64::from(image.height - 1) + u64::from(row);
    let got = image.data.0.len();
    if (got as u64) < needed {
        return Err(ImageError::Short { got, height: image.height, needed });
    }
    Ok(())
}

/// The bytes of a frame's image up to the first pixel, `None` for JPEG; the frame's own bytes follow.
pub(crate) fn write(camera: &str, frame: &Frame) -> Option<Vec<u8>> {
    let (name, _) = LAYOUTS.iter().find(|(_, format)| *format == frame.format)?;
    let image = Image {
        header: Header { stamp: Time::from_nanos(frame.captured_at), frame_id: Text::new(camera) },
        height: frame.height,
        width: frame.width,
        encoding: Text::new(name),
        is_bigendian: 0,
        step: frame.stride,
        data: Bytes(&[]),
    };
    let mut head = cdr::encode(&image);
    // The length of the pixels is the last field before them.
    let length = u32::try_from(frame.bytes.len()).ok()?;
    let place = head.len() - size_of::<u32>();
    head[place..].copy_from_slice(&length.to_le_bytes());
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image<'a>(encoding: &'a str, (width, height, step): (u32, u32, u32), data: &'a [u8]) -> Image<'a> {
        Image {
            header: Header::default(),
            height,
            width,
            encoding: Text::new(encoding),
            is_bigendian: 0,
            step,
            data: Bytes(data),
        }
    }

    fn read_new(image: &Image<'_>) -> Result<Frame, ImageError> {
        let mut frame = Frame::empty();
        read(image, &mut frame).map(|()| frame)
    }

    #[test]
    fn every_layout_is_read_with_and_without_padding() {
        for (name, format) in LAYOUTS {
            for padding in [0, 6] {
                let step = format.least_stride(6) + padding;
                let data = vec![128; 4 * step as usize * 2];
                let frame = read_new(&image(name, (6, 4, step), &data)).unwrap();
                frame.check().unwrap();
                assert_eq!((frame.format, frame.rgb().unwrap().dimensions()), (format, (6, 4)));
                let short = &data[..frame.bytes.len() - 1];
                let error = read_new(&image(name, (6, 4, step), short)).unwrap_err();
                assert!(matches!(error, ImageError::Short { .. }), "{name}: {error}");
                let error = read_new(&image(name, (6, 4, format.least_stride(6) - 1), &data)).unwrap_err();
                assert!(matches!(error, ImageError::Step { .. }), "{name}: {error}");
            }
        }
    }

    #[test]
    fn of_16_bits_the_upper_8_count() {
        let data = [1, 10, 2, 20, 0, 0, 3, 30, 4, 40];
        let little = image("mono16", (2, 2, 6), &data);
        assert_eq!(read_new(&little).unwrap().bytes, [10, 20, 30, 40]);
        assert_eq!(read_new(&Image { is_bigendian: 1, ..little }).unwrap().bytes, [1, 2, 3, 4]);
        for (name, format) in WIDE {
            let frame = read_new(&image(name, (2, 2, 6), &data)).unwrap();
            frame.check().unwrap();
            assert_eq!((frame.format, frame.bytes), (format, vec![10, 20, 30, 40]), "{name}");
        }
    }

    #[test]
    fn impossible_images_are_refused() {
        for name in ["16UC1", "32FC1", "", "RGB8", "nv24", "bayer_rggb12"] {
            let error = read_new(&image(name, (2, 2, 8), &[0; 64])).unwrap_err();
            assert_eq!(error, ImageError::Encoding(name.into()));
        }
        for (width, height) in [(0, 2), (2, 0), (u32::MAX, 2), (8192, 8192)] {
            let error = read_new(&image("mono8", (width, height, u32::MAX), &[0; 64])).unwrap_err();
            assert!(matches!(error, ImageError::Size(_)), "{error}");
        }
        let error = read_new(&image("mono16", (2, 8192, u32::MAX), &[0; 64])).unwrap_err();
        assert!(matches!(error, ImageError::Short { needed: 35_180_077_113_349, .. }), "{error}");
    }

    #[test]
    fn what_is_written_is_read() {
        for (_, format) in LAYOUTS {
            let stride = format.least_stride(6);
            let bytes: Vec<u8> = (0..stride * 4 * 2).map(|at| at as u8).collect();
            let mut frame = Frame { width: 6, height: 4, stride, format, bytes, ..Frame::empty() };
            frame.captured_at = 1_700_000_000_000_000_007;
            frame.bytes.truncate(frame.needed_bytes());
            let message = [write("front", &frame).unwrap(), frame.bytes.clone()].concat();
            let image: Image<'_> = cdr::decode(&message).unwrap();
            assert_eq!(image.header.frame_id.as_str(), "front");
            assert_eq!(image.header.stamp.nanos(), Some(frame.captured_at));
            let again = read_new(&image).unwrap();
            assert_eq!((again.format, again.stride, again.bytes), (format, stride, frame.bytes));
        }
        assert_eq!(write("front", &Frame { format: PixelFormat::Mjpeg, ..Frame::empty() }), None);
    }
}
