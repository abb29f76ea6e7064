//! Vectors of eight: AVX2, FMA and F16C.

use std::arch::x86_64::*;

use half::f16;

use super::{Lanes, WIDEST};
use crate::cpu::isa::Avx2;

/// Calls of intrinsics that touch no memory.
macro_rules! with_avx2 {
    ($call:expr) => {
        // SAFETY: the token `self` proves the features, and no pointer is followed.
        unsafe { $call }
    };
}

/// Eight set words, then eight clear ones: `n` set ones start at word `8 - n`.
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

#[inline(always)]
fn mask(_: Avx2, n: usize) -> __m256i {
    assert!(n <= 8);
    // SAFETY: the token proves the features; words `8 - n .. 16 - n` lie inside the table.
    unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - n).cast()) }
}

impl Lanes for Avx2 {
    type V = __m256;

    const LANES: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        with_avx2!(_mm256_set1_ps(x))
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        // SAFETY: the token proves the features, the caller the memory.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, n: usize) -> __m256 {
        // SAFETY: as above; lanes that are masked out are not read.
        unsafe { if n == 8 { _mm256_loadu_ps(from) } else { _mm256_maskload_ps(from, mask(self, n)) } }
    }

    #[inline(always)]
    unsafe fn store(self, v: __m256, to: *mut f32) {
        // SAFETY: the token proves the features, the caller the memory.
        unsafe { _mm256_storeu_ps(to, v) }
    }

    #[inline(always)]
    unsafe fn store_first(self, v: __m256, to: *mut f32, n: usize) {
        // Masked stores are slow on some processors.
        if n == 8 {
            // SAFETY: as above.
            unsafe { _mm256_storeu_ps(to, v) }
        } else {
            // SAFETY: as above; lanes that are masked out are not written.
            unsafe { _mm256_maskstore_ps(to, mask(self, n), v) }
        }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> __m256 {
        // SAFETY: the token proves the features, the caller the memory.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> __m256 {
        // SAFETY: the token proves the features, the caller the memory.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn store_f16(self, v: __m256, to: *mut f16) {
        // SAFETY: the token proves the features, the caller the memory.
        unsafe {
            let halves: __m128i = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v);
            _mm_storeu_si128(to.cast(), halves);
        }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        with_avx2!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        with_avx2!(_mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        with_avx2!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        with_avx2!(_mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        with_avx2!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        with_avx2!(_mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        with_avx2!(_mm256_min_ps(a, b))
    }

    #[inline(always)]
    fn round(self, v: __m256) -> __m256 {
        with_avx2!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v))
    }

    #[inline(always)]
    fn pow2(self, v: __m256) -> __m256 {
        // The exponent field, whose bias is 127, in its place.
        with_avx2!({
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(v), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        })
    }

    #[inline(always)]
    fn keep_first(self, v: __m256, n: usize, rest: __m256) -> __m256 {
        with_avx2!(_mm256_blendv_ps(rest, v, _mm256_castsi256_ps(mask(self, n))))
    }

    #[inline(always)]
    fn sum(self, v: __m256) -> f32 {
        with_avx2!({
            let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        })
    }

    #[inline(always)]
    fn largest(self, v: __m256) -> f32 {
        with_avx2!({
            let four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        })
    }

    #[inline(always)]
    fn transpose(self, rows: [__m256; WIDEST]) -> [__m256; WIDEST] {
        let mut out = rows;
        for group in [0, 4] {
            // Half `h` of `out[group + c]`: column `4 h + c` of the group's rows.
            with_avx2!({
                let [a, b, c, d] = [rows[group], rows[group + 1], rows[group + 2], rows[group + 3]];
                let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
                out[group] = _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd);
                out[group + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd);
                let (ab, cd) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
                out[group + 2] = _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd);
                out[group + 3] = _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd);
            });
        }
        for c in 0..4 {
            let (low, high) = (out[c], out[c + 4]);
            out[c] = with_avx2!(_mm256_permute2f128_ps::<0x20>(low, high));
            out[c + 4] = with_avx2!(_mm256_permute2f128_ps::<0x31>(low, high));
        }
        out
    }

    #[inline(always)]
    unsafe fn load_twice(self, from: *const f32) -> __m256 {
        // SAFETY: the token proves the features, the caller the memory.
        unsafe {
            let four = _mm256_castps128_ps256(_mm_loadu_ps(from));
            _mm256_permutevar8x32_ps(four, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3))
        }
    }

    #[inline(always)]
    fn rotate_pairs(self, v: __m256, cos: __m256, sin: __m256) -> __m256 {
        with_avx2!({
            let turned = _mm256_mul_ps(_mm256_permute_ps::<0b10_11_00_01>(v), sin);
            _mm256_fmaddsub_ps(v, cos, turned)
        })
    }
}
