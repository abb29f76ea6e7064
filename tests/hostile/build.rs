//! The smallest models that load, written in code so that tests can break them anywhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use kernels::{DType, Pairing};
use mobilevlmd::model::files::{ModelError, ProjectorKind, RawTensor, TensorStore};
use mobilevlmd::model::language::LanguageConfig;
use mobilevlmd::model::vision::VisionConfig;
use mobilevlmd::model::weights::names::{LanguageNames, ProjectorNames, Shapes, VisionNames};

/// A folder that is removed at the end.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mobilevlmd-hostile-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().expect("a file in the folder")).expect("a folder for the file");
        std::fs::write(&path, bytes).expect("a file for the test");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A leftover in the system's temporary folder is no failure.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn vision() -> VisionConfig {
    VisionConfig { hidden: 32, blocks: 1, heads: 2, mlp: 64, image: 4, patch: 2, eps: 1e-5 }
}

pub(super) fn language(pairing: Pairing) -> LanguageConfig {
    LanguageConfig {
        vocabulary: 8,
        hidden: 32,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        head_dim: 16,
        ffn: 64,
        eps: 1e-6,
        rope_base: 10000.0,
        pairing,
        context: 64,
    }
}

/// A store without tensors.
struct Nothing;

impl TensorStore for Nothing {
    fn place(&self) -> String {
        "nothing".into()
    }

    fn info(&self, _name: &str) -> Option<(DType, Vec<usize>)> {
        None
    }

