//! Matmul kernels for AVX-512 with VNNI: one vector is a panel of outputs.
//!
//! `vpdpbusd` adds four products of code bytes and activation bytes to each i32 lane, which is what
//! the groups of [`packed`](crate::cpu::packed) are made for. Two panels go together: a broadcast of
//! activations serves both, and the memory is read at two places at once, which it likes best.

mod blocks;

use std::arch::x86_64::*;
use std::array;

use blocks::{Rows, add_block_of_32, add_block_of_256, broadcast, load512};

use super::fill;
use super::load::load256;
use crate::cpu::isa::Avx512Vnni;
use crate::cpu::matmul::Sums;
use crate::cpu::packed::PANEL;
use crate::cpu::split::{Layouts, Split};
use crate::cpu::tiles::Tile;
use crate::dtype::DType;

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
