//! Dimensions of the models that can be made up, and the work they ask for.

use std::fmt;
use std::str::FromStr;

use kernels::Pairing;

use crate::model::files::ProjectorKind;
use crate::model::language::LanguageConfig;
use crate::model::vision::VisionConfig;

/// A size of model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dims {
    /// A few hundred thousand numbers, for tests.
    Tiny,
    /// MobileVLM and MobileVLM V2 1.7B.
    B1_7,
    /// MobileVLM and MobileVLM V2 3B.
    B3,
    /// MobileVLM V2 7B.
    B7,
}

impl Dims {
    const ALL: [Dims; 4] = [Dims::Tiny, Dims::B1_7, Dims::B3, Dims::B7];

    /// The name in options and file names.
    pub const fn name(self) -> &'static str {
        match self {
            Dims::Tiny => "tiny",
            Dims::B1_7 => "1.7b",
            Dims::B3 => "3b",
            Dims::B7 => "7b",
        }
    }

    /// The vision tower.
    pub fn vision(self) -> VisionConfig {
        let clip =
            VisionConfig { hidden: 1024, blocks: 23, heads: 16, mlp: 4096, image: 336, patch: 14, eps: 1e-5 };
        match self {
            Dims::Tiny => VisionConfig { hidden: 64, blocks: 2, heads: 4, mlp: 256, ..clip },
            _ => clip,
        }
    }

    /// The language model.
    pub fn language(self) -> LanguageConfig {
        let (hidden, layers, heads, ffn, vocabulary) = match self {
            Dims::Tiny => (256, 2, 4, 512, 512),
            Dims::B1_7 => (2048, 24, 16, 5632, 32000),
            Dims::B3 => (2560, 32, 32, 6912, 32000),
            Dims::B7 => (4096, 32, 32, 11008, 32000),
        };
        LanguageConfig {
            vocabulary,
            hidden,
            layers,
            heads,
            kv_heads: heads,
            head_dim: hidden / heads,
            ffn,
            eps: 1e-6,
            rope_base: 10000.0,
            pairing: Pairing::Neighbours,
            context: 2048,
        }
    }
}

impl fmt::Display for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dims {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Dims::ALL.into_iter().find(|dims| dims.name() == text).ok_or_else(|| {
            let names = Dims::ALL.map(Dims::name).join(", ");
            format!("unknown dimensions \"{text}\", expected one of {names}")
        })
    }
}

/// Products of the vision tower for one picture: matrices, attention and patch embedding.
pub fn vision_macs(config: &VisionConfig) -> u64 {
    let VisionConfig { hidden, blocks, mlp, patch, .. } = *config;
    let rows = 1 + config.patches();
    let matrices = rows * (4 * hidden * hidden + 2 * hidden * mlp);
    let attention = 2 * rows * rows * hidden;
    let embedding = config.patches() * hidden * 3 * patch * patch;
    (blocks * (matrices + attention) + embedding) as u64
}

/// Products of the projector for one picture, `hidden` being the width of the language model.
pub fn projector_macs(kind: ProjectorKind, vision: &VisionConfig, hidden: usize) -> u64 {
    let patches = vision.patches();
    let visual = patches / 4;
    let mlp = patches * (vision.hidden * hidden + hidden * hidden);
    let downsample = match kind {
        ProjectorKind::Ldp => {
            let excite = 2 * hidden * squeeze_width(hidden);
            let block = |positions: usize| positions * (9 * hidden + hidden * hidden) + excite;
            block(patches) + block(visual)
        }
        ProjectorKind::LdpV2 => visual * 9 * hidden,
    };
    (mlp + downsample) as u64
}

/// Parameters of the projector.
pub fn projector_parameters(kind: ProjectorKind, vision: &VisionConfig, hidden: usize) -> u64 {
    let mlp = vision.hidden * hidden + hidden * hidden + 2 * hidden;
    let downsample = match kind {
        ProjectorKind::Ldp => {
            let squeeze = squeeze_width(hidden);
            let excite = 2 * hidden * squeeze + squeeze + hidden;
            2 * (9 * hidden + 2 * hidden + excite + hidden * hidden + 2 * hidden)
        }
        ProjectorKind::LdpV2 => 10 * hidden,
    };
    (mlp + downsample) as u64
}

/// Width between squeeze and excite of an LDP block: a quarter of `hidden`, brought to the nearest
/// multiple of 8, and one step up if that lost more than a tenth.
pub fn squeeze_width(hidden: usize) -> usize {
    let quarter = hidden / 4;
    let rounded = ((quarter + 4) / 8 * 8).max(8);
    if rounded * 10 < quarter * 9 { rounded + 8 } else { rounded }
}

/// Products of the layers' matrices for one token.
pub fn layer_macs(config: &LanguageConfig) -> u64 {
    let LanguageConfig { hidden, layers, heads, kv_heads, head_dim, ffn, .. } = *config;
    let attention = 2 * hidden * heads * head_dim + 2 * hidden * kv_heads * head_dim;
    (layers * (attention + 3 * hidden * ffn)) as u64
}

/// Products of the last matrix for one row of logits.
pub fn head_macs(config: &LanguageConfig) -> u64 {
    (config.hidden * config.vocabulary) as u64
}

/// Products of attention for one token that sees `positions` positions.
pub fn attention_macs(config: &LanguageConfig, positions: usize) -> u64 {
    (2 * config.layers * config.heads * config.head_dim * positions) as u64
}

/// Bytes of keys and values of one position with `number` bytes per number.
pub fn kv_bytes(config: &LanguageConfig, number: usize) -> u64 {
    (2 * config.layers * config.kv_heads * config.head_dim * number) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn giga(macs: u64) -> f64 {
        macs as f64 / 1e9
    }

    #[test]
    fn the_published_model_asks_for_the_known_work() {
        let (vision, language) = (Dims::B1_7.vision(), Dims::B1_7.language());
        let image = |kind| giga(vision_macs(&vision) + projector_macs(kind, &vision, language.hidden));
        assert_eq!(image(ProjectorKind::LdpV2).round(), 187.0);
        assert_eq!(image(ProjectorKind::Ldp).round(), 190.0);
        assert_eq!((giga(layer_macs(&language)) * 1000.0).round(), 1233.0);
        assert_eq!(kv_bytes(&language, 2), 196_608);
        assert_eq!(head_macs(&language), 65_536_000);
        assert_eq!(attention_macs(&language, 1), 98_304);
    }

    #[test]
    fn the_projector_has_the_published_size() {
        let vision = Dims::B1_7.vision();
        let millions = |kind| projector_parameters(kind, &vision, 2048) as f64 / 1e6;
        assert!((18.0..20.0).contains(&millions(ProjectorKind::Ldp)));
        assert!((6.2..6.4).contains(&millions(ProjectorKind::LdpV2)));
    }

    #[test]
    fn squeeze_widths_are_those_of_the_original() {
        for (hidden, want) in [(2048, 512), (2560, 640), (64, 16), (160, 40), (16, 8)] {
            assert_eq!(squeeze_width(hidden), want);
        }
    }

    #[test]
    fn names_parse_back() {
        for dims in Dims::ALL {
            assert_eq!(dims.to_string().parse(), Ok(dims));
        }
        assert!("2b".parse::<Dims>().is_err_and(|message| message.contains("1.7b")));
    }
}
