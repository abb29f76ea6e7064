//! Matmul kernels for AVX-512 with VNNI: one vector is a panel of outputs.
//!
//! `vpdpbusd` adds four products of code bytes and activation bytes to each i32 lane, which is what
//! the groups of [`packed`](crate::cpu::packed) are made for. Two panels go together: a broadcast of
//! activations serves both, and the memory is read at two places at once, which it likes best.

use std::arch::x86_64::*;
use std::array;

use super::fill;
use super::load::{load128, load256};
use crate::cpu::isa::Avx512Vnni;
use crate::cpu::matmul::Sums;
use crate::cpu::packed::PANEL;
use crate::cpu::split::{Layouts, Split};
use crate::cpu::tiles::Tile;
use crate::dtype::DType;

/// How far ahead weights are asked for: the memory answers after about this many bytes.
const AHEAD: usize = 3072;

/// Bytes that memory is asked for at once.
const LINE: usize = 64;

/// Rows up to which the memory is what there is to wait for.
const LONE: usize = 1;

/// Fills a tile, see [`Layouts::fill`].
pub(crate) fn fill(_: Avx512Vnni, layouts: Layouts, x: &[f32], height: usize, numbers: &mut [i32]) {
    // SAFETY: the token proves the features.
    unsafe { fill_tile(layouts, x, height, numbers) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn fill_tile(layouts: Layouts, x: &[f32], height: usize, numbers: &mut [i32]) {
    layouts.fill_by(x, height, numbers, |layout, x, height, numbers| {
        let is_whole = height == fill::ROWS && x.len() == height * layout.cols();
        match layout.coding().filter(|coding| is_whole && coding.block == 32) {
            Some(coding) => {
                let rows = array::from_fn(|r| &x[r * layout.cols()..][..layout.cols()]);
                fill::fill(coding, rows, layout.parts_of(numbers));
            }
            None => layout.fill(x, height, numbers),
        }
    });
}

/// The outputs of one or two runs of panels for one tile: for each panel a row for each row of the tile.
pub(crate) fn product(_: Avx512Vnni, dtype: DType, runs: &[&[u8]], tile: Tile<'_>, out: &mut [&mut [f32]]) {
    // SAFETY: the token proves the features.
    unsafe {
        match (runs, out) {
            (&[run], [out]) => product_of([run], dtype, tile, [out]),
            (&[one, two], [first, second]) => product_of([one, two], dtype, tile, [first, second]),
            _ => unreachable!("{} runs at once", runs.len()),
        }
    }
}

/// `P` is the number of runs.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn product_of<const P: usize>(runs: [&[u8]; P], dtype: DType, tile: Tile<'_>, out: [&mut [f32]; P]) {
    match tile.height {
        1 => tile_of::<1, P>(dtype, runs, tile, out),
        2 => tile_of::<2, P>(dtype, runs, tile, out),
        4 => tile_of::<4, P>(dtype, runs, tile, out),
        8 => tile_of::<8, P>(dtype, runs, tile, out),
        16 if dtype.is_float() => floats_of::<16, P>(dtype, runs, tile, out),
        height => unreachable!("a tile of {height} rows"),
    }
}

/// `R` is the height of the tile.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn tile_of<const R: usize, const P: usize>(
    dtype: DType,
    runs: [&[u8]; P],
    tile: Tile<'_>,
    out: [&mut [f32]; P],
) {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => floats_of::<R, P>(dtype, runs, tile, out),
        DType::Q4_0 => blocks_of_32::<256, 32, 288, R, P>(runs, tile, out),
        DType::Q4_1 => blocks_of_32::<256, 64, 320, R, P>(runs, tile, out),
        DType::Q5_0 => blocks_of_32::<320, 32, 352, R, P>(runs, tile, out),
        DType::Q5_1 => blocks_of_32::<320, 64, 384, R, P>(runs, tile, out),
        DType::Q8_0 => blocks_of_32::<512, 32, 544, R, P>(runs, tile, out),
        DType::Q2K => blocks_of_256::<256, 576, 2624, 8, 2, R, P>(runs, tile, out),
        DType::Q3K => blocks_of_256::<256, 288, 2336, 16, 2, R, P>(runs, tile, out),
        DType::Q4K => blocks_of_256::<256, 320, 2368, 4, 1, R, P>(runs, tile, out),
        DType::Q5K => blocks_of_256::<320, 320, 2880, 4, 1, R, P>(runs, tile, out),
        DType::Q6K => blocks_of_256::<384, 288, 3360, 16, 2, R, P>(runs, tile, out),
    }
}

