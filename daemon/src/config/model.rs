//! From the `[model]` section to files.

use std::path::{Path, PathBuf};

use crate::model::files::ModelPaths;

use super::ModelConfig;

/// The model of a source checkout that stands in while no other is named: random weights.
const REFERENCE_MODEL: &str = "tests/data/gguf/v2-k256/model-q4_k_m.gguf";

/// No model is named and none is at hand.
#[derive(Debug, thiserror::Error)]
#[error(
    "no model: set model.path (or --model) to a GGUF file or a Hugging Face directory of MobileVLM; \
     the reference model is found only in a source checkout"
)]
pub struct NoModel;

impl ModelConfig {
    /// Where the model is. Without a path, the reference model of the source checkout that holds
    /// the program or the current directory.
    pub fn paths(&self) -> Result<ModelPaths, NoModel> {
        if self.path.as_os_str().is_empty() {
            let model = reference_model().ok_or(NoModel)?;
            return Ok(ModelPaths { model, ..ModelPaths::default() });
        }
        let given = |path: &Path| (!path.as_os_str().is_empty()).then(|| path.to_path_buf());
        Ok(ModelPaths {
            model: self.path.clone(),
            mmproj: given(&self.mmproj),
            vision_tower: given(&self.vision_tower),
        })
    }
}

fn reference_model() -> Option<PathBuf> {
    let starts = [std::env::current_exe(), std::env::current_dir()];
    starts.iter().flatten().find_map(|start| reference_model_above(start))
}

fn reference_model_above(start: &Path) -> Option<PathBuf> {
    start.ancestors().map(|folder| folder.join(REFERENCE_MODEL)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_checkout_has_a_model() {
        let paths = ModelConfig::default().paths().expect("tests run in a source checkout");
        assert!(paths.model.ends_with(REFERENCE_MODEL), "{}", paths.model.display());
        assert_eq!(reference_model_above(Path::new("/")), None);
    }

    #[test]
    fn empty_paths_are_absent() {
        let config = ModelConfig { path: "m.gguf".into(), mmproj: "p.gguf".into(), ..Default::default() };
        let paths = config.paths().expect("named");
        assert_eq!(paths.mmproj.as_deref(), Some(Path::new("p.gguf")));
        assert_eq!(paths.vision_tower, None);
    }
}
