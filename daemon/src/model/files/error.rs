//! Why a model cannot be used: one line that names file, tensor or key, and the remedy.

use std::path::{Path, PathBuf};

use kernels::{DType, DeviceError};

/// Why a model cannot be opened or loaded.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The system refuses a file.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A container that contradicts itself: truncated, altered, or no such container at all.
    #[error("{file} is damaged: {problem}; copy or download it again")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong, with the place.
        problem: String,
    },
    /// A sound file that holds something this program does not run.
    #[error("{file} cannot be used: {problem}")]
    Unsupported {
        /// The file.
        file: String,
        /// What it is, and what would be accepted.
        problem: String,
    },
    /// A file that should be there and is not.
    #[error("{what} not found: {remedy}")]
    NotFound {
        /// What was looked for.
        what: String,
        /// Where it was looked for, and what to do.
        remedy: String,
    },
    /// Several files could be meant.
    #[error("{what} could be any of {}: {remedy}", candidates.join(", "))]
    Ambiguous {
        /// What was looked for.
        what: String,
        /// File names.
        candidates: Vec<String>,
        /// How to choose.
        remedy: String,
    },
    /// A key of a configuration or a header with an impossible value.
    #[error("{file}: {key} {problem}")]
    Key {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// What is wrong with its value.
        problem: String,
    },
    /// A tensor the model needs is not in the file.
    #[error("{place} has no tensor {tensor}: the file is incomplete or of another model")]
    MissingTensor {
        /// The file.
        place: String,
        /// The tensor.
        tensor: String,
    },
    /// A tensor of another shape than the configuration demands.
    #[error("{place}: tensor {tensor} has shape {got:?}, expected {want:?}: file and configuration disagree")]
    Shape {
        /// The file.
        place: String,
        /// The tensor.
        tensor: String,
        /// Its shape, outermost first.
        got: Vec<usize>,
        /// The shape demanded.
        want: Vec<usize>,
    },
    /// A tensor stored in a type that cannot be read.
    #[error("{place}: tensor {tensor} has type {got}, which is not supported; use one of {}", type_names())]
    TensorType {
        /// The file.
        place: String,
        /// The tensor.
        tensor: String,
        /// The type in words.
        got: String,
    },
    /// The device cannot take a tensor.
    #[error("{place}: tensor {tensor}: {source}")]
    Device {
        /// The file.
        place: String,
        /// The tensor.
        tensor: String,
        /// The device's reason.
        source: DeviceError,
    },
    /// Scratch or KV cache do not fit.
    #[error("scratch and KV cache: {0}; lower model.kv_cache_mib or model.context")]
    Memory(DeviceError),
}

impl ModelError {
    pub(crate) fn read(path: &Path, source: std::io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }

    pub(crate) fn damaged(file: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Damaged { file: file.into(), problem: problem.into() }
    }

    pub(crate) fn unsupported(file: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Unsupported { file: file.into(), problem: problem.into() }
    }

    pub(crate) fn missing(place: impl Into<String>, tensor: &str) -> Self {
        Self::MissingTensor { place: place.into(), tensor: shown(tensor) }
    }

    pub(crate) fn foreign(place: impl Into<String>, tensor: &str, got: impl Into<String>) -> Self {
        Self::TensorType { place: place.into(), tensor: shown(tensor), got: got.into() }
    }

    pub(crate) fn key(file: impl Into<String>, key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Key { file: file.into(), key: key.into(), problem: problem.into() }
    }
}

fn type_names() -> String {
    DType::ALL.map(DType::name).join(", ")
}

/// Longest foreign text in a message, in characters.
const SHOWN: usize = 96;

/// Foreign text fit for a one-line message: quoted, control characters escaped, cut if long.
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::from("\"");
    for (count, letter) in text.chars().enumerate() {
        if count == SHOWN {
            out.push_str("...");
            break;
        }
        out.extend(letter.escape_debug());
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_on_one_short_line() {
        assert_eq!(shown("blk.0"), "\"blk.0\"");
        assert_eq!(shown("a\nb\u{1b}"), "\"a\\nb\\u{1b}\"");
        assert!(shown(&"x".repeat(1 << 20)).len() < 128);
    }
}
