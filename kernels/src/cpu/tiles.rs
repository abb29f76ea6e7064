//! Activations in the layout that all matmul kernels share: tiles of a few rows.
//!
//! A tile interleaves its rows so that a kernel walks through it once from start to end, whatever
//! its height. Everything is 32 bits wide; `[height]` stands for one number of each row:
//!
//! * for float weights, `[height]` f32 for each input;
//! * for block weights, `[height]` words of four signed bytes for each four inputs, then `[height]`
//!   f32 scales for each block, then for each block the sums of its integers that the type needs:
//!   - without minimums, for each sub-block, times the negative zero point: where a sum of products
//!     of unsigned codes has to start;
//!   - with minimums, blocks of 32: one f32;
//!   - with minimums, blocks of 256: for each two sub-blocks, two i16 in a word.
//!
//! The numbers are those [`crate::Device::matmul`] specifies. The code is portable and written so
//! that the compiler makes vectors of it; instruction sets only compile it again.

use super::packed::Coding;

/// Most rows of a tile.
pub(crate) const MAX_HEIGHT: usize = 16;

/// Bits of the f32 infinity; magnitudes with these or more are no numbers.
const INFINITY_BITS: u32 = 0x7f80_0000;

/// Added to an f32 below 2^22 in magnitude, leaves the number, rounded to nearest even, in the low
/// bits.
const TO_INTEGER: f32 = (3 << 22) as f32;

/// How the activations for a matrix are laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TileLayout {
    cols: usize,
    coding: Option<Coding>,
}

/// Some rows of activations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile<'a> {
    /// Rows, those that only fill it up included: a power of two.
    pub(crate) height: usize,
    /// f32 numbers, or four integers each.
    pub(crate) words: &'a [i32],
    /// f32 scales of blocks.
    pub(crate) scales: &'a [i32],
    /// Sums of blocks.
    pub(crate) sums: &'a [i32],
}

impl TileLayout {
    /// For weights of `cols` inputs coded as `coding` says, or floats.
    pub(crate) fn new(cols: usize, coding: Option<Coding>) -> Self {
        Self { cols, coding }
    }

    /// How weights are coded; `None` for floats.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn coding(self) -> Option<Coding> {
        self.coding
    }

    /// Inputs.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn cols(self) -> usize {
        self.cols
    }

    /// Takes a tile of `H` rows that is to be filled apart.
    #[inline(always)]
    pub(crate) fn parts_of<const H: usize>(self, numbers: &mut [i32]) -> Parts<'_, H> {
        let (words, scales, sums) = self.parts();
        let (words, rest) = numbers.as_chunks_mut().0.split_at_mut(words);
        let (scales, rest) = rest.split_at_mut(scales);
        (words, scales, &mut rest[..sums])
    }

    /// Words, scales and sums of one row.
    fn parts(self) -> (usize, usize, usize) {
        let Some(coding) = self.coding else { return (self.cols, 0, 0) };
        let blocks = self.cols / coding.block;
        (self.cols / 4, blocks, blocks * coding.sums())
    }

    /// Numbers of one row of a tile.
    pub(crate) fn row_len(self) -> usize {
        let (words, scales, sums) = self.parts();
        words + scales + sums
    }

    /// Takes a filled tile of `height` rows apart.
    pub(crate) fn tile(self, height: usize, numbers: &[i32]) -> Tile<'_> {
        let (words, scales, sums) = self.parts();
        let (words, rest) = numbers.split_at(words * height);
        let (scales, rest) = rest.split_at(scales * height);
        Tile { height, words, scales, sums: &rest[..sums * height] }
    }

    /// The integers of a filled tile of `height` rows; none of floats.
    #[cfg(target_arch = "aarch64")]
    pub(crate) fn integers(self, height: usize, numbers: &mut [i32]) -> &mut [i32] {
        &mut numbers[..self.coding.map_or(0, |_| self.parts().0 * height)]
    }

    /// Fills a tile of `height` rows from at most that many rows of `x`; the others become 0.
    #[inline(always)]
    pub(crate) fn fill(self, x: &[f32], height: usize, numbers: &mut [i32]) {
        let numbers = &mut numbers[..self.row_len() * height];
        match height {
            1 => self.fill_rows::<1>(x, numbers),
            2 => self.fill_rows::<2>(x, numbers),
            4 => self.fill_rows::<4>(x, numbers),
            8 => self.fill_rows::<8>(x, numbers),
            MAX_HEIGHT => self.fill_rows::<MAX_HEIGHT>(x, numbers),
            _ => unreachable!("a tile of {height} rows"),
        }
    }

    #[inline(always)]
    fn fill_rows<const H: usize>(self, x: &[f32], numbers: &mut [i32]) {
        let rows = x.chunks_exact(self.cols.max(1));
        if rows.len() < H {
            numbers.fill(0);
        }
        let Some(coding) = self.coding else { return interleave(rows, numbers.as_chunks_mut::<H>().0) };
        let (words, scales, sums) = self.parts_of::<H>(numbers);
        for (r, row) in rows.enumerate() {
            match coding.block {
                32 => fill_blocks_of_32(coding, row, (&mut *words, &mut *scales, &mut *sums), r),
                _ => fill_blocks_of_256(coding, row, (&mut *words, &mut *scales, &mut *sums), r),
            }
        }
    }
}

