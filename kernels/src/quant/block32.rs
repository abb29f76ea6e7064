//! Formats of 32 numbers: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
//!
//! | format | bytes in order |
//! | --- | --- |
//! | Q4_0 | f16 scale, 16 bytes of nibbles |
//! | Q4_1 | f16 scale, f16 minimum, 16 bytes of nibbles |
//! | Q5_0 | f16 scale, u32 of fifth bits, 16 bytes of nibbles |
//! | Q5_1 | f16 scale, f16 minimum, u32 of fifth bits, 16 bytes of nibbles |
//! | Q8_0 | f16 scale, 32 signed bytes |
//!
//! Nibble byte `i` holds code `i` in its low half and code `i + 16` in its high half; bit `i` of the
//! u32 is the fifth bit of code `i`.

use half::f16;

use super::f16_at;
use crate::dtype::DType;

/// Numbers in a block.
pub const LEN: usize = 32;

/// A block taken apart: number `i` is `codes[i] * scale`, plus `minimum` where there is one.
#[derive(Clone, Debug, PartialEq)]
pub struct Block32 {
    /// Integers. Formats without a minimum have their zero point subtracted already.
    pub codes: [i8; LEN],
    /// Factor of the codes.
    pub scale: f32,
    /// Added to every number: Q4_1 and Q5_1.
    pub minimum: Option<f32>,
}

impl Block32 {
    /// Takes one block apart. Panics if `dtype` is not of this family or `bytes` not one block.
    pub fn decode(dtype: DType, bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), dtype.block_bytes(), "one block of {dtype}");
        let scale = f16_at(bytes, 0);
        let (codes, minimum) = match dtype {
            DType::Q4_0 => (nibbles(&bytes[2..], 0, 8), None),
            DType::Q4_1 => (nibbles(&bytes[4..], 0, 0), Some(f16_at(bytes, 2))),
            DType::Q5_0 => (nibbles(&bytes[6..], u32_at(bytes, 2), 16), None),
            DType::Q5_1 => (nibbles(&bytes[8..], u32_at(bytes, 4), 0), Some(f16_at(bytes, 2))),
            DType::Q8_0 => (std::array::from_fn(|i| bytes[2 + i].cast_signed()), None),
            _ => panic!("{dtype} has no blocks of {LEN}"),
        };
        Self { codes, scale, minimum }
    }

    /// The numbers of the block; `out` has room for exactly those.
    pub fn dequantize(&self, out: &mut [f32]) {
        assert_eq!(out.len(), LEN);
        for (value, &code) in out.iter_mut().zip(&self.codes) {
            let product = f32::from(code) * self.scale;
            *value = self.minimum.map_or(product, |minimum| product + minimum);
        }
    }
}

