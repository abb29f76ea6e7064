//! The layout of quantized weights that `matmul.cu` describes, and how stored blocks come into it.

use std::ops::Range;

use half::f16;

use crate::dtype::DType;
use crate::quant::{Block32, Block256, block32, block256};

/// Names the layout; another one needs another name.
pub(super) const LAYOUT: &str = "cuda-1";

/// Numbers in a unit.
pub(super) const UNIT: usize = 32;

/// Parts of a row that are summed on their own.
pub(super) const SEGMENTS: usize = 8;

/// Rows that lie together.
const TOGETHER: usize = 4;

/// Planes start at multiples of this.
const PLANE: usize = 256;

/// How scales are kept; the names are those of `matmul.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scales {
    One,
    Offset,
    Shared,
    Halves,
    Nibbles,
}

impl Scales {
    fn of(dtype: DType) -> Self {
        match dtype {
            DType::Q4_0 | DType::Q5_0 | DType::Q8_0 => Scales::One,
            DType::Q4_1 | DType::Q5_1 => Scales::Offset,
            DType::Q4K | DType::Q5K => Scales::Shared,
            DType::Q3K | DType::Q6K => Scales::Halves,
            DType::Q2K => Scales::Nibbles,
            DType::F32 | DType::F16 | DType::BF16 => panic!("{dtype} has no scales"),
        }
    }
}

/// Bits of a code, and what is added to make it unsigned. Codes of 8 bits stay signed.
fn bits_and_zero(dtype: DType) -> (usize, i8) {
    match dtype {
        DType::Q4_0 => (4, 8),
        DType::Q3K => (4, 4),
        DType::Q4_1 | DType::Q2K | DType::Q4K => (4, 0),
        DType::Q5_0 => (5, 16),
        DType::Q5_1 | DType::Q5K => (5, 0),
        DType::Q6K => (6, 32),
        DType::Q8_0 => (8, 0),
        DType::F32 | DType::F16 | DType::BF16 => panic!("{dtype} has no codes"),
    }
}

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    dtype: DType,
    pub(super) outputs: usize,
    /// Units of a row.
    pub(super) units: usize,
    /// Units of a segment.
    pub(super) steps: usize,
    /// Codes, extra bits, scales and factors.
    pub(super) planes: [Range<usize>; 4],
}

impl Layout {
    /// `None` if the sizes do not fit into memory.
    pub(super) fn new(dtype: DType, outputs: usize, cols: usize) -> Option<Self> {
        let units = cols / UNIT;
        let steps = units.div_ceil(SEGMENTS);
        let rows = outputs.checked_next_multiple_of(TOGETHER)?;
        let padded = rows.checked_mul(steps * SEGMENTS)?;
        let blocks = rows.checked_mul(units / (block256::LEN / UNIT))?;
        let extra = match bits_and_zero(dtype).0 {
            4 => 0,
            5 => 4,
            6 => 8,
            _ => 16,
        };
        let (scales, factors) = match Scales::of(dtype) {
            Scales::One => (0, padded.checked_mul(2)?),
            Scales::Offset => (0, padded.checked_mul(4)?),
            Scales::Halves => (2, blocks.checked_mul(2)?),
            Scales::Shared | Scales::Nibbles => (2, blocks.checked_mul(4)?),
        };
        let sizes =
            [padded.checked_mul(16)?, padded.checked_mul(extra)?, padded.checked_mul(scales)?, factors];
        let mut end = 0_usize;
        let mut planes = [0..0, 0..0, 0..0, 0..0];
        for (plane, size) in planes.iter_mut().zip(sizes) {
            let start = end.checked_next_multiple_of(PLANE)?;
            end = start.checked_add(size)?;
            *plane = start..end;
        }
        Some(Self { dtype, outputs, units, steps, planes })
    }

    pub(super) fn bytes(&self) -> usize {
        self.planes[3].end
    }

    /// Place of a unit in each plane but the factors of K types.
    fn index(&self, output: usize, unit: usize) -> usize {
        let (segment, step) = (unit / self.steps, unit % self.steps);
        ((output / TOGETHER * self.steps + step) * SEGMENTS + segment) * TOGETHER + output % TOGETHER
    }

    /// Puts stored rows in their places of zeroed `packed`.
    pub(super) fn pack(&self, stored: &[u8], packed: &mut [u8]) {
        let block_bytes = self.dtype.block_bytes();
        let row_bytes = self.units * UNIT / self.dtype.block_len() * block_bytes;
        for (output, row) in stored.chunks_exact(row_bytes.max(1)).enumerate() {
            for (index, block) in row.chunks_exact(block_bytes).enumerate() {
                match self.dtype.block_len() {
                    block32::LEN => self.put32(output, index, &Block32::decode(self.dtype, block), packed),
                    _ => self.put256(output, index, &Block256::decode(self.dtype, block), packed),
                }
            }
        }
    }

