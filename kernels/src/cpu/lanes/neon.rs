//! Vectors of eight: two of NEON's.
//!
//! Two at a time, because loops are tuned to the sixteen vectors of eight that AVX2 has.

use std::arch::aarch64::*;

use half::f16;

use super::{Lanes, WIDEST};
use crate::cpu::isa::Neon;

/// Numbers in half a vector.
const HALF: usize = 4;

/// Calls of intrinsics that touch no memory.
macro_rules! with_neon {
    ($call:expr) => {
        // SAFETY: a token proves the feature, and no pointer is followed.
        unsafe { $call }
    };
}

/// A vector.
type Two = [float32x4_t; 2];

/// `f` of the halves of `a` and `b`.
#[inline(always)]
fn both(a: Two, b: Two, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Two {
    [f(a[0], b[0]), f(a[1], b[1])]
}

/// The first `n` lanes all ones, the others zero.
#[inline(always)]
fn mask(n: usize) -> [uint32x4_t; 2] {
    const PLACES: [u32; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
    // SAFETY: NEON is there, and there are eight numbers.
    unsafe {
        let n = vdupq_n_u32(n as u32);
        [vcltq_u32(vld1q_u32(PLACES.as_ptr()), n), vcltq_u32(vld1q_u32(PLACES.as_ptr().add(HALF)), n)]
    }
}

/// Columns of four rows of four.
#[inline(always)]
fn transpose4([a, b, c, d]: [float32x4_t; 4]) -> [float32x4_t; 4] {
    with_neon!({
        let pair = |a, b| [vreinterpretq_f64_f32(vtrn1q_f32(a, b)), vreinterpretq_f64_f32(vtrn2q_f32(a, b))];
        let ([even, odd], [even2, odd2]) = (pair(a, b), pair(c, d));
        [
            vreinterpretq_f32_f64(vzip1q_f64(even, even2)),
            vreinterpretq_f32_f64(vzip1q_f64(odd, odd2)),
            vreinterpretq_f32_f64(vzip2q_f64(even, even2)),
            vreinterpretq_f32_f64(vzip2q_f64(odd, odd2)),
        ]
    })
}

impl Lanes for Neon {
    type V = Two;

    const LANES: usize = 2 * HALF;

    #[inline(always)]
    fn splat(self, x: f32) -> Two {
        [with_neon!(vdupq_n_f32(x)); 2]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Two {
        // SAFETY: the token proves the feature, the caller the memory.
        unsafe { [vld1q_f32(from), vld1q_f32(from.add(HALF))] }
    }

    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, n: usize) -> Two {
        if n == Self::LANES {
            // SAFETY: as promised by the caller.
            return unsafe { self.load(from) };
        }
        let mut numbers = [0.0; Self::LANES];
        // SAFETY: `n` numbers can be read, as promised by the caller, and `numbers` has more.
        unsafe {
            std::ptr::copy_nonoverlapping(from, numbers.as_mut_ptr(), n.min(Self::LANES));
            self.load(numbers.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store(self, v: Two, to: *mut f32) {
        // SAFETY: the token proves the feature, the caller the memory.
        unsafe {
            vst1q_f32(to, v[0]);
            vst1q_f32(to.add(HALF), v[1]);
        }
    }

    #[inline(always)]
    unsafe fn store_first(self, v: Two, to: *mut f32, n: usize) {
        if n == Self::LANES {
            // SAFETY: as promised by the caller.
            return unsafe { self.store(v, to) };
        }
        let mut numbers = [0.0; Self::LANES];
        // SAFETY: `n` numbers can be written, as promised by the caller, and `numbers` has more.
        unsafe {
            self.store(v, numbers.as_mut_ptr());
            std::ptr::copy_nonoverlapping(numbers.as_ptr(), to, n.min(Self::LANES));
        }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> Two {
        // SAFETY: the token proves the feature, the caller the memory.
        unsafe {
            let halves = vreinterpretq_f16_u16(vld1q_u16(from.cast()));
            [vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)]
        }
    }

    #[inline(always)]
    unsafe fn store_f16(self, v: Two, to: *mut f16) {
        // SAFETY: the token proves the feature, the caller the memory.
        unsafe {
            let halves = vcvt_high_f16_f32(vcvt_f16_f32(v[0]), v[1]);
            vst1q_u16(to.cast(), vreinterpretq_u16_f16(halves));
        }
    }

    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> Two {
        // SAFETY: the token proves the feature, the caller the memory.
        unsafe {
            let wide = vmovl_s8(vld1_s8(from));
            [vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), vcvtq_f32_s32(vmovl_high_s16(wide))]
        }
    }

    #[inline(always)]
    fn add(self, a: Two, b: Two) -> Two {
        both(a, b, |a, b| with_neon!(vaddq_f32(a, b)))
    }

    #[inline(always)]
    fn sub(self, a: Two, b: Two) -> Two {
        both(a, b, |a, b| with_neon!(vsubq_f32(a, b)))
    }

    #[inline(always)]
    fn mul(self, a: Two, b: Two) -> Two {
        both(a, b, |a, b| with_neon!(vmulq_f32(a, b)))
    }

    #[inline(always)]
    fn div(self, a: Two, b: Two) -> Two {
        both(a, b, |a, b| with_neon!(vdivq_f32(a, b)))
    }

    #[inline(always)]
    fn fma(self, a: Two, b: Two, c: Two) -> Two {
        with_neon!([vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])])
    }

    #[inline(always)]
    fn max(self, a: Two, b: Two) -> Two {
        both(a, b, |a, b| with_neon!(vbslq_f32(vcgtq_f32(a, b), a, b)))
    }

    #[inline(always)]
    fn min(self, a: Two, b: Two) -> Two {
        both(a, b, |a, b| with_neon!(vbslq_f32(vcltq_f32(a, b), a, b)))
    }

    #[inline(always)]
    fn round(self, v: Two) -> Two {
        v.map(|v| with_neon!(vrndnq_f32(v)))
    }

    #[inline(always)]
    fn pow2(self, v: Two) -> Two {
        // The exponent field, whose bias is 127, in its place.
        v.map(|v| {
            with_neon!({
                let exponent = vaddq_s32(vcvtq_s32_f32(v), vdupq_n_s32(127));
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
            })
        })
    }

    #[inline(always)]
    fn keep_first(self, v: Two, n: usize, rest: Two) -> Two {
        let mask = mask(n);
        with_neon!([vbslq_f32(mask[0], v[0], rest[0]), vbslq_f32(mask[1], v[1], rest[1])])
    }

    #[inline(always)]
    fn sum(self, v: Two) -> f32 {
        with_neon!(vaddvq_f32(vaddq_f32(v[0], v[1])))
    }

    #[inline(always)]
    fn largest(self, v: Two) -> f32 {
        with_neon!(vmaxvq_f32(vmaxq_f32(v[0], v[1])))
    }

    #[inline(always)]
    fn transpose(self, rows: [Two; WIDEST]) -> [Two; WIDEST] {
        let mut columns = rows;
        for i in 0..2 {
            for j in 0..2 {
                let square = [0, 1, 2, 3].map(|r| rows[HALF * i + r][j]);
                for (c, column) in transpose4(square).into_iter().enumerate() {
                    columns[HALF * j + c][i] = column;
                }
            }
        }
        columns
    }

    #[inline(always)]
    unsafe fn load_twice(self, from: *const f32) -> Two {
        // SAFETY: the token proves the feature, the caller the memory.
        unsafe {
            let four = vld1q_f32(from);
            [vzip1q_f32(four, four), vzip2q_f32(four, four)]
        }
    }

    #[inline(always)]
    fn rotate_pairs(self, v: Two, cos: Two, sin: Two) -> Two {
        with_neon!({
            let signs = vreinterpretq_u32_u64(vdupq_n_u64(1 << 31));
            let turn = |v, cos, sin| {
                let turned = vreinterpretq_u32_f32(vmulq_f32(vrev64q_f32(v), sin));
                vfmaq_f32(vreinterpretq_f32_u32(veorq_u32(turned, signs)), v, cos)
            };
            [turn(v[0], cos[0], sin[0]), turn(v[1], cos[1], sin[1])]
        })
    }
}
