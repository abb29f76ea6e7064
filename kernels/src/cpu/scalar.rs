//! Matmul kernels in portable code.

use std::array;

use half::{bf16, f16};

use super::matmul::Sums;
use super::packed::{Coding, PANEL, Panel, UNIT, get_unit};
use super::tiles::{Tile, TileLayout};
use crate::dtype::DType;

/// Fills a tile, see [`TileLayout::fill`].
pub(crate) fn fill(layout: TileLayout, x: &[f32], height: usize, numbers: &mut [i32]) {
    layout.fill(x, height, numbers);
}

/// The outputs of one panel for one tile.
pub(crate) fn product(dtype: DType, panel: Panel<'_>, tile: Tile<'_>, out: &mut Sums) {
    *out = Sums::default();
    match Coding::of(dtype) {
        None => floats(dtype, panel, tile, out),
        Some(coding) if coding.block == UNIT => blocks_of_32(coding, panel, tile, out),
        Some(coding) => blocks_of_256(coding, panel, tile, out),
    }
}

fn floats(dtype: DType, panel: Panel<'_>, tile: Tile<'_>, out: &mut Sums) {
    let size = dtype.block_bytes();
    for (x, group) in tile.words.chunks_exact(tile.height).zip(panel.codes.chunks_exact(size * PANEL)) {
        let weights: [f32; PANEL] = array::from_fn(|lane| {
            let bytes = &group[lane * size..][..size];
            match dtype {
                DType::F16 => f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
                DType::BF16 => bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
                _ => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            }
        });
        for (out, x) in out.iter_mut().zip(x) {
            for (acc, weight) in out.iter_mut().zip(weights) {
                *acc = float(*x).mul_add(weight, *acc);
            }
        }
    }
}

fn blocks_of_32(coding: Coding, panel: Panel<'_>, tile: Tile<'_>, out: &mut Sums) {
    let height = tile.height;
    let weights = panel
        .codes
        .chunks_exact(coding.unit_bytes())
        .zip(panel.parameters.chunks_exact(coding.parameter_bytes()));
    for (b, (unit, parameters)) in weights.enumerate() {
        let words = &tile.words[b * 8 * height..][..8 * height];
        for lane in 0..PANEL {
            let codes = get_unit(coding.bits, unit, lane);
            let scale = half_at(parameters, lane);
            for (r, out) in out[..height].iter_mut().enumerate() {
                let (x_scale, sum) = (float(tile.scales[b * height + r]), tile.sums[b * height + r]);
                let start = if coding.minimum { 0 } else { sum };
                let dot = start + dot(&codes, words, height, r);
                out[lane] = (dot as f32).mul_add(scale * x_scale, out[lane]);
                if coding.minimum {
                    let minimum = half_at(parameters, PANEL + lane);
                    out[lane] = float(sum).mul_add(minimum * x_scale, out[lane]);
                }
            }
        }
    }
}

fn blocks_of_256(coding: Coding, panel: Panel<'_>, tile: Tile<'_>, out: &mut Sums) {
    let height = tile.height;
    let weights = panel
        .codes
        .chunks_exact(coding.unit_bytes() * 8)
        .zip(panel.parameters.chunks_exact(coding.parameter_bytes()));
    for (b, (units, parameters)) in weights.enumerate() {
        let words = &tile.words[b * 64 * height..][..64 * height];
        let sums = &tile.sums[b * coding.sums() * height..][..coding.sums() * height];
        for lane in 0..PANEL {
            let codes: [[u8; UNIT]; 8] = array::from_fn(|u| {
                get_unit(coding.bits, &units[u * coding.unit_bytes()..][..coding.unit_bytes()], lane)
            });
            let block = Block { coding, codes: codes.as_flattened(), parameters, lane };
            for (r, out) in out[..height].iter_mut().enumerate() {
                let x_scale = float(tile.scales[b * height + r]);
                out[lane] = block.add(words, sums, height, r, x_scale, out[lane]);
            }
        }
    }
}

/// A block of 256 weights of one output.
struct Block<'a> {
    coding: Coding,
    codes: &'a [u8],
    parameters: &'a [u8],
    lane: usize,
}

impl Block<'_> {
    /// Adds the products with row `r` to `acc`.
    fn add(&self, words: &[i32], sums: &[i32], height: usize, r: usize, x_scale: f32, acc: f32) -> f32 {
        let Coding { block, sub, minimum, .. } = self.coding;
        let integers = &self.parameters[2 * PANEL * (1 + usize::from(minimum))..];
        let mut isum = 0;
        for (j, codes) in self.codes.chunks_exact(sub).enumerate() {
            let start = if minimum { 0 } else { sums[j * height + r] };
            let dot = start + dot(codes, &words[j * sub / 4 * height..], height, r);
            isum += i32::from(integers[j * PANEL + self.lane].cast_signed()) * dot;
        }
        let scale = half_at(self.parameters, self.lane);
        let acc = (isum as f32).mul_add(scale * x_scale, acc);
        if !minimum {
            return acc;
        }
        let minimums = integers[block / sub * PANEL..].chunks_exact(2 * PANEL);
        let msum: i32 = minimums
            .zip(sums.chunks_exact(height))
            .map(|(pair, sums)| {
                let (low, high) = (i32::from(sums[r] as i16), sums[r] >> 16);
                i32::from(pair[2 * self.lane]) * low + i32::from(pair[2 * self.lane + 1]) * high
            })
            .sum();
        let scale = half_at(self.parameters, PANEL + self.lane);
        (msum as f32).mul_add(-(scale * x_scale), acc)
    }
}

/// Products of unsigned codes and the signed bytes of row `r`, summed.
fn dot(codes: &[u8], words: &[i32], height: usize, r: usize) -> i32 {
    codes
        .chunks_exact(4)
        .zip(words.chunks_exact(height))
        .map(|(codes, words)| {
            let x = words[r].to_le_bytes();
            codes.iter().zip(x).map(|(&code, x)| i32::from(code) * i32::from(x.cast_signed())).sum::<i32>()
        })
        .sum()
}

fn half_at(bytes: &[u8], index: usize) -> f32 {
    f16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]).to_f32()
}

fn float(bits: i32) -> f32 {
    f32::from_bits(bits.cast_unsigned())
}
