//! Matmul kernels for AVX-512 with VNNI: one vector is a panel of outputs.
//!
//! `vpdpbusd` adds four products of code bytes and activation bytes to each i32 lane, which is what
//! the groups of [`packed`](crate::cpu::packed) are made for. Activations are broadcast from memory.

use std::arch::x86_64::*;

use super::load::{load128, load256};
use crate::cpu::isa::Avx512Vnni;
use crate::cpu::matmul::Sums;
use crate::cpu::packed::{PANEL, Panel};
use crate::cpu::tiles::{Tile, TileLayout};
use crate::dtype::DType;

/// Fills a tile, see [`TileLayout::fill`].
pub(crate) fn fill(_: Avx512Vnni, layout: TileLayout, x: &[f32], height: usize, numbers: &mut [i32]) {
    // SAFETY: the token proves the features.
    unsafe { fill_tile(layout, x, height, numbers) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn fill_tile(layout: TileLayout, x: &[f32], height: usize, numbers: &mut [i32]) {
    layout.fill(x, height, numbers);
}

/// The outputs of one panel for one tile.
pub(crate) fn product(_: Avx512Vnni, dtype: DType, panel: Panel<'_>, tile: Tile<'_>, out: &mut Sums) {
    // SAFETY: the token proves the features.
    unsafe {
        match tile.height {
            1 => product_of::<1>(dtype, panel, tile, out),
            2 => product_of::<2>(dtype, panel, tile, out),
            4 => product_of::<4>(dtype, panel, tile, out),
            8 => product_of::<8>(dtype, panel, tile, out),
            16 if dtype.is_float() => floats_of::<16>(dtype, panel, tile, out),
            height => unreachable!("a tile of {height} rows"),
        }
    }
}

/// `R` is the height of the tile.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn product_of<const R: usize>(dtype: DType, panel: Panel<'_>, tile: Tile<'_>, out: &mut Sums) {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => floats_of::<R>(dtype, panel, tile, out),
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

/// Hands out what the lanes have summed up.
#[inline]
#[target_feature(enable = "avx512f")]
fn store<const R: usize>(acc: &[__m512; R], out: &mut Sums) {
    for (out, acc) in out.iter_mut().zip(acc) {
        // SAFETY: `out` is 16 f32.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), *acc) };
    }
}

/// Float weights; `R` is the height of the tile.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn floats_of<const R: usize>(dtype: DType, panel: Panel<'_>, tile: Tile<'_>, out: &mut Sums) {
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn floats<const T: u8, const BYTES: usize, const R: usize>(panel: Panel<'_>, tile: Tile<'_>, out: &mut Sums) {
    let weights = panel.codes.as_chunks::<BYTES>().0;
    let mut acc = [_mm512_setzero_ps(); R];
    for (weights, x) in weights.iter().zip(tile.words.as_chunks::<R>().0) {
        let weights = match T {
            F16 => _mm512_cvtph_ps(load256(weights)),
            BF16 => _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load256(weights)), 16)),
            _ => _mm512_castsi512_ps(load512(weights)),
        };
        for r in 0..R {
            acc[r] = _mm512_fmadd_ps(broadcast(x[r]), weights, acc[r]);
        }
    }
    store(&acc, out);
}

/// Types with blocks of 32. `UNIT` and `PARAMETERS` are the bytes of a block; 64 bytes of parameters
/// are scales and minimums.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn blocks_of_32<const UNIT: usize, const PARAMETERS: usize, const R: usize>(
    panel: Panel<'_>,
    tile: Tile<'_>,
    out: &mut Sums,
) {
    let minimums = const { PARAMETERS == 64 };
    let weights = panel.codes.as_chunks::<UNIT>().0.iter().zip(panel.parameters.as_chunks::<PARAMETERS>().0);
    let words = tile.words.as_chunks::<R>().0.as_chunks::<8>().0;
    let scales = tile.scales.as_chunks::<R>().0.iter().zip(tile.sums.as_chunks::<R>().0);
    let mut acc = [_mm512_setzero_ps(); R];
    for (((unit, parameters), words), (x_scales, sums)) in weights.zip(words).zip(scales) {
        let codes = unpack(unit);
        let mut dots = [_mm512_setzero_si512(); R];
        for r in 0..R {
            if !minimums {
                dots[r] = _mm512_set1_epi32(sums[r]);
            }
        }
        add_groups(&codes, words, &mut dots);
        let scale = _mm512_cvtph_ps(load256(&parameters[..32]));
        for r in 0..R {
            let factor = _mm512_mul_ps(scale, broadcast(x_scales[r]));
            acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r]), factor, acc[r]);
        }
        if minimums {
            let minimum = _mm512_cvtph_ps(load256(&parameters[32..]));
            for r in 0..R {
                let factor = _mm512_mul_ps(minimum, broadcast(x_scales[r]));
                acc[r] = _mm512_fmadd_ps(broadcast(sums[r]), factor, acc[r]);
            }
        }
    }
    store(&acc, out);
}

/// K types. `UNIT` is the bytes of 32 codes of a panel, `PARAMETERS` those of the parameters of a
/// block, `SUMS` the words of sums of a block, `SUBS` the sub-blocks of a unit. Only types with
/// minimums have fewer sums than sub-blocks.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn blocks_of_256<
    const UNIT: usize,
    const PARAMETERS: usize,
    const SUMS: usize,
    const SUBS: usize,
    const R: usize,
