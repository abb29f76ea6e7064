//! Frames as JPEG pictures.

use messages::AskError;

use crate::camera::Frame;

/// Quality of encoded pictures, 1 to 100.
const QUALITY: u8 = 90;

/// A frame as JPEG. What the camera compressed is passed on as it is.
pub(super) fn jpeg(frame: &Frame) -> Result<Vec<u8>, AskError> {
    let internal = |error| AskError::Internal {
        reason: format!("frame {} cannot be written as JPEG: {error}", frame.sequence),
    };
    frame.jpeg(QUALITY).map_err(internal)
}
