//! Checked loads that the kernels of every x86-64 instruction set share.

use std::arch::x86_64::*;

/// The first 8 bytes.
#[inline]
#[target_feature(enable = "sse2")]
pub(super) fn load64(bytes: &[u8]) -> __m128i {
    let bytes = &bytes[..8];
    // SAFETY: there are 8 bytes; any alignment will do.
    unsafe { _mm_loadl_epi64(bytes.as_ptr().cast()) }
}

/// The first 16 bytes.
#[inline]
#[target_feature(enable = "sse2")]
pub(super) fn load128(bytes: &[u8]) -> __m128i {
    let bytes = &bytes[..16];
    // SAFETY: there are 16 bytes; any alignment will do.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// The first 32 bytes.
#[inline]
#[target_feature(enable = "avx")]
pub(super) fn load256(bytes: &[u8]) -> __m256i {
    let bytes = &bytes[..32];
    // SAFETY: there are 32 bytes; any alignment will do.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// A block of 32: its parameters and its codes.
#[inline]
pub(super) fn split<const PARAMETERS: usize, const UNIT: usize>(
    block: &[u8],
) -> (&[u8; PARAMETERS], &[u8; UNIT]) {
    let (parameters, rest) = block.split_first_chunk().expect("the size of a block");
    (parameters, rest.first_chunk().expect("the size of a block"))
}
