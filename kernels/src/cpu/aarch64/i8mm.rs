//! Matmul kernels for processors with matrix products of bytes.
//!
//! `smmla` adds to four i32 lanes the products of two outputs and two rows, eight inputs each: of
//! two neighbouring groups, which tiles here hold side by side for each row. Sums of rows `2 p` and
//! `2 p + 1` are two vectors: outputs 0 and 1, then 2 and 3, both rows for each.

use std::arch::aarch64::*;
use std::arch::asm;

use super::blocks::{self, Dots, entry_points};
use super::rows::{Integers, with_neon};
use super::{dotprod, neon};
use crate::cpu::isa::I8mm;
use crate::cpu::matmul::Sums;
use crate::cpu::split::Layouts;
use crate::cpu::tiles::{Tile, TileLayout};
use crate::dtype::DType;

entry_points!(I8mm, "neon,i8mm", [2, 4, 8]);

/// Fills a tile, see [`Layouts::fill`]; of integers, two groups lie side by side for each row.
pub(crate) fn fill(layouts: Layouts, x: &[f32], height: usize, numbers: &mut [i32]) {
    let (tile, behind) = numbers.split_at_mut(layouts.tile.row_len() * height);
    layouts.tile.fill(x, height, tile);
    if let Some(split) = layouts.split {
        split.fill(x, layouts.tile.tile(height, tile), behind, fill_pairs);
    }
    pair(layouts.tile, height, tile);
}

fn fill_pairs(layout: TileLayout, x: &[f32], height: usize, numbers: &mut [i32]) {
    layout.fill(x, height, numbers);
    pair(layout, height, numbers);
}

fn pair(layout: TileLayout, height: usize, numbers: &mut [i32]) {
    let words = layout.integers(height, numbers);
    match height {
        2 => pair_groups::<2>(words),
        4 => pair_groups::<4>(words),
        8 => pair_groups::<8>(words),
        _ => {}
    }
}

/// Lays each two groups of `R` rows side by side.
fn pair_groups<const R: usize>(words: &mut [i32]) {
    for two in words.as_chunks_mut::<R>().0.as_chunks_mut::<2>().0 {
        let [first, second] = *two;
        for (i, word) in two.as_flattened_mut().iter_mut().enumerate() {
            *word = if i % 2 == 0 { first[i / 2] } else { second[i / 2] };
        }
    }
}

/// The outputs of one panel for one tile.
pub(crate) fn product(token: I8mm, dtype: DType, panel: &[u8], tile: Tile<'_>, out: &mut Sums) {
    if dtype.is_float() {
        neon::floats_product(token.dotprod().neon(), dtype, panel, tile, out);
    } else if tile.height == 1 {
        // Half of each product of matrices would be for nothing.
        dotprod::product(token.dotprod(), dtype, panel, tile, out);
    } else {
        blocks_product(token, dtype, panel, tile, out);
    }
}

/// Adds products of two times eight codes and two times eight activations.
#[inline(always)]
fn smmla(_: I8mm, mut sum: int32x4_t, codes: uint32x4_t, words: int32x4_t) -> int32x4_t {
    // SAFETY: the token proves the instruction, which only changes `sum`.
    unsafe {
        asm!(
            "smmla {sum:v}.4s, {codes:v}.16b, {words:v}.16b",
            sum = inout(vreg) sum,
            codes = in(vreg) codes,
            words = in(vreg) words,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

impl Dots for I8mm {
    #[inline(always)]
    fn rows<const R: usize>(self, numbers: &[i32; R]) -> Integers<R> {
        let mut rows = [with_neon!(vdupq_n_s32(0)); R];
        for (rows, two) in rows.as_chunks_mut::<2>().0.iter_mut().zip(numbers.as_chunks::<2>().0) {
            let two = i64::from(two[1]) << 32 | i64::from(two[0].cast_unsigned());
            *rows = [with_neon!(vreinterpretq_s32_s64(vdupq_n_s64(two))); 2];
        }
        rows
    }

    #[inline(always)]
    fn outputs(self, numbers: int32x4_t) -> [int32x4_t; 2] {
        with_neon!([vzip1q_s32(numbers, numbers), vzip2q_s32(numbers, numbers)])
    }

    #[inline(always)]
    fn place<const R: usize>(self, mut sums: Integers<R>) -> Integers<R> {
        for two in sums.as_chunks_mut::<2>().0 {
            *two = with_neon!([vzip1q_s32(two[0], two[1]), vzip2q_s32(two[0], two[1])]);
        }
        sums
    }

    #[inline(always)]
    fn by_row<const R: usize>(self, mut sums: Integers<R>) -> Integers<R> {
        for two in sums.as_chunks_mut::<2>().0 {
            *two = with_neon!([vuzp1q_s32(two[0], two[1]), vuzp2q_s32(two[0], two[1])]);
        }
        sums
    }

    #[inline(always)]
    fn add_groups<const UNIT: usize, const R: usize, const N: usize>(
        self,
        codes: &[uint8x16_t; N],
        words: &[[i32; R]; N],
        sums: &mut Integers<R>,
    ) {
        for (codes, words) in codes.as_chunks::<2>().0.iter().zip(words.as_chunks::<2>().0) {
            let [a, b] = codes.map(|codes| with_neon!(vreinterpretq_u32_u8(codes)));
            let (low, high) = with_neon!((vzip1q_u32(a, b), vzip2q_u32(a, b)));
            let words = words.as_flattened().as_chunks::<4>().0;
            for (sums, words) in sums.as_chunks_mut::<2>().0.iter_mut().zip(words) {
                let words = super::rows::load(words);
                sums[0] = smmla(self, sums[0], low, words);
                sums[1] = smmla(self, sums[1], high, words);
            }
        }
    }
}
