//! The bytes of a model file, wherever they are.

use std::ops::Range;

use super::map::Mapped;

/// A whole model file in memory.
#[derive(Debug)]
pub enum FileBytes {
    /// A file on disk, paged in as it is read.
    Mapped(Mapped),
    /// A file that is part of this program.
    BuiltIn {
        /// What it is called in messages.
        name: &'static str,
        /// All of it.
        bytes: &'static [u8],
    },
}

impl FileBytes {
    /// The file in words, for messages.
    pub fn place(&self) -> String {
        match self {
            Self::Mapped(map) => map.place(),
            Self::BuiltIn { name, .. } => (*name).to_owned(),
        }
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map.bytes(),
            Self::BuiltIn { bytes, .. } => bytes,
        }
    }

    /// Says that the bytes of `range` are not needed for now.
    pub fn release(&self, range: Range<usize>) {
        match self {
            Self::Mapped(map) => map.release(range),
            // The system pages the program itself.
            Self::BuiltIn { .. } => {}
        }
    }
}

impl From<Mapped> for FileBytes {
    fn from(map: Mapped) -> Self {
        Self::Mapped(map)
    }
}
