//! Names of pixel formats in four letters, and which of them are understood.

use std::fmt;

use kernels::pixels::{BayerOrder, Samples};

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
    /// Place in the order of preference.
    pub(super) order: usize,
}

/// The formats that are understood, those to prefer first: the cheaper to convert and the fewer
/// bytes, the earlier; then those that are compressed, then those of bare sensors, whose colours are
/// guessed, then those without colours. Of names for the same layout the usual one comes first; names
/// with an M stand for the same picture in separate planes.
const UNDERSTOOD: [(&[u8; 4], PixelFormat); 57] = {
    use BayerOrder::{Bggr, Gbrg, Grbg, Rggb};
    use PixelFormat::*;
    use Samples::{Bits8, Bits10, Bits12, Bits16, Packed10};
    [
        (b"YUYV", Yuyv),
        (b"UYVY", Uyvy),
        (b"YVYU", Yvyu),
        (b"VYUY", Vyuy),
        (b"NV12", Nv12),
        (b"NM12", Nv12),
        (b"NV21", Nv21),
        (b"NM21", Nv21),
        (b"YU12", Yu12),
        (b"YM12", Yu12),
        (b"YV12", Yv12),
        (b"YM21", Yv12),
        (b"NV16", Nv16),
        (b"NM16", Nv16),
        (b"NV61", Nv61),
        (b"NM61", Nv61),
        (b"422P", Yuv422p),
        (b"YM16", Yuv422p),
        (b"RGB3", Rgb24),
        (b"BGR3", Bgr24),
        (b"XR24", Bgrx32),
        (b"AR24", Bgrx32),
        (b"BGR4", Bgrx32),
        (b"XB24", Rgbx32),
        (b"AB24", Rgbx32),
        (b"BX24", Xrgb32),
        (b"BA24", Xrgb32),
        (b"RGB4", Xrgb32),
        (b"RX24", Xbgr32),
        (b"RA24", Xbgr32),
        (b"MJPG", Mjpeg),
        (b"JPEG", Mjpeg),
        (b"RGGB", Bayer(Rggb, Bits8)),
        (b"GRBG", Bayer(Grbg, Bits8)),
        (b"GBRG", Bayer(Gbrg, Bits8)),
        (b"BA81", Bayer(Bggr, Bits8)),
        (b"pRAA", Bayer(Rggb, Packed10)),
        (b"pgAA", Bayer(Grbg, Packed10)),
        (b"pGAA", Bayer(Gbrg, Packed10)),
        (b"pBAA", Bayer(Bggr, Packed10)),
        (b"RG10", Bayer(Rggb, Bits10)),
        (b"BA10", Bayer(Grbg, Bits10)),
        (b"GB10", Bayer(Gbrg, Bits10)),
        (b"BG10", Bayer(Bggr, Bits10)),
        (b"RG12", Bayer(Rggb, Bits12)),
        (b"BA12", Bayer(Grbg, Bits12)),
        (b"GB12", Bayer(Gbrg, Bits12)),
        (b"BG12", Bayer(Bggr, Bits12)),
        (b"RG16", Bayer(Rggb, Bits16)),
        (b"GR16", Bayer(Grbg, Bits16)),
        (b"GB16", Bayer(Gbrg, Bits16)),
        (b"BYR2", Bayer(Bggr, Bits16)),
        (b"GREY", Grey),
        (b"Y10P", Grey10Packed),
        (b"Y10 ", Grey10),
        (b"Y12 ", Grey12),
        (b"Y16 ", Grey16),
    ]
};

/// The layout of a format, if it is understood.
pub(super) fn understood(fourcc: FourCc) -> Option<Layout> {
    let order = UNDERSTOOD.iter().position(|(name, _)| **name == fourcc.0)?;
    Some(Layout { format: UNDERSTOOD[order].1, order })
}

/// The layout of the pixels of a format, if it is understood.
pub(in crate::camera) fn pixel_format(fourcc: FourCc) -> Option<PixelFormat> {
    understood(fourcc).map(|layout| layout.format)
}

/// The usual name of a layout.
pub(in crate::camera) fn name_of(format: PixelFormat) -> Option<FourCc> {
    UNDERSTOOD.iter().find(|(_, layout)| *layout == format).map(|(name, _)| FourCc(**name))
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

    #[test]
    fn every_layout_has_a_name() {
        use crate::camera::encode::RAW;
        for format in RAW.into_iter().chain([PixelFormat::Mjpeg]) {
            let name = name_of(format).unwrap_or_else(|| panic!("{format:?} has no name"));
            assert_eq!(pixel_format(name), Some(format));
        }
        for (i, (name, _)) in UNDERSTOOD.iter().enumerate() {
            assert!(UNDERSTOOD[..i].iter().all(|(other, _)| other != name), "{name:?} stands twice");
        }
    }
}
