//! Hugging Face directories: configuration, safetensors and pickle files, the vision tower beside or inside.

pub mod json;
pub mod pickle;
pub mod pytorch;
pub mod safetensors;
pub mod shards;
pub mod tower;
pub mod zip;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kernels::Pairing;

use super::files::error::shown;
use super::files::{
    Description, ModelError, ModelFiles, PartStores, ProjectorKind, TensorStore, TokenizerSource,
};
use super::language::LanguageConfig;
use super::vision::VisionConfig;
use super::weights::names::{self, LanguageNames, ProjectorNames, VisionNames};
use json::Keys;
use shards::Shards;
use tower::Tower;

/// The file that makes a folder a model.
pub const CONFIG: &str = "config.json";

/// Weight files of a folder, the preferred first.
const WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// Whether `path` is a weight file or an index, so that its folder is the model.
pub fn is_weight_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    [".safetensors", ".bin", ".index.json"].iter().any(|end| name.ends_with(end))
}

/// Opens the model in `folder`, with the weights in `weights` if given, and the vision tower in `tower`
/// (a folder or a weight file in one) if given.
pub fn open(folder: &Path, weights: Option<&Path>, tower: Option<&Path>) -> Result<ModelFiles, ModelError> {
    let keys = Keys::read(&folder.join(CONFIG))?;
    let projector = projector_kind(&keys)?;
    let language = language(&keys)?;
    let store = open_weights(folder, weights)?;
    let tower = find_tower(&keys, folder, tower)?;
    let inside = names::width_inside(&*store);
    let settings = match &tower {
        Some(tower) => Tower::read(tower.folder())?,
        None if inside == Some(Tower::published().config.hidden) => Tower::published(),
        None => return Err(no_tower(&keys, folder)),
    };
    let blocks = blocks_to_run(&keys, settings.config.blocks)?;
    let vision = vision_weights(projector, store.clone(), inside.is_some(), tower.as_ref())?;
    let description = Description {
        id: model_name(folder),
        vision: VisionConfig { blocks, ..settings.config },
        language,
        projector,
        image_mean: settings.image_mean,
        image_std: settings.image_std,
        tokenizer: find_tokenizer(folder)?,
        tokenizer_legacy: is_legacy(folder)?,
    };
    let stores = PartStores {
        vision,
        projector: (ProjectorNames::hugging_face(projector), store.clone()),
        language: (LanguageNames::HUGGING_FACE, store),
    };
    ModelFiles::from_parts(description, stores)
}

fn model_name(folder: &Path) -> String {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    absolute.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned())
}

fn projector_kind(keys: &Keys) -> Result<ProjectorKind, ModelError> {
    const KEY: &str = "mm_projector_type";
    match keys.text(KEY)? {
        Some("ldpnet") => Ok(ProjectorKind::Ldp),
        Some("ldpnetv2") => Ok(ProjectorKind::LdpV2),
        Some(other) => {
            Err(keys.refuse(KEY, format!("is {}, only ldpnet and ldpnetv2 are supported", shown(other))))
        }
        None => {
            let model = keys.text("model_type")?.unwrap_or("unknown");
            let problem = format!("model_type is {}: no MobileVLM model, {KEY} is missing", shown(model));
            Err(ModelError::unsupported(keys.place(), problem))
        }
    }
}

fn language(keys: &Keys) -> Result<LanguageConfig, ModelError> {
    for (key, want) in
        [("hidden_act", "silu"), ("image_aspect_ratio", "pad"), ("mm_vision_select_feature", "patch")]
    {
        let got = keys.text(key)?.unwrap_or(want);
        if got != want {
            return Err(keys.refuse(key, format!("is {}, only {want} is supported", shown(got))));
        }
    }
    if keys.get("rope_scaling").is_some() {
        return Err(keys.refuse("rope_scaling", "is set: scaled rotary embeddings are not supported"));
    }
    let hidden = keys.size("hidden_size")?;
    let heads = keys.size("num_attention_heads")?;
    let head_dim = match keys.optional_size("head_dim")? {
        Some(head_dim) => head_dim,
        None if heads != 0 && hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            let problem = format!("is {heads}, which does not divide hidden_size {hidden}");
            return Err(keys.refuse("num_attention_heads", problem));
        }
    };
    Ok(LanguageConfig {
        vocabulary: keys.size("vocab_size")?,
        hidden,
        layers: keys.size("num_hidden_layers")?,
        heads,
        kv_heads: keys.optional_size("num_key_value_heads")?.unwrap_or(heads),
        head_dim,
        ffn: keys.size("intermediate_size")?,
        eps: keys.number("rms_norm_eps")?.unwrap_or(1e-6),
        rope_base: keys.number("rope_theta")?.unwrap_or(10000.0),
        pairing: Pairing::Halves,
        context: keys.optional_size("max_position_embeddings")?.unwrap_or(2048),
    })
}