/// Numbers of each row, for each panel.
type Rows<T, const R: usize, const P: usize> = [[T; P]; R];

/// Outputs of a panel.
type Outputs<const R: usize> = [[f32; PANEL]; R];

/// The outputs of each panel of a run.
fn outputs_of<const R: usize>(out: &mut [f32]) -> &mut [Outputs<R>] {
    out.as_chunks_mut().0.as_chunks_mut().0
}

/// Hands out what the lanes have summed up for panel `index` of each run.
#[inline]
#[target_feature(enable = "avx512f")]
fn store<const R: usize, const P: usize>(
    acc: &Rows<__m512, R, P>,
    out: &mut [&mut [Outputs<R>]; P],
    index: usize,
) {
    for (p, out) in out.iter_mut().enumerate() {
        for (out, acc) in out[index].iter_mut().zip(acc) {
            // SAFETY: `out` is 16 f32.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), acc[p]) };
        }
    }
}

/// Float weights; `R` is the height of the tile.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn floats_of<const R: usize, const P: usize>(
    dtype: DType,
    runs: [&[u8]; P],
    tile: Tile<'_>,
    out: [&mut [f32]; P],
) {
    for (run, out) in runs.into_iter().zip(out) {
        match dtype {
            DType::F16 => floats::<F16, 32, R>(run, tile, out),
            DType::BF16 => floats::<BF16, 32, R>(run, tile, out),
            _ => floats::<F32, 64, R>(run, tile, out),
        }
    }
}

const F32: u8 = 0;
const F16: u8 = 1;
const BF16: u8 = 2;

/// Weights of type `T`, `BYTES` for 16 outputs.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn floats<const T: u8, const BYTES: usize, const R: usize>(run: &[u8], tile: Tile<'_>, out: &mut [f32]) {
    let words = tile.words.as_chunks::<R>().0;
    let mut out = [outputs_of::<R>(out)];
    let panel_bytes = run.len() / out[0].len().max(1);
    for index in 0..out[0].len() {
        let panel = run[index * panel_bytes..][..panel_bytes].as_chunks::<BYTES>().0;
        let mut acc = [[_mm512_setzero_ps()]; R];
        for (x, weights) in words.iter().zip(panel) {
            let weights = match T {
                F16 => _mm512_cvtph_ps(load256(weights)),
                BF16 => _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load256(weights)), 16)),
                _ => _mm512_castsi512_ps(load512(weights)),
            };
            for r in 0..R {
                acc[r][0] = _mm512_fmadd_ps(broadcast(x[r]), weights, acc[r][0]);
            }
        }
        store(&acc, &mut out, index);
    }
}

/// Types with blocks of 32. `UNIT` and `PARAMETERS` are the bytes of codes and parameters of a block,
/// `BLOCK` those of both; 64 bytes of parameters are scales and minimums.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn blocks_of_32<
    const UNIT: usize,
    const PARAMETERS: usize,
    const BLOCK: usize,
    const R: usize,
    const P: usize,
