//! The tensors of one file, whatever its container.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use kernels::DType;

use super::{ModelError, RawTensor, TensorStore};
use crate::model::files::bytes::FileBytes;

/// Where a tensor is in a file, as a container's reader has checked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Of a type that can be read.
    Known {
        /// Type of the numbers.
        dtype: DType,
        /// Extents, outermost first; none is zero.
        shape: Vec<usize>,
        /// Numbers from one index to the next, outermost first; `None` for row order. All they
        /// reach is in `bytes`.
        strides: Option<Vec<usize>>,
        /// Bytes from the first number to the last, inside the file.
        bytes: Range<usize>,
    },
    /// Of another type, with its name.
    Foreign(String),
}

/// Entries by tensor name.
pub type Directory = HashMap<String, Entry>;

/// A file and the directory its container's reader made of it.
#[derive(Debug)]
pub struct StoredTensors {
    file: FileBytes,
    directory: Directory,
}

impl StoredTensors {
    /// `directory` was read from `file`: its ranges lie inside.
    pub fn new(file: impl Into<FileBytes>, directory: Directory) -> Self {
        Self { file: file.into(), directory }
    }
}

/// Strides of numbers in row order.
fn row_order(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// `strides`, or `None` if they are those of row order; the stride of an extent of one is free.
pub fn odd_strides(shape: &[usize], strides: &[usize]) -> Option<Vec<usize>> {
    let differs = |((&extent, stride), want): ((&usize, &usize), usize)| extent != 1 && *stride != want;
    shape.iter().zip(strides).zip(row_order(shape)).any(differs).then(|| strides.to_vec())
}

/// Copies numbers of `size` bytes into row order.
fn gather(bytes: &[u8], size: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let numbers: usize = shape.iter().product();
    let order = row_order(shape);
    let mut out = Vec::with_capacity(numbers * size);
    for number in 0..numbers {
        let axes = order.iter().zip(shape).zip(strides);
        let at: usize = axes.map(|((step, extent), stride)| number / step % extent * stride).sum();
        out.extend_from_slice(&bytes[at * size..][..size]);
    }
    out
}

impl TensorStore for StoredTensors {
    fn place(&self) -> String {
        self.file.place()
    }

    fn info(&self, name: &str) -> Option<(DType, Vec<usize>)> {
        match self.directory.get(name)? {
            Entry::Known { dtype, shape, .. } => Some((*dtype, shape.clone())),
            Entry::Foreign(_) => None,
        }
    }

    fn foreign_type(&self, name: &str) -> Option<String> {
        match self.directory.get(name)? {
            Entry::Known { .. } => None,
            Entry::Foreign(words) => Some(words.clone()),
        }
    }

    fn tensor(&self, name: &str) -> Result<RawTensor<'_>, ModelError> {
        match self.directory.get(name) {
            Some(Entry::Known { dtype, shape, strides, bytes }) => {
                let stored = &self.file.bytes()[bytes.clone()];
                let bytes = match strides {
                    None => Cow::Borrowed(stored),
                    Some(strides) => Cow::Owned(gather(stored, dtype.block_bytes(), shape, strides)),
                };
                Ok(RawTensor { dtype: *dtype, shape: shape.clone(), bytes })
            }
            Some(Entry::Foreign(words)) => Err(ModelError::foreign(self.place(), name, words)),
            None => Err(ModelError::missing(self.place(), name)),
        }
    }

    fn release(&self, name: &str) {
        if let Some(Entry::Known { bytes, .. }) = self.directory.get(name) {
            self.file.release(bytes.clone());
        }
    }

    fn names(&self) -> Vec<String> {
        let known =
            |(name, entry): (&String, &Entry)| matches!(entry, Entry::Known { .. }).then(|| name.clone());
        self.directory.iter().filter_map(known).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposed_numbers_are_gathered() {
        let stored = [0, 1, 2, 3, 4, 5];
        assert_eq!(odd_strides(&[2, 3], &[3, 1]), None);
        assert_eq!(odd_strides(&[2, 1, 3], &[3, 77, 1]), None);
        assert_eq!(odd_strides(&[3, 2], &[1, 3]), Some(vec![1, 3]));
        assert_eq!(gather(&stored, 1, &[3, 2], &[1, 3]), [0, 3, 1, 4, 2, 5]);
        let wide: Vec<u8> = stored.iter().flat_map(|&value| [value, value]).collect();
        assert_eq!(gather(&wide, 2, &[3, 2], &[1, 3]), [0, 0, 3, 3, 1, 1, 4, 4, 2, 2, 5, 5]);
    }
}
