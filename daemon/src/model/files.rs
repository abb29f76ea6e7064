//! What is on disk: opened, mapped and checked before any weight is loaded.

pub mod bytes;
pub mod error;
mod fingerprint;
pub mod held;
pub mod limits;
pub mod map;
pub mod stored;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kernels::DType;

pub use error::ModelError;

use super::language::LanguageConfig;
use super::vision::VisionConfig;
use super::weights::names::{LanguageNames, ProjectorNames, Shapes, VisionNames};
use super::{builtin, gguf, hf};

/// Mean of each colour of CLIP's training pictures, 0..1 scale, RGB.
pub const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];

/// Deviation of each colour of CLIP's training pictures.
pub const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// A stored tensor.
#[derive(Clone, Debug)]
pub struct RawTensor<'a> {
    /// Type of the numbers.
    pub dtype: DType,
    /// Extents, outermost first as in PyTorch.
    pub shape: Vec<usize>,
    /// The numbers in row order, of any alignment; borrowed from the mapped file where possible.
    pub bytes: Cow<'a, [u8]>,
}

/// Named tensors of one file, of several shards, or of memory.
pub trait TensorStore: Send + Sync {
    /// The file or files in words, for messages.
    fn place(&self) -> String;

    /// Type and shape (outermost first) of a tensor, if it is there and of a type that can be read.
    fn info(&self, name: &str) -> Option<(DType, Vec<usize>)>;

    /// The type in words of a tensor that is there but cannot be read.
    fn foreign_type(&self, _name: &str) -> Option<String> {
        None
    }

    /// The tensor itself.
    fn tensor(&self, name: &str) -> Result<RawTensor<'_>, ModelError>;

    /// Says that the bytes of a tensor are not needed for now, so that their memory can go elsewhere.
    fn release(&self, _name: &str) {}

    /// Names of all tensors that can be read, in no particular order.
    fn names(&self) -> Vec<String>;
}

/// Which projector joins vision and language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProjectorKind {
    /// LDP of MobileVLM (`ldpnet`).
    Ldp,
    /// LDPv2 of MobileVLM V2 (`ldpnetv2`).
    LdpV2,
}

impl fmt::Display for ProjectorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ldp => "LDP",
            Self::LdpV2 => "LDPv2",
        })
    }
}

/// Where the vocabulary comes from.
#[derive(Clone, Debug)]
pub enum TokenizerSource {
    /// A `tokenizer.json`.
    Json(PathBuf),
    /// A SentencePiece `tokenizer.model`.
    SentencePiece(PathBuf),
    /// Pieces inside a GGUF file.
    Vocabulary(Vocabulary),
}

/// A SentencePiece vocabulary as GGUF files hold it.
#[derive(Clone, Debug, PartialEq)]
pub struct Vocabulary {
    /// Pieces; the index is the token id.
    pub pieces: Vec<String>,
    /// Merge scores, one per piece.
    pub scores: Vec<f32>,
    /// Kinds, one per piece: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte.
    pub kinds: Vec<i32>,
    /// Id that begins a text.
    pub bos: u32,
    /// Id that ends a text.
    pub eos: u32,
    /// Id of what cannot be encoded.
    pub unk: u32,
    /// Whether a text gets a leading space.
    pub add_space_prefix: bool,
}

/// Where a model is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelPaths {
    /// A Hugging Face directory, a weight file in one, a text GGUF, or a folder with a GGUF pair.
    pub model: PathBuf,
    /// Vision and projector of a GGUF model; found beside it if absent.
    pub mmproj: Option<PathBuf>,
    /// Directory of the CLIP tower of a Hugging Face model; found by `mm_vision_tower` if absent.
    pub vision_tower: Option<PathBuf>,
}

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// This program.
    BuiltIn,
    /// Files.
    Files(ModelPaths),
}

impl ModelSource {
    /// Opens and checks it as [`ModelFiles::open`] does.
    pub fn open(&self) -> Result<ModelFiles, ModelError> {
        match self {
            Self::BuiltIn => builtin::open(),
            Self::Files(paths) => ModelFiles::open(paths),
        }
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str(builtin::NAME),
            Self::Files(paths) => write!(f, "{}", paths.model.display()),
        }
    }
}

/// How weights are held after loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Type for language matrices that are stored as floats; `None` keeps them as they are.
    pub dtype: Option<DType>,
    /// Type for vision and projector matrices that are stored as floats.
    pub vision_dtype: DType,
    /// f32 arithmetic everywhere and nothing requantized: the reference path.
    pub exact: bool,
}

