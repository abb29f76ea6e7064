//! Names of stages.

use std::fmt;
use std::str::FromStr;

use kernels::{Arithmetic, DType};

use crate::model::files::held::StoredType;
use crate::model::files::{LoadOptions, ModelFiles, ProjectorKind};

use super::synthetic::FileType;

/// Kinds of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A picture becomes visual tokens.
    Encode,
    /// A prompt of [`Work::PREFILL_TOKENS`] becomes keys and values, and logits of its last token.
    Prefill,
    /// [`Work::DECODE_TOKENS`] tokens one after the other, from an empty sequence.
    Decode,
}

impl Work {
    /// In the order of a caption.
    pub const ALL: [Work; 3] = [Work::Encode, Work::Prefill, Work::Decode];

    /// The tokens of a prompt with a picture.
    pub const PREFILL_TOKENS: usize = 164;

    /// The tokens of a long caption.
    pub const DECODE_TOKENS: usize = 64;
}

/// A stage of a made-up model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Encoding with a projector.
    Encode(ProjectorKind),
    /// Prefill with weights of a type.
    Prefill(FileType),
    /// Decoding with weights of a type.
    Decode(FileType),
}

impl Stage {
    /// What is measured unless something else is asked for.
    pub const DEFAULT: [Stage; 7] = [
        Stage::Encode(ProjectorKind::LdpV2),
        Stage::Prefill(FileType::Q4_0),
        Stage::Prefill(FileType::Q4_K_M),
        Stage::Prefill(FileType::Q8_0),
        Stage::Decode(FileType::Q4_0),
        Stage::Decode(FileType::Q4_K_M),
        Stage::Decode(FileType::Q8_0),
    ];

    /// The kind of work.
    pub fn work(self) -> Work {
        match self {
            Stage::Encode(_) => Work::Encode,
            Stage::Prefill(_) => Work::Prefill,
            Stage::Decode(_) => Work::Decode,
        }
    }

    /// Whether one model serves both.
    pub fn shares_weights(self, other: Stage) -> bool {
        let file_type = |stage| match stage {
            Stage::Encode(_) => None,
            Stage::Prefill(file_type) | Stage::Decode(file_type) => Some(file_type),
        };
        self == other || file_type(self).is_some_and(|kind| file_type(other) == Some(kind))
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Encode(projector) => write!(f, "encode_{}", version(*projector)),
            Stage::Prefill(file_type) => write!(f, "prefill_{file_type}"),
            Stage::Decode(file_type) => write!(f, "decode_{file_type}"),
        }
    }
}

impl FromStr for Stage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('_') {
            Some(("encode", "v1")) => Ok(Stage::Encode(ProjectorKind::Ldp)),
            Some(("encode", "v2")) => Ok(Stage::Encode(ProjectorKind::LdpV2)),
            Some(("prefill", file_type)) => file_type.parse().map(Stage::Prefill),
            Some(("decode", file_type)) => file_type.parse().map(Stage::Decode),
            _ => Err(format!(
                "unknown stage \"{text}\", expected encode_v1, encode_v2, prefill_TYPE or decode_TYPE"
            )),
        }
    }
}

/// The name of a stage of a given model.
pub fn name_of(work: Work, files: &ModelFiles, load: &LoadOptions) -> String {
    match work {
        Work::Encode => format!("encode_{}", version(files.projector)),
        Work::Prefill => format!("prefill_{}", language_name(files, load)),
        Work::Decode => format!("decode_{}", language_name(files, load)),
    }
}

/// The type most of the language model is held in; `_m` marks K types with others among them.
fn language_name(files: &ModelFiles, load: &LoadOptions) -> String {
    let types = files.language_types();
    let Some(main) = types.first() else { return "none".into() };
    let held = held(main.dtype, load.dtype);
    // The head may have a type of its own.
    let mixed = types.iter().skip(1).any(|other| other.matrices > 1);
    let suffix = if mixed && held.block_len() == 256 { "_m" } else { "" };
    format!("{held}{suffix}")
}

/// How the matrices of the language model meet activations, but for a few.
pub fn language_arithmetic(files: &ModelFiles, load: &LoadOptions) -> Arithmetic {
    arithmetic(&files.language_types(), load.dtype, load)
}

/// How the matrices of the vision tower meet activations, but for a few.
pub fn vision_arithmetic(files: &ModelFiles, load: &LoadOptions) -> Arithmetic {
    arithmetic(&files.vision_types(), Some(load.vision_dtype), load)
}

fn arithmetic(types: &[StoredType], wanted: Option<DType>, load: &LoadOptions) -> Arithmetic {
    match types.first() {
        Some(main) if !load.exact && !held(main.dtype, wanted).is_float() => Arithmetic::Int8,
        _ => Arithmetic::F32,
    }
}

/// The type a matrix has after loading: floats become `wanted`.
fn held(stored: DType, wanted: Option<DType>) -> DType {
    if stored.is_float() { wanted.unwrap_or(stored) } else { stored }
}

fn version(projector: ProjectorKind) -> &'static str {
    match projector {
        ProjectorKind::Ldp => "v1",
        ProjectorKind::LdpV2 => "v2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for stage in Stage::DEFAULT {
            assert_eq!(stage.to_string().parse(), Ok(stage));
        }
        assert_eq!("encode_v1".parse(), Ok(Stage::Encode(ProjectorKind::Ldp)));
        for wrong in ["encode", "encode_v3", "decode_q9", "caption_q4_0", ""] {
            assert!(wrong.parse::<Stage>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn prefill_and_decode_share_a_model_of_their_type() {
        let [encode, prefill, other, _, decode, ..] = Stage::DEFAULT;
        assert!(prefill.shares_weights(decode));
        assert!(!prefill.shares_weights(other));
        assert!(encode.shares_weights(encode));
        assert!(!encode.shares_weights(prefill) && !prefill.shares_weights(encode));
    }
}
