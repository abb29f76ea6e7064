//! JPEG and PNG bytes to RGB, for pictures that come from outside.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageReader, Limits, RgbImage};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

/// Longest side of a picture that is decoded.
pub const MAX_SIDE: u32 = 16_384;
/// Most pixels of a picture that is decoded; as RGB they take 96 MiB.
pub const MAX_PIXELS: u64 = 32 << 20;
/// Most memory the PNG decoder may take beside the picture.
const MAX_SCRATCH: u64 = 64 << 20;

/// Why bytes are no picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    /// Neither JPEG nor PNG.
    #[error("neither a JPEG nor a PNG picture")]
    UnknownFormat,
    /// More pixels than are decoded.
    #[error(
        "a picture of {width} x {height} pixels is too large: at most {MAX_SIDE} a side and {MAX_PIXELS} in all"
    )]
    TooLarge {
        /// Pixels across.
        width: u64,
        /// Pixels down.
        height: u64,
    },
    /// The file ends early.
    #[error("the {0} picture is truncated")]
    Truncated(&'static str),
    /// The file is damaged.
    #[error("damaged {format} picture: {problem}")]
    Damaged {
        /// JPEG or PNG.
        format: &'static str,
        /// What the decoder says.
        problem: String,
    },
}

/// Decodes a JPEG or PNG picture to 8-bit RGB.
///
/// Alpha is dropped, gray is repeated, palettes are expanded, of 16-bit samples the high byte is
/// taken. EXIF orientation is not applied: the model was trained without. A truncated file is an
/// error, and size is checked before memory is spent.
pub fn decode_picture(bytes: &[u8]) -> Result<RgbImage, PictureError> {
    if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
        decode_jpeg(bytes)
    } else if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        decode_png(bytes)
    } else {
        Err(PictureError::UnknownFormat)
    }
}

fn check_size(width: u64, height: u64) -> Result<(), PictureError> {
    let side = u64::from(MAX_SIDE);
    if width == 0 || height == 0 || width > side || height > side || width * height > MAX_PIXELS {
        return Err(PictureError::TooLarge { width, height });
    }
    Ok(())
}

fn decode_jpeg(bytes: &[u8]) -> Result<RgbImage, PictureError> {
    let damaged = |problem: String| PictureError::Damaged { format: "JPEG", problem };
    if !has_end(bytes) {
        return Err(PictureError::Truncated("JPEG"));
    }
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(MAX_SIDE as usize)
        .set_max_height(MAX_SIDE as usize)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| damaged(format!("{error:?}")))?;
    let info = decoder.info().ok_or_else(|| damaged("no header".to_owned()))?;
    check_size(u64::from(info.width), u64::from(info.height))?;
    let rgb = decoder.decode().map_err(|error| damaged(format!("{error:?}")))?;
    RgbImage::from_raw(u32::from(info.width), u32::from(info.height), rgb)
        .ok_or_else(|| damaged("it has another number of pixels than it says".to_owned()))
}

/// Whether the end marker follows the picture data. A decoder may otherwise fill up with gray.
fn has_end(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xff, marker, high, low]) = bytes.get(at..at + 4) {
        const START_OF_SCAN: u8 = 0xda;
        if marker == START_OF_SCAN {
            // Data bytes of 0xff are followed by 0, so this pair is the marker.
            return bytes[at..].windows(2).any(|pair| pair == [0xff, 0xd9]);
        }
        let fill = marker == 0xff;
        at += if fill { 1 } else { 2 + usize::from(u16::from_be_bytes([high, low])) };
    }
    false
}

fn decode_png(bytes: &[u8]) -> Result<RgbImage, PictureError> {
    let damaged = |error: image::ImageError| match &error {
        image::ImageError::IoError(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => {
            PictureError::Truncated("PNG")
        }
        _ => PictureError::Damaged { format: "PNG", problem: error.to_string() },
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), image::ImageFormat::Png);
    let mut limits = Limits::default();
    limits.max_alloc = Some(8 * MAX_PIXELS + MAX_SCRATCH);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    check_size(u64::from(width), u64::from(height))?;
    let picture = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    Ok(high_bytes(picture))
}

/// To RGB by dropping alpha and the low byte of 16-bit samples.
fn high_bytes(picture: DynamicImage) -> RgbImage {
    let (width, height) = (picture.width(), picture.height());
    let wide = match picture {
        DynamicImage::ImageLuma16(gray) => spread(gray.as_raw(), 1),
        DynamicImage::ImageLumaA16(gray) => spread(gray.as_raw(), 2),
        DynamicImage::ImageRgb16(rgb) => spread(rgb.as_raw(), 3),
        DynamicImage::ImageRgba16(rgba) => spread(rgba.as_raw(), 4),
        narrow => return narrow.into_rgb8(),
    };
    RgbImage::from_raw(width, height, wide).expect("three bytes were made of every pixel")
}

fn spread(samples: &[u16], channels: usize) -> Vec<u8> {
    let high = |sample: u16| (sample >> 8) as u8;
    let colour = |pixel: &[u16]| match *pixel {
        [r, g, b] | [r, g, b, _] => [high(r), high(g), high(b)],
        _ => [high(pixel[0]); 3],
    };
    samples.chunks_exact(channels).flat_map(colour).collect()
}
