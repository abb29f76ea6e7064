//! What is in a panel: stored rows are written into its lanes, and read back.

use std::array;

use half::f16;

use super::{Coding, F16S, PANEL, UNIT};
use crate::device::MatrixView;
use crate::dtype::DType;
use crate::quant::{Block32, Block256, dequantize_row};

/// Fills panel `index` of a matrix that is kept as `stored`.
pub(super) fn fill(view: MatrixView<'_>, stored: DType, index: usize, out: &mut [u8]) {
    match Coding::of(stored) {
        Some(coding) => pack_blocks(view, coding, index, out),
        None => pack_floats(view, stored, index, out),
    }
}

/// Writes the weights of output `lane` of a panel.
pub(super) fn read(dtype: DType, panel: &[u8], lane: usize, out: &mut [f32]) {
    match Coding::of(dtype) {
        None => {
            let size = dtype.block_bytes();
            for (value, group) in out.iter_mut().zip(panel.chunks_exact(size * PANEL)) {
                let bytes = &group[lane * size..][..size];
                *value = match dtype {
                    DType::F16 => f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
                    DType::BF16 => half::bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
                    _ => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
                };
            }
        }
        Some(coding) => {
            let blocks = panel.chunks_exact(coding.block_bytes());
            for (block, out) in blocks.zip(out.chunks_exact_mut(coding.block)) {
                let (parameters, codes) = block.split_at(coding.parameter_bytes());
                unpack_block(coding, codes, parameters, lane, out);
            }
        }
    }
}

/// The bytes of stored row `row`, or `None` past the end.
fn stored_row(view: MatrixView<'_>, row: usize) -> Option<&[u8]> {
    let size = view.bytes.len().checked_div(view.rows)?;
    (row < view.rows).then(|| &view.bytes[row * size..][..size])
}

/// Fills a panel of floats: copied, or dequantized to f32.
fn pack_floats(view: MatrixView<'_>, stored: DType, panel: usize, out: &mut [u8]) {
    let size = stored.block_bytes();
    let mut widened = Vec::new();
    for lane in 0..PANEL {
        let Some(mut row) = stored_row(view, panel * PANEL + lane) else { return };
        if view.dtype != stored {
            let mut values = vec![0.0; view.cols];
            dequantize_row(view.dtype, row, &mut values).expect("the length of a row was checked");
            widened.clear();
            widened.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            row = &widened;
        }
        for (group, value) in out.chunks_exact_mut(size * PANEL).zip(row.chunks_exact(size)) {
            group[lane * size..][..size].copy_from_slice(value);
        }
    }
}

/// Fills a panel of blocks.
fn pack_blocks(view: MatrixView<'_>, coding: Coding, panel: usize, out: &mut [u8]) {
    for lane in 0..PANEL {
        let Some(row) = stored_row(view, panel * PANEL + lane) else { return };
        let packed = out.chunks_exact_mut(coding.block_bytes());
        for (block, packed) in row.chunks_exact(view.dtype.block_bytes()).zip(packed) {
            let (parameters, codes) = packed.split_at_mut(coding.parameter_bytes());
            if coding.block == UNIT {
                let block = Block32::decode(view.dtype, block);
                put_unit(coding, &block.codes, codes, lane);
                put_f16(block.scale, &mut parameters[..F16S], lane);
                if let Some(minimum) = block.minimum {
                    put_f16(minimum, &mut parameters[F16S..], lane);
                }
            } else {
                let block = Block256::decode(view.dtype, block);
                for (values, unit) in
                    block.codes.chunks_exact(UNIT).zip(codes.chunks_exact_mut(coding.unit_bytes()))
                {
                    put_unit(coding, values, unit, lane);
                }
                put_parameters(coding, &block, parameters, lane);
            }
        }
    }
}