/// A model's numbers in words: what [`ModelFiles::from_stores`] needs beside the tensors.
#[derive(Clone, Debug)]
pub struct Description {
    /// Name for logs, messages and caches.
    pub id: String,
    /// The vision tower.
    pub vision: VisionConfig,
    /// The language model.
    pub language: LanguageConfig,
    /// The projector.
    pub projector: ProjectorKind,
    /// Subtracted from each colour, 0..1 scale, RGB.
    pub image_mean: [f32; 3],
    /// Divides each colour after that.
    pub image_std: [f32; 3],
    /// The vocabulary.
    pub tokenizer: TokenizerSource,
    /// The `legacy` flag of tokenizer_config.json: text after a special token gets a leading space.
    pub tokenizer_legacy: bool,
}

/// A model whose files are mapped and whose tensors are all there in the right shapes.
pub struct ModelFiles {
    /// Name for logs, messages and caches.
    pub id: String,
    /// The vision tower.
    pub vision: VisionConfig,
    /// The language model.
    pub language: LanguageConfig,
    /// The projector.
    pub projector: ProjectorKind,
    /// Subtracted from each colour, 0..1 scale, RGB.
    pub image_mean: [f32; 3],
    /// Divides each colour after that.
    pub image_std: [f32; 3],
    /// The vocabulary.
    pub tokenizer: TokenizerSource,
    /// The `legacy` flag of tokenizer_config.json: text after a special token gets a leading space.
    pub tokenizer_legacy: bool,
    pub(super) parts: Parts,
}

/// The three parts of a model with what each needs from its file.
pub(super) struct Parts {
    /// The vision tower.
    pub vision: Part<VisionNames>,
    /// The projector.
    pub projector: Part<ProjectorNames>,
    /// The language model.
    pub language: Part<LanguageNames>,
}

/// One part of a model: its names, the tensors it needs, and where they are.
pub(super) struct Part<N> {
    /// What its tensors are called.
    pub names: N,
    /// Where they are.
    pub store: Arc<dyn TensorStore>,
    /// Every tensor needed, with its shape.
    pub shapes: Shapes,
}

impl<N> Part<N> {
    /// Checks that every needed tensor is there, can be read, and has its shape.
    fn check(&self) -> Result<(), ModelError> {
        let mut needed: Vec<_> = self.shapes.iter().collect();
        needed.sort();
        for (name, want) in needed {
            let Some((_, got)) = self.store.info(name) else {
                return Err(match self.store.foreign_type(name) {
                    Some(words) => ModelError::foreign(self.store.place(), name, words),
                    None => ModelError::missing(self.store.place(), name),
                });
            };
            if squeezed(&got) != squeezed(want) {
                return Err(ModelError::Shape {
                    place: self.store.place(),
                    tensor: error::shown(name),
                    got,
                    want: want.clone(),
                });
            }
        }
        Ok(())
    }

    /// Tensors, bytes and types, such as `30 tensors, 0.5 MB (q8_0 22, f32 8)`.
    fn summary(&self) -> String {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        let mut bytes = 0usize;
        for (dtype, shape) in self.shapes.keys().filter_map(|name| self.store.info(name)) {
            *counts.entry(dtype.name()).or_default() += 1;
            bytes = bytes.saturating_add(stored_len(dtype, &shape).unwrap_or(0));
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|&(name, count)| (Reverse(count), name));
        let types: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        format!("{} tensors, {:.1} MB ({})", self.shapes.len(), bytes as f64 / 1e6, types.join(", "))
    }
}

/// A shape without extents of one, which converters drop or keep as they like.
fn squeezed(shape: &[usize]) -> Vec<usize> {
    shape.iter().copied().filter(|&extent| extent != 1).collect()
}

/// Bytes of a tensor; `None` if the product overflows, an extent is zero, or rows do not fill blocks.
pub(super) fn stored_len(dtype: DType, shape: &[usize]) -> Option<usize> {
    let (cols, outer) = shape.split_last().map_or((1, &[][..]), |(last, outer)| (*last, outer));
    let rows = outer.iter().try_fold(1usize, |rows, &extent| rows.checked_mul(extent))?;
    dtype.row_bytes(cols)?.checked_mul(rows).filter(|&len| len > 0)
}

