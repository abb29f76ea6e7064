//! The two GGUF files of a model: language model and vocabulary in one, vision and projector in the other.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kernels::{DType, Pairing};

use super::Header;
use super::value::Value;
use crate::model::files::bytes::FileBytes;
use crate::model::files::error::shown;
use crate::model::files::limits::MAX_VOCABULARY;
use crate::model::files::stored::StoredTensors;
use crate::model::files::{
    Description, ModelError, ModelFiles, ProjectorKind, TensorStore, TokenizerSource, Vocabulary, stored_len,
};
use crate::model::language::LanguageConfig;
use crate::model::vision::VisionConfig;
use crate::model::weights::names;

/// Opens the text file at `model` with `mmproj`, or with the only `*mmproj*.gguf` beside it.
pub fn open(model: &Path, mmproj: Option<&Path>) -> Result<ModelFiles, ModelError> {
    let text = super::open(model, describe_text)?;
    let mmproj = match mmproj {
        Some(path) => path.to_owned(),
        None => find_mmproj(model)?,
    };
    let stem = model.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy());
    join(&stem, text, super::open(&mmproj, describe_images)?)
}

/// The model of a text file and an mmproj file that are in memory. It is called `name` unless the text
/// file has a name inside.
pub fn read(name: &str, text: FileBytes, mmproj: FileBytes) -> Result<ModelFiles, ModelError> {
    join(name, super::read(text, describe_text)?, super::read(mmproj, describe_images)?)
}

/// A checked file and what its header says.
type Read<T> = (StoredTensors, T);

fn join(name: &str, text: Read<Text>, images: Read<Tower>) -> Result<ModelFiles, ModelError> {
    let ((text, Text { name: named, language, vocabulary }), (images, tower)) = (text, images);
    let blocks = tower.blocks_to_run(&images);
    let description = Description {
        id: model_id(named.as_deref().unwrap_or(name), &text),
        vision: VisionConfig { blocks, ..tower.config },
        language,
        projector: tower.projector,
        image_mean: tower.image_mean,
        image_std: tower.image_std,
        tokenizer: TokenizerSource::Vocabulary(vocabulary),
        tokenizer_legacy: true,
    };
    ModelFiles::from_stores(description, Arc::new(text), Arc::new(images))
}

/// Name of the model and of the type that most of its bytes have, such as `MobileVLM-1.7B-q4_k`.
fn model_id(name: &str, text: &dyn TensorStore) -> String {
    match main_type(text) {
        Some(dtype) if !name.to_ascii_lowercase().contains(dtype.name()) => format!("{name}-{dtype}"),
        _ => name.to_owned(),
    }
}

fn main_type(store: &dyn TensorStore) -> Option<DType> {
    let mut bytes: HashMap<DType, usize> = HashMap::new();
    for (dtype, shape) in store.names().iter().filter_map(|name| store.info(name)) {
        let sum = bytes.entry(dtype).or_default();
        *sum = sum.saturating_add(stored_len(dtype, &shape).unwrap_or(0));
    }
    bytes.into_iter().max_by_key(|&(dtype, bytes)| (bytes, dtype.name())).map(|(dtype, _)| dtype)
}

fn find_mmproj(model: &Path) -> Result<PathBuf, ModelError> {
    let folder = match model.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let found = files_named(folder, is_mmproj)?;
    match &found[..] {
        [only] => Ok(only.clone()),
        [] => Err(ModelError::NotFound {
            what: format!("the vision file of {}", model.display()),
            remedy: format!("no *mmproj*.gguf in {}; name it with --mmproj", folder.display()),
        }),
        several => Err(ModelError::Ambiguous {
            what: format!("the vision file of {}", model.display()),
            candidates: file_names(several),
            remedy: "name it with --mmproj".into(),
        }),
    }
}

fn file_names(files: &[PathBuf]) -> Vec<String> {
    files.iter().map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned()).collect()
}

fn is_mmproj(name: &str) -> bool {
    name.ends_with(".gguf") && name.contains("mmproj")
}

/// The only text file of a folder that holds a pair.
pub fn text_file_in(folder: &Path) -> Result<Option<PathBuf>, ModelError> {
    let found = files_named(folder, |name| name.ends_with(".gguf") && !is_mmproj(name))?;
    match &found[..] {
        [] => Ok(None),
        [only] => Ok(Some(only.clone())),
        several => Err(ModelError::Ambiguous {
            what: format!("the model in {}", folder.display()),
            candidates: file_names(several),
            remedy: "name the file instead of the folder".into(),
        }),
    }
}

