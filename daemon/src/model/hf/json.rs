//! JSON files of a checkpoint, read with a bound on their size.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::model::files::ModelError;
use crate::model::files::error::shown;

/// Bytes of a configuration or an index at most; an index of a large model has about one megabyte.
const MAX_LEN: u64 = 64 << 20;

/// Reads the file at `path`.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    let file = File::open(path).map_err(|error| ModelError::read(path, error))?;
    let mut bytes = Vec::new();
    file.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(|error| ModelError::read(path, error))?;
    let place = path.display().to_string();
    if bytes.len() as u64 > MAX_LEN {
        return Err(ModelError::damaged(place, format!("more than {} MB of JSON", MAX_LEN >> 20)));
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        let words: String = error.to_string().chars().take(200).flat_map(char::escape_debug).collect();
        ModelError::damaged(place, words)
    })
}

/// An object of a file, with the file's name for messages.
#[derive(Clone, Debug)]
pub struct Keys {
    place: String,
    object: Value,
}

impl Keys {
    /// Reads the object in the file at `path`.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let object: Value = read(path)?;
        if !object.is_object() {
            return Err(ModelError::damaged(path.display().to_string(), "no JSON object"));
        }
        Ok(Self { place: path.display().to_string(), object })
    }

    /// The object under `key`, if there is one.
    pub fn inner(&self, key: &str) -> Option<Self> {
        let object = self.object.get(key).filter(|value| value.is_object())?;
        Some(Self { place: format!("{} ({key})", self.place), object: object.clone() })
    }

    /// The file.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// An error about the value of `key`.
    pub fn refuse(&self, key: &str, problem: impl Into<String>) -> ModelError {
        ModelError::key(&self.place, key, problem)
    }

    /// The value of `key` unless it is absent or null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        want: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let refused = || self.refuse(key, format!("is {}, expected {want}", shown(&value.to_string())));
        convert(value).map(Some).ok_or_else(refused)
    }

    /// A text.
    pub fn text(&self, key: &str) -> Result<Option<&str>, ModelError> {
        self.typed(key, "a text", Value::as_str)
    }

    /// A truth value.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// A size, if it is given.
    pub fn optional_size(&self, key: &str) -> Result<Option<usize>, ModelError> {
        self.typed(key, "a whole number", |value| value.as_u64().and_then(|size| usize::try_from(size).ok()))
    }

    /// A size that must be given.
    pub fn size(&self, key: &str) -> Result<usize, ModelError> {
        self.optional_size(key)?.ok_or_else(|| self.refuse(key, "is missing"))
    }

    /// A number.
    pub fn number(&self, key: &str) -> Result<Option<f32>, ModelError> {
        self.typed(key, "a number", |value| value.as_f64().map(|number| number as f32))
    }

    /// A whole number that may be negative.
    pub fn integer(&self, key: &str) -> Result<Option<i64>, ModelError> {
        self.typed(key, "a whole number", Value::as_i64)
    }

    /// Three numbers.
    pub fn colours(&self, key: &str) -> Result<Option<[f32; 3]>, ModelError> {
        self.typed(key, "three numbers", |value| {
            let numbers: Option<Vec<f32>> =
                value.as_array()?.iter().map(|number| number.as_f64().map(|number| number as f32)).collect();
            numbers?.try_into().ok()
        })
    }
}
