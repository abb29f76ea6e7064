//! Matmul kernels for AVX-VNNI: as for AVX2, with `vpdpbusd`, which adds four products of code bytes and
//! activation bytes to each i32 lane.

use std::arch::x86_64::*;

use super::avx2::{self, HALF, broadcast, minimum_dots, store, unpack};
use super::load::{load64, load128, load256, split};
use crate::cpu::isa::AvxVnni;
use crate::cpu::matmul::Sums;
use crate::cpu::packed::PANEL;
use crate::cpu::tiles::Tile;
use crate::dtype::DType;

/// The outputs of one panel for one tile.
pub(crate) fn product(token: AvxVnni, dtype: DType, panel: &[u8], tile: Tile<'_>, out: &mut Sums) {
    if dtype.is_float() {
        return avx2::product(token.avx2(), dtype, panel, tile, out);
    }
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
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn product_of<const R: usize>(dtype: DType, panel: &[u8], tile: Tile<'_>, out: &mut Sums) {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => unreachable!("{dtype} has no integers"),
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

/// Types with blocks of 32. `UNIT` and `PARAMETERS` are the bytes of codes and parameters of a block;
/// 64 bytes of parameters are scales and minimums.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn blocks_of_32<const UNIT: usize, const PARAMETERS: usize, const R: usize>(
    panel: &[u8],
    tile: Tile<'_>,
    out: &mut Sums,
) {
    let minimums = const { PARAMETERS == 64 };
    let blocks = panel.chunks_exact(const { PARAMETERS + UNIT });
    let words = tile.words.as_chunks::<R>().0.as_chunks::<8>().0;
    let scales = tile.scales.as_chunks::<R>().0.iter().zip(tile.sums.as_chunks::<R>().0);
    let mut acc = [[_mm256_setzero_ps(); R]; 2];
    for ((block, words), (x_scales, sums)) in blocks.zip(words).zip(scales) {
        let (parameters, unit) = split::<PARAMETERS, UNIT>(block);
        for h in 0..2 {
            let start = if minimums { &[0; R] } else { sums };
            let dots = group_dots::<UNIT, R>(unit, h, words, 0..8, start);
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
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
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
                    let start = if minimums { &[0; R] } else { &sums[j] };
                    let groups = s * 8 / SUBS..(s + 1) * 8 / SUBS;
                    let sub_dots = group_dots::<UNIT, R>(unit, h, words, groups, start);
                    let scale = _mm256_cvtepi8_epi32(load64(&sub_scales[j * PANEL + h * HALF..]));
                    for r in 0..R {
                        dots[r] = _mm256_add_epi32(dots[r], _mm256_mullo_epi32(sub_dots[r], scale));
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

/// `start` and the products of some groups of half `h` of a unit.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn group_dots<const UNIT: usize, const R: usize>(
    unit: &[u8; UNIT],
    h: usize,
    words: &[[i32; R]; 8],
    groups: std::ops::Range<usize>,
    start: &[i32; R],
) -> [__m256i; R] {
    let mut dots = [_mm256_setzero_si256(); R];
    for r in 0..R {
        dots[r] = _mm256_set1_epi32(start[r]);
    }
    for (g, words) in words.iter().enumerate().skip(groups.start).take(groups.len()) {
        let codes = if UNIT == 512 { load256(&unit[64 * g + 32 * h..]) } else { unpack(unit, h, g) };
        for r in 0..R {
            dots[r] = _mm256_dpbusd_avx_epi32(dots[r], codes, _mm256_set1_epi32(words[r]));
        }
    }
    dots
}