>(
    panel: Panel<'_>,
    tile: Tile<'_>,
    out: &mut Sums,
) {
    let minimums = const { SUMS < 8 * SUBS };
    let units = panel.codes.as_chunks::<UNIT>().0.as_chunks::<8>().0;
    let weights = units.iter().zip(panel.parameters.as_chunks::<PARAMETERS>().0);
    let words = tile.words.as_chunks::<R>().0.as_chunks::<8>().0.as_chunks::<8>().0;
    let sums = tile.sums.as_chunks::<R>().0.as_chunks::<SUMS>().0;
    let scales = tile.scales.as_chunks::<R>().0.iter().zip(sums);
    let mut acc = [_mm512_setzero_ps(); R];
    for (((units, parameters), words), (x_scales, sums)) in weights.zip(words).zip(scales) {
        let (halves, integers) = parameters.split_at(if minimums { 64 } else { 32 });
        let (sub_scales, sub_minimums) = integers.split_at(8 * SUBS * PANEL);
        let mut dots = [_mm512_setzero_si512(); R];
        for (u, (unit, words)) in units.iter().zip(words).enumerate() {
            let codes = unpack(unit);
            for s in 0..SUBS {
                let j = u * SUBS + s;
                let mut sub_dots = [_mm512_setzero_si512(); R];
                for r in 0..R {
                    if !minimums {
                        sub_dots[r] = _mm512_set1_epi32(sums[j][r]);
                    }
                }
                let groups = s * 8 / SUBS..(s + 1) * 8 / SUBS;
                add_groups(&codes[groups.clone()], &words[groups], &mut sub_dots);
                let sub_scale = _mm512_cvtepi8_epi32(load128(&sub_scales[j * PANEL..]));
                for r in 0..R {
                    dots[r] = _mm512_add_epi32(dots[r], _mm512_mullo_epi32(sub_dots[r], sub_scale));
                }
            }
        }
        let scale = _mm512_cvtph_ps(load256(&halves[..32]));
        for r in 0..R {
            let factor = _mm512_mul_ps(scale, broadcast(x_scales[r]));
            acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r]), factor, acc[r]);
        }
        if minimums {
            let dots = minimum_dots(sub_minimums, sums);
            let scale = _mm512_cvtph_ps(load256(&halves[32..]));
            for r in 0..R {
                let factor = _mm512_mul_ps(scale, broadcast(x_scales[r]));
                acc[r] = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(dots[r]), factor, acc[r]);
            }
        }
    }
    store(&acc, out);
}

/// Adds the products of groups to `dots`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn add_groups<const R: usize>(codes: &[__m512i], words: &[[i32; R]], dots: &mut [__m512i; R]) {
    for (codes, words) in codes.iter().zip(words) {
        for r in 0..R {
            dots[r] = _mm512_dpbusd_epi32(dots[r], *codes, _mm512_set1_epi32(words[r]));
        }
    }
}

/// Minimums of sub-blocks times the sums of activations there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn minimum_dots<const R: usize>(minimums: &[u8], sums: &[[i32; R]]) -> [__m512i; R] {
    let mut dots = [_mm512_setzero_si512(); R];
    for (sums, pairs) in sums.iter().zip(minimums.as_chunks::<32>().0) {
        let pairs = _mm512_cvtepu8_epi16(load256(pairs));
        for r in 0..R {
            dots[r] = _mm512_dpwssd_epi32(dots[r], pairs, _mm512_set1_epi32(sums[r]));
        }
    }
    dots
}

/// The eight groups of a unit, one code per byte.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn unpack<const UNIT: usize>(unit: &[u8; UNIT]) -> [__m512i; 8] {
    let mut codes = [_mm512_setzero_si512(); 8];
    if UNIT == 512 {
        for g in 0..8 {
            codes[g] = load512(&unit[64 * g..]);
        }
        return codes;
    }
    let nibble = _mm512_set1_epi8(0x0f);
    for g in 0..4 {
        let pair = load512(&unit[64 * g..]);
        codes[g] = _mm512_and_si512(pair, nibble);
        codes[g + 4] = _mm512_and_si512(_mm512_srli_epi16::<4>(pair), nibble);
    }
    if UNIT == 320 {
        let fifth = load512(&unit[256..]);
        let shifted = [
            _mm512_slli_epi16::<4>(fifth),
            _mm512_slli_epi16::<3>(fifth),
            _mm512_slli_epi16::<2>(fifth),
            _mm512_slli_epi16::<1>(fifth),
            fifth,
            _mm512_srli_epi16::<1>(fifth),
            _mm512_srli_epi16::<2>(fifth),
            _mm512_srli_epi16::<3>(fifth),
        ];
        for g in 0..8 {
            codes[g] = or_masked(codes[g], shifted[g], _mm512_set1_epi8(0x10));
        }
    }
    if UNIT == 384 {
        for half in 0..2 {
            let upper = load512(&unit[256 + 64 * half..]);
            let shifted = [
                _mm512_slli_epi16::<4>(upper),
                _mm512_slli_epi16::<2>(upper),
                upper,
                _mm512_srli_epi16::<2>(upper),
            ];
            for g in 0..4 {
                codes[4 * half + g] = or_masked(codes[4 * half + g], shifted[g], _mm512_set1_epi8(0x30));
            }
        }
    }
    codes
}

/// `a | b & mask`.
#[inline]
#[target_feature(enable = "avx512f")]
fn or_masked(a: __m512i, b: __m512i, mask: __m512i) -> __m512i {
    _mm512_or_si512(a, _mm512_and_si512(b, mask))
}

/// The f32 with these bits in all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(bits: i32) -> __m512 {
    _mm512_castsi512_ps(_mm512_set1_epi32(bits))
}

/// The first 64 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
fn load512(bytes: &[u8]) -> __m512i {
    let bytes = &bytes[..64];
    // SAFETY: there are 64 bytes; any alignment will do.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}
