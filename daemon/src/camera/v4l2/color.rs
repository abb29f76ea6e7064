//! What the values of a frame stand for, as drivers say it.

use kernels::pixels::{YuvColor, YuvMatrix, YuvRange};
use v4l::v4l_sys::*;

/// What a driver says of the colours of a format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DriverColor {
    /// Of luminance and chroma.
    pub(super) yuv: YuvColor,
    /// Whether samples are proportional to light.
    pub(super) is_linear: bool,
}

/// The fields of a format.
#[derive(Clone, Copy, Debug)]
pub(super) struct ColorFields {
    pub(super) colorspace: u32,
    pub(super) encoding: u32,
    pub(super) quantization: u32,
    pub(super) transfer: u32,
}

impl DriverColor {
    /// What the driver leaves open follows its colour space, by the rules of V4L2.
    pub(super) fn new(fields: ColorFields) -> Self {
        let ColorFields { colorspace, encoding, quantization, transfer } = fields;
        let matrix = match encoding {
            V4L2_YCBCR_ENC_709 | V4L2_YCBCR_ENC_XV709 => YuvMatrix::Bt709,
            V4L2_YCBCR_ENC_BT2020 | V4L2_YCBCR_ENC_BT2020_CONST_LUM => YuvMatrix::Bt2020,
            V4L2_YCBCR_ENC_SMPTE240M => YuvMatrix::Smpte240m,
            V4L2_YCBCR_ENC_DEFAULT => match colorspace {
                V4L2_COLORSPACE_REC709 | V4L2_COLORSPACE_DCI_P3 => YuvMatrix::Bt709,
                V4L2_COLORSPACE_BT2020 => YuvMatrix::Bt2020,
                V4L2_COLORSPACE_SMPTE240M => YuvMatrix::Smpte240m,
                _ => YuvMatrix::Bt601,
            },
            _ => YuvMatrix::Bt601,
        };
        let is_full = match quantization {
            V4L2_QUANTIZATION_DEFAULT => colorspace == V4L2_COLORSPACE_JPEG,
            quantization => quantization == V4L2_QUANTIZATION_FULL_RANGE,
        };
        let is_linear = match transfer {
            V4L2_XFER_FUNC_DEFAULT => colorspace == V4L2_COLORSPACE_RAW,
            transfer => transfer == V4L2_XFER_FUNC_NONE,
        };
        let range = if is_full { YuvRange::Full } else { YuvRange::Limited };
        Self { yuv: YuvColor { matrix, range }, is_linear }
    }
}

const V4L2_YCBCR_ENC_DEFAULT: u32 = v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_DEFAULT;
const V4L2_YCBCR_ENC_709: u32 = v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_709;
const V4L2_YCBCR_ENC_XV709: u32 = v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_XV709;
const V4L2_YCBCR_ENC_BT2020: u32 = v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_BT2020;
const V4L2_YCBCR_ENC_BT2020_CONST_LUM: u32 = v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_BT2020_CONST_LUM;
const V4L2_YCBCR_ENC_SMPTE240M: u32 = v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_SMPTE240M;
const V4L2_COLORSPACE_REC709: u32 = v4l2_colorspace_V4L2_COLORSPACE_REC709;
const V4L2_COLORSPACE_DCI_P3: u32 = v4l2_colorspace_V4L2_COLORSPACE_DCI_P3;
const V4L2_COLORSPACE_BT2020: u32 = v4l2_colorspace_V4L2_COLORSPACE_BT2020;
const V4L2_COLORSPACE_SMPTE240M: u32 = v4l2_colorspace_V4L2_COLORSPACE_SMPTE240M;
const V4L2_COLORSPACE_JPEG: u32 = v4l2_colorspace_V4L2_COLORSPACE_JPEG;
const V4L2_COLORSPACE_RAW: u32 = v4l2_colorspace_V4L2_COLORSPACE_RAW;
const V4L2_QUANTIZATION_DEFAULT: u32 = v4l2_quantization_V4L2_QUANTIZATION_DEFAULT;
const V4L2_QUANTIZATION_FULL_RANGE: u32 = v4l2_quantization_V4L2_QUANTIZATION_FULL_RANGE;
const V4L2_XFER_FUNC_DEFAULT: u32 = v4l2_xfer_func_V4L2_XFER_FUNC_DEFAULT;
const V4L2_XFER_FUNC_NONE: u32 = v4l2_xfer_func_V4L2_XFER_FUNC_NONE;

#[cfg(test)]
mod tests {
    use super::*;

    const SRGB: u32 = v4l2_colorspace_V4L2_COLORSPACE_SRGB;
    const LIMITED: u32 = v4l2_quantization_V4L2_QUANTIZATION_LIM_RANGE;

    #[test]
    fn what_a_driver_leaves_open_follows_its_colour_space() {
        for (colorspace, encoding, quantization, matrix, range) in [
            (0, 0, 0, YuvMatrix::Bt601, YuvRange::Limited),
            (SRGB, 0, 0, YuvMatrix::Bt601, YuvRange::Limited),
            (V4L2_COLORSPACE_JPEG, 0, 0, YuvMatrix::Bt601, YuvRange::Full),
            (V4L2_COLORSPACE_JPEG, 0, LIMITED, YuvMatrix::Bt601, YuvRange::Limited),
            (V4L2_COLORSPACE_REC709, 0, 0, YuvMatrix::Bt709, YuvRange::Limited),
            (V4L2_COLORSPACE_BT2020, 0, V4L2_QUANTIZATION_FULL_RANGE, YuvMatrix::Bt2020, YuvRange::Full),
            (V4L2_COLORSPACE_SMPTE240M, 0, 0, YuvMatrix::Smpte240m, YuvRange::Limited),
            (V4L2_COLORSPACE_DCI_P3, 0, 0, YuvMatrix::Bt709, YuvRange::Limited),
            (SRGB, V4L2_YCBCR_ENC_709, V4L2_QUANTIZATION_FULL_RANGE, YuvMatrix::Bt709, YuvRange::Full),
            (V4L2_COLORSPACE_REC709, 1, 0, YuvMatrix::Bt601, YuvRange::Limited),
            (99, 99, 99, YuvMatrix::Bt601, YuvRange::Limited),
        ] {
            let fields = ColorFields { colorspace, encoding, quantization, transfer: 0 };
            let want = YuvColor { matrix, range };
            assert_eq!(DriverColor::new(fields).yuv, want, "{fields:?}");
        }
    }

    #[test]
    fn raw_samples_are_linear_unless_the_driver_says_otherwise() {
        for (colorspace, transfer, is_linear) in [
            (V4L2_COLORSPACE_RAW, 0, true),
            (SRGB, 0, false),
            (SRGB, V4L2_XFER_FUNC_NONE, true),
            (V4L2_COLORSPACE_RAW, 2, false),
        ] {
            let fields = ColorFields { colorspace, encoding: 0, quantization: 0, transfer };
            assert_eq!(DriverColor::new(fields).is_linear, is_linear, "{fields:?}");
        }
    }
}
