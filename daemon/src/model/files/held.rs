//! Which types the matrices of a model are stored in.

use std::cmp::Reverse;

use kernels::DType;

use super::{ModelFiles, Part, stored_len};

/// Matrices of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredType {
    /// The type.
    pub dtype: DType,
    /// How many matrices have it.
    pub matrices: usize,
    /// Bytes of all of them.
    pub bytes: usize,
}

impl ModelFiles {
    /// Types of the language model's matrices, most bytes first.
    pub fn language_types(&self) -> Vec<StoredType> {
        types(&self.parts.language)
    }

    /// Types of the vision tower's matrices, most bytes first.
    pub fn vision_types(&self) -> Vec<StoredType> {
        types(&self.parts.vision)
    }
}

fn types<N>(part: &Part<N>) -> Vec<StoredType> {
    let mut types: Vec<StoredType> = Vec::new();
    for (dtype, shape) in part.shapes.keys().filter_map(|name| part.store.info(name)) {
        let (true, Some(bytes)) = (shape.len() > 1, stored_len(dtype, &shape)) else { continue };
        match types.iter_mut().find(|known| known.dtype == dtype) {
            Some(known) => {
                known.matrices += 1;
                known.bytes += bytes;
            }
            None => types.push(StoredType { dtype, matrices: 1, bytes }),
        }
    }
    types.sort_by_key(|known| (Reverse(known.bytes), known.dtype.name()));
    types
}
