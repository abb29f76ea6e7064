//! Matmul kernels in portable code, as loops over the 16 outputs of a panel that compilers turn into
//! vectors.

use std::array;

use half::{bf16, f16};

use super::matmul::Sums;
use super::packed::{BYTE_ZERO, Coding, PANEL, UNIT};
use super::split::Layouts;
use super::tiles::Tile;
use crate::dtype::DType;

/// Fills a tile, see [`Layouts::fill`].
pub(crate) fn fill(layouts: Layouts, x: &[f32], height: usize, numbers: &mut [i32]) {
    layouts.fill(x, height, numbers);
}

/// The outputs of one panel for one tile.
pub(crate) fn product(dtype: DType, panel: &[u8], tile: Tile<'_>, out: &mut Sums) {
    match tile.height {
        1 => product_of::<1>(dtype, panel, tile, out),
        2 => product_of::<2>(dtype, panel, tile, out),
        4 => product_of::<4>(dtype, panel, tile, out),
        height => unreachable!("a tile of {height} rows"),
    }
}

/// One number of each output.
type Lanes<T> = [T; PANEL];

/// `R` is the height of the tile.
fn product_of<const R: usize>(dtype: DType, panel: &[u8], tile: Tile<'_>, out: &mut Sums) {
    let mut acc = [[0.0; PANEL]; R];
    match Coding::of(dtype) {
        None => floats(dtype, panel, tile, &mut acc),
        Some(coding) if coding.block == UNIT => blocks_of_32(coding, panel, tile, &mut acc),
        Some(coding) => blocks_of_256(coding, panel, tile, &mut acc),
    }
    out[..R].copy_from_slice(&acc);
}

fn floats<const R: usize>(dtype: DType, panel: &[u8], tile: Tile<'_>, acc: &mut [Lanes<f32>; R]) {
    let size = dtype.block_bytes();
    for (x, group) in tile.words.as_chunks::<R>().0.iter().zip(panel.chunks_exact(size * PANEL)) {
        let weights: Lanes<f32> = array::from_fn(|lane| {
            let bytes = &group[lane * size..][..size];
            match dtype {
                DType::F16 => f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
                DType::BF16 => bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
                _ => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            }
        });
        for (acc, x) in acc.iter_mut().zip(x) {
            add_products(acc, &weights, &[float(*x); PANEL]);
        }
    }
}

/// `acc = fma(a, b, acc)` in each lane.
fn add_products(acc: &mut Lanes<f32>, a: &Lanes<f32>, b: &Lanes<f32>) {
    for lane in 0..PANEL {
        acc[lane] = a[lane].mul_add(b[lane], acc[lane]);
    }
}

fn blocks_of_32<const R: usize>(coding: Coding, panel: &[u8], tile: Tile<'_>, acc: &mut [Lanes<f32>; R]) {
    let blocks = panel.chunks_exact(coding.block_bytes());
    let words = tile.words.as_chunks::<R>().0.as_chunks::<8>().0;
    let scales = tile.scales.as_chunks::<R>().0.iter().zip(tile.sums.as_chunks::<R>().0);
    for ((block, words), (x_scales, sums)) in blocks.zip(words).zip(scales) {
        let (parameters, unit) = block.split_at(coding.parameter_bytes());
        let codes = unpack(coding.bits, unit);
        let scale = halves(parameters);
        for (r, acc) in acc.iter_mut().enumerate() {
            let mut dots = [if coding.minimum { 0 } else { sums[r] }; PANEL];
            add_groups(&codes, words, r, &mut dots);
            let x_scale = float(x_scales[r]);
            add_products(acc, &dots.map(|dot| dot as f32), &scale.map(|scale| scale * x_scale));
            if coding.minimum {
                let minimum = halves(&parameters[2 * PANEL..]).map(|minimum| minimum * x_scale);
                add_products(acc, &[float(sums[r]); PANEL], &minimum);
            }
        }
    }
}

