//! What the values of a picture stand for.

/// What the values of a picture stand for. Each layout looks at its own part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Color {
    /// Of luminance and chroma.
    pub yuv: YuvColor,
    /// Of the samples of a bare sensor.
    pub sensor: SensorColor,
}

/// Weights of the colour difference signals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum YuvMatrix {
    /// ITU-R BT.601: what webcams send unless they say otherwise.
    #[default]
    Bt601,
    /// ITU-R BT.709.
    Bt709,
    /// ITU-R BT.2020 with constant weights.
    Bt2020,
    /// SMPTE 240M.
    Smpte240m,
}

/// Which code values stand for black and white.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum YuvRange {
    /// Y from 16 to 235, U and V from 16 to 240.
    #[default]
    Limited,
    /// 0 to 255.
    Full,
}

/// How YUV stands for colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct YuvColor {
    /// Weights of the colour difference signals.
    pub matrix: YuvMatrix,
    /// Which code values stand for black and white.
    pub range: YuvRange,
}

/// How the samples of a bare sensor stand for colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SensorColor {
    /// The sample of no light, where the largest is 1023. Below 1023.
    pub black: u16,
    /// What makes white white.
    pub balance: WhiteBalance,
    /// From light to code values.
    pub curve: ToneCurve,
}

/// What samples of red, green and blue are multiplied by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WhiteBalance {
    /// So that the mean of the picture becomes grey, as far as that is plausible.
    #[default]
    GreyWorld,
    /// By these, in 256ths.
    Gains([u16; 3]),
}

impl WhiteBalance {
    /// Every sample as it is.
    pub const NONE: Self = Self::Gains([256; 3]);
}

/// From light to code values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ToneCurve {
    /// Samples are code values already.
    #[default]
    None,
    /// Samples measure light: the curve of sRGB is applied.
    Srgb,
}

/// Factors as 16-bit fixed point numbers of [`FACTOR_BITS`] fractional bits:
/// R = y (Y - black) + rv V, G = y (Y - black) - gu U - gv V, B = y (Y - black) + bu U.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Factors {
    pub(crate) black: i16,
    pub(crate) y: i16,
    pub(crate) rv: i16,
    pub(crate) gu: i16,
    pub(crate) gv: i16,
    pub(crate) bu: i16,
}

/// The largest factor, 2.14, needs two bits before the point and one for the sign.
pub(crate) const FACTOR_BITS: u32 = 13;
/// Code values are shifted up to fill 16 bits: 255 << 7 is below 32768.
pub(crate) const CODE_SHIFT: u32 = 7;

impl YuvColor {
    /// The real-valued factors: black level, then the factors of Y, of V in R, of U in G, of V in G
    /// and of U in B.
    pub(super) fn real_factors(self) -> (f64, [f64; 5]) {
        let (red, blue) = match self.matrix {
            YuvMatrix::Bt601 => (0.299, 0.114),
            YuvMatrix::Bt709 => (0.2126, 0.0722),
            YuvMatrix::Bt2020 => (0.2627, 0.0593),
            YuvMatrix::Smpte240m => (0.212, 0.087),
        };
        let green = 1.0 - red - blue;
        let (black, luma, chroma) = match self.range {
            YuvRange::Limited => (16.0, 255.0 / 219.0, 255.0 / 224.0),
            YuvRange::Full => (0.0, 1.0, 1.0),
        };
        let rv = 2.0 * (1.0 - red) * chroma;
        let bu = 2.0 * (1.0 - blue) * chroma;
        (black, [luma, rv, bu * blue / green, rv * red / green, bu])
    }

    /// The factors in fixed point.
    pub(crate) fn factors(self) -> Factors {
        let (black, real) = self.real_factors();
        let [y, rv, gu, gv, bu] = real.map(|f| (f * f64::from(1 << FACTOR_BITS)).round() as i16);
        Factors { black: black as i16, y, rv, gu, gv, bu }
    }
}