/// Files of `folder` by name, sorted.
fn files_named(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, ModelError> {
    let entries = std::fs::read_dir(folder).map_err(|error| ModelError::read(folder, error))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(&wanted))
        .collect();
    found.sort();
    Ok(found)
}

/// Metadata with the file's name for messages.
struct Keys<'h, 'a> {
    header: &'h Header<'a>,
    place: &'h str,
}

impl<'h, 'a> Keys<'h, 'a> {
    fn get(&self, key: &str) -> Option<&'h Value<'a>> {
        self.header.metadata.get(key)
    }

    fn refuse(&self, key: &str, problem: impl Into<String>) -> ModelError {
        ModelError::key(self.place, key, problem)
    }

    fn architecture(&self) -> Result<&'a str, ModelError> {
        self.text("general.architecture")?
            .ok_or_else(|| self.refuse("general.architecture", "is missing: not a model file"))
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, ModelError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => Err(self.refuse(key, format!("is {}, expected a text", other.words()))),
        }
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(self.refuse(key, format!("is {}, expected true or false", other.words()))),
        }
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let size = value.unsigned().and_then(|size| usize::try_from(size).ok());
        size.map(Some)
            .ok_or_else(|| self.refuse(key, format!("is {}, expected a whole number", value.words())))
    }

    fn size(&self, key: &str) -> Result<usize, ModelError> {
        self.optional_size(key)?.ok_or_else(|| self.refuse(key, "is missing: the file is incomplete"))
    }

    fn optional_number(&self, key: &str) -> Result<Option<f32>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.float().map(|number| number as f32);
        number.map(Some).ok_or_else(|| self.refuse(key, format!("is {}, expected a number", value.words())))
    }

    fn number(&self, key: &str) -> Result<f32, ModelError> {
        self.optional_number(key)?.ok_or_else(|| self.refuse(key, "is missing: the file is incomplete"))
    }

    /// A list of exactly `count` numbers.
    fn numbers(&self, key: &str, count: usize) -> Result<Option<Vec<f64>>, ModelError> {
        let numbers = match self.get(key) {
            None => return Ok(None),
            Some(Value::Array(array)) if array.len() != count => {
                return Err(self.refuse(key, format!("has {} entries, expected {count}", array.len())));
            }
            Some(Value::Array(array)) => array.numbers(),
            Some(_) => None,
        };
        numbers.map(Some).ok_or_else(|| self.refuse(key, "is no list of numbers"))
    }

    fn colours(&self, key: &str, default: [f32; 3]) -> Result<[f32; 3], ModelError> {
        let Some(numbers) = self.numbers(key, 3)? else { return Ok(default) };
        Ok([numbers[0] as f32, numbers[1] as f32, numbers[2] as f32])
    }
}

/// What the header of a text file says.
struct Text {
    /// Its name, if it has one that is fit to be shown.
    name: Option<String>,
    language: LanguageConfig,
    vocabulary: Vocabulary,
}

fn describe_text(header: &Header<'_>, place: &str) -> Result<Text, ModelError> {
    let keys = Keys { header, place };
    match keys.architecture()? {
        "llama" => {}
        "clip" => {
            let problem = "it holds a vision tower (architecture clip); give it with --mmproj and the text model with --model";
            return Err(ModelError::unsupported(place, problem));
        }
        other => {
            let problem = format!("its architecture is {}, only llama is supported", shown(other));
            return Err(ModelError::unsupported(place, problem));
        }
    }
    let parts = keys.optional_size("split.count")?.unwrap_or(1);
    if parts > 1 {
        let problem = format!("it is one of {parts} parts; merge them with llama-gguf-split --merge");
        return Err(ModelError::unsupported(place, problem));
    }
    let vocabulary = vocabulary(&keys)?;
    let language = language(&keys, vocabulary.pieces.len())?;
    Ok(Text { name: keys.text("general.name")?.and_then(tidy_name), language, vocabulary })
}

/// A name fit for logs and bus messages, if there is one.
fn tidy_name(name: &str) -> Option<String> {
    let name = name.trim();
    let fit = !name.is_empty() && name.len() <= 128 && !name.chars().any(char::is_control);
    fit.then(|| name.to_owned())
}

