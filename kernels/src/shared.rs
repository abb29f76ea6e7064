//! Bytes with several owners: packed weights in the memory of this process or of a mapped file.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::device::DeviceError;
use crate::dtype::DType;

/// Whoever keeps some bytes in place, unchanged, until it is dropped.
pub type BytesOwner = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Some bytes of an owner. Clones share them.
#[derive(Clone)]
pub struct SharedBytes {
    owner: BytesOwner,
    range: Range<usize>,
}

impl SharedBytes {
    /// Bytes `range` of what `owner` has; `None` if it has fewer.
    pub fn new(owner: BytesOwner, range: Range<usize>) -> Option<Self> {
        let has = (*owner).as_ref().get(range.clone()).is_some();
        has.then_some(Self { owner, range })
    }

    /// Everything `owner` has.
    pub fn all(owner: BytesOwner) -> Self {
        let range = 0..(*owner).as_ref().len();
        Self { owner, range }
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.range.clone()]
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBytes({})", self.range.len())
    }
}

/// A packed matrix outside of any device, to be kept for another run.
#[derive(Clone, Debug)]
pub struct SharedMatrix {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// What the bytes hold.
    pub dtype: DType,
    /// The matrix in the device's layout.
    pub bytes: SharedBytes,
}

impl SharedMatrix {
    /// The error of a device that cannot take it.
    pub(crate) fn foreign(&self) -> DeviceError {
        let Self { rows, cols, dtype, ref bytes } = *self;
        DeviceError::ForeignMatrix { dtype, rows, cols, bytes: bytes.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_outlives_every_other_holder() {
        let owner: BytesOwner = Arc::new((0..9_u8).collect::<Vec<_>>());
        let all = SharedBytes::all(owner.clone());
        let part = SharedBytes::new(owner.clone(), 3..5).expect("inside");
        assert!(SharedBytes::new(owner, 3..10).is_none());
        drop(all);
        assert_eq!(part.clone()[..], [3, 4]);
    }
}
