//! Tensors spread over several files, with an index that says which is where.

use std::collections::HashMap;
use std::path::{Component, Path};

use kernels::DType;
use serde::Deserialize;

use super::json;
use crate::model::files::error::shown;
use crate::model::files::{ModelError, RawTensor, TensorStore};

/// Shards of one checkpoint at most.
const MAX_SHARDS: usize = 1 << 10;

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

/// The tensors of all shards.
pub struct Shards {
    index: String,
    shards: Vec<Box<dyn TensorStore>>,
    /// Number of the shard of each tensor.
    weight_map: HashMap<String, usize>,
}

impl Shards {
    /// Opens every shard that the index at `path` names, with `open`.
    pub fn open(
        path: &Path,
        open: impl Fn(&Path) -> Result<Box<dyn TensorStore>, ModelError>,
    ) -> Result<Self, ModelError> {
        let index: Index = json::read(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let mut shards = Vec::new();
        let mut weight_map = HashMap::new();
        let mut files: Vec<_> = index.weight_map.iter().collect();
        files.sort_by_key(|&(_, file)| file);
        for (tensor, file) in files {
            let number = match numbers.get(file.as_str()) {
                Some(&number) => number,
                None => {
                    check_name(path, file, shards.len())?;
                    shards.push(open_shard(path, &folder.join(file), &open)?);
                    numbers.insert(file, shards.len() - 1);
                    shards.len() - 1
                }
            };
            weight_map.insert(tensor.clone(), number);
        }
        Ok(Self { index: path.display().to_string(), shards, weight_map })
    }

    fn shard(&self, tensor: &str) -> Option<&dyn TensorStore> {
        self.weight_map.get(tensor).map(|&number| &*self.shards[number])
    }
}

/// A shard is a plain file name of a weight file: an index cannot lead out of its folder or to itself.
fn check_name(index: &Path, file: &str, number: usize) -> Result<(), ModelError> {
    let mut components = Path::new(file).components();
    let is_plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    let is_weights = file.ends_with(".safetensors") || file.ends_with(".bin");
    if !is_plain || !is_weights {
        let problem = format!("names the shard {}, expected a file in its own folder", shown(file));
        return Err(ModelError::key(index.display().to_string(), "weight_map", problem));
    }
    if number >= MAX_SHARDS {
        let problem = format!("names more than {MAX_SHARDS} shards");
        return Err(ModelError::key(index.display().to_string(), "weight_map", problem));
    }
    Ok(())
}

fn open_shard(
    index: &Path,
    shard: &Path,
    open: impl Fn(&Path) -> Result<Box<dyn TensorStore>, ModelError>,
) -> Result<Box<dyn TensorStore>, ModelError> {
    if !shard.exists() {
        return Err(ModelError::NotFound {
            what: format!("shard {}", shard.display()),
            remedy: format!("{} needs it; download it too", index.display()),
        });
    }
    open(shard)
}

impl TensorStore for Shards {
    fn place(&self) -> String {
        self.index.clone()
    }

    fn info(&self, name: &str) -> Option<(DType, Vec<usize>)> {
        self.shard(name)?.info(name)
    }

    fn foreign_type(&self, name: &str) -> Option<String> {
        self.shard(name)?.foreign_type(name)
    }

    fn tensor(&self, name: &str) -> Result<RawTensor<'_>, ModelError> {
        let shard = self.shard(name).ok_or_else(|| ModelError::missing(self.place(), name))?;
        shard.tensor(name)
    }

    fn release(&self, name: &str) {
        if let Some(shard) = self.shard(name) {
            shard.release(name);
        }
    }

    fn names(&self) -> Vec<String> {
        let names = self.weight_map.keys();
        names.filter(|name| self.info(name).is_some()).cloned().collect()
    }
}
