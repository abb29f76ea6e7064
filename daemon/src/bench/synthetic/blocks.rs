//! Pseudo-random weights written straight in their stored form.
//!
//! A block is filled with random bits, then its scales are set so that the numbers it stands for
//! have the wanted spread around 0. Codes and sub-scales stay random, every block is valid.

use half::{bf16, f16};
use kernels::DType;

/// A generator with one 64-bit state (SplitMix64): quick, and every state is a good start.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// The seed of one tensor: `seed` and `name` mixed (FNV-1a).
pub(super) fn seed_of(seed: u64, name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325 ^ seed, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

/// Fills a tensor of `dtype`. Float types get `mean` and `spread`; block types have mean 0.
pub(super) fn fill(bytes: &mut [u8], dtype: DType, seed: u64, mean: f32, spread: f32) {
    let mut random = Random(seed);
    match dtype {
        DType::F32 => floats(bytes, &mut random, &table(mean, spread).map(f32::to_le_bytes)),
        DType::F16 => {
            floats(bytes, &mut random, &table(mean, spread).map(|x| f16::from_f32(x).to_le_bytes()))
        }
        DType::BF16 => {
            floats(bytes, &mut random, &table(mean, spread).map(|x| bf16::from_f32(x).to_le_bytes()))
        }
        _ => {
            random.fill(bytes);
            let form = Form::of(dtype, spread);
            for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
                form.finish(block);
            }
        }
    }
}

/// Values that floats are drawn from: evenly spaced, with the wanted mean and spread.
fn table(mean: f32, spread: f32) -> [f32; 4096] {
    let half_width = spread * 3f32.sqrt();
    std::array::from_fn(|i| mean + half_width * ((i as f32 + 0.5) / 2048.0 - 1.0))
}

fn floats<const N: usize>(bytes: &mut [u8], random: &mut Random, table: &[[u8; N]; 4096]) {
    for group in bytes.chunks_mut(5 * N) {
        let mut bits = random.next();
        for number in group.chunks_exact_mut(N) {
            number.copy_from_slice(&table[(bits & 4095) as usize]);
            bits >>= 12;
        }
    }
}

/// What is the same in all blocks of a tensor.
struct Form {
    /// Where the scale goes.
    at: usize,
    scale: [u8; 2],
    /// Where the minimum goes, for types that have one. It makes the mean of a block 0.
    minimum: Option<(usize, [u8; 2])>,
    /// Where the packed pairs of sub-scales and sub-minima are, which must be equal for the mean to be 0.
    pairs: Pairs,
}

enum Pairs {
    None,
    /// Q2_K: 16 bytes, scale in the low and minimum in the high nibble.
    Nibbles(usize),
    /// Q4_K and Q5_K: 12 bytes, 6 bits each.
    SixBits(usize),
}

impl Form {
    /// The numbers below are facts about uniformly distributed codes: an n-bit code has variance
    /// `(4^n - 1) / 12`, signed codes have mean -1/2, a 6-bit sub-scale has mean square 1333.5.
    fn of(dtype: DType, spread: f32) -> Self {
        let variance = |bits: i32| (4f32.powi(bits) - 1.0) / 12.0;
        let signed = |bits: i32| variance(bits) + 0.25;
        let place = |at, mean_square: f32| {
            let scale = f16::from_f32(spread / mean_square.sqrt());
            Form { at, scale: scale.to_le_bytes(), minimum: None, pairs: Pairs::None }
        };
        let with_minimum = |at, mean_square: f32, centre: f32, pairs| {
            let scale = f16::from_f32(spread / mean_square.sqrt());
            let minimum = f16::from_f32(centre * scale.to_f32());
            Form { at, scale: scale.to_le_bytes(), minimum: Some((at + 2, minimum.to_le_bytes())), pairs }
        };
        match dtype {
            DType::Q4_0 => place(0, signed(4)),
            DType::Q4_1 => with_minimum(0, variance(4), -7.5, Pairs::None),
            DType::Q5_0 => place(0, signed(5)),
            DType::Q5_1 => with_minimum(0, variance(5), -15.5, Pairs::None),
            DType::Q8_0 => place(0, signed(8)),
            DType::Q2K => with_minimum(80, variance(2) * 77.5, 1.5, Pairs::Nibbles(0)),
            DType::Q3K => place(108, signed(3) * signed(6)),
            DType::Q4K => with_minimum(0, variance(4) * 1333.5, 7.5, Pairs::SixBits(4)),
            DType::Q5K => with_minimum(0, variance(5) * 1333.5, 15.5, Pairs::SixBits(4)),
            DType::Q6K => place(208, signed(6) * signed(8)),
            DType::F32 | DType::F16 | DType::BF16 => unreachable!("floats have no blocks"),
        }
    }

    /// Sets scales and minima of a block of random bits.
    fn finish(&self, block: &mut [u8]) {
        block[self.at..][..2].copy_from_slice(&self.scale);
        if let Some((at, minimum)) = self.minimum {
            block[at..][..2].copy_from_slice(&minimum);
        }
        match self.pairs {
            Pairs::None => {}
            Pairs::Nibbles(at) => {
                for byte in &mut block[at..][..16] {
                    *byte = (*byte & 15) * 17;
                }
            }
            // Bytes 0..4 hold scales 0..4 and the high bits of scales 4..8, bytes 4..8 the same of
            // the minima, bytes 8..12 the low nibbles of scales and minima 4..8.
            Pairs::SixBits(at) => {
                block.copy_within(at..at + 4, at + 4);
                for byte in &mut block[at + 8..][..4] {
                    *byte = (*byte & 15) * 17;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kernels::quant::dequantize_row;

    use super::*;

    #[test]
    fn numbers_have_the_wanted_mean_and_spread() {
        const LEN: usize = 1 << 16;
        for dtype in DType::ALL {
            let mut bytes = vec![0; LEN / dtype.block_len() * dtype.block_bytes()];
            fill(&mut bytes, dtype, 3, 0.0, 0.02);
            let mut numbers = vec![0.0; LEN];
            dequantize_row(dtype, &bytes, &mut numbers).expect("whole blocks");
            let mean = numbers.iter().sum::<f32>() / LEN as f32;
            let square = numbers.iter().map(|x| x * x).sum::<f32>() / LEN as f32;
            assert!(mean.abs() < 0.003, "{dtype}: mean {mean}");
            assert!((square.sqrt() / 0.02 - 1.0).abs() < 0.03, "{dtype}: spread {}", square.sqrt());
        }
    }

    #[test]
    fn floats_have_the_wanted_mean() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let mut bytes = vec![0; 4096 * dtype.block_bytes()];
            fill(&mut bytes, dtype, 3, 1.0, 0.1);
            let mut numbers = vec![0.0; 4096];
            dequantize_row(dtype, &bytes, &mut numbers).expect("whole blocks");
            let mean = numbers.iter().sum::<f32>() / 4096.0;
            assert!((mean - 1.0).abs() < 0.01, "{dtype}: mean {mean}");
        }
    }

    #[test]
    fn equal_seeds_give_equal_bytes() {
        for dtype in DType::ALL {
            let make = |seed| {
                let mut bytes = vec![0; 8 * 256 / dtype.block_len() * dtype.block_bytes()];
                fill(&mut bytes, dtype, seed, 0.0, 1.0);
                bytes
            };
            assert_eq!(make(7), make(7), "{dtype}");
            assert_ne!(make(7), make(8), "{dtype}");
        }
        assert_ne!(seed_of(1, "a"), seed_of(1, "b"));
        assert_ne!(seed_of(1, "a"), seed_of(2, "a"));
    }
}