fn blocks_of_256<const R: usize>(coding: Coding, panel: &[u8], tile: Tile<'_>, acc: &mut [Lanes<f32>; R]) {
    let blocks = panel.chunks_exact(coding.block_bytes());
    let words = tile.words.as_chunks::<R>().0.as_chunks::<8>().0.as_chunks::<8>().0;
    let sums = tile.sums.as_chunks::<R>().0.chunks_exact(coding.sums());
    let scales = tile.scales.as_chunks::<R>().0.iter().zip(sums);
    let subs_per_unit = UNIT / coding.sub;
    for ((block, words), (x_scales, sums)) in blocks.zip(words).zip(scales) {
        let (parameters, units) = block.split_at(coding.parameter_bytes());
        let (floats, integers) = parameters.split_at(if coding.minimum { 4 * PANEL } else { 2 * PANEL });
        let (sub_scales, sub_minimums) = integers.split_at(8 * subs_per_unit * PANEL);
        let sub_scales = sub_scales.as_chunks::<PANEL>().0;
        let mut dots = [[0; PANEL]; R];
        for (u, (unit, words)) in units.chunks_exact(coding.unit_bytes()).zip(words).enumerate() {
            let codes = unpack(coding.bits, unit);
            for (s, codes) in codes.chunks_exact(8 / subs_per_unit).enumerate() {
                let (j, words) = (u * subs_per_unit + s, &words[s * 8 / subs_per_unit..]);
                for (r, dots) in dots.iter_mut().enumerate() {
                    let mut sub_dots = [if coding.minimum { 0 } else { sums[j][r] }; PANEL];
                    add_groups(codes, words, r, &mut sub_dots);
                    for lane in 0..PANEL {
                        dots[lane] += i32::from(sub_scales[j][lane].cast_signed()) * sub_dots[lane];
                    }
                }
            }
        }
        let scale = halves(floats);
        for (r, acc) in acc.iter_mut().enumerate() {
            let x_scale = float(x_scales[r]);
            add_products(acc, &dots[r].map(|dot| dot as f32), &scale.map(|scale| scale * x_scale));
            if coding.minimum {
                let dots = minimum_dots(sub_minimums, sums, r).map(|dot| dot as f32);
                let scale = halves(&floats[2 * PANEL..]).map(|scale| -(scale * x_scale));
                add_products(acc, &dots, &scale);
            }
        }
    }
}

/// Minimums of sub-blocks times the sums of row `r` there.
fn minimum_dots<const R: usize>(minimums: &[u8], sums: &[[i32; R]], r: usize) -> Lanes<i32> {
    let mut dots = [0; PANEL];
    for (pairs, sums) in minimums.chunks_exact(2 * PANEL).zip(sums) {
        let (low, high) = (i32::from(sums[r] as i16), sums[r] >> 16);
        for (dot, pair) in dots.iter_mut().zip(pairs.as_chunks::<2>().0) {
            *dot += i32::from(pair[0]) * low + i32::from(pair[1]) * high;
        }
    }
    dots
}

/// The four codes of a group, each for all outputs.
type Group = [Lanes<i16>; 4];

/// Adds the products of groups and row `r` to `dots`.
fn add_groups<const R: usize>(groups: &[Group], words: &[[i32; R]], r: usize, dots: &mut Lanes<i32>) {
    for (group, words) in groups.iter().zip(words) {
        for (codes, x) in group.iter().zip(words[r].to_le_bytes()) {
            let x = i16::from(x.cast_signed());
            for lane in 0..PANEL {
                // 255 * 127 fits.
                dots[lane] += i32::from(codes[lane] * x);
            }
        }
    }
}

/// What a code is multiplied as.
fn number(bits: usize, code: u8) -> i16 {
    if bits == 8 && BYTE_ZERO == 0 { i16::from(code.cast_signed()) } else { i16::from(code) }
}

/// The groups of a unit, see [`packed`](super::packed).
fn unpack(bits: usize, unit: &[u8]) -> [Group; 8] {
    let rows = unit.as_chunks::<64>().0;
    let mut groups = [[[0; PANEL]; 4]; 8];
    for (g, group) in groups.iter_mut().enumerate() {
        let row = &rows[if bits == 8 { g } else { g % 4 }];
        let mut codes = *row;
        if bits != 8 {
            codes.iter_mut().for_each(|code| *code = *code >> (4 * (g / 4)) & 0x0f);
        }
        match bits {
            5 => codes.iter_mut().zip(&rows[4]).for_each(|(code, upper)| *code |= (upper >> g & 1) << 4),
            6 => codes
                .iter_mut()
                .zip(&rows[4 + g / 4])
                .for_each(|(code, upper)| *code |= (upper >> (2 * (g % 4)) & 3) << 4),
            _ => {}
        }
        for (i, group) in group.iter_mut().enumerate() {
            *group = array::from_fn(|lane| number(bits, codes[4 * lane + i]));
        }
    }
    groups
}

/// The first 16 f16 numbers.
fn halves(bytes: &[u8]) -> Lanes<f32> {
    let bytes = bytes.as_chunks::<2>().0;
    array::from_fn(|lane| f16::from_le_bytes(bytes[lane]).to_f32())
}

fn float(bits: i32) -> f32 {
    f32::from_bits(bits.cast_unsigned())
}