    fn put32(&self, output: usize, unit: usize, block: &Block32, packed: &mut [u8]) {
        let index = self.index(output, unit);
        self.put_codes(index, &block.codes, packed);
        let factors = [Some(block.scale), block.minimum];
        self.put_factors(index, factors, packed);
    }

    fn put256(&self, output: usize, block_index: usize, block: &Block256, packed: &mut [u8]) {
        for (i, codes) in block.codes.as_chunks::<UNIT>().0.iter().enumerate() {
            let index = self.index(output, block_index * (block256::LEN / UNIT) + i);
            self.put_codes(index, codes, packed);
            let (scales, minimums) = (&block.scales[2 * i..][..2], &block.minimums[2 * i..][..2]);
            let bytes = match Scales::of(self.dtype) {
                Scales::Shared => [scales[0].cast_unsigned(), minimums[0]],
                Scales::Nibbles => [0, 1].map(|j| scales[j].cast_unsigned() | minimums[j] << 4),
                _ => [scales[0].cast_unsigned(), scales[1].cast_unsigned()],
            };
            packed[self.planes[2].start + 2 * index..][..2].copy_from_slice(&bytes);
        }
        let blocks = self.units / (block256::LEN / UNIT);
        let index = (output / TOGETHER * blocks + block_index) * TOGETHER + output % TOGETHER;
        self.put_factors(index, [Some(block.scale), block.minimum], packed);
    }

    /// Factors were f16 in the file, so they lose nothing.
    fn put_factors(&self, index: usize, factors: [Option<f32>; 2], packed: &mut [u8]) {
        let count = factors.iter().flatten().count();
        let at = self.planes[3].start + 2 * count * index;
        for (bytes, factor) in packed[at..].chunks_exact_mut(2).zip(factors.into_iter().flatten()) {
            bytes.copy_from_slice(&f16::from_f32(factor).to_le_bytes());
        }
    }

    /// Byte `i` of the codes has code `i` below and code `i + 16` above, as far as 4 bits go. Of the
    /// bits above them, byte `b` of a word keeps those of the codes `4 w + b`, in the order of `w`.
    fn put_codes(&self, index: usize, codes: &[i8; UNIT], packed: &mut [u8]) {
        let (bits, zero) = bits_and_zero(self.dtype);
        let code = |i: usize| (codes[i] + zero).cast_unsigned();
        let low = self.planes[0].start + 16 * index;
        let extra = self.planes[1].start;
        for i in 0..16 {
            let (first, second) = (code(i), code(i + 16));
            if bits == 8 {
                packed[low + i] = first;
                packed[extra + 16 * index + i] = second;
                continue;
            }
            packed[low + i] = (first & 15) | second << 4;
            let (word, byte) = (i / 4, i % 4);
            match bits {
                5 => packed[extra + 4 * index + byte] |= first >> 4 << word | second >> 4 << (4 + word),
                6 => {
                    packed[extra + 8 * index + byte] |= first >> 4 << (2 * word);
                    packed[extra + 8 * index + 4 + byte] |= second >> 4 << (2 * word);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_weights_are_hardly_larger_than_stored_ones() {
        for (dtype, stored) in [
            (DType::Q4_0, 18.0),
            (DType::Q8_0, 34.0),
            (DType::Q4K, 18.0),
            (DType::Q5K, 22.0),
            (DType::Q6K, 26.25),
        ] {
            let bytes = Layout::new(dtype, 2048, 5632).unwrap().bytes();
            let unit = bytes as f64 / f64::from(2048 * 5632 / 32);
            assert!(unit >= stored && unit < stored * 1.03, "{dtype}: {unit} bytes");
        }
    }

    #[test]
    fn units_have_places_of_their_own() {
        let layout = Layout::new(DType::Q4_0, 7, 32 * 19).unwrap();
        let mut places: Vec<usize> =
            (0..7).flat_map(|o| (0..19).map(move |u| (o, u))).map(|(o, u)| layout.index(o, u)).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 7 * 19);
        assert!(places.into_iter().max().unwrap() * 16 < layout.planes[0].len());
    }

    #[test]
    fn what_cannot_be_addressed_is_refused() {
        assert_eq!(Layout::new(DType::Q8_0, usize::MAX - 1, 64), None);
        assert_eq!(Layout::new(DType::Q4K, usize::MAX / 64, 1 << 20), None);
    }
}
