//! Damaged and foreign model files are refused: one line that says what, where and what to do, no panic,
//! and no memory spent on claims.

mod build;
mod checkpoints;
mod commands;
mod containers;
mod fixtures;
pub(crate) mod mutations;

use std::path::Path;

use kernels::{DType, Device, Reference};
use mobilevlmd::model::files::{LoadOptions, ModelError, ModelFiles, ModelPaths};
use mobilevlmd::model::weights::{self, kept::Kept};

use crate::allocation;

/// Memory that reading the headers of `on_disk` bytes may take: some for paths and messages, and a
/// multiple of what is really there.
fn allowance(on_disk: usize) -> usize {
    (1 << 20) + 32 * on_disk
}

fn size_on_disk(path: &Path) -> usize {
    let meta = std::fs::metadata(path).expect("a file of the test");
    if !meta.is_dir() {
        return meta.len() as usize;
    }
    let entries = std::fs::read_dir(path).expect("a folder of the test");
    entries.map(|entry| size_on_disk(&entry.expect("an entry").path())).sum()
}

/// Opens a model and watches the allocator meanwhile.
#[track_caller]
fn open(paths: &ModelPaths) -> Result<ModelFiles, ModelError> {
    let folder = if paths.model.is_dir() { Some(&*paths.model) } else { paths.model.parent() };
    let on_disk = folder.filter(|folder| folder.exists()).map_or(0, size_on_disk);
    let (result, tally) = allocation::during(|| ModelFiles::open(paths));
    assert!(tally.bytes <= allowance(on_disk), "{tally:?} for {on_disk} bytes on disk");
    if let Err(error) = &result {
        let message = error.to_string();
        assert!(!message.contains('\n') && message.len() < 1000, "not one short line: {message}");
    }
    result
}

/// A model that must be refused with all of `words` in its message.
#[track_caller]
fn refused(paths: &ModelPaths, words: &[&str]) {
    let Err(error) = open(paths) else { panic!("accepted, where {words:?} was expected") };
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

/// Loads everything onto the scalar device.
fn load(files: &ModelFiles, options: &LoadOptions) -> Result<(), ModelError> {
    let device = Reference;
    let kept = Kept::nowhere();
    weights::vision(files, &device, options, &kept)?;
    weights::projector(files, &device, options, &kept)?;
    let language = weights::language(files, &device, options, &kept)?;
    assert_eq!(language.layers.len(), files.language.layers);
    assert_eq!(device.shape(&language.norm), (1, files.language.hidden));
    Ok(())
}

const EXACT: LoadOptions = LoadOptions { dtype: None, vision_dtype: DType::F32, exact: true };
