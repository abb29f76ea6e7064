//! Luminance and colour difference to R, G, B in 16-bit integers.
//!
//! Every YUV layout is unpacked into blocks of [`BLOCK`] pixels and converted here. A product is
//! the high half of a 16 x 16 bit multiplication, which every SIMD instruction set has, so the
//! compiler vectorizes the block for any target. The result is within one step of the rounded
//! real-valued formula.

/// Pixels converted at a time.
pub(super) const BLOCK: usize = 32;

/// Weights of the colour difference signals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum YuvMatrix {
    /// ITU-R BT.601: what webcams send unless they say otherwise.
    #[default]
    Bt601,
    /// ITU-R BT.709.
    Bt709,
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

/// Factors as 16-bit fixed point numbers of [`FACTOR_BITS`] fractional bits:
/// R = y (Y - black) + rv V, G = y (Y - black) - gu U - gv V, B = y (Y - black) + bu U.
#[derive(Clone, Copy, Debug)]
pub(super) struct Factors {
    black: i16,
    y: i16,
    rv: i16,
    gu: i16,
    gv: i16,
    bu: i16,
}

/// The largest factor, 2.11, needs two bits before the point and one for the sign.
const FACTOR_BITS: u32 = 13;
/// Code values are shifted up to fill 16 bits: 255 << 7 is below 32768.
const CODE_SHIFT: u32 = 7;
/// Fractional bits of a product: 13 + 7 - 16.
const PRODUCT_BITS: u32 = FACTOR_BITS + CODE_SHIFT - 16;

impl YuvColor {
    /// The real-valued factors: black level, then the factors of Y, of V in R, of U in G, of V in G
    /// and of U in B.
    pub(super) fn real_factors(self) -> (f64, [f64; 5]) {
        let (red, blue) = match self.matrix {
            YuvMatrix::Bt601 => (0.299, 0.114),
            YuvMatrix::Bt709 => (0.2126, 0.0722),
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
    pub(super) fn factors(self) -> Factors {
        let (black, real) = self.real_factors();
        let [y, rv, gu, gv, bu] = real.map(|f| (f * f64::from(1 << FACTOR_BITS)).round() as i16);
        Factors { black: black as i16, y, rv, gu, gv, bu }
    }
}

/// Y, U and V of consecutive pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) y: [u8; BLOCK],
    pub(super) u: [u8; BLOCK],
    pub(super) v: [u8; BLOCK],
}

impl Block {
    /// Black pixels of no colour.
    pub(super) const fn new() -> Self {
        Self { y: [0; BLOCK], u: [128; BLOCK], v: [128; BLOCK] }
    }

    /// Writes the first pixels of the block, as many as `rgb` holds.
    #[inline]
    pub(super) fn write_rgb(&self, factors: Factors, rgb: &mut [u8]) {
        let (mut red, mut green, mut blue) = ([0u8; BLOCK], [0u8; BLOCK], [0u8; BLOCK]);
        for i in 0..BLOCK {
            let y = product(i16::from(self.y[i]) - factors.black, factors.y);
            let u = i16::from(self.u[i]) - 128;
            let v = i16::from(self.v[i]) - 128;
            red[i] = code(y + product(v, factors.rv));
            green[i] = code(y - product(u, factors.gu) - product(v, factors.gv));
            blue[i] = code(y + product(u, factors.bu));
        }
        for (i, pixel) in rgb.chunks_exact_mut(3).take(BLOCK).enumerate() {
            pixel.copy_from_slice(&[red[i], green[i], blue[i]]);
        }
    }
}

/// `code * factor` with [`PRODUCT_BITS`] fractional bits.
#[inline(always)]
fn product(code: i16, factor: i16) -> i16 {
    ((i32::from(code << CODE_SHIFT) * i32::from(factor)) >> 16) as i16
}

/// A sum of products as a code value.
#[inline(always)]
fn code(sum: i16) -> u8 {
    ((sum + (1 << (PRODUCT_BITS - 1))) >> PRODUCT_BITS).clamp(0, 255) as u8
}

/// The rounded real-valued formula that the conversions are tested against.
#[cfg(test)]
pub(super) fn exact_rgb(color: YuvColor, y: u8, u: u8, v: u8) -> [u8; 3] {
    let (black, [fy, rv, gu, gv, bu]) = color.real_factors();
    let y = fy * (f64::from(y) - black);
    let (u, v) = (f64::from(u) - 128.0, f64::from(v) - 128.0);
    [y + rv * v, y - gu * u - gv * v, y + bu * u].map(|x| x.round().clamp(0.0, 255.0) as u8)
}

#[cfg(test)]
pub(super) const COLORS: [YuvColor; 4] = [
    YuvColor { matrix: YuvMatrix::Bt601, range: YuvRange::Limited },
    YuvColor { matrix: YuvMatrix::Bt601, range: YuvRange::Full },
    YuvColor { matrix: YuvMatrix::Bt709, range: YuvRange::Limited },
    YuvColor { matrix: YuvMatrix::Bt709, range: YuvRange::Full },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_colours_of_the_standards() {
        let limited = YuvColor::default();
        assert_eq!(exact_rgb(limited, 16, 128, 128), [0, 0, 0]);
        assert_eq!(exact_rgb(limited, 235, 128, 128), [255, 255, 255]);
        // The red of 100 % colour bars.
        assert_eq!(exact_rgb(limited, 81, 90, 240), [254, 0, 0]);
        let hd = YuvColor { matrix: YuvMatrix::Bt709, range: YuvRange::Limited };
        assert_eq!(exact_rgb(hd, 63, 102, 240), [255, 1, 0]);
    }

    #[test]
    fn every_code_value_is_within_one_step_of_the_formula() {
        for color in COLORS {
            let mut worst = 0;
            for u in (0..=255).step_by(3) {
                for v in (0..=255).step_by(3) {
                    for y0 in (0..256).step_by(BLOCK) {
                        worst = worst.max(worst_of_block(color, y0 as u8, u, v));
                    }
                }
            }
            assert!(worst <= 1, "{color:?}: off by {worst}");
        }
    }

    /// The largest difference to the formula over 32 values of Y.
    fn worst_of_block(color: YuvColor, y0: u8, u: u8, v: u8) -> u8 {
        let y = std::array::from_fn(|i| y0 + i as u8);
        let block = Block { y, u: [u; BLOCK], v: [v; BLOCK] };
        let mut rgb = [0; 3 * BLOCK];
        block.write_rgb(color.factors(), &mut rgb);
        let exact = y.iter().flat_map(|&y| exact_rgb(color, y, u, v));
        rgb.iter().zip(exact).map(|(&got, want)| got.abs_diff(want)).max().unwrap()
    }
}
