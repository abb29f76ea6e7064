//! Matmul kernels for AVX2: two vectors are a panel of outputs.
//!
//! `vpmaddubsw` adds two products of code bytes and activation bytes to each i16 lane. Codes of
//! fewer than 8 bits let several groups add up there before an i16 could overflow; bytes are split
//! into magnitude and sign instead.

use std::arch::x86_64::*;

use super::load::{load64, load128, load256, split};
use crate::cpu::isa::Avx2;
use crate::cpu::matmul::Sums;
use crate::cpu::packed::PANEL;
use crate::cpu::split::Layouts;
use crate::cpu::tiles::Tile;
use crate::dtype::DType;

/// Lanes of a vector: half a panel.
pub(super) const HALF: usize = PANEL / 2;

/// Fills a tile, see [`Layouts::fill`].
pub(crate) fn fill(_: Avx2, layouts: Layouts, x: &[f32], height: usize, numbers: &mut [i32]) {
    // SAFETY: the token proves the features.
    unsafe { fill_tile(layouts, x, height, numbers) }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn fill_tile(layouts: Layouts, x: &[f32], height: usize, numbers: &mut [i32]) {
    layouts.fill(x, height, numbers);
}

/// The outputs of one panel for one tile.
pub(crate) fn product(_: Avx2, dtype: DType, panel: &[u8], tile: Tile<'_>, out: &mut Sums) {
    // SAFETY: the token proves the features.
    unsafe {
        match tile.height {
            1 => product_of::<1>(dtype, panel, tile, out),
            2 => product_of::<2>(dtype, panel, tile, out),
            4 => product_of::<4>(dtype, panel, tile, out),
            height => unreachable!("a tile of {height} rows"),
        }
    }
}

/// `R` is the height of the tile.
#[target_feature(enable = "avx2,fma,f16c")]
fn product_of<const R: usize>(dtype: DType, panel: &[u8], tile: Tile<'_>, out: &mut Sums) {
    match dtype {
        DType::F32 => floats::<F32, 32, R>(panel, tile, out),
        DType::F16 => floats::<F16, 16, R>(panel, tile, out),
        DType::BF16 => floats::<BF16, 16, R>(panel, tile, out),
        DType::Q4_0 => blocks_of_32::<256, 32, R>(panel, tile, out),
        DType::Q4_1 => blocks_of_32::<256, 64, R>(panel, tile, out),
        DType::Q5_0 => blocks_of_32::<320, 32, R>(panel, tile, out),
        DType::Q5_1 => blocks_of_32::<320, 64, R>(panel, tile, out),
        DType::Q8_0 => blocks_of_32::<512, 32, R>(panel, tile, out),
        DType::Q2K => blocks_of_256::<256, 576, 8, 2, R>(panel, tile, out),
        DType::Q3K => blocks_of_256::<256, 288, 16, 2, R>(panel, tile, out),
        DType::Q4K => blocks_of_256::<256, 320, 4, 1, R>(panel, tile, out),
        DType::Q5K => blocks_of_256::<320, 320, 4, 1, R>(panel, tile, out),
        DType::Q6K => blocks_of_256::<384, 288, 16, 2, R>(panel, tile, out),
    }
}

/// Hands out what the lanes of both halves have summed up.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store<const R: usize>(acc: &[[__m256; R]; 2], out: &mut Sums) {
    for (h, acc) in acc.iter().enumerate() {
        for (out, acc) in out.iter_mut().zip(acc) {
            let out = &mut out[h * HALF..][..HALF];
            // SAFETY: `out` is 8 f32.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), *acc) };
        }
    }
}

const F32: u8 = 0;
const F16: u8 = 1;
const BF16: u8 = 2;

/// Weights of type `T`, `BYTES` for 8 outputs.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
fn floats<const T: u8, const BYTES: usize, const R: usize>(panel: &[u8], tile: Tile<'_>, out: &mut Sums) {
    let weights = panel.as_chunks::<BYTES>().0.as_chunks::<2>().0;
    let mut acc = [[_mm256_setzero_ps(); R]; 2];
    for (weights, x) in weights.iter().zip(tile.words.as_chunks::<R>().0) {
        let mut wide = [_mm256_setzero_ps(); 2];
        for h in 0..2 {
            wide[h] = match T {
                F16 => _mm256_cvtph_ps(load128(&weights[h])),
                BF16 => {
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(load128(&weights[h]))))
                }
                _ => _mm256_castsi256_ps(load256(&weights[h])),
            };
        }
        for r in 0..R {
            let x = broadcast(x[r]);
            for h in 0..2 {
                acc[h][r] = _mm256_fmadd_ps(x, wide[h], acc[h][r]);
            }
        }
    }
    store(&acc, out);
}