/// Blocks up to `mm_vision_select_layer`, an index into the hidden states: 0 is the input of the first
/// block, -1 the output of the last.
fn blocks_to_run(keys: &Keys, all: usize) -> Result<usize, ModelError> {
    const KEY: &str = "mm_vision_select_layer";
    let layer = keys.integer(KEY)?.unwrap_or(-2);
    let states = i64::try_from(all).unwrap_or(i64::MAX).saturating_add(1);
    let blocks = if layer < 0 { states.saturating_add(layer) } else { layer };
    match usize::try_from(blocks) {
        Ok(blocks) if blocks <= all => Ok(blocks),
        _ => Err(keys.refuse(KEY, format!("is {layer}, but the vision tower has {all} blocks"))),
    }
}

fn open_weights(folder: &Path, weights: Option<&Path>) -> Result<Arc<dyn TensorStore>, ModelError> {
    let path = match weights {
        Some(path) => path.to_owned(),
        None => find_weights(folder).ok_or_else(|| ModelError::NotFound {
            what: format!("the weights of {}", folder.display()),
            remedy: format!("expected one of {}", WEIGHTS.join(", ")),
        })?,
    };
    Ok(if path.extension().is_some_and(|extension| extension == "json") {
        Arc::new(Shards::open(&path, open_file)?)
    } else {
        Arc::from(open_file(&path)?)
    })
}

fn find_weights(folder: &Path) -> Option<PathBuf> {
    WEIGHTS.iter().map(|name| folder.join(name)).find(|path| path.exists())
}

fn open_file(path: &Path) -> Result<Box<dyn TensorStore>, ModelError> {
    let is_safetensors = path.extension().is_some_and(|extension| extension == "safetensors");
    Ok(Box::new(if is_safetensors { safetensors::open(path)? } else { pytorch::open(path)? }))
}

/// A vision tower's folder, or a weight file in it.
enum TowerPath {
    Folder(PathBuf),
    File { folder: PathBuf, weights: PathBuf },
}

impl TowerPath {
    fn folder(&self) -> &Path {
        match self {
            TowerPath::Folder(folder) | TowerPath::File { folder, .. } => folder,
        }
    }

    fn has_weights(&self) -> bool {
        matches!(self, TowerPath::File { .. }) || find_weights(self.folder()).is_some()
    }

    fn open(&self) -> Result<Arc<dyn TensorStore>, ModelError> {
        match self {
            TowerPath::Folder(folder) => open_weights(folder, None),
            TowerPath::File { folder, weights } => open_weights(folder, Some(weights)),
        }
    }
}

fn find_tower(keys: &Keys, folder: &Path, given: Option<&Path>) -> Result<Option<TowerPath>, ModelError> {
    let Some(given) = given else {
        let name = keys.text("mm_vision_tower")?.unwrap_or("");
        return Ok(tower::find(name, folder).map(TowerPath::Folder));
    };
    let meta = std::fs::metadata(given).map_err(|error| ModelError::read(given, error))?;
    Ok(Some(if meta.is_dir() {
        TowerPath::Folder(given.to_owned())
    } else {
        let folder = given.parent().unwrap_or(Path::new("")).to_owned();
        TowerPath::File { folder, weights: given.to_owned() }
    }))
}

fn no_tower(keys: &Keys, folder: &Path) -> ModelError {
    let name = keys.text("mm_vision_tower").ok().flatten().unwrap_or("unknown");
    ModelError::NotFound {
        what: format!("the vision tower {} of {}", shown(name), folder.display()),
        remedy: "put its folder beside the model, or name it with --vision-tower".into(),
    }
}

/// Which vision weights count. MobileVLM reads the tower again after the checkpoint, MobileVLM V2 trains
/// it and keeps its own.
fn vision_weights(
    projector: ProjectorKind,
    checkpoint: Arc<dyn TensorStore>,
    is_inside: bool,
    tower: Option<&TowerPath>,
) -> Result<(VisionNames, Arc<dyn TensorStore>), ModelError> {
    match tower {
        Some(tower) if !is_inside || (projector == ProjectorKind::Ldp && tower.has_weights()) => {
            Ok((VisionNames::tower(), tower.open()?))
        }
        _ => Ok((VisionNames::inside(), checkpoint)),
    }
}

fn find_tokenizer(folder: &Path) -> Result<TokenizerSource, ModelError> {
    // The original uses the SentencePiece model; a tokenizer.json is a conversion of it.
    let (pieces, json) = (folder.join("tokenizer.model"), folder.join("tokenizer.json"));
    if pieces.is_file() {
        Ok(TokenizerSource::SentencePiece(pieces))
    } else if json.is_file() {
        Ok(TokenizerSource::Json(json))
    } else {
        Err(ModelError::NotFound {
            what: format!("the tokenizer of {}", folder.display()),
            remedy: "expected tokenizer.model or tokenizer.json".into(),
        })
    }
}

fn is_legacy(folder: &Path) -> Result<bool, ModelError> {
    let path = folder.join("tokenizer_config.json");
    if !path.exists() {
        return Ok(true);
    }
    Ok(Keys::read(&path)?.flag("legacy")?.unwrap_or(true))
}
