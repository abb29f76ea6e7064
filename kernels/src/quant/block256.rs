//! K formats of 256 numbers: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K.
//!
//! A block has an f16 scale, for some also an f16 scale of minimums, and small integer scales of its
//! sub-blocks of 16 or 32 numbers.

use super::f16_at;
use crate::dtype::DType;

/// Numbers in a block.
pub const LEN: usize = 256;

/// Numbers in a sub-block as [`Block256`] has them.
pub const SUB: usize = 16;

/// A block taken apart: number `i` of sub-block `j` is
/// `scale * scales[j] * codes[i] - minimum * minimums[j]`.
///
/// Sub-blocks of 32 (Q4_K, Q5_K) appear as two of 16 that are scaled alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Block256 {
    /// Integers. Formats without minimums have their zero point subtracted already.
    pub codes: [i8; LEN],
    /// Scale of each sub-block.
    pub scales: [i8; LEN / SUB],
    /// Minimum of each sub-block; 0 in Q3_K and Q6_K.
    pub minimums: [u8; LEN / SUB],
    /// Factor of the scales.
    pub scale: f32,
    /// Factor of the minimums: Q2_K, Q4_K and Q5_K.
    pub minimum: Option<f32>,
}

impl Block256 {
    /// Takes one block apart. Panics if `dtype` is not of this family or `bytes` not one block.
    pub fn decode(dtype: DType, bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), dtype.block_bytes(), "one block of {dtype}");
        match dtype {
            DType::Q2K => decode_q2(bytes),
            DType::Q3K => decode_q3(bytes),
            DType::Q4K => decode_q4(bytes),
            DType::Q5K => decode_q5(bytes),
            DType::Q6K => decode_q6(bytes),
            _ => panic!("{dtype} has no blocks of {LEN}"),
        }
    }

    /// The numbers of the block; `out` has room for exactly those.
    pub fn dequantize(&self, out: &mut [f32]) {
        assert_eq!(out.len(), LEN);
        for (i, value) in out.iter_mut().enumerate() {
            let sub = i / SUB;
            // The product is exact: 11 bits of the f16, 7 of the scale and at most 6 of the code.
            let product = self.scale * f32::from(self.scales[sub]) * f32::from(self.codes[i]);
            *value = self.minimum.map_or(product, |m| product - m * f32::from(self.minimums[sub]));
        }
    }
}

/// Bytes: 16 of scale and minimum nibbles, 64 of 2-bit codes, f16 scale, f16 minimum.
fn decode_q2(bytes: &[u8]) -> Block256 {
    Block256 {
        codes: std::array::from_fn(|i| two_bits(&bytes[16..80], i)),
        scales: std::array::from_fn(|j| (bytes[j] & 15).cast_signed()),
        minimums: std::array::from_fn(|j| bytes[j] >> 4),
        scale: f16_at(bytes, 80),
        minimum: Some(f16_at(bytes, 82)),
    }
}

/// Bytes: 32 of third bits, 64 of 2-bit codes, 12 of 6-bit scales, f16 scale.
///
/// Third bit `i / 32` of byte `i % 32`, when clear, takes 4 from the code.
fn decode_q3(bytes: &[u8]) -> Block256 {
    let packed = &bytes[96..108];
    Block256 {
        codes: std::array::from_fn(|i| {
            let third = bytes[i % 32] >> (i / 32) & 1;
            two_bits(&bytes[32..96], i) + (third << 2).cast_signed() - 4
        }),
        scales: std::array::from_fn(|j| {
            let low = if j < 8 { packed[j] & 15 } else { packed[j - 8] >> 4 };
            let high = packed[8 + j % 4] >> (2 * (j / 4)) & 3;
            (low | high << 4).cast_signed() - 32
        }),
        minimums: [0; LEN / SUB],
        scale: f16_at(bytes, 108),
        minimum: None,
    }
}

/// Bytes: f16 scale, f16 minimum, 12 of 6-bit scales and minimums, 128 of nibbles.
fn decode_q4(bytes: &[u8]) -> Block256 {
    let (scales, minimums) = six_bit_pairs(&bytes[4..16]);
    Block256 {
        codes: std::array::from_fn(|i| nibble(&bytes[16..144], i).cast_signed()),
        scales,
        minimums,
        scale: f16_at(bytes, 0),
        minimum: Some(f16_at(bytes, 2)),
    }
}

