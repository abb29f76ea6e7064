//! Random numbers and random weights.

use half::{bf16, f16};
use kernels::DType;

/// A small generator (splitmix64), so that every run sees the same numbers.
pub(crate) struct Random(u64);

impl Random {
    /// A generator with its own sequence for each `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of `-1.0 .. 1.0`.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.bits() % limit as u64) as usize
    }

    /// Numbers of `-1.0 .. 1.0`, about one in eight stretched to `-8.0 .. 8.0`.
    pub(crate) fn vec(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.unit() * if self.below(8) == 0 { 8.0 } else { 1.0 }).collect()
    }
}

/// A stored matrix of random blocks: every bit pattern of the codes and integer scales, f16 scales
/// of ordinary size.
pub(crate) fn blocks(random: &mut Random, dtype: DType, rows: usize, cols: usize) -> Vec<u8> {
    let count = rows * cols / dtype.block_len();
    (0..count).flat_map(|_| block(random, dtype)).collect()
}

fn block(random: &mut Random, dtype: DType) -> Vec<u8> {
    let value = random.unit();
    match dtype {
        DType::F32 => return value.to_le_bytes().to_vec(),
        DType::F16 => return f16::from_f32(value).to_le_bytes().to_vec(),
        DType::BF16 => return bf16::from_f32(value).to_le_bytes().to_vec(),
        _ => {}
    }
    let mut bytes: Vec<u8> = (0..dtype.block_bytes()).map(|_| random.bits() as u8).collect();
    let scales: &[usize] = match dtype {
        DType::Q4_1 | DType::Q5_1 | DType::Q4K | DType::Q5K => &[0, 2],
        DType::Q2K => &[80, 82],
        DType::Q3K => &[108],
        DType::Q6K => &[208],
        _ => &[0],
    };
    for &at in scales {
        let scale = f16::from_f32(random.unit() / 16.0);
        bytes[at..at + 2].copy_from_slice(&scale.to_le_bytes());
    }
    bytes
}
