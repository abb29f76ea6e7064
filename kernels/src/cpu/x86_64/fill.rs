//! Activations for blocks of 32 quantized eight rows at once, with AVX-512: to the same bits as
//! [`TileLayout::fill`] gives, several times as fast.
//!
//! [`TileLayout::fill`]: crate::cpu::tiles::TileLayout::fill

use std::arch::x86_64::*;
use std::array;

use crate::cpu::packed::Coding;
use crate::cpu::tiles::Parts;

/// Rows of a tile that is filled like this.
pub(super) const ROWS: usize = 8;

/// The largest f32 below a half. Added to a magnitude, it leads to the nearest integer below which the
/// sum is cut off, halves going up.
const BELOW_HALF: f32 = 0.5 - f32::EPSILON / 4.0;

/// Bits of the f32 infinity.
const INFINITY: i32 = 0x7f80_0000;

/// Magnitude bits of an f32.
const MAGNITUDE: i32 = 0x7fff_ffff;

/// A block of a row.
type Block = [f32; 32];

/// Fills a tile from [`ROWS`] rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn fill(coding: Coding, rows: [&[f32]; ROWS], (words, scales, sums): Parts<'_, ROWS>) {
    let rows = rows.map(|row| row.as_chunks::<32>().0);
    let parts = scales.iter_mut().zip(sums);
    for (b, (words, (scales, sums))) in words.as_chunks_mut::<8>().0.iter_mut().zip(parts).enumerate() {
        let blocks = rows.map(|row| &row[b]);
        let inverses = quantum(blocks, scales);
        let mut q = [_mm256_setzero_si256(); ROWS];
        for r in 0..ROWS {
            q[r] = integers(blocks[r], inverses[r]);
        }
        let mut total = _mm256_setzero_si256();
        for (words, group) in words.iter_mut().zip(transpose(q)) {
            total = _mm256_dpbusd_epi32(total, _mm256_set1_epi8(1), group);
            store(group, words);
        }
        let sum = if coding.minimum {
            _mm256_castps_si256(_mm256_cvtepi32_ps(total))
        } else {
            _mm256_mullo_epi32(total, _mm256_set1_epi32(-i32::from(coding.zero)))
        };
        store(sum, sums);
    }
}

/// Writes the scales of blocks as f16 has them; returns what numbers are multiplied by.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn quantum(blocks: [&Block; ROWS], scales: &mut [i32; ROWS]) -> [f32; ROWS] {
    let top = largest(blocks);
    let scale = _mm256_div_ps(_mm256_castsi256_ps(top), _mm256_set1_ps(127.0));
    let inverse = _mm256_div_ps(_mm256_set1_ps(1.0), scale);
    let poisoned = _mm256_cmp_epi32_mask::<_MM_CMPINT_NLT>(top, _mm256_set1_epi32(INFINITY));
    let finite = _mm256_cmp_ps_mask::<_CMP_LE_OQ>(inverse, _mm256_set1_ps(f32::MAX));
    let good = finite & !poisoned;
    let scale = _mm256_cvtph_ps(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(scale));
    let scale = _mm256_mask_mov_ps(_mm256_maskz_mov_ps(good, scale), poisoned, _mm256_set1_ps(f32::NAN));
    store(_mm256_castps_si256(scale), scales);
    let mut inverses = [0.0; ROWS];
    // SAFETY: there are 8 numbers.
    unsafe { _mm256_storeu_ps(inverses.as_mut_ptr(), _mm256_maskz_mov_ps(good, inverse)) };
    inverses
}

/// Magnitude bits of the largest number of each block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn largest(blocks: [&Block; ROWS]) -> __m256i {
    let mut rows = [_mm256_setzero_si256(); ROWS];
    for r in 0..ROWS {
        let [low, high] = halves(blocks[r])
            .map(|half| _mm512_and_si512(_mm512_castps_si512(half), _mm512_set1_epi32(MAGNITUDE)));
        let both = _mm512_max_epi32(low, high);
        rows[r] = _mm256_max_epi32(_mm512_castsi512_si256(both), _mm512_extracti64x4_epi64::<1>(both));
    }
    let mut pairs = [_mm256_setzero_si256(); ROWS / 2];
    for (pair, two) in pairs.iter_mut().zip(rows.as_chunks::<2>().0) {
        *pair =
            _mm256_max_epi32(_mm256_unpacklo_epi32(two[0], two[1]), _mm256_unpackhi_epi32(two[0], two[1]));
    }
    let mut fours = [_mm256_setzero_si256(); ROWS / 4];
    for (four, two) in fours.iter_mut().zip(pairs.as_chunks::<2>().0) {
        *four =
            _mm256_max_epi32(_mm256_unpacklo_epi64(two[0], two[1]), _mm256_unpackhi_epi64(two[0], two[1]));
    }
    _mm256_max_epi32(
        _mm256_permute2x128_si256::<0x20>(fours[0], fours[1]),
        _mm256_permute2x128_si256::<0x31>(fours[0], fours[1]),
    )
}

