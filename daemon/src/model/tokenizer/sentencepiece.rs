//! `tokenizer.model`: a SentencePiece model in protobuf. Only the fields that matter are named.

use std::path::Path;

use prost::Message;

use super::pieces::{Kind, Piece, merges};
use super::{Parts, TokenizerError, invalid, read_bounded};

/// LLaMA's file has 500 kB.
const MAX_BYTES: u64 = 16 << 20;
/// `model_type` of byte pair encoding.
const BPE_MODEL: i32 = 2;

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<PieceProto>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<TrainerProto>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<NormalizerProto>,
}

#[derive(Clone, PartialEq, Message)]
struct PieceProto {
    #[prost(string, optional, tag = "1")]
    piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(int32, optional, tag = "3", default = "1")]
    kind: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct TrainerProto {
    #[prost(int32, optional, tag = "3", default = "1")]
    model_type: Option<i32>,
    #[prost(int32, optional, tag = "40", default = "0")]
    unk: Option<i32>,
    #[prost(int32, optional, tag = "41", default = "1")]
    bos: Option<i32>,
    #[prost(int32, optional, tag = "42", default = "2")]
    eos: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct NormalizerProto {
    #[prost(bytes = "vec", optional, tag = "2")]
    charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3", default = "true")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4", default = "true")]
    remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5", default = "true")]
    escape_whitespaces: Option<bool>,
}

/// Reads a `tokenizer.model`.
pub(super) fn read(path: &Path) -> Result<Parts, TokenizerError> {
    let bytes = read_bounded(path, MAX_BYTES)?;
    parse(&bytes).map_err(|problem| invalid(path.display().to_string(), problem))
}

/// Parses the bytes of a `tokenizer.model`.
pub(super) fn parse(bytes: &[u8]) -> Result<Parts, String> {
    let model = ModelProto::decode(bytes).map_err(|error| format!("no SentencePiece model: {error}"))?;
    let trainer = model.trainer.unwrap_or_default();
    if trainer.model_type() != BPE_MODEL {
        let got = trainer.model_type();
        return Err(format!("SentencePiece model type {got} is not BPE ({BPE_MODEL}), which LLaMA uses"));
    }
    let normalizer = model.normalizer.unwrap_or_default();
    if !normalizer.charsmap().is_empty()
        || normalizer.remove_extra_whitespaces()
        || !normalizer.escape_whitespaces()
    {
        return Err("its normalization is not LLaMA's, which changes nothing but spaces".to_owned());
    }
    let mut pieces = Vec::with_capacity(model.pieces.len());
    for piece in model.pieces {
        let (score, kind) = (piece.score(), piece.kind());
        let spelling = piece.piece.unwrap_or_default();
        let kind = Kind::from_number(kind, &spelling)?;
        pieces.push(Piece { spelling, score, kind });
    }
    let id = |name: &str, id: i32| u32::try_from(id).map_err(|_| format!("it has no {name} piece"));
    Ok(Parts {
        merges: merges(&pieces)?,
        pieces,
        bos: id("bos", trainer.bos())?,
        eos: id("eos", trainer.eos())?,
        unk: id("unk", trainer.unk())?,
        space_prefix: normalizer.add_dummy_prefix(),
    })
}