/// Types with blocks of 32. `UNIT` and `PARAMETERS` are the bytes of a block; 64 bytes of parameters
/// are scales and minimums.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
fn blocks_of_32<const UNIT: usize, const PARAMETERS: usize, const R: usize>(
    panel: &[u8],
    tile: Tile<'_>,
    out: &mut Sums,
) {
    let minimums = const { PARAMETERS == 64 };
    // Signed bytes take no zero point; other codes begin with its sum.
    let start = const { PARAMETERS == 32 && UNIT != 512 };
    let blocks = panel.chunks_exact(const { PARAMETERS + UNIT });
    let words = tile.words.as_chunks::<R>().0.as_chunks::<8>().0;
    let scales = tile.scales.as_chunks::<R>().0.iter().zip(tile.sums.as_chunks::<R>().0);
    let ones = _mm256_set1_epi16(1);
    let mut acc = [[_mm256_setzero_ps(); R]; 2];
    for ((block, words), (x_scales, sums)) in blocks.zip(words).zip(scales) {
        let (parameters, unit) = split::<PARAMETERS, UNIT>(block);
        for h in 0..2 {
            let mut dots = [_mm256_setzero_si256(); R];
            for r in 0..R {
                if start {
                    dots[r] = _mm256_set1_epi32(sums[r]);
                }
            }
            add_groups::<UNIT, R>(unit, h, words, 0..8, ones, &mut dots);
            let scale = _mm256_cvtph_ps(load128(&parameters[2 * HALF * h..]));
            for r in 0..R {
                let factor = _mm256_mul_ps(scale, broadcast(x_scales[r]));
                acc[h][r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[r]), factor, acc[h][r]);
            }
            if minimums {
                let minimum = _mm256_cvtph_ps(load128(&parameters[2 * PANEL + 2 * HALF * h..]));
                for r in 0..R {
                    let factor = _mm256_mul_ps(minimum, broadcast(x_scales[r]));
                    acc[h][r] = _mm256_fmadd_ps(broadcast(sums[r]), factor, acc[h][r]);
                }
            }
        }
    }
    store(&acc, out);
}

/// K types. `UNIT` is the bytes of 32 codes of a panel, `PARAMETERS` those of the parameters of a
/// block, `SUMS` the words of sums of a block, `SUBS` the sub-blocks of a unit. Only types with
/// minimums have fewer sums than sub-blocks.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
fn blocks_of_256<
    const UNIT: usize,
    const PARAMETERS: usize,
    const SUMS: usize,
    const SUBS: usize,
    const R: usize,
>(
    panel: &[u8],
    tile: Tile<'_>,
    out: &mut Sums,
) {
    let minimums = const { SUMS < 8 * SUBS };
    let blocks = panel.chunks_exact(const { PARAMETERS + 8 * UNIT });
    let words = tile.words.as_chunks::<R>().0.as_chunks::<8>().0.as_chunks::<8>().0;
    let sums = tile.sums.as_chunks::<R>().0.as_chunks::<SUMS>().0;
    let scales = tile.scales.as_chunks::<R>().0.iter().zip(sums);
    let mut acc = [[_mm256_setzero_ps(); R]; 2];
    for ((block, words), (x_scales, sums)) in blocks.zip(words).zip(scales) {
        let (parameters, units) = block.split_at(PARAMETERS);
        let units = units.as_chunks::<UNIT>().0;
        let (halves, integers) = parameters.split_at(if minimums { 64 } else { 32 });
        let (sub_scales, sub_minimums) = integers.split_at(8 * SUBS * PANEL);
        for h in 0..2 {
            let mut dots = [_mm256_setzero_si256(); R];
            for (u, (unit, words)) in units.iter().zip(words).enumerate() {
                for s in 0..SUBS {
                    let j = u * SUBS + s;
                    let sub_scale = _mm256_cvtepi8_epi32(load64(&sub_scales[j * PANEL + h * HALF..]));
                    let both = _mm256_blend_epi16::<0xaa>(sub_scale, _mm256_slli_epi32::<16>(sub_scale));
                    add_groups::<UNIT, R>(unit, h, words, s * 8 / SUBS..(s + 1) * 8 / SUBS, both, &mut dots);
                    for r in 0..R {
                        if !minimums {
                            let start = _mm256_mullo_epi32(sub_scale, _mm256_set1_epi32(sums[j][r]));
                            dots[r] = _mm256_add_epi32(dots[r], start);
                        }
                    }
                }
            }
            let scale = _mm256_cvtph_ps(load128(&halves[2 * HALF * h..]));
            for r in 0..R {
                let factor = _mm256_mul_ps(scale, broadcast(x_scales[r]));
                acc[h][r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[r]), factor, acc[h][r]);
            }
            if minimums {
                let dots = minimum_dots(sub_minimums, h, sums);
                let scale = _mm256_cvtph_ps(load128(&halves[2 * PANEL + 2 * HALF * h..]));
                for r in 0..R {
                    let factor = _mm256_mul_ps(scale, broadcast(x_scales[r]));
                    acc[h][r] = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(dots[r]), factor, acc[h][r]);
                }
            }
        }
    }
    store(&acc, out);
}