/// Codes of 4 bits, or 5 with those of `fifth`, less their zero point.
fn nibbles(bytes: &[u8], fifth: u32, zero: i8) -> [i8; LEN] {
    std::array::from_fn(|i| {
        let low = if i < LEN / 2 { bytes[i] & 15 } else { bytes[i - LEN / 2] >> 4 };
        let high = ((fifth >> i) & 1) as u8;
        (low | high << 4).cast_signed() - zero
    })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Quantizes 32 numbers to one block.
pub(super) fn encode(dtype: DType, values: &[f32], bytes: &mut [u8]) {
    match dtype {
        DType::Q4_0 => encode_symmetric(values, bytes, 4),
        DType::Q5_0 => encode_symmetric(values, bytes, 5),
        DType::Q4_1 => encode_minimum(values, bytes, 4),
        DType::Q5_1 => encode_minimum(values, bytes, 5),
        DType::Q8_0 => encode_bytes(values, bytes),
        _ => panic!("{dtype} has no blocks of {LEN}"),
    }
}

/// Q4_0 and Q5_0: the number of largest magnitude becomes the lowest code, so that all of them are
/// used on its side.
fn encode_symmetric(values: &[f32], bytes: &mut [u8], bits: u32) {
    let half = f32::from(1_u8 << (bits - 1));
    let largest = values.iter().fold(0.0_f32, |best, &v| if v.abs() > best.abs() { v } else { best });
    let scale = largest / -half;
    let inverse = inverse(scale);
    let top = (1_u8 << bits) - 1;
    // Adding a half and cutting off rounds, as codes are not negative.
    let codes = std::array::from_fn(|i| ((values[i] * inverse + (half + 0.5)) as u8).min(top));
    bytes[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    put_codes(&codes, &mut bytes[2..], bits);
}

/// Q4_1 and Q5_1: codes count from the smallest number.
fn encode_minimum(values: &[f32], bytes: &mut [u8], bits: u32) {
    let (least, greatest) = values
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &value| (low.min(value), high.max(value)));
    let top = (1_u8 << bits) - 1;
    let scale = (greatest - least) / f32::from(top);
    let inverse = inverse(scale);
    let codes = std::array::from_fn(|i| (((values[i] - least) * inverse + 0.5) as u8).min(top));
    bytes[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    bytes[2..4].copy_from_slice(&f16::from_f32(least).to_le_bytes());
    put_codes(&codes, &mut bytes[4..], bits);
}

/// Q8_0: the largest magnitude becomes 127; halves round away from zero.
fn encode_bytes(values: &[f32], bytes: &mut [u8]) {
    let scale = values.iter().fold(0.0_f32, |best, value| best.max(value.abs())) / 127.0;
    let inverse = inverse(scale);
    bytes[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    for (byte, value) in bytes[2..].iter_mut().zip(values) {
        *byte = ((value * inverse).round() as i8).cast_unsigned();
    }
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// Writes the fifth bits, if there are any, and the nibbles.
fn put_codes(codes: &[u8; LEN], bytes: &mut [u8], bits: u32) {
    let mut nibbles = bytes;
    if bits == 5 {
        let fifth = codes.iter().enumerate().fold(0_u32, |bits, (i, &code)| bits | u32::from(code >> 4) << i);
        let (head, rest) = nibbles.split_at_mut(4);
        head.copy_from_slice(&fifth.to_le_bytes());
        nibbles = rest;
    }
    for (i, byte) in nibbles.iter_mut().enumerate() {
        *byte = (codes[i] & 15) | codes[i + LEN / 2] << 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::{dequantize_row, quantize_row};

    const FORMATS: [DType; 5] = [DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1, DType::Q8_0];

    fn round_trip(dtype: DType, values: &[f32]) -> Vec<f32> {
        let mut bytes = vec![0; dtype.row_bytes(values.len()).unwrap()];
        quantize_row(dtype, values, &mut bytes).unwrap();
        let mut back = vec![f32::NAN; values.len()];
        dequantize_row(dtype, &bytes, &mut back).unwrap();
        back
    }

    #[test]
    fn a_block_made_by_hand_reads_as_written() {
        let mut bytes = [0_u8; 22];
        bytes[..2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
        bytes[2..6].copy_from_slice(&(1_u32 << 1 | 1 << 17).to_le_bytes());
        bytes[6] = 0x73;
        bytes[7] = 0x05;
        let block = Block32::decode(DType::Q5_0, &bytes);
        assert_eq!((block.codes[0], block.codes[16]), (3 - 16, 7 - 16));
        assert_eq!((block.codes[1], block.codes[17]), (16 + 5 - 16, 0));
        let mut values = [0.0; LEN];
        block.dequantize(&mut values);
        assert_eq!((values[0], values[1], values[2]), (-6.5, 2.5, -8.0));
    }

    #[test]
    fn a_round_trip_errs_by_half_a_step() {
        let values: Vec<f32> = (0..LEN).map(|i| ((i * 37 % 32) as f32 - 11.3) / 9.0).collect();
        let span = 32.0 / 9.0;
        for (dtype, steps) in FORMATS.into_iter().zip([12.0, 15.0, 24.0, 31.0, 190.0]) {
            for (value, got) in values.iter().zip(round_trip(dtype, &values)) {
                assert!((value - got).abs() <= span / steps * 0.6, "{dtype}: {value} became {got}");
            }
        }
    }

    #[test]
    fn extreme_numbers_keep_their_value() {
        let mut values = [0.0_f32; LEN];
        values[3] = -8.0;
        values[20] = 7.0;
        assert_eq!(round_trip(DType::Q4_0, &values), values);
        values[3] = 12.7;
        let back = round_trip(DType::Q8_0, &values);
        assert!((back[3] - 12.7).abs() < 0.01, "{}", back[3]);
    }

    #[test]
    fn constant_blocks_have_no_step() {
        for dtype in FORMATS {
            assert!(round_trip(dtype, &[0.0; LEN]).iter().all(|&v| v == 0.0), "{dtype}");
        }
        for dtype in [DType::Q4_1, DType::Q5_1] {
            assert_eq!(round_trip(dtype, &[1.5; LEN]), [1.5; LEN], "{dtype}");
        }
    }
}