/// Like Q4_K with 32 bytes of fifth bits before the nibbles: bit `i / 32` of byte `i % 32`.
fn decode_q5(bytes: &[u8]) -> Block256 {
    let (scales, minimums) = six_bit_pairs(&bytes[4..16]);
    Block256 {
        codes: std::array::from_fn(|i| {
            let fifth = bytes[16 + i % 32] >> (i / 32) & 1;
            (nibble(&bytes[48..176], i) | fifth << 4).cast_signed()
        }),
        scales,
        minimums,
        scale: f16_at(bytes, 0),
        minimum: Some(f16_at(bytes, 2)),
    }
}

/// Bytes: 128 of nibbles, 64 of upper bit pairs, 16 signed scales, f16 scale.
///
/// Each half of 128 numbers has 64 nibble bytes and 32 bytes of pairs: low nibbles are its first 64
/// numbers, high nibbles the others; pair `i / 32` of byte `i % 32` belongs to number `i`.
fn decode_q6(bytes: &[u8]) -> Block256 {
    Block256 {
        codes: std::array::from_fn(|i| {
            let (half, i) = (i / 128, i % 128);
            let low = bytes[64 * half + i % 64] >> (4 * (i / 64)) & 15;
            let high = bytes[128 + 32 * half + i % 32] >> (2 * (i / 32)) & 3;
            (low | high << 4).cast_signed() - 32
        }),
        scales: std::array::from_fn(|j| bytes[192 + j].cast_signed()),
        minimums: [0; LEN / SUB],
        scale: f16_at(bytes, 208),
        minimum: None,
    }
}

/// 2-bit code `i`: each half of 128 numbers has 32 bytes, number `i` of it pair `i / 32` of byte
/// `i % 32`.
fn two_bits(bytes: &[u8], i: usize) -> i8 {
    let (half, i) = (i / 128, i % 128);
    (bytes[32 * half + i % 32] >> (2 * (i / 32)) & 3).cast_signed()
}

/// 4-bit code `i`: each 64 numbers have 32 bytes, the first half in low nibbles.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    let (group, i) = (i / 64, i % 64);
    bytes[32 * group + i % 32] >> (4 * (i / 32)) & 15
}

/// Eight scales and minimums of 6 bits in 12 bytes, each given twice.
///
/// The first four lie in the low bits of bytes 0..4 and 4..8; of the last four, the low nibbles
/// share bytes 8..12 and the upper bits are on top of bytes 0..8.
fn six_bit_pairs(bytes: &[u8]) -> ([i8; LEN / SUB], [u8; LEN / SUB]) {
    let scale = |j: usize| match j {
        0..4 => bytes[j] & 63,
        _ => (bytes[j + 4] & 15) | bytes[j - 4] >> 6 << 4,
    };
    let minimum = |j: usize| match j {
        0..4 => bytes[j + 4] & 63,
        _ => bytes[j + 4] >> 4 | bytes[j] >> 6 << 4,
    };
    (std::array::from_fn(|j| scale(j / 2).cast_signed()), std::array::from_fn(|j| minimum(j / 2)))
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn six_bit_scales_span_the_twelve_bytes() {
        let mut bytes = [0_u8; 12];
        bytes[1] = 0b1001_0101;
        bytes[5] = 0b0110_1010;
        bytes[9] = 0b1100_0011;
        let (scales, minimums) = six_bit_pairs(&bytes);
        assert_eq!((scales[2], scales[3]), (0b01_0101, 0b01_0101));
        assert_eq!((scales[10], scales[11]), (0b10_0011, 0b10_0011));
        assert_eq!((minimums[2], minimums[10]), (0b10_1010, 0b01_1100));
    }

    #[test]
    fn a_q6_block_made_by_hand_reads_as_written() {
        let mut bytes = [0_u8; 210];
        bytes[64 + 5] = 0x2f;
        bytes[128 + 32 + 5] = 0b11_00_01_10;
        bytes[192 + 8] = 2;
        bytes[192 + 14] = (-3_i8).cast_unsigned();
        bytes[208..].copy_from_slice(&f16::from_f32(0.25).to_le_bytes());
        let block = Block256::decode(DType::Q6K, &bytes);
        assert_eq!(block.codes[128 + 5], (0xf | 2 << 4) - 32);
        assert_eq!(block.codes[128 + 69], 2 - 32);
        assert_eq!(block.codes[128 + 101], (3 << 4) - 32);
        let mut values = [0.0; LEN];
        block.dequantize(&mut values);
        assert_eq!((values[128 + 5], values[0]), (0.25 * 2.0 * 15.0, 0.0));
        assert_eq!(values[128 + 101], 0.25 * -3.0 * 16.0);
        assert_eq!(values[128 + 96], 0.25 * -3.0 * -32.0);
    }
}
