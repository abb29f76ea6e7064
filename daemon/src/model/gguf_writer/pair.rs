//! A MobileVLM as a pair of GGUF files: a `llama` file and a `clip` file.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::Path;

use super::{Value, WriteError, write_gguf};
use crate::model::files::{Description, ProjectorKind, TensorStore, TokenizerSource};

/// Width of CLIP's joint space, which nothing here uses but readers ask for.
const PROJECTION: u32 = 768;

/// The version of the block layouts.
const QUANTIZATION_VERSION: u32 = 2;

/// Code of files whose matrices are F16.
const MOSTLY_F16: u32 = 1;

/// Writes the language model and its vocabulary. `file_type` is the format's code for the mixture of
/// types. A description whose vocabulary is not in memory is refused.
pub fn write_text(
    path: &Path,
    model: &Description,
    file_type: u32,
    store: &dyn TensorStore,
) -> Result<(), WriteError> {
    let TokenizerSource::Vocabulary(vocabulary) = &model.tokenizer else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the vocabulary is not in memory").into());
    };
    let config = &model.language;
    let metadata = [
        ("general.architecture", Value::Text("llama")),
        ("general.name", Value::Text(&model.id)),
        ("general.file_type", Value::U32(file_type)),
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
    write_whole(path, &metadata, store)
}

/// Writes the vision tower, without the last block that the published one has, and the projector.
/// `description` is one sentence for people.
pub fn write_mmproj(
    path: &Path,
    model: &Description,
    description: &str,
    store: &dyn TensorStore,
) -> Result<(), WriteError> {
    let config = &model.vision;
    let projector = match model.projector {
        ProjectorKind::Ldp => "ldp",
        ProjectorKind::LdpV2 => "ldpv2",
    };
    let metadata = [
        ("general.architecture", Value::Text("clip")),
        ("clip.has_text_encoder", Value::Bool(false)),
        ("clip.has_vision_encoder", Value::Bool(true)),
        ("clip.has_llava_projector", Value::Bool(true)),
        ("general.file_type", Value::U32(MOSTLY_F16)),
        ("general.name", Value::Text(&model.id)),
        ("general.description", Value::Text(description)),
        ("clip.projector_type", Value::Text(projector)),
        ("clip.vision.image_size", Value::U32(config.image as u32)),
        ("clip.vision.patch_size", Value::U32(config.patch as u32)),
        ("clip.vision.embedding_length", Value::U32(config.hidden as u32)),
        ("clip.vision.feed_forward_length", Value::U32(config.mlp as u32)),
        ("clip.vision.projection_dim", Value::U32(PROJECTION)),
        ("clip.vision.attention.head_count", Value::U32(config.heads as u32)),
        ("clip.vision.attention.layer_norm_epsilon", Value::F32(config.eps)),
        ("clip.vision.block_count", Value::U32(config.blocks as u32)),
        ("clip.vision.image_mean", Value::F32s(&model.image_mean)),
        ("clip.vision.image_std", Value::F32s(&model.image_std)),
        ("clip.use_gelu", Value::Bool(false)),
    ];
    write_whole(path, &metadata, store)
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
