//! What one block of two panels adds to the sums of a tile.

use std::arch::x86_64::*;

use crate::cpu::packed::PANEL;
use crate::cpu::x86_64::load::{load128, load256};

/// How far ahead weights are asked for: the memory answers after about this many bytes.
const AHEAD: usize = 3072;

/// Bytes that memory is asked for at once.
const LINE: usize = 64;

/// Rows up to which the memory is what there is to wait for.
const LONE: usize = 1;

/// Numbers of each row, for each panel.
pub(super) type Rows<T, const R: usize, const P: usize> = [[T; P]; R];

/// Adds the products of a block of 32 of each panel to `acc`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn add_block_of_32<
    const UNIT: usize,
    const PARAMETERS: usize,
    const BLOCK: usize,
    const R: usize,
    const P: usize,
>(
    blocks: [&[u8; BLOCK]; P],
    words: &[[i32; R]; 8],
    x_scales: &[i32; R],
    sums: &[i32; R],
    acc: &mut Rows<__m512, R, P>,
) {
    // A lone row leaves so little to compute with whole bytes that the processor runs ahead by itself.
    if R > LONE || UNIT != 512 {
        for block in blocks {
            fetch_ahead(block);
        }
    }
    let minimums = const { PARAMETERS == 64 };
    let start = if minimums { &[0; R] } else { sums };
    let dots = unit_dots::<UNIT, BLOCK, R, P>(blocks, PARAMETERS, words, start);
    for p in 0..P {
        let scale = _mm512_cvtph_ps(load256(blocks[p]));
        for r in 0..R {
            let factor = _mm512_mul_ps(scale, broadcast(x_scales[r]));
            acc[r][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r][p]), factor, acc[r][p]);
        }
        if minimums {
            let minimum = _mm512_cvtph_ps(load256(&blocks[p][32..]));
            for r in 0..R {
                let factor = _mm512_mul_ps(minimum, broadcast(x_scales[r]));
                acc[r][p] = _mm512_fmadd_ps(broadcast(sums[r]), factor, acc[r][p]);
            }
        }
    }
}

/// Adds the products of a block of 256 of each panel to `acc`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn add_block_of_256<
    const UNIT: usize,
    const PARAMETERS: usize,
    const BLOCK: usize,
    const SUMS: usize,
    const SUBS: usize,
    const R: usize,
    const P: usize,
>(
    blocks: [&[u8; BLOCK]; P],
    words: &[[[i32; R]; 8]; 8],
    x_scales: &[i32; R],
    sums: &[[i32; R]; SUMS],
    acc: &mut Rows<__m512, R, P>,
) {
    let minimums = const { SUMS < 8 * SUBS };
    let integers = const { if SUMS < 8 * SUBS { 64 } else { 32 } };
    let mut dots = [[_mm512_setzero_si512(); P]; R];
    // Few rows take the block in the order of the memory, parameters first.
    let mut of_minimums = [[_mm512_setzero_si512(); R]; P];
    for p in 0..P {
        if minimums && R <= LONE {
            of_minimums[p] = minimum_dots(&blocks[p][integers + 8 * SUBS * PANEL..PARAMETERS], sums);
        }
    }
    for (u, words) in words.iter().enumerate() {
        let at = PARAMETERS + u * UNIT;
        for block in blocks {
            // Even shares of the lines keep the requests apart.
            let share = const { BLOCK.div_ceil(8 * LINE) * LINE };
            fetch_ahead(&block[BLOCK.min(u * share)..BLOCK.min((u + 1) * share)]);
        }
        for s in 0..SUBS {
            let j = u * SUBS + s;
            let start = if minimums { &[0; R] } else { &sums[j] };
            let sub_dots = match (SUBS, s) {
                (1, _) => unit_dots::<UNIT, BLOCK, R, P>(blocks, at, words, start),
                (_, 0) => half_dots::<UNIT, BLOCK, 0, R, P>(blocks, at, words, start),
                _ => half_dots::<UNIT, BLOCK, 4, R, P>(blocks, at, words, start),
            };
            for p in 0..P {
                let scale = _mm512_cvtepi8_epi32(load128(&blocks[p][integers + j * PANEL..]));
                for r in 0..R {
                    let scaled = _mm512_mullo_epi32(sub_dots[r][p], scale);
                    dots[r][p] = _mm512_add_epi32(dots[r][p], scaled);
                }
            }
        }
    }
    for p in 0..P {
        let scale = _mm512_cvtph_ps(load256(blocks[p]));
        for r in 0..R {
            let factor = _mm512_mul_ps(scale, broadcast(x_scales[r]));
            acc[r][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r][p]), factor, acc[r][p]);
        }
        if minimums {
            let dots = if R <= LONE {
                of_minimums[p]
            } else {
                minimum_dots(&blocks[p][integers + 8 * SUBS * PANEL..PARAMETERS], sums)
            };
            let scale = _mm512_cvtph_ps(load256(&blocks[p][32..]));
            for r in 0..R {
                let factor = _mm512_mul_ps(scale, broadcast(x_scales[r]));
                acc[r][p] = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(dots[r]), factor, acc[r][p]);
            }
        }
    }
}

/// Asks for the memory some way behind `part` of a block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn fetch_ahead(part: &[u8]) {
    for at in (0..part.len()).step_by(LINE) {
        _mm_prefetch::<_MM_HINT_T0>(part.as_ptr().wrapping_add(AHEAD + at).cast());
    }
}

