//! Vectors of sixteen: AVX-512.

use std::arch::x86_64::*;

use half::f16;

use super::{Lanes, WIDEST};
use crate::cpu::isa::Avx512Vnni;

/// Calls of intrinsics that touch no memory.
macro_rules! with_avx512 {
    ($call:expr) => {
        // SAFETY: the token `self` proves the features, and no pointer is followed.
        unsafe { $call }
    };
}

/// The lowest `n` of 16 bits.
#[inline(always)]
fn mask(n: usize) -> __mmask16 {
    assert!(n <= 16);
    ((1_u32 << n) - 1) as __mmask16
}

impl Lanes for Avx512Vnni {
    type V = __m512;

    const LANES: usize = 16;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        with_avx512!(_mm512_set1_ps(x))
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        // SAFETY: the token proves the features, the caller the memory.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, n: usize) -> __m512 {
        // SAFETY: as above; lanes that are masked out are not read.
        unsafe { _mm512_maskz_loadu_ps(mask(n), from) }
    }

    #[inline(always)]
    unsafe fn store(self, v: __m512, to: *mut f32) {
        // SAFETY: the token proves the features, the caller the memory.
        unsafe { _mm512_storeu_ps(to, v) }
    }

    #[inline(always)]
    unsafe fn store_first(self, v: __m512, to: *mut f32, n: usize) {
        // SAFETY: as above; lanes that are masked out are not written.
        unsafe { _mm512_mask_storeu_ps(to, mask(n), v) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> __m512 {
        // SAFETY: the token proves the features, the caller the memory.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> __m512 {
        // SAFETY: the token proves the features, the caller the memory.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn store_f16(self, v: __m512, to: *mut f16) {
        // SAFETY: the token proves the features, the caller the memory.
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        with_avx512!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        with_avx512!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        with_avx512!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        with_avx512!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        with_avx512!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        with_avx512!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        with_avx512!(_mm512_min_ps(a, b))
    }

    #[inline(always)]
    fn round(self, v: __m512) -> __m512 {
        with_avx512!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v))
    }

    #[inline(always)]
    fn pow2(self, v: __m512) -> __m512 {
        with_avx512!(_mm512_scalef_ps(_mm512_set1_ps(1.0), v))
    }

    #[inline(always)]
    fn keep_first(self, v: __m512, n: usize, rest: __m512) -> __m512 {
        with_avx512!(_mm512_mask_blend_ps(mask(n), rest, v))
    }

    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        with_avx512!({
            let high = _mm256_castsi256_ps(_mm512_extracti64x4_epi64::<1>(_mm512_castps_si512(v)));
            let eight = _mm256_add_ps(_mm512_castps512_ps256(v), high);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        })
    }

    #[inline(always)]
    fn largest(self, v: __m512) -> f32 {
        with_avx512!({
            let high = _mm256_castsi256_ps(_mm512_extracti64x4_epi64::<1>(_mm512_castps_si512(v)));
            let eight = _mm256_max_ps(_mm512_castps512_ps256(v), high);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        })
    }

    #[inline(always)]
    fn transpose(self, rows: [__m512; WIDEST]) -> [__m512; WIDEST] {
        let mut out = rows;
        for group in [0, 4, 8, 12] {
            // Quarter `l` of `out[group + c]`: column `4 l + c` of the group's rows.
            with_avx512!({
                let [a, b, c, d] = [rows[group], rows[group + 1], rows[group + 2], rows[group + 3]];
                let (ab, cd) = (_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d));
                out[group] = _mm512_shuffle_ps::<0b01_00_01_00>(ab, cd);
                out[group + 1] = _mm512_shuffle_ps::<0b11_10_11_10>(ab, cd);
                let (ab, cd) = (_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d));
                out[group + 2] = _mm512_shuffle_ps::<0b01_00_01_00>(ab, cd);
                out[group + 3] = _mm512_shuffle_ps::<0b11_10_11_10>(ab, cd);
            });
        }
        const EVEN: i32 = 0b10_00_10_00;
        const ODD: i32 = 0b11_01_11_01;
        for c in 0..4 {
            with_avx512!({
                let [a, b, c4, d] = [out[c], out[c + 4], out[c + 8], out[c + 12]];
                let (ab, cd) = (_mm512_shuffle_f32x4::<EVEN>(a, b), _mm512_shuffle_f32x4::<EVEN>(c4, d));
                out[c] = _mm512_shuffle_f32x4::<EVEN>(ab, cd);
                out[c + 8] = _mm512_shuffle_f32x4::<ODD>(ab, cd);
                let (ab, cd) = (_mm512_shuffle_f32x4::<ODD>(a, b), _mm512_shuffle_f32x4::<ODD>(c4, d));
                out[c + 4] = _mm512_shuffle_f32x4::<EVEN>(ab, cd);
                out[c + 12] = _mm512_shuffle_f32x4::<ODD>(ab, cd);
            });
        }
        out
    }

    #[inline(always)]
    unsafe fn load_twice(self, from: *const f32) -> __m512 {
        // SAFETY: the token proves the features, the caller the memory.
        unsafe {
            let eight = _mm512_castps256_ps512(_mm256_loadu_ps(from));
            let index = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
            _mm512_permutexvar_ps(index, eight)
        }
    }

    #[inline(always)]
    fn rotate_pairs(self, v: __m512, cos: __m512, sin: __m512) -> __m512 {
        with_avx512!({
            let turned = _mm512_mul_ps(_mm512_permute_ps::<0b10_11_00_01>(v), sin);
            _mm512_fmaddsub_ps(v, cos, turned)
        })
    }
}