fn language(keys: &Keys<'_, '_>, vocabulary: usize) -> Result<LanguageConfig, ModelError> {
    if keys.optional_size("llama.expert_count")?.unwrap_or(0) != 0 {
        return Err(keys.refuse("llama.expert_count", "is not 0: mixtures of experts are not supported"));
    }
    let scaling = keys.text("llama.rope.scaling.type")?.unwrap_or("none");
    if scaling != "none" {
        let problem = format!("is {}: scaled rotary embeddings are not supported", shown(scaling));
        return Err(keys.refuse("llama.rope.scaling.type", problem));
    }
    let hidden = keys.size("llama.embedding_length")?;
    let heads = keys.size("llama.attention.head_count")?;
    let head_dim = match keys.optional_size("llama.attention.key_length")? {
        Some(head_dim) => head_dim,
        None => exact_quotient(hidden, heads).ok_or_else(|| {
            let problem = format!("is {heads}, which does not divide the width {hidden}");
            keys.refuse("llama.attention.head_count", problem)
        })?,
    };
    for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
        let got = keys.optional_size(key)?.unwrap_or(head_dim);
        if got != head_dim {
            return Err(keys.refuse(key, format!("is {got}, expected the head dimension {head_dim}")));
        }
    }
    Ok(LanguageConfig {
        vocabulary,
        hidden,
        layers: keys.size("llama.block_count")?,
        heads,
        kv_heads: keys.optional_size("llama.attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        ffn: keys.size("llama.feed_forward_length")?,
        eps: keys.number("llama.attention.layer_norm_rms_epsilon")?,
        rope_base: keys.optional_number("llama.rope.freq_base")?.unwrap_or(10000.0),
        pairing: Pairing::Neighbours,
        context: keys.optional_size("llama.context_length")?.unwrap_or(2048),
    })
}

fn exact_quotient(of: usize, by: usize) -> Option<usize> {
    (by != 0 && of.is_multiple_of(by)).then(|| of / by)
}

fn vocabulary(keys: &Keys<'_, '_>) -> Result<Vocabulary, ModelError> {
    const TOKENS: &str = "tokenizer.ggml.tokens";
    const SCORES: &str = "tokenizer.ggml.scores";
    const KINDS: &str = "tokenizer.ggml.token_type";
    let model = keys.text("tokenizer.ggml.model")?.unwrap_or("");
    if model != "llama" {
        let problem = format!("is {}, only the SentencePiece kind llama is supported", shown(model));
        return Err(keys.refuse("tokenizer.ggml.model", problem));
    }
    let pieces = match keys.get(TOKENS) {
        Some(Value::Array(array)) if (1..=MAX_VOCABULARY).contains(&array.len()) => array.texts(),
        _ => None,
    };
    let pieces = pieces.ok_or_else(|| keys.refuse(TOKENS, "is no list of texts: the file is incomplete"))?;
    let scores = keys.numbers(SCORES, pieces.len())?;
    let scores = scores.ok_or_else(|| keys.refuse(SCORES, "is missing: the file is incomplete"))?;
    let scores = scores.into_iter().map(|score| score as f32).collect();
    let kinds = match keys.numbers(KINDS, pieces.len())? {
        Some(kinds) => kinds.into_iter().map(|kind| kind as i32).collect(),
        None => vec![1; pieces.len()],
    };
    let id = |key: &str, default: usize| -> Result<u32, ModelError> {
        let id = keys.optional_size(key)?.unwrap_or(default);
        match u32::try_from(id) {
            Ok(small) if id < pieces.len() => Ok(small),
            _ => Err(keys.refuse(key, format!("is {id}, but there are {} tokens", pieces.len()))),
        }
    };
    Ok(Vocabulary {
        bos: id("tokenizer.ggml.bos_token_id", 1)?,
        eos: id("tokenizer.ggml.eos_token_id", 2)?,
        unk: id("tokenizer.ggml.unknown_token_id", 0)?,
        add_space_prefix: keys.flag("tokenizer.ggml.add_space_prefix", true)?,
        scores,
        kinds,
        pieces,
    })
}

/// What the header of an mmproj file says.
struct Tower {
    /// `blocks` is the count of the header, not yet the number to run.
    config: VisionConfig,
    projector: ProjectorKind,
    image_mean: [f32; 3],
    image_std: [f32; 3],
    /// Index of the hidden state to use, 0 being the input of the first block.
    feature_layer: Option<usize>,
}