    fn tensor(&self, name: &str) -> Result<RawTensor<'_>, ModelError> {
        Err(ModelError::MissingTensor { place: self.place(), tensor: name.into() })
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A metadata value of a GGUF file.
#[derive(Clone, Debug)]
pub(super) enum Meta {
    U32(u32),
    F32(f32),
    Text(&'static str),
    Texts(Vec<String>),
    F32s(Vec<f32>),
    /// A type number and whatever bytes follow it.
    Raw(u32, Vec<u8>),
}

/// A tensor of a GGUF file.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) name: String,
    /// Innermost first, as in the file.
    pub(super) extents: Vec<u64>,
    pub(super) kind: u32,
    pub(super) offset: u64,
}

/// A GGUF file in parts.
#[derive(Clone, Debug)]
pub(super) struct Gguf {
    pub(super) version: u32,
    pub(super) keys: Vec<(&'static str, Meta)>,
    pub(super) tensors: Vec<Stored>,
    /// Counts in the header, if they are to lie.
    pub(super) tensor_count: Option<u64>,
    pub(super) key_count: Option<u64>,
    pub(super) data: Vec<u8>,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

impl Meta {
    fn bytes(&self) -> Vec<u8> {
        let array =
            |kind: u32, count: usize| [&kind.to_le_bytes()[..], &(count as u64).to_le_bytes()].concat();
        let (kind, value) = match self {
            Meta::U32(value) => (4u32, value.to_le_bytes().to_vec()),
            Meta::F32(value) => (6, value.to_le_bytes().to_vec()),
            Meta::Text(value) => (8, text(value)),
            Meta::Texts(values) => (
                9,
                array(8, values.len())
                    .into_iter()
                    .chain(values.iter().flat_map(|value| text(value)))
                    .collect(),
            ),
            Meta::F32s(values) => {
                let numbers = values.iter().flat_map(|value| value.to_le_bytes());
                (9, array(6, values.len()).into_iter().chain(numbers).collect())
            }
            Meta::Raw(kind, bytes) => (*kind, bytes.clone()),
        };
        [&kind.to_le_bytes()[..], &value].concat()
    }
}

impl Gguf {
    /// f16 tensors of `shapes`, all zero.
    fn new(keys: Vec<(&'static str, Meta)>, shapes: &Shapes) -> Self {
        let mut data = Vec::new();
        let sorted: BTreeMap<_, _> = shapes.iter().collect();
        let tensors = sorted
            .into_iter()
            .map(|(name, shape)| {
                let offset = data.len() as u64;
                let bytes = 2 * shape.iter().product::<usize>();
                data.resize((data.len() + bytes).next_multiple_of(32), 0);
                let extents = shape.iter().rev().map(|&extent| extent as u64).collect();
                Stored { name: name.clone(), extents, kind: 1, offset }
            })
            .collect();
        Self { version: 3, keys, tensors, tensor_count: None, key_count: None, data }
    }

    pub(super) fn set(&mut self, key: &'static str, value: Meta) {
        self.keys.retain(|(other, _)| *other != key);
        self.keys.push((key, value));
    }

    pub(super) fn tensor(&mut self, name: &str) -> &mut Stored {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).expect("a tensor of the model")
    }

    /// Everything before the tensor data.
    pub(super) fn header(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        file.extend(self.key_count.unwrap_or(self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            file.extend(text(key));
            file.extend(value.bytes());
        }
        for tensor in &self.tensors {
            file.extend(text(&tensor.name));
            file.extend((tensor.extents.len() as u32).to_le_bytes());
            file.extend(tensor.extents.iter().flat_map(|extent| extent.to_le_bytes()));
            file.extend(tensor.kind.to_le_bytes());
            file.extend(tensor.offset.to_le_bytes());
        }
        file
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut file = self.header();
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(&self.data);
        file
    }
}

/// A text model with a vocabulary of eight pieces.
pub(super) fn text_gguf() -> Gguf {
    let config = language(Pairing::Neighbours);
    let keys = vec![
        ("general.architecture", Meta::Text("llama")),
        ("llama.context_length", Meta::U32(64)),
        ("llama.embedding_length", Meta::U32(32)),
        ("llama.block_count", Meta::U32(1)),
        ("llama.feed_forward_length", Meta::U32(64)),
        ("llama.attention.head_count", Meta::U32(2)),
        ("llama.attention.head_count_kv", Meta::U32(1)),
        ("llama.attention.layer_norm_rms_epsilon", Meta::F32(1e-6)),
        ("tokenizer.ggml.model", Meta::Text("llama")),
        ("tokenizer.ggml.tokens", Meta::Texts((0..8).map(|id| format!("piece{id}")).collect())),
        ("tokenizer.ggml.scores", Meta::F32s(vec![0.0; 8])),
    ];
    Gguf::new(keys, &LanguageNames::GGUF.shapes(&config))
}

/// A vision file with one block to run out of two, and an LDPv2 projector.
pub(super) fn mmproj_gguf() -> Gguf {
    let config = vision();
    let keys = vec![
        ("general.architecture", Meta::Text("clip")),
        ("clip.projector_type", Meta::Text("ldpv2")),
        ("clip.vision.image_size", Meta::U32(4)),
        ("clip.vision.patch_size", Meta::U32(2)),
        ("clip.vision.embedding_length", Meta::U32(32)),
        ("clip.vision.feed_forward_length", Meta::U32(64)),
        ("clip.vision.attention.head_count", Meta::U32(2)),
        ("clip.vision.attention.layer_norm_epsilon", Meta::F32(1e-5)),
        ("clip.vision.block_count", Meta::U32(2)),
    ];
    let mut shapes = VisionNames::gguf(&Nothing, &config).shapes(&config);
    shapes.extend(ProjectorNames::gguf(ProjectorKind::LdpV2).shapes(&Nothing, 32, 32));
    Gguf::new(keys, &shapes)
}

/// Names and shapes of a checkpoint with vision weights of its own.
pub(super) fn checkpoint_shapes() -> Shapes {
    checkpoint_shapes_of(ProjectorKind::LdpV2)
}

/// The same with either projector.
pub(super) fn checkpoint_shapes_of(projector: ProjectorKind) -> Shapes {
    let mut shapes = LanguageNames::HUGGING_FACE.shapes(&language(Pairing::Halves));
    shapes.extend(VisionNames::inside().shapes(&vision()));
    shapes.extend(ProjectorNames::hugging_face(projector).shapes(&Nothing, 32, 32));
    shapes
}

/// Names and shapes of a vision tower.
pub(super) fn tower_shapes() -> Shapes {
    VisionNames::tower().shapes(&vision())
}

pub(super) const CONFIG: &str = r#"{
 "model_type": "mobilevlm", "mm_projector_type": "ldpnetv2", "mm_vision_tower": "openai/clip",
 "vocab_size": 8, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
 "intermediate_size": 64, "rms_norm_eps": 1e-06, "max_position_embeddings": 64, "rope_scaling": null
}"#;

pub(super) const TOWER: &str = r#"{
 "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 4,
 "patch_size": 2, "layer_norm_eps": 1e-05, "hidden_act": "quick_gelu"
}"#;

/// Writes a checkpoint directory without weights.
pub(super) fn checkpoint(folder: &Folder) {
    folder.write("config.json", CONFIG);
    folder.write("tokenizer.model", b"not read here");
    folder.write("openai/clip/config.json", TOWER);
}

/// A safetensors file of f16 zeros.
pub(super) fn safetensors(shapes: &Shapes) -> Vec<u8> {
    safetensors_of(shapes, 0.0)
}

/// A safetensors file of f16 numbers that are all `value`.
pub(super) fn safetensors_of(shapes: &Shapes, value: f32) -> Vec<u8> {
    let value = half::f16::from_f32(value).to_le_bytes();
    let mut header = serde_json::Map::new();
    let mut at = 0;
    for (name, shape) in shapes.iter().collect::<BTreeMap<_, _>>() {
        let end = at + 2 * shape.iter().product::<usize>();
        header.insert(
            name.clone(),
            serde_json::json!({ "dtype": "F16", "shape": shape, "data_offsets": [at, end] }),
        );
        at = end;
    }
    let header = serde_json::to_vec(&header).expect("a header");
    [&(header.len() as u64).to_le_bytes()[..], &header, &value.repeat(at / 2)].concat()
}

/// A torch file of f16 zeros; `prelude` are pickle operations in front of the dictionary.
pub(super) fn torch_file(shapes: &Shapes, prelude: &[u8]) -> Vec<u8> {
    let unicode = |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    let int = |value: usize| [b"J", &(value as i32).to_le_bytes()[..]].concat();
    let tuple = |values: &[usize]| {
        [b"(".to_vec(), values.iter().flat_map(|&value| int(value)).collect(), b"t".to_vec()].concat()
    };
    let mut pickle = [b"\x80\x02", prelude, b"}("].concat();
    let mut entries = Vec::new();
    for (key, (name, shape)) in shapes.iter().collect::<BTreeMap<_, _>>().into_iter().enumerate() {
        let count: usize = shape.iter().product();
        let strides: Vec<usize> = (1..=shape.len()).map(|axis| shape[axis..].iter().product()).collect();
        pickle.extend(unicode(name));
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        pickle.extend(unicode("storage"));
        pickle.extend(b"ctorch\nHalfStorage\n");
        pickle
            .extend([unicode(&key.to_string()), unicode("cpu"), int(count), b"tQ".to_vec(), int(0)].concat());
        pickle.extend([tuple(shape), tuple(&strides)].concat());
        pickle.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        entries.push((format!("m/data/{key}"), vec![0; 2 * count]));
    }
    pickle.extend(b"u.");
    entries.insert(0, ("m/data.pkl".into(), pickle));
    zip(&entries)
}

/// A zip archive of stored entries.
pub(super) fn zip(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut central = Vec::new();
    for (name, bytes) in entries {
        let local = (file.len() as u32).to_le_bytes();
        let sizes = [(bytes.len() as u32).to_le_bytes(), (bytes.len() as u32).to_le_bytes()].concat();
        let name_len = (name.len() as u16).to_le_bytes();
        file.extend(
            [b"PK\x03\x04", &[0; 14][..], &sizes, &name_len, &[0; 2], name.as_bytes(), bytes].concat(),
        );
        let head = [b"PK\x01\x02", &[0; 16][..], &sizes, &name_len, &[0; 12]].concat();
        central.extend([&head[..], &local, name.as_bytes()].concat());
    }
    let count = (entries.len() as u16).to_le_bytes();
    let place = [(central.len() as u32).to_le_bytes(), (file.len() as u32).to_le_bytes()].concat();
    file.extend(central);
    file.extend([b"PK\x05\x06", &[0; 4][..], &count, &count, &place, &[0; 2]].concat());
    file
}
