//! What a quarter of a panel holds, as vectors.

use std::arch::aarch64::*;

use super::rows::with_neon;
use crate::cpu::packed::PANEL;

/// Four times four codes.
#[inline(always)]
fn codes_at<const UNIT: usize>(unit: &[u8; UNIT], row: usize, quarter: usize) -> uint8x16_t {
    let bytes = &unit.as_chunks::<16>().0[4 * row + quarter];
    // SAFETY: there are 16 bytes; any alignment will do.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

/// The eight groups of a quarter of a unit, one code per byte.
#[inline(always)]
pub(super) fn groups<const UNIT: usize>(unit: &[u8; UNIT], quarter: usize) -> [uint8x16_t; 8] {
    let mut codes = [with_neon!(vdupq_n_u8(0)); 8];
    if UNIT == 512 {
        for g in 0..8 {
            codes[g] = codes_at(unit, g, quarter);
        }
        return codes;
    }
    for g in 0..4 {
        let pair = codes_at(unit, g, quarter);
        codes[g] = with_neon!(vandq_u8(pair, vdupq_n_u8(0x0f)));
        codes[g + 4] = with_neon!(vshrq_n_u8::<4>(pair));
    }
    if UNIT == 320 {
        let fifth = codes_at(unit, 4, quarter);
        let shifted = with_neon!([
            vshlq_n_u8::<4>(fifth),
            vshlq_n_u8::<3>(fifth),
            vshlq_n_u8::<2>(fifth),
            vshlq_n_u8::<1>(fifth),
            fifth,
            vshrq_n_u8::<1>(fifth),
            vshrq_n_u8::<2>(fifth),
            vshrq_n_u8::<3>(fifth),
        ]);
        for g in 0..8 {
            codes[g] = with_neon!(vbslq_u8(vdupq_n_u8(0x10), shifted[g], codes[g]));
        }
    }
    if UNIT == 384 {
        for half in 0..2 {
            let upper = codes_at(unit, 4 + half, quarter);
            let shifted =
                with_neon!([vshlq_n_u8::<4>(upper), vshlq_n_u8::<2>(upper), upper, vshrq_n_u8::<2>(upper)]);
            for g in 0..4 {
                let code = &mut codes[4 * half + g];
                *code = with_neon!(vbslq_u8(vdupq_n_u8(0x30), shifted[g], *code));
            }
        }
    }
    codes
}

/// Numbers of a quarter from 16 f16.
#[inline(always)]
pub(super) fn halves(bytes: &[u8; 2 * PANEL], quarter: usize) -> float32x4_t {
    let bytes = &bytes.as_chunks::<8>().0[quarter];
    // SAFETY: there are 8 bytes; any alignment will do.
    unsafe { vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(bytes.as_ptr()))) }
}

/// Numbers of a quarter from 16 signed bytes.
#[inline(always)]
pub(super) fn bytes(bytes: &[u8; PANEL], quarter: usize) -> int32x4_t {
    let word = u32::from_le_bytes(bytes.as_chunks::<4>().0[quarter]);
    with_neon!(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(word))))))
}

/// Numbers of a quarter from 16 pairs of bytes: the first ones and the second ones.
#[inline(always)]
pub(super) fn pairs(bytes: &[u8; 2 * PANEL], quarter: usize) -> [int16x4_t; 2] {
    let bytes = &bytes.as_chunks::<8>().0[quarter];
    // SAFETY: there are 8 bytes; any alignment will do.
    let pairs = unsafe { vreinterpret_u16_u8(vld1_u8(bytes.as_ptr())) };
    with_neon!([
        vreinterpret_s16_u16(vand_u16(pairs, vdup_n_u16(0xff))),
        vreinterpret_s16_u16(vshr_n_u16::<8>(pairs)),
    ])
}
