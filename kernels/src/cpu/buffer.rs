//! Memory for packed weights: zeroed pages, on huge pages where the system gives them.

use std::ops::{Deref, DerefMut, Range};
use std::ptr::{self, NonNull};

use crate::device::DeviceError;

/// Size and alignment of a huge page on x86-64 and aarch64.
const HUGE_PAGE: usize = 2 << 20;

/// Bytes of an anonymous mapping. They start on a huge page if they fill one, else on a page.
///
/// Only whole huge pages are asked for, so that the end of a matrix does not take up to 2 MB more.
#[derive(Debug)]
pub(crate) struct Buffer {
    start: NonNull<u8>,
    len: usize,
    /// What `mmap` returned, with its length.
    mapping: (*mut libc::c_void, usize),
}

// SAFETY: the mapping belongs to this value alone, like the contents of a `Box`.
unsafe impl Send for Buffer {}
// SAFETY: shared references only read.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `len` zero bytes for `what`.
    pub(crate) fn zeroed(len: usize, what: &'static str) -> Result<Self, DeviceError> {
        if len == 0 {
            return Ok(Self { start: NonNull::dangling(), len, mapping: (ptr::null_mut(), 0) });
        }
        let failure = DeviceError::OutOfMemory { what, bytes: len };
        let spare = if len < HUGE_PAGE { 0 } else { HUGE_PAGE };
        let mapped = len.checked_add(spare).ok_or(failure.clone())?;
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new anonymous mapping touches no memory of anyone.
        let base = unsafe { libc::mmap(ptr::null_mut(), mapped, access, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(failure);
        }
        let skip = if spare == 0 { 0 } else { base.cast::<u8>().align_offset(HUGE_PAGE) };
        let start = base.cast::<u8>().wrapping_add(skip);
        let whole = len / HUGE_PAGE * HUGE_PAGE;
        if whole > 0 {
            // SAFETY: the range lies inside the mapping. The call is a hint; refusal is harmless.
            unsafe { libc::madvise(start.cast(), whole, libc::MADV_HUGEPAGE) };
        }
        let start = NonNull::new(start).ok_or(failure)?;
        Ok(Self { start, len, mapping: (base, mapped) })
    }

    /// Gives the memory of whole pages in `range` back to the system, which makes them zero.
    pub(crate) fn forget(&mut self, range: Range<usize>) {
        let bytes = &mut self[range];
        // SAFETY: the call has no conditions.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(HUGE_PAGE);
        let skip = bytes.as_ptr().align_offset(page);
        let whole = bytes.len().saturating_sub(skip) / page * page;
        if whole > 0 {
            // SAFETY: the pages lie inside `bytes`, which is borrowed alone. They belong to an anonymous mapping,
            // so that they read as zeros later; refusal leaves them as they are.
            unsafe { libc::madvise(bytes[skip..].as_mut_ptr().cast(), whole, libc::MADV_DONTNEED) };
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` has `len` bytes of the mapping after it, zeroed by the system.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let (base, mapped) = self.mapping;
        if mapped > 0 {
            // SAFETY: this is the mapping made in `zeroed`, and no reference outlives `self`.
            unsafe { libc::munmap(base, mapped) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_zero_aligned_and_writable() {
        for len in [0, 1, 4096, HUGE_PAGE - 1, HUGE_PAGE, HUGE_PAGE + 5] {
            let mut buffer = Buffer::zeroed(len, "test").unwrap();
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().all(|&byte| byte == 0));
            if let Some(last) = buffer.last_mut() {
                *last = 7;
                assert_eq!(buffer.as_ptr() as usize % if len < HUGE_PAGE { 4096 } else { HUGE_PAGE }, 0);
            }
        }
    }

    #[test]
    fn what_is_forgotten_is_zero_and_the_rest_is_kept() {
        let mut buffer = Buffer::zeroed(3 * HUGE_PAGE, "test").unwrap();
        buffer.fill(7);
        let (first, last) = (HUGE_PAGE - 1, 2 * HUGE_PAGE + 9);
        buffer.forget(first..last);
        assert!(buffer[..=first].iter().chain(&buffer[last..]).all(|&byte| byte == 7));
        assert!(buffer[HUGE_PAGE..2 * HUGE_PAGE].iter().all(|&byte| byte == 0));
        buffer[HUGE_PAGE] = 5;
        buffer.forget(HUGE_PAGE..HUGE_PAGE + 1);
        buffer.forget(7..7);
        assert_eq!(buffer[HUGE_PAGE], 5, "less than a page of the system is kept");
    }

    #[test]
    fn what_the_system_cannot_give_is_an_error() {
        let error = Buffer::zeroed(usize::MAX / 2, "weights").unwrap_err();
        assert_eq!(error, DeviceError::OutOfMemory { what: "weights", bytes: usize::MAX / 2 });
        assert!(Buffer::zeroed(usize::MAX, "weights").is_err());
    }
}