/// The integers of a block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn integers(block: &Block, inverse: f32) -> __m256i {
    let mut bytes = [_mm_setzero_si128(); 2];
    for (bytes, half) in bytes.iter_mut().zip(halves(block)) {
        let value = _mm512_mul_ps(half, _mm512_set1_ps(inverse));
        let sign = _mm512_andnot_si512(_mm512_set1_epi32(MAGNITUDE), _mm512_castps_si512(value));
        let step = _mm512_or_si512(sign, _mm512_castps_si512(_mm512_set1_ps(BELOW_HALF)));
        // What is no number becomes an integer whose low byte is 0.
        let whole = _mm512_cvttps_epi32(_mm512_add_ps(value, _mm512_castsi512_ps(step)));
        *bytes = _mm512_cvtepi32_epi8(whole);
    }
    _mm256_set_m128i(bytes[1], bytes[0])
}

/// Words of four bytes of eight rows side by side.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn transpose(rows: [__m256i; ROWS]) -> [__m256i; ROWS] {
    let mut twos = rows;
    for (to, two) in twos.as_chunks_mut::<2>().0.iter_mut().zip(rows.as_chunks::<2>().0) {
        *to = [_mm256_unpacklo_epi32(two[0], two[1]), _mm256_unpackhi_epi32(two[0], two[1])];
    }
    let mut fours = twos;
    for (to, four) in fours.as_chunks_mut::<4>().0.iter_mut().zip(twos.as_chunks::<4>().0) {
        *to = [
            _mm256_unpacklo_epi64(four[0], four[2]),
            _mm256_unpackhi_epi64(four[0], four[2]),
            _mm256_unpacklo_epi64(four[1], four[3]),
            _mm256_unpackhi_epi64(four[1], four[3]),
        ];
    }
    let mut all = fours;
    for i in 0..ROWS / 2 {
        all[i] = _mm256_permute2x128_si256::<0x20>(fours[i], fours[i + 4]);
        all[i + 4] = _mm256_permute2x128_si256::<0x31>(fours[i], fours[i + 4]);
    }
    all
}

#[inline]
#[target_feature(enable = "avx512f")]
fn halves(block: &Block) -> [__m512; 2] {
    // SAFETY: there are twice 16 numbers.
    array::from_fn(|half| unsafe { _mm512_loadu_ps(block.as_ptr().add(16 * half)) })
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(values: __m256i, to: &mut [i32; ROWS]) {
    // SAFETY: there are 8 numbers.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), values) };
}

#[cfg(test)]
mod tests {
    use crate::cpu::isa::Avx512Vnni;
    use crate::cpu::packed::Coding;
    use crate::cpu::split::Layouts;
    use crate::cpu::x86_64::avx512vnni;
    use crate::device::Arithmetic;
    use crate::dtype::DType;

    /// Numbers around every half, tiny, huge and hostile ones, in blocks whose largest differs.
    fn rows(blocks: usize) -> Vec<f32> {
        let mut x = Vec::new();
        for block in 0..8 * blocks {
            let scale = [1.0, 0.3, 1e-3, 1e-36, 1e-44, 7e5, 3e30][block % 7];
            x.push(127.0 * scale);
            for i in 1..32 {
                let half = ((block * 31 + i) % 128) as f32 - 0.5;
                let near = [half, half.next_up(), half.next_down(), half + 0.3][i % 4];
                x.push(if i % 3 == 0 { -near } else { near } * scale);
            }
        }
        for (block, hostile) in [f32::NAN, f32::INFINITY, -f32::NAN, f32::MAX, 0.0, -0.0].iter().enumerate() {
            x[32 * (3 * block + 1) + 5] = *hostile;
        }
        x[32 * 20..][..32].fill(0.0);
        x[32 * 21..][..32].fill(-0.0);
        x
    }

    #[test]
    fn eight_rows_are_filled_to_the_same_bits() {
        let Some(token) = Avx512Vnni::detect() else { return };
        for dtype in [DType::Q4_0, DType::Q5_1, DType::Q8_0] {
            const BLOCKS: usize = 29;
            let layouts = Layouts::new(32 * BLOCKS, Coding::of(dtype), Arithmetic::Int8Split);
            let x = rows(BLOCKS);
            let (mut got, mut want) = (vec![0; layouts.len(8)], vec![0; layouts.len(8)]);
            layouts.fill(&x, 8, &mut want);
            avx512vnni::fill(token, layouts, &x, 8, &mut got);
            assert!(got == want, "{dtype}");
        }
    }
}
