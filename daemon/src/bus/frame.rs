//! Frames as JPEG pictures.

use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use messages::AskError;

use crate::camera::{Frame, PixelFormat};

/// Quality of encoded pictures, 1 to 100.
const QUALITY: u8 = 90;

/// A frame as JPEG. What the camera compressed is passed on as it is.
pub(super) fn jpeg(frame: &Frame) -> Result<Vec<u8>, AskError> {
    let internal = |reason: String| AskError::Internal { reason };
    if frame.format == PixelFormat::Mjpeg {
        return Ok(frame.bytes.clone());
    }
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
        .encode(&frame.bytes, frame.width, frame.height, ExtendedColorType::Rgb8)
        .map_err(|error| internal(format!("frame {} cannot be written as JPEG: {error}", frame.sequence)))?;
    Ok(jpeg)
}
