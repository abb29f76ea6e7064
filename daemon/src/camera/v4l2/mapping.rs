//! Memory shared with the driver: mapped from the device, or from a descriptor that it exported.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};

use v4l::v4l2;

use super::device::PlaneMemory;

/// A word about the use of exported memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// The processor begins to read.
    Begins,
    /// The processor has read.
    Ends,
}

/// `_IOW('b', 0, struct dma_buf_sync)` of linux/dma-buf.h, and the flags of its one member.
const DMA_BUF_IOCTL_SYNC: u32 = 0x4008_6200;
const DMA_BUF_SYNC_READ: u64 = 1;
const DMA_BUF_SYNC_END: u64 = 4;

/// A mapped plane of a buffer.
#[derive(Debug)]
pub(super) struct Mapping {
    start: *mut u8,
    length: usize,
    /// The exported descriptor it was mapped from, if it was.
    exported: Option<OwnedFd>,
}

// SAFETY: the memory belongs to the process, not to a thread, and a mapping has one owner.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps a plane of a buffer of the device `fd`.
    pub(super) fn new(fd: &OwnedFd, plane: PlaneMemory) -> io::Result<Self> {
        let length = plane.length as usize;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        let offset = libc::off_t::from(plane.offset);
        // SAFETY: the kernel chooses the address, so no memory of this process is replaced.
        let start =
            unsafe { v4l2::mmap(std::ptr::null_mut(), length, protection, flags, fd.as_raw_fd(), offset)? };
        Ok(Self { start: start.cast(), length, exported: None })
    }

    /// Maps a plane of `length` bytes that a device exported.
    pub(super) fn of_export(exported: OwnedFd, length: u32) -> io::Result<Self> {
        let bytes = length as usize;
        // SAFETY: as above.
        let start = unsafe {
            v4l2::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ,
                libc::MAP_SHARED,
                exported.as_raw_fd(),
                0,
            )?
        };
        Ok(Self { start: start.cast(), length: bytes, exported: Some(exported) })
    }

    /// Says that reading begins or ends. Memory mapped from the device itself needs no word.
    pub(super) fn announce(&self, access: Access) -> io::Result<()> {
        let Some(exported) = &self.exported else { return Ok(()) };
        let flags: u64 = DMA_BUF_SYNC_READ | if access == Access::Begins { 0 } else { DMA_BUF_SYNC_END };
        loop {
            // SAFETY: the request reads one integer of 64 bits and keeps no pointer.
            match unsafe { libc::ioctl(exported.as_raw_fd(), DMA_BUF_IOCTL_SYNC as _, &raw const flags) } {
                0 => return Ok(()),
                _ => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
    }

    /// Bytes that are mapped.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Appends bytes to `out`, as many of `range` as are mapped. The driver may write at the same
    /// time, so no reference into the memory is ever made.
    pub(super) fn append_to(&self, range: Range<usize>, out: &mut Vec<u8>) {
        let end = range.end.min(self.length);
        let start = range.start.min(end);
        out.reserve(end - start);
        // SAFETY: the source is mapped up to `end`; the target has room for the bytes behind its
        // length and is no mapped memory; all bytes up to the new length are written.
        unsafe {
            let target = out.as_mut_ptr().add(out.len());
            std::ptr::copy_nonoverlapping(self.start.add(start), target, end - start);
            out.set_len(out.len() + (end - start));
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the memory was mapped with this address and length and is used by nobody else.
        // Failure would leave it mapped, which harms nothing.
        let _ = unsafe { v4l2::munmap(self.start.cast(), self.length) };
    }
}