/// Adds the products of some groups of half `h` of a unit, times `factors` (each i16 pair of a lane
/// alike), to `dots`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_groups<const UNIT: usize, const R: usize>(
    unit: &[u8; UNIT],
    h: usize,
    words: &[[i32; R]; 8],
    groups: std::ops::Range<usize>,
    factors: __m256i,
    dots: &mut [__m256i; R],
) {
    // Groups whose pairs of products, 127 at most times the highest code, fit an i16 together.
    let together = const {
        match UNIT {
            256 => 8,
            320 => 4,
            384 => 2,
            _ => 1,
        }
    };
    for first in groups.clone().step_by(together) {
        let mut pairs = [_mm256_setzero_si256(); R];
        let end = groups.end.min(first + together);
        for (g, words) in (first..end).zip(&words[first..end]) {
            let codes = unpack(unit, h, g);
            for r in 0..R {
                let x = _mm256_set1_epi32(words[r]);
                let products = if UNIT == 512 {
                    // At most 128 * 127 twice, which fits.
                    _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes))
                } else {
                    _mm256_maddubs_epi16(codes, x)
                };
                pairs[r] = _mm256_add_epi16(pairs[r], products);
            }
        }
        for r in 0..R {
            dots[r] = _mm256_add_epi32(dots[r], _mm256_madd_epi16(pairs[r], factors));
        }
    }
}

/// Minimums of sub-blocks of half `h` times the sums of activations there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn minimum_dots<const R: usize>(minimums: &[u8], h: usize, sums: &[[i32; R]]) -> [__m256i; R] {
    let mut dots = [_mm256_setzero_si256(); R];
    for (sums, pairs) in sums.iter().zip(minimums.as_chunks::<32>().0) {
        let pairs = _mm256_cvtepu8_epi16(load128(&pairs[2 * HALF * h..]));
        for r in 0..R {
            let products = _mm256_madd_epi16(pairs, _mm256_set1_epi32(sums[r]));
            dots[r] = _mm256_add_epi32(dots[r], products);
        }
    }
    dots
}

/// Group `g` of half `h` of a unit, one code per byte; codes of 8 bits as signed numbers.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn unpack<const UNIT: usize>(unit: &[u8; UNIT], h: usize, g: usize) -> __m256i {
    let at = |row: usize| load256(&unit[64 * row + 32 * h..]);
    if UNIT == 512 {
        return _mm256_xor_si256(at(g), _mm256_set1_epi8(-128));
    }
    let pair = at(g % 4);
    let nibbles = if g < 4 { pair } else { _mm256_srli_epi16::<4>(pair) };
    let codes = _mm256_and_si256(nibbles, _mm256_set1_epi8(0x0f));
    let (upper, mask) = match UNIT {
        320 => {
            let fifth = at(4);
            let shifted = match g {
                0 => _mm256_slli_epi16::<4>(fifth),
                1 => _mm256_slli_epi16::<3>(fifth),
                2 => _mm256_slli_epi16::<2>(fifth),
                3 => _mm256_slli_epi16::<1>(fifth),
                4 => fifth,
                5 => _mm256_srli_epi16::<1>(fifth),
                6 => _mm256_srli_epi16::<2>(fifth),
                _ => _mm256_srli_epi16::<3>(fifth),
            };
            (shifted, 0x10)
        }
        384 => {
            let upper = at(4 + g / 4);
            let shifted = match g % 4 {
                0 => _mm256_slli_epi16::<4>(upper),
                1 => _mm256_slli_epi16::<2>(upper),
                2 => upper,
                _ => _mm256_srli_epi16::<2>(upper),
            };
            (shifted, 0x30)
        }
        _ => return codes,
    };
    _mm256_or_si256(codes, _mm256_and_si256(upper, _mm256_set1_epi8(mask)))
}

/// The f32 with these bits in all lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn broadcast(bits: i32) -> __m256 {
    _mm256_castsi256_ps(_mm256_set1_epi32(bits))
}