/// Words, scales and sums of a tile.
pub(crate) type Parts<'a, const H: usize> = (&'a mut [[i32; H]], &'a mut [[i32; H]], &'a mut [[i32; H]]);

/// Lays rows of floats side by side.
#[inline(always)]
fn interleave<'a, const H: usize>(rows: impl Iterator<Item = &'a [f32]> + Clone, numbers: &mut [[i32; H]]) {
    // Few enough columns for the first-level cache to hold them until all rows are there.
    const COLUMNS: usize = 64;
    for (c, columns) in numbers.chunks_mut(COLUMNS).enumerate() {
        for (r, row) in rows.clone().enumerate() {
            for (column, value) in columns.iter_mut().zip(&row[c * COLUMNS..]) {
                column[r] = float_bits(*value);
            }
        }
    }
}

impl Coding {
    /// Words of sums for each block and row.
    pub(crate) const fn sums(self) -> usize {
        match (self.block, self.minimum) {
            (32, _) => 1,
            (_, true) => self.block / self.sub / 2,
            (_, false) => self.block / self.sub,
        }
    }
}

fn float_bits(value: f32) -> i32 {
    value.to_bits().cast_signed()
}

/// Quantizes a row for blocks of 32 and puts it into place `r`.
#[inline(always)]
fn fill_blocks_of_32<const H: usize>(
    coding: Coding,
    row: &[f32],
    (words, scales, sums): Parts<'_, H>,
    r: usize,
) {
    // Eight blocks at a time go through memory; the integers of one would be kept in registers and
    // picked apart there.
    const BLOCKS: usize = 8;
    let zero = i32::from(coding.zero);
    let parts = scales.chunks_mut(BLOCKS).zip(sums.chunks_mut(BLOCKS));
    let rest = words.chunks_mut(8 * BLOCKS).zip(parts);
    for (blocks, (words, (scales, sums))) in row.as_chunks::<32>().0.chunks(BLOCKS).zip(rest) {
        let mut q = [[0; 32]; BLOCKS];
        for ((block, q), scale) in blocks.iter().zip(&mut q).zip(scales) {
            scale[r] = float_bits(quantize32(block, q));
        }
        put_words(q.as_flattened(), words, r);
        for (q, sum) in q.iter().zip(sums) {
            let total: i32 = q.iter().map(|&q| i32::from(q)).sum();
            sum[r] = if coding.minimum { float_bits(total as f32) } else { -zero * total };
        }
    }
}

/// Quantizes a row for blocks of 256 and puts it into place `r`.
#[inline(always)]
fn fill_blocks_of_256<const H: usize>(
    coding: Coding,
    row: &[f32],
    (words, scales, sums): Parts<'_, H>,
    r: usize,
) {
    let zero = i32::from(coding.zero);
    let words = words.as_chunks_mut::<64>().0;
    let parts = words.iter_mut().zip(scales.iter_mut().zip(sums.chunks_exact_mut(coding.sums())));
    for (block, (words, (scale, sums))) in row.as_chunks::<256>().0.iter().zip(parts) {
        let mut q = [0; 256];
        scale[r] = float_bits(quantize256(block, &mut q));
        put_words(&q, words, r);
        let mut sixteens = [0; 16];
        for (sum, q) in sixteens.iter_mut().zip(q.as_chunks::<16>().0) {
            *sum = q.iter().map(|&q| i32::from(q)).sum();
        }
        let sub_sum = |j: usize| match coding.sub {
            16 => sixteens[j],
            _ => sixteens[2 * j] + sixteens[2 * j + 1],
        };
        for (j, sum) in sums.iter_mut().enumerate() {
            sum[r] = if coding.minimum {
                (sub_sum(2 * j) & 0xffff) | sub_sum(2 * j + 1) << 16
            } else {
                -zero * sub_sum(j)
            };
        }
    }
}

#[inline(always)]
fn put_words<const H: usize>(q: &[i8], words: &mut [[i32; H]], r: usize) {
    for (word, group) in words.iter_mut().zip(q.as_chunks::<4>().0) {
        word[r] = i32::from_le_bytes(group.map(i8::cast_unsigned));
    }
}

/// Magnitude bits of the largest number; from [`INFINITY_BITS`] up if one is not finite.
#[inline(always)]
fn largest_bits(x: &[f32]) -> u32 {
    x.iter().fold(0, |top, value| top.max(value.to_bits() & !SIGN))
}

/// The sign of an f32.
pub(crate) const SIGN: u32 = 1 << 31;

/// The integer nearest to a number below 128 in magnitude, halves to even.
#[inline(always)]
fn nearest(value: f32) -> i8 {
    (value + TO_INTEGER).to_bits() as i8
}