impl ModelFiles {
    /// Maps the files and checks that every needed tensor is there with the right type and shape.
    /// Loads nothing.
    pub fn open(paths: &ModelPaths) -> Result<Self, ModelError> {
        let model = &paths.model;
        let meta = std::fs::metadata(model).map_err(|error| ModelError::read(model, error))?;
        let tower = paths.vision_tower.as_deref();
        if meta.is_dir() {
            if model.join(hf::CONFIG).exists() {
                return hf::open(model, None, tower);
            }
            return match gguf::pair::text_file_in(model)? {
                Some(text) => gguf::pair::open(&text, paths.mmproj.as_deref()),
                None => Err(ModelError::NotFound {
                    what: format!("a model in {}", model.display()),
                    remedy: format!("expected {} with weights, or a *.gguf pair", hf::CONFIG),
                }),
            };
        }
        if hf::is_weight_file(model) {
            let folder = model.parent().filter(|parent| !parent.as_os_str().is_empty());
            return hf::open(folder.unwrap_or(Path::new(".")), Some(model), tower);
        }
        gguf::pair::open(model, paths.mmproj.as_deref())
    }

    /// A model from tensors under their GGUF names: `text` as in a `llama` file, `mmproj` as in a
    /// `clip` file. Checked like files.
    pub fn from_stores(
        description: Description,
        text: Arc<dyn TensorStore>,
        mmproj: Arc<dyn TensorStore>,
    ) -> Result<Self, ModelError> {
        limits::check_vision(&description.vision, &mmproj.place())?;
        let vision_names = VisionNames::gguf(&*mmproj, &description.vision);
        let parts = PartStores {
            vision: (vision_names, mmproj.clone()),
            projector: (ProjectorNames::gguf(description.projector), mmproj),
            language: (LanguageNames::GGUF, text),
        };
        Self::from_parts(description, parts)
    }

    pub(super) fn from_parts(description: Description, stores: PartStores) -> Result<Self, ModelError> {
        let Description {
            id,
            vision,
            language,
            projector,
            image_mean,
            image_std,
            tokenizer,
            tokenizer_legacy,
        } = description;
        let PartStores { vision: images, projector: between, language: text } = stores;
        limits::check_vision(&vision, &images.1.place())?;
        limits::check_language(&language, &text.1.place())?;
        limits::check_colours(image_mean, image_std, &images.1.place())?;
        let parts = Parts {
            vision: Part { shapes: images.0.shapes(&vision), names: images.0, store: images.1 },
            projector: Part {
                shapes: between.0.shapes(&*between.1, vision.hidden, language.hidden),
                names: between.0,
                store: between.1,
            },
            language: Part { shapes: text.0.shapes(&language), names: text.0, store: text.1 },
        };
        parts.language.check()?;
        parts.vision.check()?;
        parts.projector.check()?;
        Ok(Self {
            id,
            vision,
            language,
            projector,
            image_mean,
            image_std,
            tokenizer,
            tokenizer_legacy,
            parts,
        })
    }

    /// A tensor by the name it has in its file.
    pub fn tensor(&self, name: &str) -> Result<RawTensor<'_>, ModelError> {
        let Parts { vision, projector, language } = &self.parts;
        let stores = [&language.store, &vision.store, &projector.store];
        let store = stores.into_iter().find(|store| store.info(name).is_some()).unwrap_or(&language.store);
        store.tensor(name)
    }

    /// What the files hold, in one line: sizes, tensor counts, types and bytes.
    pub fn summary(&self) -> String {
        let LanguageConfig { layers, hidden, heads, kv_heads, vocabulary, .. } = self.language;
        let vision = &self.vision;
        let projector = self.projector;
        format!(
            "{}: language {layers} layers of {hidden}, {heads} heads ({kv_heads} for keys), {vocabulary} words, {}; \
             vision {} blocks of {}, {} heads, picture {}, {}; projector {projector}, {}",
            self.id,
            self.parts.language.summary(),
            vision.blocks,
            vision.hidden,
            vision.heads,
            vision.image,
            self.parts.vision.summary(),
            self.parts.projector.summary(),
        )
    }
}

/// Names and place of the tensors of each part.
pub(super) struct PartStores {
    pub vision: (VisionNames, Arc<dyn TensorStore>),
    pub projector: (ProjectorNames, Arc<dyn TensorStore>),
    pub language: (LanguageNames, Arc<dyn TensorStore>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_tensors_have_no_length() {
        assert_eq!(stored_len(DType::F16, &[3, 5]), Some(30));
        assert_eq!(stored_len(DType::F32, &[]), Some(4));
        assert_eq!(stored_len(DType::Q4_0, &[2, 64]), Some(72));
        assert_eq!(stored_len(DType::Q4_0, &[2, 33]), None);
        assert_eq!(stored_len(DType::F32, &[0, 4]), None);
        assert_eq!(stored_len(DType::F32, &[1 << 40, 1 << 40]), None);
    }

    #[test]
    fn extents_of_one_do_not_matter() {
        assert_eq!(squeezed(&[64, 1, 3, 3]), squeezed(&[64, 3, 3]));
        assert_ne!(squeezed(&[64, 3, 3]), squeezed(&[3, 3, 64]));
    }
}
