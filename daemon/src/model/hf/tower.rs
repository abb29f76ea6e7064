//! The CLIP directory beside a checkpoint: where it is, and what its configuration says.

use std::path::{Component, Path, PathBuf};

use super::CONFIG;
use super::json::Keys;
use crate::model::files::{CLIP_MEAN, CLIP_STD, ModelError};
use crate::model::vision::VisionConfig;

/// How many folders above the model are searched.
const ANCESTORS: usize = 5;

/// Folder of the tower that `name` (`org/model`, or a path) means for the model in `folder`.
///
/// Looked for as a path; as `org/model` and `model` in the folder of the model and those above it;
/// and in the cache of the hub's own tools, `models--org--model/snapshots`.
pub fn find(name: &str, folder: &Path) -> Option<PathBuf> {
    let path = Path::new(name);
    if path.is_absolute() {
        return is_tower(path).then(|| path.to_owned());
    }
    // A foreign name does not get to climb out of the folders searched.
    if name.is_empty()
        || !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    {
        return None;
    }
    let start = std::path::absolute(folder).ok()?;
    let last = path.file_name()?;
    let cached = format!("models--{}", name.replace('/', "--"));
    start.ancestors().take(ANCESTORS).find_map(|base| {
        let plain = [base.join(path), base.join(last)];
        plain.into_iter().find(|path| is_tower(path)).or_else(|| snapshot(&base.join(&cached)))
    })
}

/// The first complete snapshot in a folder of the hub's cache.
fn snapshot(cached: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(cached.join("snapshots")).ok()?;
    let mut snapshots: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    snapshots.sort();
    snapshots.into_iter().find(|path| is_tower(path))
}

fn is_tower(path: &Path) -> bool {
    path.join(CONFIG).is_file()
}

/// What the configuration of a tower says.
#[derive(Clone, Debug)]
pub struct Tower {
    /// `blocks` counts all blocks.
    pub config: VisionConfig,
    /// Subtracted from each colour.
    pub image_mean: [f32; 3],
    /// Divides each colour after that.
    pub image_std: [f32; 3],
}

impl Tower {
    /// Reads `config.json` and, if there is one, `preprocessor_config.json` of a tower's folder.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let whole = Keys::read(&folder.join(CONFIG))?;
        // A full CLIP checkpoint has a text part too.
        let config = vision_config(&whole.inner("vision_config").unwrap_or(whole))?;
        let (mut image_mean, mut image_std) = (CLIP_MEAN, CLIP_STD);
        let settings = folder.join("preprocessor_config.json");
        if settings.exists() {
            let settings = Keys::read(&settings)?;
            image_mean = settings.colours("image_mean")?.unwrap_or(CLIP_MEAN);
            image_std = settings.colours("image_std")?.unwrap_or(CLIP_STD);
        }
        Ok(Self { config, image_mean, image_std })
    }

    /// The published tower, ViT-L/14 at 336 pixels: what a checkpoint with vision weights of its own
    /// was trained with if nothing else is said.
    pub fn published() -> Self {
        let config =
            VisionConfig { hidden: 1024, blocks: 24, heads: 16, mlp: 4096, image: 336, patch: 14, eps: 1e-5 };
        Self { config, image_mean: CLIP_MEAN, image_std: CLIP_STD }
    }
}

fn vision_config(keys: &Keys) -> Result<VisionConfig, ModelError> {
    let activation = keys.text("hidden_act")?.unwrap_or("quick_gelu");
    if activation != "quick_gelu" {
        return Err(keys.refuse("hidden_act", format!("is {activation:?}, only \"quick_gelu\" is supported")));
    }
    Ok(VisionConfig {
        hidden: keys.size("hidden_size")?,
        blocks: keys.size("num_hidden_layers")?,
        heads: keys.size("num_attention_heads")?,
        mlp: keys.size("intermediate_size")?,
        image: keys.size("image_size")?,
        patch: keys.size("patch_size")?,
        eps: keys.number("layer_norm_eps")?.unwrap_or(1e-5),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("mobilevlmd-tower-{name}-{}", std::process::id()))
    }

    fn tower_at(path: &Path) {
        std::fs::create_dir_all(path).unwrap();
        std::fs::write(path.join(CONFIG), "{}").unwrap();
    }

    #[test]
    fn towers_are_found_beside_and_above() {
        let root = folder("found");
        let model = root.join("a/mtgv/MobileVLM-1.7B");
        std::fs::create_dir_all(&model).unwrap();
        let name = "openai/clip-vit";
        assert_eq!(find(name, &model), None);
        let cached = root.join("models--openai--clip-vit/snapshots/abc");
        for tower in [
            cached,
            root.join("openai/clip-vit"),
            root.join("a/mtgv/clip-vit"),
            model.join("openai/clip-vit"),
        ] {
            tower_at(&tower);
            assert_eq!(find(name, &model), Some(tower));
        }
        assert_eq!(
            find(&root.join("openai/clip-vit").to_string_lossy(), &model),
            Some(root.join("openai/clip-vit"))
        );
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn names_cannot_climb() {
        let root = folder("climb");
        tower_at(&root.join("secret"));
        std::fs::create_dir_all(root.join("model")).unwrap();
        assert_eq!(find("../secret", &root.join("model")), None);
        assert_eq!(find("", &root.join("model")), None);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