/// `start` and the products of the units `at` which blocks have.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn unit_dots<const UNIT: usize, const BLOCK: usize, const R: usize, const P: usize>(
    blocks: [&[u8; BLOCK]; P],
    at: usize,
    words: &[[i32; R]; 8],
    start: &[i32; R],
) -> Rows<__m512i, R, P> {
    // The memory is read in ascending order, which it likes best.
    if UNIT == 512 {
        let mut dots = half_dots::<UNIT, BLOCK, 0, R, P>(blocks, at, words, start);
        add_groups::<UNIT, BLOCK, 4, R, P>(blocks, at, words, &mut dots);
        return dots;
    }
    let mut dots = half_dots::<UNIT, BLOCK, 4, R, P>(blocks, at, words, start);
    add_groups::<UNIT, BLOCK, 0, R, P>(blocks, at, words, &mut dots);
    dots
}

/// `start` and the products of groups `FIRST .. FIRST + 4` of the units `at` which blocks have.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn half_dots<const UNIT: usize, const BLOCK: usize, const FIRST: usize, const R: usize, const P: usize>(
    blocks: [&[u8; BLOCK]; P],
    at: usize,
    words: &[[i32; R]; 8],
    start: &[i32; R],
) -> Rows<__m512i, R, P> {
    let mut dots = [[_mm512_setzero_si512(); P]; R];
    // Few rows take upper nibbles where they are, sixteen times as large, and divide the sum.
    let large = const { R <= LONE && UNIT == 256 && FIRST == 4 };
    for r in 0..R {
        if !large {
            dots[r] = [_mm512_set1_epi32(start[r]); P];
        }
    }
    add_groups::<UNIT, BLOCK, FIRST, R, P>(blocks, at, words, &mut dots);
    if large {
        for (dots, start) in dots.iter_mut().zip(start) {
            for dot in dots {
                *dot = _mm512_add_epi32(_mm512_srai_epi32::<4>(*dot), _mm512_set1_epi32(*start));
            }
        }
    }
    dots
}

/// Adds the products of groups `FIRST .. FIRST + 4` of the units `at` which blocks have to `dots`,
/// those of upper nibbles of few rows sixteen times.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn add_groups<const UNIT: usize, const BLOCK: usize, const FIRST: usize, const R: usize, const P: usize>(
    blocks: [&[u8; BLOCK]; P],
    at: usize,
    words: &[[i32; R]; 8],
    dots: &mut Rows<__m512i, R, P>,
) {
    let large = const { R <= LONE && UNIT == 256 && FIRST == 4 };
    for (g, words) in words.iter().enumerate().skip(FIRST).take(4) {
        let mut codes = [_mm512_setzero_si512(); P];
        for p in 0..P {
            let unit = &blocks[p][at..at + UNIT];
            codes[p] = if large {
                _mm512_and_si512(load512(&unit[64 * (g % 4)..]), _mm512_set1_epi8(-16))
            } else {
                unpack::<UNIT>(unit, g)
            };
        }
        for r in 0..R {
            let x = _mm512_set1_epi32(words[r]);
            for p in 0..P {
                dots[r][p] = _mm512_dpbusd_epi32(dots[r][p], codes[p], x);
            }
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

/// Group `g` of a unit, one code per byte.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn unpack<const UNIT: usize>(unit: &[u8], g: usize) -> __m512i {
    if UNIT == 512 {
        return load512(&unit[64 * g..]);
    }
    let pair = load512(&unit[64 * (g % 4)..]);
    let nibbles = if g < 4 { pair } else { _mm512_srli_epi16::<4>(pair) };
    let codes = _mm512_and_si512(nibbles, _mm512_set1_epi8(0x0f));
    let (upper, mask) = match UNIT {
        320 => {
            let fifth = load512(&unit[256..]);
            let shifted = match g {
                0 => _mm512_slli_epi16::<4>(fifth),
                1 => _mm512_slli_epi16::<3>(fifth),
                2 => _mm512_slli_epi16::<2>(fifth),
                3 => _mm512_slli_epi16::<1>(fifth),
                4 => fifth,
                5 => _mm512_srli_epi16::<1>(fifth),
                6 => _mm512_srli_epi16::<2>(fifth),
                _ => _mm512_srli_epi16::<3>(fifth),
            };
            (shifted, 0x10)
        }
        384 => {
            let upper = load512(&unit[256 + 64 * (g / 4)..]);
            let shifted = match g % 4 {
                0 => _mm512_slli_epi16::<4>(upper),
                1 => _mm512_slli_epi16::<2>(upper),
                2 => upper,
                _ => _mm512_srli_epi16::<2>(upper),
            };
            (shifted, 0x30)
        }
        _ => return codes,
    };
    _mm512_or_si512(codes, _mm512_and_si512(upper, _mm512_set1_epi8(mask)))
}

/// The f32 with these bits in all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn broadcast(bits: i32) -> __m512 {
    _mm512_castsi512_ps(_mm512_set1_epi32(bits))
}

/// The first 64 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load512(bytes: &[u8]) -> __m512i {
    let bytes = &bytes[..64];
    // SAFETY: there are 64 bytes; any alignment will do.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}