impl Tower {
    /// Blocks up to layer -2.
    ///
    /// The converter of llama.cpp's LLaVA days dropped the last block, counted what was left and
    /// called the first matrix of the MLP `ffn_down`: all counted blocks run. Files that name the MLP
    /// rightly, or hold the norm after the last block, count the whole tower.
    fn blocks_to_run(&self, images: &dyn TensorStore) -> usize {
        match self.feature_layer {
            Some(layer) => layer,
            None if names::is_truncated_tower(images, &self.config) => self.config.blocks,
            None => self.config.blocks.saturating_sub(1),
        }
    }
}

fn describe_images(header: &Header<'_>, place: &str) -> Result<Tower, ModelError> {
    let keys = Keys { header, place };
    let architecture = keys.architecture()?;
    if architecture != "clip" {
        let problem = format!(
            "its architecture is {}, expected the clip file with the vision tower",
            shown(architecture)
        );
        return Err(ModelError::unsupported(place, problem));
    }
    if keys.flag("clip.use_gelu", false)? || keys.flag("clip.use_silu", false)? {
        return Err(
            keys.refuse("clip.use_gelu", "or clip.use_silu is true: only quick GELU towers are supported")
        );
    }
    let config = VisionConfig {
        hidden: keys.size("clip.vision.embedding_length")?,
        blocks: keys.size("clip.vision.block_count")?,
        heads: keys.size("clip.vision.attention.head_count")?,
        mlp: keys.size("clip.vision.feed_forward_length")?,
        image: keys.size("clip.vision.image_size")?,
        patch: keys.size("clip.vision.patch_size")?,
        eps: keys.optional_number("clip.vision.attention.layer_norm_epsilon")?.unwrap_or(1e-5),
    };
    Ok(Tower {
        config,
        projector: projector_kind(&keys)?,
        image_mean: keys.colours("clip.vision.image_mean", crate::model::files::CLIP_MEAN)?,
        image_std: keys.colours("clip.vision.image_std", crate::model::files::CLIP_STD)?,
        feature_layer: feature_layer(&keys)?,
    })
}

fn projector_kind(keys: &Keys<'_, '_>) -> Result<ProjectorKind, ModelError> {
    let newer = "clip.vision.projector_type";
    let key = if keys.get(newer).is_some() { newer } else { "clip.projector_type" };
    match keys.text(key)? {
        Some("ldp") => Ok(ProjectorKind::Ldp),
        Some("ldpv2") => Ok(ProjectorKind::LdpV2),
        Some(other) => {
            Err(keys.refuse(key, format!("is {}, only ldp and ldpv2 are supported", shown(other))))
        }
        None => Err(keys.refuse(key, "is missing: not a MobileVLM vision file (ldp or ldpv2)")),
    }
}

/// `clip.vision.feature_layer`: one index, or none. Negative entries mean "not set".
fn feature_layer(keys: &Keys<'_, '_>) -> Result<Option<usize>, ModelError> {
    const KEY: &str = "clip.vision.feature_layer";
    let layer = match keys.get(KEY) {
        None => return Ok(None),
        Some(Value::Array(_)) => keys.numbers(KEY, 1)?.map(|layers| layers[0]),
        Some(value) => value.float(),
    };
    match layer {
        Some(layer) if layer < 0.0 => Ok(None),
        Some(layer) if layer.fract() == 0.0 => Ok(Some(layer as usize)),
        _ => Err(keys.refuse(KEY, "is no layer number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_memory_are_the_same_model_as_files() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/gguf/v2-gqa"));
        let [text, mmproj] = ["model-q8_0.gguf", "mmproj-f16.gguf"].map(|name| folder.join(name));
        let built_in = |path: &Path| FileBytes::BuiltIn {
            name: "the program's own model",
            bytes: Vec::leak(std::fs::read(path).unwrap()),
        };
        let opened = open(&text, Some(&mmproj)).unwrap();
        let read = |text: &Path| read("unnamed", built_in(text), built_in(&mmproj));
        let own = read(&text).unwrap();
        assert_eq!((own.summary(), own.image_mean), (opened.summary(), opened.image_mean));
        let error = read(&mmproj).err().expect("the vision file is no text file").to_string();
        assert!(error.starts_with("the program's own model cannot be used: "), "{error}");
    }
}