>(
    runs: [&[u8]; P],
    tile: Tile<'_>,
    out: [&mut [f32]; P],
) {
    const { assert!(PARAMETERS + UNIT == BLOCK) };
    let mut out = out.map(outputs_of::<R>);
    let panel_bytes = runs[0].len() / out[0].len().max(1);
    let words = tile.words.as_chunks::<R>().0.as_chunks::<8>().0;
    let scales = tile.scales.as_chunks::<R>().0.iter().zip(tile.sums.as_chunks::<R>().0);
    for index in 0..out[0].len() {
        let panels = blocks_of::<BLOCK, P>(runs, index * panel_bytes, panel_bytes);
        let mut acc = [[_mm512_setzero_ps(); P]; R];
        for (b, (unit, (scales, sums))) in words.iter().zip(scales.clone()).enumerate() {
            let blocks = nth(panels, b);
            add_block_of_32::<UNIT, PARAMETERS, BLOCK, R, P>(blocks, unit, scales, sums, &mut acc);
        }
        store(&acc, &mut out, index);
    }
}

/// Adds the products of a block of 32 of each panel to `acc`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn add_block_of_32<
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

/// Adds what split blocks of a tile give to one or two panels to the rows that need it.
pub(crate) fn add_splits<'a>(
    _: Avx512Vnni,
    dtype: DType,
    panels: &[&[u8]],
    splits: impl Iterator<Item = Split<'a>>,
    out: &mut [Sums],
) {
    // SAFETY: the token proves the features.
    unsafe {
        match (panels, out) {
            (&[panel], [out]) => add_splits_of([panel], dtype, splits, [out]),
            (&[one, two], [first, second]) => add_splits_of([one, two], dtype, splits, [first, second]),
            _ => unreachable!("{} panels at once", panels.len()),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn add_splits_of<'a, const P: usize>(
    panels: [&[u8]; P],
    dtype: DType,
    splits: impl Iterator<Item = Split<'a>>,
    out: [&mut Sums; P],
) {
    let mut splits = splits.peekable();
    match splits.peek().map(|split| split.tile.height) {
        None => {}
        Some(1) => add_splits_to::<1, P>(panels, dtype, splits, out),
        Some(2) => add_splits_to::<2, P>(panels, dtype, splits, out),
        Some(4) => add_splits_to::<4, P>(panels, dtype, splits, out),
        Some(8) => add_splits_to::<8, P>(panels, dtype, splits, out),
        Some(height) => unreachable!("a tile of {height} rows"),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn add_splits_to<'a, const R: usize, const P: usize>(
    panels: [&[u8]; P],
    dtype: DType,
    splits: impl Iterator<Item = Split<'a>>,
    out: [&mut Sums; P],
) {
    match dtype {
        DType::Q4_0 => splits_of_32::<256, 32, 288, R, P>(panels, splits, out),
        DType::Q4_1 => splits_of_32::<256, 64, 320, R, P>(panels, splits, out),
        DType::Q5_0 => splits_of_32::<320, 32, 352, R, P>(panels, splits, out),
        DType::Q5_1 => splits_of_32::<320, 64, 384, R, P>(panels, splits, out),
        DType::Q8_0 => splits_of_32::<512, 32, 544, R, P>(panels, splits, out),
        _ => unreachable!("{dtype} has no blocks of 32"),
    }
}

/// Split blocks of types with blocks of 32, see [`blocks_of_32`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn splits_of_32<
    'a,
    const UNIT: usize,
    const PARAMETERS: usize,
    const BLOCK: usize,
    const R: usize,
    const P: usize,
>(
    panels: [&[u8]; P],
    splits: impl Iterator<Item = Split<'a>>,
    out: [&mut Sums; P],
) {
    let blocks = blocks_of::<BLOCK, P>(panels, 0, panels[0].len());
    let (mut more, mut needed) = ([[_mm512_setzero_ps(); P]; R], 0);
    for Split { block, rows, tile } in splits {
        let words = &tile.words.as_chunks::<R>().0.as_chunks::<8>().0[0];
        let (scales, sums) = (&tile.scales.as_chunks::<R>().0[0], &tile.sums.as_chunks::<R>().0[0]);
        let mut part = [[_mm512_setzero_ps(); P]; R];
        let blocks = nth(blocks, block);
        add_block_of_32::<UNIT, PARAMETERS, BLOCK, R, P>(blocks, words, scales, sums, &mut part);
        for r in 0..R {
            for p in 0..P {
                more[r][p] = _mm512_mask_add_ps(more[r][p], lanes_of(rows, r), more[r][p], part[r][p]);
            }
        }
        needed |= rows;
    }
    for (p, out) in out.into_iter().enumerate() {
        for (r, out) in out.iter_mut().enumerate().take(R) {
            // SAFETY: `out` is 16 f32.
            unsafe {
                let sum = _mm512_loadu_ps(out.as_ptr());
                let sum = _mm512_mask_add_ps(sum, lanes_of(needed, r), sum, more[r][p]);
                _mm512_storeu_ps(out.as_mut_ptr(), sum);
            }
        }
    }
}

/// All lanes if bit `r` of `rows` is set.
#[inline]
fn lanes_of(rows: u32, r: usize) -> __mmask16 {
    0u16.wrapping_sub((rows >> r & 1) as u16)
}

/// K types. `UNIT` is the bytes of 32 codes of a panel, `PARAMETERS` those of the parameters of a
/// block, `BLOCK` those of all of it, `SUMS` the words of sums of a block, `SUBS` the sub-blocks of a
/// unit. Only types with minimums have fewer sums than sub-blocks.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn blocks_of_256<
    const UNIT: usize,
    const PARAMETERS: usize,
    const BLOCK: usize,
    const SUMS: usize,
    const SUBS: usize,
    const R: usize,
    const P: usize,
>(
    runs: [&[u8]; P],
    tile: Tile<'_>,
    out: [&mut [f32]; P],
) {
    const { assert!(PARAMETERS + 8 * UNIT == BLOCK) };
    let mut out = out.map(outputs_of::<R>);
    let panel_bytes = runs[0].len() / out[0].len().max(1);
    let words = tile.words.as_chunks::<R>().0.as_chunks::<8>().0.as_chunks::<8>().0;
    let sums = tile.sums.as_chunks::<R>().0.as_chunks::<SUMS>().0;
    let scales = tile.scales.as_chunks::<R>().0.iter().zip(sums);
    for index in 0..out[0].len() {
        let panels = blocks_of::<BLOCK, P>(runs, index * panel_bytes, panel_bytes);
        let mut acc = [[_mm512_setzero_ps(); P]; R];
        for (b, (units, (scales, sums))) in words.iter().zip(scales.clone()).enumerate() {
            let blocks = nth(panels, b);
            add_block_of_256::<UNIT, PARAMETERS, BLOCK, SUMS, SUBS, R, P>(
                blocks, units, scales, sums, &mut acc,
            );
        }
        store(&acc, &mut out, index);
    }
}

/// Adds the products of a block of 256 of each panel to `acc`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn add_block_of_256<
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
            fetch_ahead(&block[u * share..BLOCK.min((u + 1) * share)]);
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

/// The blocks of the panels that lie `at` some byte of runs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn blocks_of<const BLOCK: usize, const P: usize>(
    runs: [&[u8]; P],
    at: usize,
    bytes: usize,
) -> [&[[u8; BLOCK]]; P] {
    let mut blocks: [&[[u8; BLOCK]]; P] = [&[]; P];
    for p in 0..P {
        blocks[p] = runs[p][at..][..bytes].as_chunks().0;
    }
    blocks
}

/// Block `index` of each panel.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn nth<const BLOCK: usize, const P: usize>(panels: [&[[u8; BLOCK]]; P], index: usize) -> [&[u8; BLOCK]; P] {
    let mut blocks = [&[0; BLOCK]; P];
    for p in 0..P {
        blocks[p] = &panels[p][index];
    }
    blocks
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
