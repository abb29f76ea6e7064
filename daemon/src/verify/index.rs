//! The indexes of a reference folder.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::VerifyError;

/// `goldens/index.json`.
#[derive(Debug, Deserialize)]
pub(super) struct Index {
    /// Pictures and what becomes of them.
    pub pixels: BTreeMap<String, Picture>,
    /// Checkpoints and their cases.
    pub checkpoints: BTreeMap<String, Checkpoint>,
    /// Sections this program does not know.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// A picture.
#[derive(Debug, Deserialize)]
pub(super) struct Picture {
    /// JPEG or PNG.
    pub file: String,
    /// PNG of the padded and resized picture.
    pub resized_u8: String,
    /// Tensor file with the normalized picture.
    pub pixel_values: Option<String>,
}

/// A checkpoint.
#[derive(Debug, Deserialize)]
pub(super) struct Checkpoint {
    /// Cases by name.
    pub cases: BTreeMap<String, Case>,
    /// Activations inside the model.
    pub debug: Option<Debug>,
}

/// Activations inside the model.
#[derive(Debug, Deserialize)]
pub(super) struct Debug {
    /// Tensor file.
    pub file: String,
    /// The picture.
    pub image: String,
}

/// A conversation and the numbers of its answer.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Case {
    /// Tensor file.
    pub file: String,
    /// Declared tensors: type and shape.
    #[serde(default)]
    pub tensors: BTreeMap<String, (String, Vec<usize>)>,
    /// Name of the picture, if there is one.
    #[serde(default)]
    pub image: Option<String>,
    /// The only question.
    #[serde(default)]
    pub question: Option<String>,
    /// Questions and answers in turn, a question last.
    #[serde(default)]
    pub turns: Option<Vec<String>>,
    /// Text of the continuation.
    #[serde(default)]
    pub text: Option<String>,
}

/// An entry of `goldens/gguf_index.json`.
#[derive(Debug, Deserialize)]
pub(super) struct Gguf {
    /// The text model.
    pub file: String,
    /// The checkpoint whose numbers it holds.
    #[serde(default)]
    pub same_as: Option<String>,
    /// Cases with numbers of their own.
    #[serde(default)]
    pub cases: BTreeMap<String, Case>,
}

/// `goldens/tokenizer_cases.json`: by vocabulary.
#[derive(Debug, Deserialize)]
pub(super) struct Vocabulary {
    /// Pieces.
    pub vocab_size: usize,
    /// Text to ids.
    pub encode: Vec<TextCase>,
    /// Ids to text.
    pub decode: Vec<TextCase>,
}

/// A text and its ids.
#[derive(Debug, Deserialize)]
pub(super) struct TextCase {
    /// The text.
    pub text: String,
    /// The ids.
    pub ids: Vec<u32>,
}

/// Reads one of the index files.
pub(super) fn read<T: DeserializeOwned>(dir: &Path, name: &str) -> Result<T, VerifyError> {
    let path = dir.join(name);
    let text =
        std::fs::read_to_string(&path).map_err(|error| VerifyError::Io { path: path.clone(), error })?;
    serde_json::from_str(&text).map_err(|error| VerifyError::Index { path, error })
}
