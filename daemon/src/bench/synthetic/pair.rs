//! A made-up model as a pair of GGUF files, or opened straight from memory.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kernels::DType;

use crate::model::files::{
    CLIP_MEAN, CLIP_STD, Description, ModelError, ModelFiles, ProjectorKind, TensorStore, TokenizerSource,
};
use crate::model::gguf_writer::{Value, WriteError, write_gguf};
use crate::model::language::LanguageConfig;
use crate::model::vision::VisionConfig;

use super::{FileType, Synthetic, vocabulary};

/// Width of CLIP's joint space, which nothing here uses but readers ask for.
const PROJECTION: u32 = 768;

/// The version of the block layouts.
const QUANTIZATION_VERSION: u32 = 2;

/// A made-up model in words.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The vision tower. Its matrices are F16.
    pub vision: VisionConfig,
    /// The language model.
    pub language: LanguageConfig,
    /// The projector.
    pub projector: ProjectorKind,
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
        Synthetic::mmproj(&self.vision, self.projector, self.language.hidden, DType::F16, self.seed)
    }

    /// The model itself. Its tensors are made when they are loaded.
    pub fn files(&self) -> Result<ModelFiles, ModelError> {
        let description = Description {
            id: self.name(),
            vision: self.vision.clone(),
            language: self.language.clone(),
            projector: self.projector,
            image_mean: CLIP_MEAN,
            image_std: CLIP_STD,
            tokenizer: TokenizerSource::Vocabulary(vocabulary(self.language.vocabulary)),
            tokenizer_legacy: true,
        };
        ModelFiles::from_stores(description, Arc::new(self.text()), Arc::new(self.mmproj()))
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
        self.write_text(&text).map_err(failed(&text))?;
        let mmproj = folder.join("mmproj-f16.gguf");
        self.write_mmproj(&mmproj).map_err(failed(&mmproj))?;
        Ok([text, mmproj])
    }

    fn write_text(&self, path: &Path) -> Result<(), WriteError> {
        let config = &self.language;
        let vocabulary = vocabulary(config.vocabulary);
        let name = self.name();
        let metadata = [
            ("general.architecture", Value::Text("llama")),
            ("general.name", Value::Text(&name)),
            ("general.file_type", Value::U32(self.file_type.code())),
            ("general.quantization_version", Value::U32(QUANTIZATION_VERSION)),
            ("llama.vocab_size", Value::U32(config.vocabulary as u32)),
            ("llama.context_length", Value::U32(config.context as u32)),
            ("llama.embedding_length", Value::U32(config.hidden as u32)),
            ("llama.block_count", Value::U32(config.layers as u32)),
            ("llama.feed_forward_length", Value::U32(config.ffn as u32)),
            ("llama.rope.dimension_count", Value::U32(config.head_dim as u32)),
            ("llama.attention.head_count", Value::U32(config.heads as u32)),
            ("llama.attention.head_count_kv", Value::U32(config.kv_heads as u32)),
            ("llama.attention.layer_norm_rms_epsilon", Value::F32(config.eps)),
            ("llama.rope.freq_base", Value::F32(config.rope_base)),
            ("tokenizer.ggml.model", Value::Text("llama")),
            ("tokenizer.ggml.pre", Value::Text("default")),
            ("tokenizer.ggml.tokens", Value::Texts(&vocabulary.pieces)),
            ("tokenizer.ggml.scores", Value::F32s(&vocabulary.scores)),
            ("tokenizer.ggml.token_type", Value::I32s(&vocabulary.kinds)),
            ("tokenizer.ggml.bos_token_id", Value::U32(vocabulary.bos)),
            ("tokenizer.ggml.eos_token_id", Value::U32(vocabulary.eos)),
            ("tokenizer.ggml.unknown_token_id", Value::U32(vocabulary.unk)),
            ("tokenizer.ggml.padding_token_id", Value::U32(vocabulary.unk)),
            ("tokenizer.ggml.add_bos_token", Value::Bool(true)),
            ("tokenizer.ggml.add_eos_token", Value::Bool(false)),
        ];
        write_whole(path, &metadata, &self.text())
    }

    fn write_mmproj(&self, path: &Path) -> Result<(), WriteError> {
        let config = &self.vision;
        let projector = match self.projector {
            ProjectorKind::Ldp => "ldp",
            ProjectorKind::LdpV2 => "ldpv2",
        };
        let metadata = [
            ("general.architecture", Value::Text("clip")),
            ("clip.has_text_encoder", Value::Bool(false)),
            ("clip.has_vision_encoder", Value::Bool(true)),
            ("clip.has_llava_projector", Value::Bool(true)),
            ("general.file_type", Value::U32(FileType::F16.code())),
            ("general.name", Value::Text("synthetic")),
            ("general.description", Value::Text("seeded random weights, no trained model")),
            ("clip.projector_type", Value::Text(projector)),
            ("clip.vision.image_size", Value::U32(config.image as u32)),
            ("clip.vision.patch_size", Value::U32(config.patch as u32)),
            ("clip.vision.embedding_length", Value::U32(config.hidden as u32)),
            ("clip.vision.feed_forward_length", Value::U32(config.mlp as u32)),
            ("clip.vision.projection_dim", Value::U32(PROJECTION)),
            ("clip.vision.attention.head_count", Value::U32(config.heads as u32)),
            ("clip.vision.attention.layer_norm_epsilon", Value::F32(config.eps)),
            ("clip.vision.block_count", Value::U32(config.blocks as u32)),
            ("clip.vision.image_mean", Value::F32s(&CLIP_MEAN)),
            ("clip.vision.image_std", Value::F32s(&CLIP_STD)),
            ("clip.use_gelu", Value::Bool(false)),
        ];
        write_whole(path, &metadata, &self.mmproj())
    }
}

/// Writes beside `path` and renames, so that a file with its final name is whole.
fn write_whole(
    path: &Path,
    metadata: &[(&str, Value<'_>)],
    store: &dyn TensorStore,
) -> Result<(), WriteError> {
    let part = path.with_extension("gguf.part");
    let result = File::create(&part).map_err(WriteError::from).and_then(|file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        write_gguf(&mut out, metadata, store, &store.names())?;
        Ok(out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?)
    });
    let result = result.and_then(|()| Ok(fs::rename(&part, path)?));
    if result.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&part);
    }
    result
}
