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
    /// The same after [`Work::DEEP`] positions.
    DecodeDeep,
    /// [`Work::TOGETHER`] empty sequences get [`Work::STEPS`] tokens each, one of each in a step.
    Together,
    /// The same behind [`Work::PREFIX`] positions that all of them share.
    TogetherShared,
}

impl Work {
    /// In the order of a caption.
    pub const ALL: [Work; 6] =
        [Work::Encode, Work::Prefill, Work::Decode, Work::DecodeDeep, Work::Together, Work::TogetherShared];

    /// The tokens of a prompt with a picture.
    pub const PREFILL_TOKENS: usize = 164;

    /// The tokens of a long caption.
    pub const DECODE_TOKENS: usize = 64;

    /// Positions of a picture and a short conversation.
    pub const DEEP: usize = 192;

    /// Sequences that decode together.
    pub const TOGETHER: usize = 8;

    /// Steps that they make.
    pub const STEPS: usize = 32;

    /// Positions of a prompt with a picture that several questions share.
    pub const PREFIX: usize = 180;

    /// First word of the names of its stages.
    pub const fn word(self) -> &'static str {
        match self {
            Work::Encode => "encode",
            Work::Prefill => "prefill",
            Work::Decode => "decode",
            Work::DecodeDeep => "decode192",
            Work::Together => "eight",
            Work::TogetherShared => "eight180",
        }
    }
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
    /// [`Work::DecodeDeep`] with weights of a type.
    DecodeDeep(FileType),
    /// [`Work::Together`] with weights of a type.
    Together(FileType),
    /// [`Work::TogetherShared`] with weights of a type.
    TogetherShared(FileType),
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
            Stage::DecodeDeep(_) => Work::DecodeDeep,
            Stage::Together(_) => Work::Together,
            Stage::TogetherShared(_) => Work::TogetherShared,
        }
    }

    /// Whether one model serves both.
    pub fn shares_weights(self, other: Stage) -> bool {
        self == other || self.file_type().is_some_and(|kind| other.file_type() == Some(kind))
    }

    /// Types of the language model, if it takes part.
    pub fn file_type(self) -> Option<FileType> {
        match self {
            Stage::Encode(_) => None,
            Stage::Prefill(file_type)
            | Stage::Decode(file_type)
            | Stage::DecodeDeep(file_type)
            | Stage::Together(file_type)
            | Stage::TogetherShared(file_type) => Some(file_type),
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Encode(projector) => write!(f, "encode_{}", version(*projector)),
            Stage::Prefill(file_type)
            | Stage::Decode(file_type)
            | Stage::DecodeDeep(file_type)
            | Stage::Together(file_type)
            | Stage::TogetherShared(file_type) => write!(f, "{}_{file_type}", self.work().word()),
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
            Some(("decode192", file_type)) => file_type.parse().map(Stage::DecodeDeep),
            Some(("eight", file_type)) => file_type.parse().map(Stage::Together),
            Some(("eight180", file_type)) => file_type.parse().map(Stage::TogetherShared),
            _ => Err(format!(
                "unknown stage \"{text}\", expected encode_v1, encode_v2, prefill_TYPE, decode_TYPE, \
                 decode192_TYPE, eight_TYPE or eight180_TYPE"
            )),
        }
    }
}

/// The name of a stage of a given model.
pub fn name_of(work: Work, files: &ModelFiles, load: &LoadOptions) -> String {
    match work {
        Work::Encode => format!("encode_{}", version(files.projector)),
        _ => format!("{}_{}", work.word(), language_name(files, load)),
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
        for text in ["decode192_q4_0", "eight_q8_0", "eight180_q4_k_m"] {
            assert_eq!(text.parse::<Stage>().map(|stage| stage.to_string()), Ok(text.into()));
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
