//! Luminance and colour difference to R, G, B in 16-bit integers.
//!
//! Every layout is unpacked into blocks, in which two pixels share one U and one V, and converted
//! here. A product is the high half of a 16 x 16 bit multiplication, which every SIMD instruction set
//! has. The result is within one step of the rounded real-valued formula.

use super::color::{CODE_SHIFT, FACTOR_BITS, Factors};
use super::store::{BLOCK, join, put_words};
use super::{ChromaLines, PackedOrder, PairOrder, PixelsError, Plane, PlaneMut, Size, YuvColor};

/// Pairs of pixels of a block.
const PAIRS: usize = BLOCK / 2;
/// Fractional bits of a product: 13 + 7 - 16.
const PRODUCT_BITS: u32 = FACTOR_BITS + CODE_SHIFT - 16;

/// Y of consecutive pixels, U and V of pairs of them.
struct Block {
    y: [u8; BLOCK],
    u: [u8; PAIRS],
    v: [u8; PAIRS],
}

/// From groups of two pixels in four bytes.
#[inline(always)]
pub(super) fn packed(
    size: Size,
    order: PackedOrder,
    plane: Plane<'_>,
    color: YuvColor,
    rgb: PlaneMut<'_>,
) -> Result<(), PixelsError> {
    let sources = plane.lines("yuv", size.height, size.width.div_ceil(2).saturating_mul(4))?;
    let targets = rgb.lines("out", size.height, size.width.saturating_mul(3))?;
    let lines = sources.zip(targets);
    let factors = color.factors();
    // Of the 16-bit words of a line, one half is Y and the other one in turn U and V.
    match order {
        PackedOrder::Yuyv => packed_lines(lines, factors, |[y, c]| (y, c), |u, v| (u, v)),
        PackedOrder::Yvyu => packed_lines(lines, factors, |[y, c]| (y, c), |v, u| (u, v)),
        PackedOrder::Uyvy => packed_lines(lines, factors, |[c, y]| (y, c), |u, v| (u, v)),
        PackedOrder::Vyuy => packed_lines(lines, factors, |[c, y]| (y, c), |v, u| (u, v)),
    }
    Ok(())
}

#[inline(always)]
fn packed_lines<'a>(
    lines: impl Iterator<Item = (&'a [u8], &'a mut [u8])>,
    factors: Factors,
    split: impl Fn([u8; 2]) -> (u8, u8),
    order: impl Fn(u8, u8) -> (u8, u8),
) {
    let mut block = Block::new();
    let mut chroma = [0; BLOCK];
    for (source, target) in lines {
        for (words, pixels) in source.chunks(2 * BLOCK).zip(target.chunks_mut(3 * BLOCK)) {
            for ((y, c), word) in block.y.iter_mut().zip(&mut chroma).zip(words.as_chunks::<2>().0) {
                (*y, *c) = split(*word);
            }
            block.split_chroma(&chroma, &order);
            block.write_rgb(factors, pixels);
        }
    }
}

/// From a plane of Y and a plane of chroma pairs.
#[inline(always)]
pub(super) fn pairs(
    size: Size,
    (order, shared): (PairOrder, ChromaLines),
    (y, uv): (Plane<'_>, Plane<'_>),
    color: YuvColor,
    rgb: PlaneMut<'_>,
) -> Result<(), PixelsError> {
    let chroma = uv.lines("uv", shared.of(size.height), size.width.div_ceil(2).saturating_mul(2))?;
    let fill = |line: &[u8], at: usize, block: &mut Block| {
        let mut pairs = [0; BLOCK];
        let rest = &line[2 * at..];
        let count = rest.len().min(BLOCK);
        pairs[..count].copy_from_slice(&rest[..count]);
        match order {
            PairOrder::Uv => block.split_chroma(&pairs, |u, v| (u, v)),
            PairOrder::Vu => block.split_chroma(&pairs, |v, u| (u, v)),
        }
    };
    planes(size, (y, shared), chroma, color, rgb, fill)
}

