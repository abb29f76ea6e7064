//! Names of pixel formats in four letters, and which of them are understood.

use std::fmt;

use crate::camera::PixelFormat;

/// Four letters that name a pixel format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FourCc(pub [u8; 4]);

impl FourCc {
    /// The name from its letters; names of three letters are filled with a space.
    pub fn parse(name: &str) -> Option<Self> {
        let bytes = name.as_bytes();
        if !bytes.iter().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        match *bytes {
            [a, b, c, d] => Some(Self([a, b, c, d])),
            [a, b, c] => Some(Self([a, b, c, b' '])),
            _ => None,
        }
    }

    /// The number that the kernel knows it by.
    pub(super) fn code(self) -> u32 {
        u32::from_le_bytes(self.0)
    }

    pub(super) fn from_code(code: u32) -> Self {
        Self(code.to_le_bytes())
    }
}

impl fmt::Display for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The highest bit marks big-endian variants.
        let letters =
            self.0.map(|byte| if (byte & 0x7f).is_ascii_graphic() { (byte & 0x7f) as char } else { ' ' });
        let letters: String = letters.iter().collect();
        write!(f, "{}{}", letters.trim_end(), if self.0[3] & 0x80 == 0 { "" } else { "-BE" })
    }
}

/// How a format lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// What the frame will be.
    pub(super) format: PixelFormat,
    /// Place in the order of preference: the cheaper to convert and the fewer bytes, the earlier;
    /// grey comes last because it has no colours.
    pub(super) order: u8,
}

/// The layout of a format, if it is understood. The second name of NV12 and of YU12 stands for the
/// same picture in separate planes.
pub(super) fn understood(fourcc: FourCc) -> Option<Layout> {
    let (format, order) = match &fourcc.0 {
        b"YUYV" => (PixelFormat::Yuyv, 0),
        b"UYVY" => (PixelFormat::Uyvy, 1),
        b"NV12" | b"NM12" => (PixelFormat::Nv12, 2),
        b"YU12" | b"YM12" => (PixelFormat::Yu12, 3),
        b"RGB3" => (PixelFormat::Rgb24, 4),
        b"BGR3" => (PixelFormat::Bgr24, 5),
        b"XB24" | b"AB24" => (PixelFormat::Rgbx32, 6),
        b"XR24" | b"AR24" | b"BGR4" => (PixelFormat::Bgrx32, 7),
        b"MJPG" | b"JPEG" => (PixelFormat::Mjpeg, 8),
        b"GREY" => (PixelFormat::Grey, 9),
        _ => return None,
    };
    Some(Layout { format, order })
}

/// The layout of the pixels of a format, if it is understood.
pub(in crate::camera) fn pixel_format(fourcc: FourCc) -> Option<PixelFormat> {
    understood(fourcc).map(|layout| layout.format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for name in ["YUYV", "Y16", "GREY"] {
            assert_eq!(FourCc::parse(name).unwrap().to_string(), name);
        }
        let big_endian = FourCc::from_code(FourCc::parse("Y16").unwrap().code() | 1 << 31);
        assert_eq!(big_endian.to_string(), "Y16-BE");
        for name in ["", "YU", "YUYV2", "Y\u{e9}V"] {
            assert_eq!(FourCc::parse(name), None);
        }
    }
}
