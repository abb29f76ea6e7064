//! Numbers no model has: refused before anything is computed from them.

use super::ModelError;
use crate::model::language::LanguageConfig;
use crate::model::vision::VisionConfig;

/// Tokens of a vocabulary at most.
pub const MAX_VOCABULARY: usize = 1 << 22;

/// Widths, heads and pixels at most: products of any three fit an address.
const MAX_WIDTH: usize = 1 << 18;

/// Layers at most.
const MAX_LAYERS: usize = 1 << 10;

/// Positions at most.
const MAX_CONTEXT: usize = 1 << 24;

/// Refuses a language model whose numbers contradict each other; `place` is for the message.
pub fn check_language(config: &LanguageConfig, place: &str) -> Result<(), ModelError> {
    let within = Within(place);
    within.range("vocabulary", config.vocabulary, MAX_VOCABULARY)?;
    within.range("hidden size", config.hidden, MAX_WIDTH)?;
    within.range("number of layers", config.layers, MAX_LAYERS)?;
    within.range("number of heads", config.heads, MAX_WIDTH)?;
    within.range("number of key heads", config.kv_heads, MAX_WIDTH)?;
    within.range("head dimension", config.head_dim, MAX_WIDTH)?;
    within.range("feed-forward width", config.ffn, MAX_WIDTH)?;
    within.range("context length", config.context, MAX_CONTEXT)?;
    within.small("RMSNorm epsilon", config.eps)?;
    if !config.heads.is_multiple_of(config.kv_heads) {
        let problem =
            format!("is {}, which does not divide the {} query heads", config.kv_heads, config.heads);
        return Err(ModelError::key(place, "number of key heads", problem));
    }
    if !config.head_dim.is_multiple_of(2) {
        let problem = format!("is {}: rotary embeddings need an even one", config.head_dim);
        return Err(ModelError::key(place, "head dimension", problem));
    }
    if !(config.rope_base.is_finite() && config.rope_base >= 1.0) {
        return Err(ModelError::key(place, "rotary base", format!("is {}", config.rope_base)));
    }
    Ok(())
}

/// Refuses a vision tower whose numbers contradict each other; `place` is for the message.
pub fn check_vision(config: &VisionConfig, place: &str) -> Result<(), ModelError> {
    let within = Within(place);
    within.range("vision hidden size", config.hidden, MAX_WIDTH)?;
    within.range("number of vision blocks", config.blocks, MAX_LAYERS)?;
    within.range("number of vision heads", config.heads, MAX_WIDTH)?;
    within.range("vision MLP width", config.mlp, MAX_WIDTH)?;
    within.range("image size", config.image, 1 << 13)?;
    within.range("patch size", config.patch, config.image)?;
    within.small("LayerNorm epsilon", config.eps)?;
    if !config.hidden.is_multiple_of(config.heads) {
        let problem = format!("is {}, which does not divide the width {}", config.heads, config.hidden);
        return Err(ModelError::key(place, "number of vision heads", problem));
    }
    if !config.image.is_multiple_of(2 * config.patch) {
        let problem =
            format!("is {}: a picture of {} is no even number of patches", config.patch, config.image);
        return Err(ModelError::key(place, "patch size", problem));
    }
    Ok(())
}

/// Refuses colour statistics that cannot be divided by; `place` is for the message.
pub fn check_colours(mean: [f32; 3], std: [f32; 3], place: &str) -> Result<(), ModelError> {
    if mean.iter().any(|value| !value.is_finite()) {
        return Err(ModelError::key(place, "image mean", format!("is {mean:?}")));
    }
    if std.iter().any(|&value| !value.is_finite() || value <= 0.0) {
        return Err(ModelError::key(place, "image deviation", format!("is {std:?}")));
    }
    Ok(())
}

/// Range checks that know the file.
struct Within<'a>(&'a str);

impl Within<'_> {
    fn range(&self, key: &str, value: usize, most: usize) -> Result<(), ModelError> {
        if (1..=most).contains(&value) {
            return Ok(());
        }
        Err(ModelError::key(self.0, key, format!("is {value}, expected 1 to {most}")))
    }

    fn small(&self, key: &str, value: f32) -> Result<(), ModelError> {
        if value > 0.0 && value < 1.0 {
            return Ok(());
        }
        Err(ModelError::key(self.0, key, format!("is {value}, expected a small positive number")))
    }
}

#[cfg(test)]
mod tests {
    use kernels::Pairing;

    use super::*;

    fn language() -> LanguageConfig {
        LanguageConfig {
            vocabulary: 32000,
            hidden: 2560,
            layers: 32,
            heads: 32,
            kv_heads: 32,
            head_dim: 80,
            ffn: 6912,
            eps: 1e-6,
            rope_base: 10000.0,
            pairing: Pairing::Halves,
            context: 2048,
        }
    }

    fn vision() -> VisionConfig {
        VisionConfig { hidden: 1024, blocks: 23, heads: 16, mlp: 4096, image: 336, patch: 14, eps: 1e-5 }
    }

    #[test]
    fn published_sizes_pass() {
        assert!(check_language(&language(), "f").is_ok());
        assert!(check_vision(&vision(), "f").is_ok());
    }

    #[test]
    fn absurd_numbers_are_named() {
        let broken = [
            (LanguageConfig { heads: 0, ..language() }, "number of heads is 0"),
            (LanguageConfig { kv_heads: 5, ..language() }, "number of key heads is 5"),
            (LanguageConfig { head_dim: 81, ..language() }, "head dimension is 81"),
            (LanguageConfig { eps: f32::NAN, ..language() }, "RMSNorm epsilon is NaN"),
            (LanguageConfig { rope_base: f32::INFINITY, ..language() }, "rotary base is inf"),
            (LanguageConfig { vocabulary: usize::MAX, ..language() }, "vocabulary is"),
            (LanguageConfig { layers: 1 << 40, ..language() }, "number of layers is"),
        ];
        for (config, words) in broken {
            let message = check_language(&config, "f").unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
        let broken = [
            (VisionConfig { heads: 7, ..vision() }, "number of vision heads is 7"),
            (VisionConfig { patch: 16, ..vision() }, "patch size is 16"),
            (VisionConfig { patch: 0, ..vision() }, "patch size is 0"),
            (VisionConfig { image: 350, ..vision() }, "patch size is 14"),
            (VisionConfig { blocks: 0, ..vision() }, "number of vision blocks is 0"),
        ];
        for (config, words) in broken {
            let message = check_vision(&config, "f").unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
        assert!(check_colours([0.5; 3], [0.2, 0.0, 0.2], "f").is_err());
        assert!(check_colours([f32::NAN; 3], [0.2; 3], "f").is_err());
    }
}
