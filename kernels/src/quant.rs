//! Block formats: layout, dequantization, quantization.
//!
//! A row of numbers is stored as consecutive blocks. The layouts are those of the ggml project,
//! little-endian, and dequantizing gives exactly the f32 values it gives. Formats of 32 numbers are
//! in [`block32`], the K formats of 256 in [`block256`].

pub mod block256;
pub mod block32;

use half::{bf16, f16};

pub use block32::Block32;
pub use block256::Block256;

use crate::dtype::DType;

/// Why a row cannot be converted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantError {
    /// The row does not divide into blocks.
    #[error("a row of {values} numbers cannot be {dtype}: its blocks hold {}", dtype.block_len())]
    RowLength {
        /// Stored type.
        dtype: DType,
        /// Numbers in the row.
        values: usize,
    },
    /// Bytes and numbers do not fit together.
    #[error("a row of {values} {dtype} numbers takes {want} bytes, got {got}")]
    RowBytes {
        /// Stored type.
        dtype: DType,
        /// Numbers in the row.
        values: usize,
        /// Bytes that many numbers take.
        want: usize,
        /// Bytes given.
        got: usize,
    },
    /// The type can only be read.
    #[error("quantizing to {0} is not supported: choose one of f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0")]
    NoQuantizer(DType),
}

/// Widens a stored row to f32.
///
/// `bytes` holds exactly the blocks of `out.len()` numbers, at any alignment.
pub fn dequantize_row(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<(), QuantError> {
    check(dtype, out.len(), bytes.len())?;
    let blocks = bytes.chunks_exact(dtype.block_bytes()).zip(out.chunks_exact_mut(dtype.block_len()));
    match dtype {
        DType::F32 => blocks.for_each(|(b, v)| v[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        DType::F16 => blocks.for_each(|(b, v)| v[0] = f16_at(b, 0)),
        DType::BF16 => blocks.for_each(|(b, v)| v[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32()),
        _ if dtype.block_len() == block32::LEN => {
            blocks.for_each(|(b, v)| Block32::decode(dtype, b).dequantize(v));
        }
        _ => blocks.for_each(|(b, v)| Block256::decode(dtype, b).dequantize(v)),
    }
    Ok(())
}

/// Stores f32 numbers in a format.
///
/// Supports the float formats (rounding to nearest even) and those of 32 numbers. `bytes` has
/// exactly the room the row takes. Numbers are taken to be finite: a block with a NaN or an infinity
/// gets unspecified codes.
pub fn quantize_row(dtype: DType, values: &[f32], bytes: &mut [u8]) -> Result<(), QuantError> {
    if dtype.block_len() == block256::LEN {
        return Err(QuantError::NoQuantizer(dtype));
    }
    check(dtype, values.len(), bytes.len())?;
    let blocks = values.chunks_exact(dtype.block_len()).zip(bytes.chunks_exact_mut(dtype.block_bytes()));
    match dtype {
        DType::F32 => blocks.for_each(|(v, b)| b.copy_from_slice(&v[0].to_le_bytes())),
        DType::F16 => blocks.for_each(|(v, b)| b.copy_from_slice(&f16::from_f32(v[0]).to_le_bytes())),
        DType::BF16 => blocks.for_each(|(v, b)| b.copy_from_slice(&bf16::from_f32(v[0]).to_le_bytes())),
        _ => blocks.for_each(|(v, b)| block32::encode(dtype, v, b)),
    }
    Ok(())
}

fn check(dtype: DType, values: usize, got: usize) -> Result<(), QuantError> {
    let want = dtype.row_bytes(values).ok_or(QuantError::RowLength { dtype, values })?;
    if want == got { Ok(()) } else { Err(QuantError::RowBytes { dtype, values, want, got }) }
}

/// The f16 stored at byte `at`, widened.
fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn float_rows_survive_a_round_trip() {
        let values = [0.0, -0.0, 1.0, -2.5, 65504.0, 6.103_515_6e-5];
        for dtype in [DType::F32, DType::F16] {
            let mut bytes = vec![0; dtype.row_bytes(values.len()).unwrap()];
            quantize_row(dtype, &values, &mut bytes).unwrap();
            let mut back = [1.0; 6];
            dequantize_row(dtype, &bytes, &mut back).unwrap();
            assert_eq!(back.map(f32::to_bits), values.map(f32::to_bits), "{dtype}");
        }
    }

    #[test]
    fn bf16_rounds_to_nearest_even() {
        let mut bytes = [0; 4];
        quantize_row(DType::BF16, &[1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0], &mut bytes).unwrap();
        let mut back = [0.0; 2];
        dequantize_row(DType::BF16, &bytes, &mut back).unwrap();
        assert_eq!(back, [1.0, 1.015_625]);
    }

    #[test]
    fn wrong_lengths_are_errors() {
        let error = dequantize_row(DType::Q4_0, &[0; 18], &mut [0.0; 31]).unwrap_err();
        assert_eq!(error, QuantError::RowLength { dtype: DType::Q4_0, values: 31 });
        let error = dequantize_row(DType::Q6K, &[0; 209], &mut [0.0; 256]).unwrap_err();
        assert_eq!(error, QuantError::RowBytes { dtype: DType::Q6K, values: 256, want: 210, got: 209 });
        let error = quantize_row(DType::Q8_0, &[0.0; 32], &mut [0; 35]).unwrap_err();
        assert_eq!(error.to_string(), "a row of 32 q8_0 numbers takes 34 bytes, got 35");
        let error = quantize_row(DType::Q4K, &[0.0; 256], &mut [0; 144]).unwrap_err();
        assert_eq!(error, QuantError::NoQuantizer(DType::Q4K));
    }

    #[test]
    fn rows_without_numbers_are_fine() {
        for dtype in DType::ALL {
            assert_eq!(dequantize_row(dtype, &[], &mut []), Ok(()));
        }
    }
}