/// Quantizes for blocks of 32; returns the scale as f16 has it.
#[inline(always)]
pub(crate) fn quantize32(x: &[f32; 32], q: &mut [i8; 32]) -> f32 {
    let top = largest_bits(x);
    if top >= INFINITY_BITS {
        return f32::NAN;
    }
    let scale = f32::from_bits(top) / 127.0;
    let inverse = 1.0 / scale;
    if !inverse.is_finite() {
        return 0.0;
    }
    for (q, x) in q.iter_mut().zip(x) {
        let value = x * inverse;
        let whole = value.trunc();
        // The difference is exact, so a half is seen as one.
        let away = if (value - whole).abs() >= 0.5 { 1.0_f32.copysign(value) } else { 0.0 };
        *q = nearest(whole + away);
    }
    round_to_f16(scale)
}

/// Quantizes for blocks of 256; returns the scale.
#[inline(always)]
fn quantize256(x: &[f32; 256], q: &mut [i8; 256]) -> f32 {
    let top = largest_bits(x);
    if top >= INFINITY_BITS {
        return f32::NAN;
    }
    let has = |bits: u32| x.iter().fold(false, |found, value| found | (value.to_bits() == bits));
    let negative = match (has(top), has(top | SIGN)) {
        (true, true) => x.iter().find(|v| v.to_bits() & !SIGN == top).is_some_and(|v| v.is_sign_negative()),
        (_, negative) => negative,
    };
    let largest = f32::from_bits(if negative { top | SIGN } else { top });
    let inverse = -127.0 / largest;
    if !inverse.is_finite() {
        return 0.0;
    }
    // No product exceeds 127 by as much as a half, so that none has to be clamped.
    q.iter_mut().zip(x).for_each(|(q, x)| *q = nearest(x * inverse));
    1.0 / inverse
}

/// Rounds a number that is not negative to the nearest f16, halves to even.
#[inline(always)]
fn round_to_f16(value: f32) -> f32 {
    const SMALLEST_NORMAL: f32 = 6.103_515_6e-5;
    const FIRST_INFINITE: f32 = 65520.0;
    if value >= FIRST_INFINITE {
        return f32::INFINITY;
    }
    if value < SMALLEST_NORMAL {
        // Between 0.5 and 1 an f32 has the steps of the small f16 numbers.
        return (value + 0.5) - 0.5;
    }
    let bits = value.to_bits();
    f32::from_bits((bits + 0xfff + (bits >> 13 & 1)) & !0x1fff)
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::dtype::DType;

    #[test]
    fn rounding_to_f16_is_that_of_the_half_crate() {
        let mut state = 1_u32;
        let mut values: Vec<f32> = (0..200_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                f32::from_bits(state >> 1)
            })
            .filter(|value| value.is_finite())
            .collect();
        for half in 0..0x7c00_u16 {
            let (low, high) = (f16::from_bits(half).to_f32(), f16::from_bits(half + 1).to_f32());
            values.extend([low, (low + high) / 2.0]);
        }
        values.extend([65519.99, 65520.0, 0.0, f32::MIN_POSITIVE]);
        for value in values {
            let want = f16::from_f32(value).to_f32();
            assert_eq!(round_to_f16(value).to_bits(), want.to_bits(), "{value}");
        }
    }

    #[test]
    fn halves_round_as_specified() {
        let mut x = [0.0; 32];
        (x[0], x[1], x[2], x[3]) = (127.0, 2.5, -2.5, 0.499_999_97);
        let mut q = [0; 32];
        assert_eq!(quantize32(&x, &mut q), 1.0);
        assert_eq!(q[..4], [127, 3, -3, 0]);
        let mut x = [0.0; 256];
        (x[0], x[7], x[9]) = (2.5, -127.0, 127.0);
        let mut q = [0; 256];
        assert_eq!(quantize256(&x, &mut q), 1.0);
        assert_eq!((q[0], q[7], q[9]), (2, -127, 127));
    }

    #[test]
    fn a_tile_holds_its_rows_side_by_side() {
        let coding = Coding::of(DType::Q4_0);
        let layout = TileLayout::new(64, coding);
        let rows: Vec<f32> = (0..3 * 64).map(|i| if i % 64 == 0 { 127.0 } else { (i / 64) as f32 }).collect();
        let mut numbers = vec![-1; layout.row_len() * 4];
        layout.fill(&rows, 4, &mut numbers);
        let tile = layout.tile(4, &numbers);
        assert_eq!((tile.words.len(), tile.scales.len(), tile.sums.len()), (64, 8, 8));
        assert_eq!(tile.words[..4], [0x7f, 0x0101_017f, 0x0202_027f, 0]);
        assert_eq!(tile.scales[..4], [1.0, 1.0, 1.0, 0.0].map(float_bits));
        assert_eq!(tile.sums[..4], [-8 * 127, -8 * 158, -8 * 189, 0]);
    }
}
