//! The probes with NEON and what there is beyond it.

use std::arch::aarch64::*;
use std::arch::asm;
use std::hint::black_box;

/// Accumulators: latency times rate of the products on current cores, with some to spare.
const SUMS: usize = 16;

/// Places of a buffer that one thread reads at once.
const STREAMS: usize = 4;

/// Bytes of a vector.
const VECTOR: usize = 16;

/// Vectors read at one place before the next place's turn: a line of the cache.
const RUN: usize = 4;

pub(super) fn read(bytes: &[u8]) -> Option<u8> {
    let part = bytes.len() / STREAMS / (VECTOR * RUN) * (VECTOR * RUN);
    let (parts, rest) = bytes.split_at(STREAMS * part);
    // SAFETY: NEON is part of aarch64. Parts are equally long and made of whole runs, so `RUN`
    // vectors from `start` lie inside each of them.
    let all = unsafe {
        let mut all = [vdupq_n_u8(0); STREAMS];
        for start in (0..part).step_by(VECTOR * RUN) {
            for (s, all) in all.iter_mut().enumerate() {
                for at in 0..RUN {
                    let vector = vld1q_u8(parts.as_ptr().add(s * part + start + at * VECTOR));
                    *all = vorrq_u8(*all, vector);
                }
            }
        }
        let all = vorrq_u8(vorrq_u8(all[0], all[1]), vorrq_u8(all[2], all[3]));
        let halves = vorr_u8(vget_low_u8(all), vget_high_u8(all));
        vget_lane_u64::<0>(vreinterpret_u64_u8(halves))
    };
    Some(all.to_ne_bytes().into_iter().fold(super::portable_read(rest), |all, byte| all | byte))
}

pub(super) fn int8_products(repeats: u64) -> Option<u64> {
    if std::arch::is_aarch64_feature_detected!("i8mm") {
        // SAFETY: the CPU has matrix products of bytes.
        return Some(unsafe { int8_i8mm(repeats) });
    }
    if std::arch::is_aarch64_feature_detected!("dotprod") {
        // SAFETY: the CPU has dot products of bytes.
        return Some(unsafe { int8_dotprod(repeats) });
    }
    Some(int8_neon(repeats))
}

/// Sums that take part in a loop of one instruction for each of them.
macro_rules! repeat {
    ($repeats:ident, $instruction:literal, $x:ident, $y:ident, $zero:expr) => {{
        let mut sums = [$zero; SUMS];
        for _ in 0..$repeats {
            for sum in &mut sums {
                // SAFETY: the caller's features hold the instruction, which only changes `sum`.
                unsafe {
                    asm!(
                        $instruction,
                        sum = inout(vreg) *sum,
                        x = in(vreg) $x,
                        y = in(vreg) $y,
                        options(pure, nomem, nostack, preserves_flags),
                    );
                }
            }
        }
        black_box(sums);
    }};
}

#[target_feature(enable = "neon,i8mm")]
fn int8_i8mm(repeats: u64) -> u64 {
    let (x, y) = (vdupq_n_s8(3), vdupq_n_s8(5));
    repeat!(repeats, "usmmla {sum:v}.4s, {x:v}.16b, {y:v}.16b", x, y, vdupq_n_s32(0));
    repeats * (SUMS * 32) as u64
}

#[target_feature(enable = "neon,dotprod")]
fn int8_dotprod(repeats: u64) -> u64 {
    let (x, y) = (vdupq_n_s8(3), vdupq_n_s8(5));
    repeat!(repeats, "sdot {sum:v}.4s, {x:v}.16b, {y:v}.4b[0]", x, y, vdupq_n_s32(0));
    repeats * (SUMS * 16) as u64
}

fn int8_neon(repeats: u64) -> u64 {
    // SAFETY: NEON is part of aarch64.
    let (x, y, zero) = unsafe { (vdup_n_s8(3), vdup_n_s8(5), vdupq_n_s16(0)) };
    repeat!(repeats, "smlal {sum:v}.8h, {x:v}.8b, {y:v}.8b", x, y, zero);
    repeats * (SUMS * 8) as u64
}

pub(super) fn f32_products(repeats: u64) -> Option<u64> {
    // SAFETY: NEON is part of aarch64.
    let (x, y, zero) = unsafe { (vdupq_n_f32(0.5), vdupq_n_f32(0.5), vdupq_n_f32(0.0)) };
    repeat!(repeats, "fmla {sum:v}.4s, {x:v}.4s, {y:v}.s[0]", x, y, zero);
    Some(repeats * (SUMS * 4) as u64)
}