fn put_f16(value: f32, out: &mut [u8], lane: usize) {
    out[2 * lane..][..2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
}

fn get_f16(bytes: &[u8], lane: usize) -> f32 {
    f16::from_le_bytes([bytes[2 * lane], bytes[2 * lane + 1]]).to_f32()
}

/// Sub-blocks of 16, as [`Block256`] has them, in one of the coding.
const fn twins(coding: Coding) -> usize {
    coding.sub / 16
}

/// Writes what one output has for a block of 256 besides codes.
fn put_parameters(coding: Coding, block: &Block256, out: &mut [u8], lane: usize) {
    let subs = coding.block / coding.sub;
    put_f16(block.scale, &mut out[..F16S], lane);
    let mut rest = &mut out[F16S..];
    if let Some(minimum) = block.minimum {
        put_f16(minimum, &mut rest[..F16S], lane);
        rest = &mut rest[F16S..];
        for j in 0..subs {
            rest[subs * PANEL + j / 2 * F16S + 2 * lane + j % 2] = block.minimums[j * twins(coding)];
        }
    }
    for j in 0..subs {
        rest[j * PANEL + lane] = block.scales[j * twins(coding)].cast_unsigned();
    }
}

/// Numbers of one output and one block.
fn unpack_block(coding: Coding, codes: &[u8], parameters: &[u8], lane: usize, out: &mut [f32]) {
    let mut values = [0; 256];
    for (unit, values) in codes.chunks_exact(coding.unit_bytes()).zip(values.chunks_exact_mut(UNIT)) {
        let bytes = get_unit(coding.bits, unit, lane);
        for (value, code) in values.iter_mut().zip(bytes) {
            *value = code.wrapping_sub(coding.zero).cast_signed();
        }
    }
    let scale = get_f16(parameters, lane);
    let minimum = coding.minimum.then(|| get_f16(&parameters[F16S..], lane));
    if coding.block == UNIT {
        let codes = array::from_fn(|i| values[i]);
        return Block32 { codes, scale, minimum }.dequantize(out);
    }
    let rest = &parameters[F16S * (1 + usize::from(coding.minimum))..];
    let (scales, minimums) = rest.split_at(coding.block / coding.sub * PANEL);
    let sub = |j: usize| j / twins(coding);
    let block = Block256 {
        codes: values,
        scales: array::from_fn(|j| scales[sub(j) * PANEL + lane].cast_signed()),
        minimums: array::from_fn(|j| {
            minimums.get(sub(j) / 2 * F16S + 2 * lane + sub(j) % 2).copied().unwrap_or(0)
        }),
        scale,
        minimum,
    };
    block.dequantize(out);
}

/// Puts the 32 signed codes of one output into a unit.
fn put_unit(coding: Coding, values: &[i8], unit: &mut [u8], lane: usize) {
    let code = |i: usize| values[i].cast_unsigned().wrapping_add(coding.zero);
    let groups: [u32; 8] = array::from_fn(|g| u32::from_le_bytes(array::from_fn(|i| code(4 * g + i))));
    let mut put = |at: usize, word: u32| {
        unit[64 * at + 4 * lane..][..4].copy_from_slice(&word.to_le_bytes());
    };
    if coding.bits == 8 {
        groups.iter().enumerate().for_each(|(g, &word)| put(g, word));
        return;
    }
    for g in 0..4 {
        put(g, (groups[g] & 0x0f0f_0f0f) | (groups[g + 4] & 0x0f0f_0f0f) << 4);
    }
    let upper = groups.map(|word| word >> 4 & 0x0f0f_0f0f);
    match coding.bits {
        5 => put(4, (0..8).fold(0, |word, g| word | upper[g] << g)),
        6 => (0..2).for_each(|half| {
            put(4 + half, (0..4).fold(0, |word, g| word | upper[4 * half + g] << (2 * g)));
        }),
        _ => {}
    }
}

/// The 32 unsigned codes of one output.
fn get_unit(bits: usize, unit: &[u8], lane: usize) -> [u8; UNIT] {
    let word = |at: usize| {
        let at = 64 * at + 4 * lane;
        u32::from_le_bytes([unit[at], unit[at + 1], unit[at + 2], unit[at + 3]])
    };
    let group = |g: usize| {
        if bits == 8 {
            return word(g);
        }
        let low = word(g % 4) >> (4 * (g / 4)) & 0x0f0f_0f0f;
        match bits {
            5 => low | (word(4) >> g & 0x0101_0101) << 4,
            6 => low | (word(4 + g / 4) >> (2 * (g % 4)) & 0x0303_0303) << 4,
            _ => low,
        }
    };
    let groups: [u32; 8] = array::from_fn(group);
    array::from_fn(|i| groups[i / 4].to_le_bytes()[i % 4])
}
