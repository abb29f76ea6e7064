//! A made-up model as a pair of GGUF files, or opened straight from memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kernels::DType;

use crate::model::files::{
    CLIP_MEAN, CLIP_STD, Description, ModelError, ModelFiles, ProjectorKind, TokenizerSource,
};
use crate::model::gguf_writer::{WriteError, write_mmproj, write_text};
use crate::model::language::LanguageConfig;
use crate::model::vision::VisionConfig;

use super::{FileType, Synthetic, Tower, vocabulary};

/// A made-up model in words.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The vision tower. Its matrices are F16.
    pub vision: VisionConfig,
    /// The language model.
    pub language: LanguageConfig,
    /// The projector.
    pub projector: ProjectorKind,
    /// What the tower's channels are like.
    pub tower: Tower,
    /// Types of the language model's matrices.
    pub file_type: FileType,
    /// Seed of all weights.
    pub seed: u64,
}

/// Why a pair was not written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct PairError {
    path: PathBuf,
    source: WriteError,
}

impl Recipe {
    fn name(&self) -> String {
        format!("synthetic-{}-{}", self.language.hidden, self.file_type)
    }

    /// The tensors of the language model's file.
    pub fn text(&self) -> Synthetic {
        Synthetic::text(&self.language, self.file_type, self.seed)
    }

    /// The tensors of the vision tower's and the projector's file.
    pub fn mmproj(&self) -> Synthetic {
        let made =
            Synthetic::mmproj(&self.vision, self.projector, self.language.hidden, DType::F16, self.seed);
        match self.tower {
            Tower::Plain => made,
            Tower::Loud => made.with_loud_channels(&self.vision),
        }
    }

    fn description(&self) -> Description {
        Description {
            id: self.name(),
            vision: self.vision.clone(),
            language: self.language.clone(),
            projector: self.projector,
            image_mean: CLIP_MEAN,
            image_std: CLIP_STD,
            tokenizer: TokenizerSource::Vocabulary(vocabulary(self.language.vocabulary)),
            tokenizer_legacy: true,
        }
    }

    /// The model itself. Its tensors are made when they are loaded.
    pub fn files(&self) -> Result<ModelFiles, ModelError> {
        ModelFiles::from_stores(self.description(), Arc::new(self.text()), Arc::new(self.mmproj()))
    }

    /// Writes `model-<type>.gguf` and `mmproj-f16.gguf` into `folder`, which is made if need be.
    /// Returns their paths.
    pub fn write(&self, folder: &Path) -> Result<[PathBuf; 2], PairError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| PairError { path, source }
        };
        fs::create_dir_all(folder).map_err(|error| failed(folder)(error.into()))?;
        let text = folder.join(format!("model-{}.gguf", self.file_type));
        let model = self.description();
        write_text(&text, &model, self.file_type.code(), &self.text()).map_err(failed(&text))?;
        let mmproj = folder.join("mmproj-f16.gguf");
        let remark = "seeded random weights, no trained model";
        write_mmproj(&mmproj, &model, remark, &self.mmproj()).map_err(failed(&mmproj))?;
        Ok([text, mmproj])
    }
}
