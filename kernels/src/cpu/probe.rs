//! Work of known size, from which a caller with a clock derives this machine's limits.
//!
//! Each function takes the widest instructions this CPU has and does nothing but what it counts:
//! products stay in registers, reads follow the order that prefetchers like best.

use std::hint::black_box;
use std::ptr::NonNull;

use crate::device::DeviceError;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as native;
#[cfg(target_arch = "x86_64")]
use x86_64 as native;

/// Size and alignment of a huge page on the machines that have them.
const HUGE_PAGE: usize = 2 << 20;

/// Memory of its own for measuring reads: huge pages where the system gives them, every page
/// touched.
#[derive(Debug)]
pub struct ReadBuffer {
    map: NonNull<libc::c_void>,
    map_bytes: usize,
    skip: usize,
    bytes: usize,
}

// SAFETY: the map is private to this value and nothing writes to it after `new`.
unsafe impl Send for ReadBuffer {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for ReadBuffer {}

impl ReadBuffer {
    /// A buffer of `bytes`, rounded up to whole huge pages.
    pub fn new(bytes: usize) -> Result<Self, DeviceError> {
        let failed = DeviceError::OutOfMemory { what: "the buffer of the read probe", bytes };
        let rounded = bytes.max(1).checked_next_multiple_of(HUGE_PAGE);
        let Some((bytes, map_bytes)) = rounded.and_then(|b| Some((b, b.checked_add(HUGE_PAGE)?))) else {
            return Err(failed);
        };
        // SAFETY: an anonymous private map at an address of the kernel's choice touches no other memory.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                map_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if map == libc::MAP_FAILED {
            return Err(failed);
        }
        let Some(map) = NonNull::new(map) else { return Err(failed) };
        let skip = map.as_ptr().align_offset(HUGE_PAGE);
        let buffer = Self { map, map_bytes, skip, bytes };
        // SAFETY: the range lies inside the map made above; advice changes no contents.
        unsafe { libc::madvise(map.as_ptr(), map_bytes, libc::MADV_HUGEPAGE) };
        // SAFETY: `skip + bytes <= map_bytes`, the map is writable and nobody else knows it yet.
        unsafe { buffer.start().write_bytes(1, bytes) };
        Ok(buffer)
    }

    fn start(&self) -> *mut u8 {
        // SAFETY: `skip` is below one huge page, which the map has room for beyond `bytes`.
        unsafe { self.map.as_ptr().cast::<u8>().add(self.skip) }
    }

    /// All bytes. Each is 1.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `bytes` bytes from `start` are mapped and were written by `new`; `self` keeps the
        // map alive and nothing writes to it.
        unsafe { std::slice::from_raw_parts(self.start(), self.bytes) }
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        // SAFETY: `map` and `map_bytes` are what `mmap` gave, and no reference outlives `self`.
        unsafe { libc::munmap(self.map.as_ptr(), self.map_bytes) };
    }
}

/// Reads every byte once; returns the bitwise or of all bytes.
pub fn read(bytes: &[u8]) -> u8 {
    #[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
    if let Some(result) = native::read(bytes) {
        return result;
    }
    portable_read(bytes)
}

fn portable_read(bytes: &[u8]) -> u8 {
    let mut lanes = [0u8; 128];
    let chunks = bytes.chunks_exact(lanes.len());
    let rest = chunks.remainder().iter().fold(0, |all, byte| all | byte);
    for chunk in chunks {
        for (lane, byte) in lanes.iter_mut().zip(chunk) {
            *lane |= byte;
        }
    }
    lanes.iter().fold(rest, |all, lane| all | lane)
}

/// Multiplies and accumulates 8-bit integers, `repeats` times over all accumulators; returns how
/// many products were added.
pub fn int8_products(repeats: u64) -> u64 {
    #[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
    if let Some(products) = native::int8_products(repeats) {
        return products;
    }
    const LEN: usize = 256;
    let (x, y) = ([3i8; LEN], [5i8; LEN]);
    let mut sum = 0i32;
    for _ in 0..repeats {
        let (x, y) = (black_box(&x), black_box(&y));
        let dot: i32 = x.iter().zip(y).map(|(&x, &y)| i32::from(x) * i32::from(y)).sum();
        sum = sum.wrapping_add(dot);
    }
    black_box(sum);
    repeats * LEN as u64
}

/// Multiplies and accumulates f32 numbers, `repeats` times over all accumulators; returns how many
/// products were added.
pub fn f32_products(repeats: u64) -> u64 {
    #[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
    if let Some(products) = native::f32_products(repeats) {
        return products;
    }
    const LANES: usize = 64;
    let (x, y) = (black_box(0.5f32), black_box(0.5f32));
    let mut sums = [0f32; LANES];
    for _ in 0..repeats {
        for sum in &mut sums {
            *sum = *sum * x + y;
        }
    }
    black_box(sums);
    repeats * LANES as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_whole_and_readable() {
        let buffer = ReadBuffer::new(HUGE_PAGE + 1).unwrap();
        assert_eq!(buffer.bytes().len(), 2 * HUGE_PAGE);
        assert!(buffer.bytes().as_ptr().addr().is_multiple_of(HUGE_PAGE));
        assert_eq!(read(buffer.bytes()), 1);
    }

    #[test]
    fn an_impossible_buffer_is_refused() {
        assert!(ReadBuffer::new(usize::MAX).is_err());
        assert!(ReadBuffer::new(usize::MAX / 2).is_err());
    }

    #[test]
    fn no_byte_is_left_out() {
        for len in [0usize, 1, 63, 64, 127, 4096, 4097, 10_001] {
            let mut bytes = vec![0u8; len];
            assert_eq!(read(&bytes), 0);
            for place in [0, len / 3, len / 2, len.saturating_sub(65), len.saturating_sub(1)] {
                let Some(byte) = bytes.get_mut(place) else { continue };
                *byte = 0x80;
                assert_eq!(read(&bytes), 0x80, "byte {place} of {len}");
                assert_eq!(portable_read(&bytes), 0x80, "byte {place} of {len}, portable");
                bytes[place] = 0;
            }
        }
    }

    #[test]
    fn work_grows_with_repeats() {
        for products in [int8_products, f32_products] {
            assert_eq!(products(0), 0);
            assert!(products(1) > 0);
            assert_eq!(products(10), 10 * products(1));
        }
    }
}
