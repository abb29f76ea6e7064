//! Matmul kernels for processors with dot products of bytes.
//!
//! `sdot` adds four products of code bytes and activation bytes to each i32 lane: four outputs at
//! once, with the activations of one row, which it takes from any place of a vector.

use std::arch::aarch64::*;
use std::arch::asm;

use super::blocks::{self, Dots, entry_points};
use super::neon;
use super::rows::{Integers, Step, each};
use crate::cpu::isa::Dotprod;
use crate::cpu::matmul::Sums;
use crate::cpu::tiles::Tile;
use crate::dtype::DType;

entry_points!(Dotprod, "neon,dotprod", [1, 2, 4, 8]);

/// The outputs of one panel for one tile.
pub(crate) fn product(token: Dotprod, dtype: DType, panel: &[u8], tile: Tile<'_>, out: &mut Sums) {
    if dtype.is_float() {
        neon::floats_product(token.neon(), dtype, panel, tile, out);
    } else {
        blocks_product(token, dtype, panel, tile, out);
    }
}

/// `sum[i] += codes[4 i ..][..4] . numbers[4 WORD ..][..4]`.
#[inline(always)]
fn sdot<const WORD: i32>(_: Dotprod, mut sum: int32x4_t, codes: int8x16_t, numbers: int32x4_t) -> int32x4_t {
    // SAFETY: the token proves the instruction, which only changes `sum`.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {codes:v}.16b, {numbers:v}.4b[{word}]",
            sum = inout(vreg) sum,
            codes = in(vreg) codes,
            numbers = in(vreg) numbers,
            word = const WORD,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Codes of groups, to be multiplied with the activations of one row.
struct Codes<const N: usize>(Dotprod, [int8x16_t; N]);

impl<const N: usize> Step for Codes<N> {
    #[inline(always)]
    fn add<const WORD: i32, const LOW: i32, const HIGH: i32>(
        &self,
        group: usize,
        words: int32x4_t,
        sum: int32x4_t,
    ) -> int32x4_t {
        sdot::<WORD>(self.0, sum, self.1[group], words)
    }
}

impl Dots for Dotprod {
    #[inline(always)]
    fn rows<const R: usize>(self, numbers: &[i32; R]) -> Integers<R> {
        self.neon().rows(numbers)
    }

    #[inline(always)]
    fn outputs(self, numbers: int32x4_t) -> [int32x4_t; 2] {
        [numbers; 2]
    }

    #[inline(always)]
    fn place<const R: usize>(self, by_row: Integers<R>) -> Integers<R> {
        by_row
    }

    #[inline(always)]
    fn by_row<const R: usize>(self, placed: Integers<R>) -> Integers<R> {
        placed
    }

    #[inline(always)]
    fn add_groups<const UNIT: usize, const R: usize, const N: usize>(
        self,
        codes: &[uint8x16_t; N],
        words: &[[i32; R]; N],
        sums: &mut Integers<R>,
    ) {
        each(&Codes(self, neon::signed(codes)), words, sums);
    }
}
