//! From the `[model]` section to files.

use std::path::{Path, PathBuf};

use kernels::{DType, KvDtype};

use crate::gpu::DeviceChoice;
use crate::model::files::{LoadOptions, ModelPaths, ModelSource};

use super::ModelConfig;

/// What `model.path` may say instead of a path. A folder of this name is written `./builtin`.
const BUILT_IN: &str = "builtin";

impl ModelConfig {
    /// Where the model comes from.
    pub fn source(&self) -> ModelSource {
        if self.path.as_os_str().is_empty() || self.path == Path::new(BUILT_IN) {
            return ModelSource::BuiltIn;
        }
        let given = |path: &Path| (!path.as_os_str().is_empty()).then(|| path.to_path_buf());
        ModelSource::Files(ModelPaths {
            model: self.path.clone(),
            mmproj: given(&self.mmproj),
            vision_tower: given(&self.vision_tower),
        })
    }

    /// What computes, if the section is valid.
    pub fn device_choice(&self) -> DeviceChoice {
        self.device.parse().unwrap_or(DeviceChoice::Cpu)
    }

    /// How keys and values are stored.
    pub fn kv_dtype(&self) -> KvDtype {
        let named = KvDtype::ALL.into_iter().find(|dtype| dtype.name() == self.kv_dtype);
        named.unwrap_or(KvDtype::F16)
    }

    /// Where to keep what another start can use: [`ModelConfig::cache_dir`], else the first directory
    /// that systemd made for this service.
    pub fn cache_folder(&self) -> Option<PathBuf> {
        super::folder(&self.cache_dir, "CACHE_DIRECTORY")
    }

    /// Whether packed weights go there, too. Those of the built-in model are at hand in any case.
    pub fn keeps_weights(&self) -> bool {
        self.keep_weights && self.source() != ModelSource::BuiltIn
    }

    /// Types of weights, if the section is valid.
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions {
            dtype: self.dtype.parse().ok(),
            vision_dtype: self.vision_dtype.parse().unwrap_or(DType::F32),
            exact: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_is_the_built_in_model() {
        for (path, is_built_in) in [("", true), ("builtin", true), ("./builtin", false), ("m.gguf", false)] {
            let config = ModelConfig { path: path.into(), ..Default::default() };
            assert_eq!(config.source() == ModelSource::BuiltIn, is_built_in, "{path}");
        }
    }

    #[test]
    fn a_named_cache_directory_is_taken() {
        let config = ModelConfig { cache_dir: "kept".into(), kv_dtype: "q8".into(), ..Default::default() };
        assert_eq!((config.cache_folder(), config.kv_dtype()), (Some("kept".into()), KvDtype::Q8));
    }

    #[test]
    fn empty_paths_are_absent() {
        let config = ModelConfig { path: "m.gguf".into(), mmproj: "p.gguf".into(), ..Default::default() };
        let paths = ModelPaths { model: "m.gguf".into(), mmproj: Some("p.gguf".into()), vision_tower: None };
        assert_eq!(config.source(), ModelSource::Files(paths));
    }
}
