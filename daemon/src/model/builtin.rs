//! The model of somebody who named none: for now the reference model of a source checkout.

use std::path::{Path, PathBuf};

use super::files::{ModelError, ModelFiles, ModelPaths};

/// What it is called in messages.
pub const NAME: &str = "reference model, whose text is noise";

/// Where a source checkout has it: random weights.
const REFERENCE_MODEL: &str = "tests/data/gguf/v2-k256/model-q4_k_m.gguf";

/// Opens it, from the source checkout that holds the program or the current directory.
pub fn open() -> Result<ModelFiles, ModelError> {
    let starts = [std::env::current_exe(), std::env::current_dir()];
    let model =
        starts.iter().flatten().find_map(|start| model_above(start)).ok_or_else(|| ModelError::NotFound {
            what: format!("the {NAME},"),
            remedy: "it is in a source checkout only; set model.path (or --model)".into(),
        })?;
    ModelFiles::open(&ModelPaths { model, ..ModelPaths::default() })
}

fn model_above(start: &Path) -> Option<PathBuf> {
    start.ancestors().map(|folder| folder.join(REFERENCE_MODEL)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_checkout_has_a_model() {
        assert!(open().is_ok());
        assert_eq!(model_above(Path::new("/")), None);
    }
}
