//! The heap of the process.

/// Gives free memory of the heap back to the system. glibc does so by itself only at the end of a heap, of which
/// there are several for each core, so that after a burst of small things it keeps most of what they took.
///
/// It takes well below a millisecond if there is little to give back, and does nothing with another C library.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: only memory that nobody has is given back; the call has no other conditions and takes the locks of
    // the heap itself.
    unsafe {
        libc::malloc_trim(0);
    }
}