/// From planes of Y, U and V.
#[inline(always)]
pub(super) fn planar(
    size: Size,
    shared: ChromaLines,
    (y, u, v): (Plane<'_>, Plane<'_>, Plane<'_>),
    color: YuvColor,
    rgb: PlaneMut<'_>,
) -> Result<(), PixelsError> {
    let (lines, line_bytes) = (shared.of(size.height), size.width.div_ceil(2));
    let chroma = u.lines("u", lines, line_bytes)?.zip(v.lines("v", lines, line_bytes)?);
    let fill = |(u, v): (&[u8], &[u8]), at: usize, block: &mut Block| {
        let count = (u.len() - at).min(PAIRS);
        block.u[..count].copy_from_slice(&u[at..][..count]);
        block.v[..count].copy_from_slice(&v[at..][..count]);
    };
    planes(size, (y, shared), chroma, color, rgb, fill)
}

/// Converts block by block; `fill(line, at, block)` puts the chroma of a line into a block, from
/// pair `at` on.
#[inline(always)]
fn planes<Line: Copy>(
    size: Size,
    (y, shared): (Plane<'_>, ChromaLines),
    mut chroma: impl Iterator<Item = Line>,
    color: YuvColor,
    rgb: PlaneMut<'_>,
    fill: impl Fn(Line, usize, &mut Block),
) -> Result<(), PixelsError> {
    let factors = color.factors();
    let sources = y.lines("y", size.height, size.width)?;
    let targets = rgb.lines("out", size.height, size.width.saturating_mul(3))?;
    let mut block = Block::new();
    let mut line = None;
    for (row, (source, target)) in sources.zip(targets).enumerate() {
        if row == 0 || shared.line(row) != shared.line(row - 1) {
            line = chroma.next();
        }
        let Some(line) = line else { break };
        let blocks = source.chunks(BLOCK).zip(target.chunks_mut(3 * BLOCK));
        for (i, (luma, pixels)) in blocks.enumerate() {
            block.y[..luma.len()].copy_from_slice(luma);
            fill(line, i * PAIRS, &mut block);
            block.write_rgb(factors, pixels);
        }
    }
    Ok(())
}

impl Block {
    /// Black pixels of no colour.
    const fn new() -> Self {
        Self { y: [0; BLOCK], u: [128; PAIRS], v: [128; PAIRS] }
    }

    /// Takes pairs of chroma samples apart.
    #[inline(always)]
    fn split_chroma(&mut self, pairs: &[u8; BLOCK], order: impl Fn(u8, u8) -> (u8, u8)) {
        for ((u, v), pair) in self.u.iter_mut().zip(&mut self.v).zip(pairs.as_chunks::<2>().0) {
            (*u, *v) = order(pair[0], pair[1]);
        }
    }

    /// Writes the first pixels of the block, as many as `rgb` holds.
    #[inline(always)]
    fn write_rgb(&self, factors: Factors, rgb: &mut [u8]) {
        // What chroma adds to the pixels of a pair, once for each of the two.
        let (mut reds, mut greens, mut blues) = ([[0i16; 2]; PAIRS], [[0i16; 2]; PAIRS], [[0i16; 2]; PAIRS]);
        for i in 0..PAIRS {
            let (u, v) = (i16::from(self.u[i]) - 128, i16::from(self.v[i]) - 128);
            reds[i] = [product(v, factors.rv); 2];
            greens[i] = [-product(u, factors.gu) - product(v, factors.gv); 2];
            blues[i] = [product(u, factors.bu); 2];
        }
        let (reds, greens, blues) = (reds.as_flattened(), greens.as_flattened(), blues.as_flattened());
        let (mut red, mut green, mut blue) = ([0; BLOCK], [0; BLOCK], [0; BLOCK]);
        for i in 0..BLOCK {
            let y = product(i16::from(self.y[i]) - factors.black, factors.y);
            red[i] = code(y + reds[i]);
            green[i] = code(y + greens[i]);
            blue[i] = code(y + blues[i]);
        }
        put_words(&join(&red, &green, &blue), rgb);
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

#[cfg(test)]
mod tests {
    use super::super::{YuvMatrix, YuvRange};
    use super::*;

    /// The rounded real-valued formula.
    fn exact_rgb(color: YuvColor, y: u8, u: u8, v: u8) -> [u8; 3] {
        let (black, [fy, rv, gu, gv, bu]) = color.real_factors();
        let y = fy * (f64::from(y) - black);
        let (u, v) = (f64::from(u) - 128.0, f64::from(v) - 128.0);
        [y + rv * v, y - gu * u - gv * v, y + bu * u].map(|x| x.round().clamp(0.0, 255.0) as u8)
    }

    #[test]
    fn known_colours_of_the_standards() {
        let limited = YuvColor::default();
        assert_eq!(exact_rgb(limited, 16, 128, 128), [0, 0, 0]);
        assert_eq!(exact_rgb(limited, 235, 128, 128), [255, 255, 255]);
        // The red of 100 % colour bars.
        assert_eq!(exact_rgb(limited, 81, 90, 240), [254, 0, 0]);
        let hd = YuvColor { matrix: YuvMatrix::Bt709, ..limited };
        assert_eq!(exact_rgb(hd, 63, 102, 240), [255, 1, 0]);
        let uhd = YuvColor { matrix: YuvMatrix::Bt2020, ..limited };
        assert_eq!(exact_rgb(uhd, 74, 97, 240), [255, 0, 1]);
    }

    #[test]
    fn every_code_value_is_within_one_step_of_the_formula() {
        use YuvMatrix::{Bt601, Bt709, Bt2020, Smpte240m};
        for matrix in [Bt601, Bt709, Bt2020, Smpte240m] {
            for range in [YuvRange::Limited, YuvRange::Full] {
                let color = YuvColor { matrix, range };
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
    }

    /// The largest difference to the formula over the values of Y of a block.
    fn worst_of_block(color: YuvColor, y0: u8, u: u8, v: u8) -> u8 {
        let y = std::array::from_fn(|i| y0 + i as u8);
        let block = Block { y, u: [u; PAIRS], v: [v; PAIRS] };
        let mut rgb = [0; 3 * BLOCK];
        block.write_rgb(color.factors(), &mut rgb);
        let exact = y.iter().flat_map(|&y| exact_rgb(color, y, u, v));
        rgb.iter().zip(exact).map(|(&got, want)| got.abs_diff(want)).max().unwrap()
    }
}
