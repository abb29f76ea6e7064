//! The probes with AVX-512 and AVX2.

use std::arch::x86_64::*;
use std::hint::black_box;

/// Accumulators: latency times rate of the products on current cores, with some to spare.
const SUMS: usize = 12;

/// Places of a buffer that one thread reads at once.
const STREAMS: usize = 4;

/// Vectors read at one place before the next place's turn.
const RUN: usize = 4;

pub(super) fn read(bytes: &[u8]) -> Option<u8> {
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the CPU has AVX-512F.
        return Some(unsafe { read_avx512(bytes) });
    }
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has AVX2.
        return Some(unsafe { read_avx2(bytes) });
    }
    None
}

pub(super) fn int8_products(repeats: u64) -> Option<u64> {
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
        // SAFETY: the CPU has AVX-512F and AVX-512-VNNI.
        return Some(unsafe { int8_avx512vnni(repeats) });
    }
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni") {
        // SAFETY: the CPU has AVX2 and AVX-VNNI.
        return Some(unsafe { int8_avxvnni(repeats) });
    }
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has AVX2.
        return Some(unsafe { int8_avx2(repeats) });
    }
    None
}

pub(super) fn f32_products(repeats: u64) -> Option<u64> {
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the CPU has AVX-512F.
        return Some(unsafe { f32_avx512(repeats) });
    }
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the CPU has AVX2 and FMA.
        return Some(unsafe { f32_avx2(repeats) });
    }
    None
}

/// Splits `bytes` into [`STREAMS`] equal parts of whole runs of `vector` bytes, and what is left.
fn streams(bytes: &[u8], vector: usize) -> ([&[u8]; STREAMS], &[u8]) {
    let run = vector * RUN;
    let part = bytes.len() / STREAMS / run * run;
    (std::array::from_fn(|s| &bytes[s * part..][..part]), &bytes[STREAMS * part..])
}

#[target_feature(enable = "avx512f")]
fn read_avx512(bytes: &[u8]) -> u8 {
    const VECTOR: usize = 64;
    let (parts, rest) = streams(bytes, VECTOR);
    let mut all = [_mm512_setzero_si512(); STREAMS];
    for start in (0..parts[0].len()).step_by(VECTOR * RUN) {
        for (all, part) in all.iter_mut().zip(parts) {
            for at in 0..RUN {
                // SAFETY: parts are equally long and made of whole runs, so `RUN` vectors from
                // `start` lie inside each of them.
                let vector = unsafe { _mm512_loadu_si512(part.as_ptr().add(start + at * VECTOR).cast()) };
                *all = _mm512_or_si512(*all, vector);
            }
        }
    }
    let all = all.into_iter().fold(_mm512_setzero_si512(), |x, y| _mm512_or_si512(x, y));
    fold_bytes(_mm512_reduce_or_epi64(all)) | super::portable_read(rest)
}

#[target_feature(enable = "avx2")]
fn read_avx2(bytes: &[u8]) -> u8 {
    const VECTOR: usize = 32;
    let (parts, rest) = streams(bytes, VECTOR);
    let mut all = [_mm256_setzero_si256(); STREAMS];
    for start in (0..parts[0].len()).step_by(VECTOR * RUN) {
        for (all, part) in all.iter_mut().zip(parts) {
            for at in 0..RUN {
                // SAFETY: parts are equally long and made of whole runs, so `RUN` vectors from
                // `start` lie inside each of them.
                let vector = unsafe { _mm256_loadu_si256(part.as_ptr().add(start + at * VECTOR).cast()) };
                *all = _mm256_or_si256(*all, vector);
            }
        }
    }
    let all = all.into_iter().fold(_mm256_setzero_si256(), |x, y| _mm256_or_si256(x, y));
    let half = _mm_or_si128(_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all));
    fold_bytes(_mm_cvtsi128_si64(half) | _mm_extract_epi64::<1>(half)) | super::portable_read(rest)
}

fn fold_bytes(word: i64) -> u8 {
    word.to_ne_bytes().into_iter().fold(0, |all, byte| all | byte)
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn int8_avx512vnni(repeats: u64) -> u64 {
    let (x, y) = (black_box(_mm512_set1_epi8(3)), black_box(_mm512_set1_epi8(5)));
    let mut sums = [_mm512_setzero_si512(); SUMS];
    for _ in 0..repeats {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, x, y);
        }
    }
    black_box(sums);
    repeats * (SUMS * 64) as u64
}

#[target_feature(enable = "avx2,avxvnni")]
fn int8_avxvnni(repeats: u64) -> u64 {
    let (x, y) = (black_box(_mm256_set1_epi8(3)), black_box(_mm256_set1_epi8(5)));
    let mut sums = [_mm256_setzero_si256(); SUMS];
    for _ in 0..repeats {
        for sum in &mut sums {
            *sum = _mm256_dpbusd_avx_epi32(*sum, x, y);
        }
    }
    black_box(sums);
    repeats * (SUMS * 32) as u64
}

#[target_feature(enable = "avx2")]
fn int8_avx2(repeats: u64) -> u64 {
    let (x, y) = (black_box(_mm256_set1_epi8(3)), black_box(_mm256_set1_epi8(5)));
    let ones = _mm256_set1_epi16(1);
    let mut sums = [_mm256_setzero_si256(); SUMS];
    for _ in 0..repeats {
        // The products do not depend on the sums: without this the loop would compute them once.
        let x = black_box(x);
        for sum in &mut sums {
            let pairs = _mm256_maddubs_epi16(x, y);
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
        }
    }
    black_box(sums);
    repeats * (SUMS * 32) as u64
}

#[target_feature(enable = "avx512f")]
fn f32_avx512(repeats: u64) -> u64 {
    let (x, y) = (black_box(_mm512_set1_ps(0.5)), black_box(_mm512_set1_ps(0.5)));
    let mut sums = [_mm512_setzero_ps(); SUMS];
    for _ in 0..repeats {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, x, y);
        }
    }
    black_box(sums);
    repeats * (SUMS * 16) as u64
}

#[target_feature(enable = "avx2,fma")]
fn f32_avx2(repeats: u64) -> u64 {
    let (x, y) = (black_box(_mm256_set1_ps(0.5)), black_box(_mm256_set1_ps(0.5)));
    let mut sums = [_mm256_setzero_ps(); SUMS];
    for _ in 0..repeats {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, x, y);
        }
    }
    black_box(sums);
    repeats * (SUMS * 8) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_reads_every_byte() {
        for len in [0, 511, 512, 1024, 5000] {
            let mut bytes = vec![0u8; len];
            for place in (0..len).step_by(37).chain(len.checked_sub(1)) {
                bytes[place] = 7;
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the CPU has AVX2.
                    assert_eq!(unsafe { read_avx2(&bytes) }, 7, "byte {place} of {len}");
                }
                if is_x86_feature_detected!("avx512f") {
                    // SAFETY: the CPU has AVX-512F.
                    assert_eq!(unsafe { read_avx512(&bytes) }, 7, "byte {place} of {len}");
                }
                bytes[place] = 0;
            }
        }
    }
}
