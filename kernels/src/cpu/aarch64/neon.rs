//! Matmul kernels for every aarch64 processor.
//!
//! Products of bytes are i16 numbers. Codes of fewer than 8 bits let several groups add up there
//! before an i16 could overflow.

use std::arch::aarch64::*;

use super::blocks::{self, Dots, entry_points};
use super::rows::{Floats, Integers, QUARTER, load, with_neon};
use crate::cpu::isa::Neon;
use crate::cpu::matmul::Sums;
use crate::cpu::packed::PANEL;
use crate::cpu::tiles::Tile;
use crate::dtype::DType;

entry_points!(Neon, "neon", [1, 2, 4]);

/// The outputs of one panel for one tile.
pub(crate) fn product(token: Neon, dtype: DType, panel: &[u8], tile: Tile<'_>, out: &mut Sums) {
    if dtype.is_float() {
        floats_product(token, dtype, panel, tile, out);
    } else {
        blocks_product(token, dtype, panel, tile, out);
    }
}

/// The outputs of one panel of floats for one tile.
pub(super) fn floats_product(_: Neon, dtype: DType, panel: &[u8], tile: Tile<'_>, out: &mut Sums) {
    match tile.height {
        1 => floats_of::<1>(dtype, panel, tile, out),
        2 => floats_of::<2>(dtype, panel, tile, out),
        4 => floats_of::<4>(dtype, panel, tile, out),
        height => unreachable!("a tile of {height} rows"),
    }
}

/// `R` is the height of the tile.
fn floats_of<const R: usize>(dtype: DType, panel: &[u8], tile: Tile<'_>, out: &mut Sums) {
    match dtype {
        DType::F16 => floats::<F16, 32, R>(panel, tile, out),
        DType::BF16 => floats::<BF16, 32, R>(panel, tile, out),
        _ => floats::<F32, 64, R>(panel, tile, out),
    }
}

const F32: u8 = 0;
const F16: u8 = 1;
const BF16: u8 = 2;

/// Weights of type `T`, `BYTES` for 16 outputs.
#[inline(never)]
fn floats<const T: u8, const BYTES: usize, const R: usize>(panel: &[u8], tile: Tile<'_>, out: &mut Sums) {
    let mut acc = [[with_neon!(vdupq_n_f32(0.0)); R]; PANEL / QUARTER];
    let weights = panel.as_chunks::<BYTES>().0;
    for (weights, x) in weights.iter().zip(tile.words.as_chunks::<R>().0) {
        for (q, acc) in acc.iter_mut().enumerate() {
            multiply(wide::<T, BYTES>(weights, q), x, acc);
        }
    }
    for (q, acc) in acc.iter().enumerate() {
        for (out, acc) in out.iter_mut().zip(acc) {
            let out = &mut out.as_chunks_mut::<QUARTER>().0[q];
            // SAFETY: `out` is four f32.
            unsafe { vst1q_f32(out.as_mut_ptr(), *acc) };
        }
    }
}

/// Weights of quarter `q` as f32.
#[inline(always)]
fn wide<const T: u8, const BYTES: usize>(weights: &[u8; BYTES], q: usize) -> float32x4_t {
    if T == F32 {
        let bytes = &weights.as_chunks::<16>().0[q];
        // SAFETY: there are 16 bytes; any alignment will do.
        return unsafe { vreinterpretq_f32_u8(vld1q_u8(bytes.as_ptr())) };
    }
    let bytes = &weights.as_chunks::<8>().0[q];
    // SAFETY: there are 8 bytes; any alignment will do.
    let half = unsafe { vreinterpret_u16_u8(vld1_u8(bytes.as_ptr())) };
    match T {
        F16 => with_neon!(vcvt_f32_f16(vreinterpret_f16_u16(half))),
        _ => with_neon!(vreinterpretq_f32_u32(vshll_n_u16::<16>(half))),
    }
}

/// Adds the products of four weights and one activation of each row.
#[inline(always)]
fn multiply<const R: usize>(weights: float32x4_t, x: &[i32; R], acc: &mut Floats<R>) {
    if R < 4 {
        for (acc, x) in acc.iter_mut().zip(x) {
            *acc = with_neon!(vfmaq_n_f32(*acc, weights, f32::from_bits(x.cast_unsigned())));
        }
        return;
    }
    for (acc, x) in acc.as_chunks_mut::<4>().0.iter_mut().zip(x.as_chunks::<4>().0) {
        let x = with_neon!(vreinterpretq_f32_s32(load(x)));
        acc[0] = with_neon!(vfmaq_laneq_f32::<0>(acc[0], weights, x));
        acc[1] = with_neon!(vfmaq_laneq_f32::<1>(acc[1], weights, x));
        acc[2] = with_neon!(vfmaq_laneq_f32::<2>(acc[2], weights, x));
        acc[3] = with_neon!(vfmaq_laneq_f32::<3>(acc[3], weights, x));
    }
}

/// Codes as signed bytes, which those of 8 bits are and others may be taken for.
#[inline(always)]
pub(super) fn signed<const N: usize>(codes: &[uint8x16_t; N]) -> [int8x16_t; N] {
    codes.map(|codes| with_neon!(vreinterpretq_s8_u8(codes)))
}

impl Dots for Neon {
    #[inline(always)]
    fn rows<const R: usize>(self, numbers: &[i32; R]) -> Integers<R> {
        let mut rows = [with_neon!(vdupq_n_s32(0)); R];
        if R < 4 {
            for (row, number) in rows.iter_mut().zip(numbers) {
                *row = with_neon!(vdupq_n_s32(*number));
            }
            return rows;
        }
        for (rows, numbers) in rows.as_chunks_mut::<4>().0.iter_mut().zip(numbers.as_chunks::<4>().0) {
            let numbers = load(numbers);
            rows[0] = with_neon!(vdupq_laneq_s32::<0>(numbers));
            rows[1] = with_neon!(vdupq_laneq_s32::<1>(numbers));
            rows[2] = with_neon!(vdupq_laneq_s32::<2>(numbers));
            rows[3] = with_neon!(vdupq_laneq_s32::<3>(numbers));
        }
        rows
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
        // Groups whose products, 127 at most times the highest code, fit an i16 together.
        let together = const {
            match UNIT {
                512 => 2,
                384 => 4,
                _ => 8,
            }
        };
        let codes = signed(codes);
        for r in 0..R {
            let mut halves = [with_neon!(vdupq_n_s32(0)); 2];
            for first in (0..N).step_by(together) {
                let x = activations(words[first][r]);
                let mut low = with_neon!(vmull_s8(vget_low_s8(codes[first]), vget_low_s8(x)));
                let mut high = with_neon!(vmull_high_s8(codes[first], x));
                for g in first + 1..N.min(first + together) {
                    let x = activations(words[g][r]);
                    low = with_neon!(vmlal_s8(low, vget_low_s8(codes[g]), vget_low_s8(x)));
                    high = with_neon!(vmlal_high_s8(high, codes[g], x));
                }
                halves[0] = with_neon!(vpadalq_s16(halves[0], low));
                halves[1] = with_neon!(vpadalq_s16(halves[1], high));
            }
            sums[r] = with_neon!(vaddq_s32(sums[r], vpaddq_s32(halves[0], halves[1])));
        }
    }
}

/// Four activations, four times.
#[inline(always)]
fn activations(word: i32) -> int8x16_t {
    with_neon!(vreinterpretq_s8_s32(vdupq_n_s32(word)))
}
