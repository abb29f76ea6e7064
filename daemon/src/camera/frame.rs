//! One captured frame.

use std::time::Instant;

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
    /// 4:2:0, a plane of Y and a plane of U V pairs.
    Nv12,
    /// 4:2:0, planes Y, U, V.
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
    /// The frame. Planes follow each other.
    pub bytes: Vec<u8>,
}
