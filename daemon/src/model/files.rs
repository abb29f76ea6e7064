//! What is on disk: opened, mapped and checked before any weight is loaded.

pub mod error;

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use kernels::DType;

pub use error::ModelError;

use super::language::LanguageConfig;
use super::vision::VisionConfig;

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
    #[allow(dead_code)]
    text: Arc<dyn TensorStore>,
    #[allow(dead_code)]
    mmproj: Arc<dyn TensorStore>,
}

impl ModelFiles {
    /// Maps the files and checks that every needed tensor is there with the right type and shape.
    /// Loads nothing.
    pub fn open(paths: &ModelPaths) -> Result<Self, ModelError> {
        Err(ModelError::unsupported(paths.model.display().to_string(), "no reader for this file yet"))
    }

    /// A model from tensors under their GGUF names: `text` as in a `llama` file, `mmproj` as in a
    /// `clip` file. Checked like files.
    pub fn from_stores(
        description: Description,
        text: Arc<dyn TensorStore>,
        mmproj: Arc<dyn TensorStore>,
    ) -> Result<Self, ModelError> {
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
        Ok(Self {
            id,
            vision,
            language,
            projector,
            image_mean,
            image_std,
            tokenizer,
            tokenizer_legacy,
            text,
            mmproj,
        })
    }

    /// What the files hold, in one line: sizes, tensor counts, types and bytes.
    pub fn summary(&self) -> String {
        self.id.clone()
    }
}
