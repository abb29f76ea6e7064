//! `tokenizer.json` in the layout of LLaMA's fast tokenizer.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::models::bpe::Merges;

use super::pieces::{Kind, MAX_PIECES, Piece, byte_of};
use super::{Parts, SPACE, TokenizerError, invalid, read_bounded};

/// LLaMA's file has 1.8 MB.
const MAX_BYTES: u64 = 64 << 20;

#[derive(Deserialize)]
struct File {
    model: ModelJson,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
}

#[derive(Deserialize)]
struct ModelJson {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
    unk_token: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
}

/// Older files join the two pieces with a space.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Joined(String),
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

/// Reads a `tokenizer.json`.
pub(super) fn read(path: &Path) -> Result<Parts, TokenizerError> {
    let bytes = read_bounded(path, MAX_BYTES)?;
    parse(&bytes).map_err(|problem| invalid(path.display().to_string(), problem))
}

/// Parses the bytes of a `tokenizer.json`.
pub(super) fn parse(bytes: &[u8]) -> Result<Parts, String> {
    let mut file: File =
        serde_json::from_slice(bytes).map_err(|error| format!("no tokenizer file: {error}"))?;
    let kind = file.model.kind.as_deref().unwrap_or("BPE");
    if kind != "BPE" || !file.model.byte_fallback {
        return Err(format!("a {kind} model is not LLaMA's, which is BPE with byte fallback"));
    }
    let space_prefix = space_prefix(&file.normalizer, &file.pre_tokenizer)?;
    let unknown = file.model.unk_token.as_deref().unwrap_or("<unk>");
    let mut pieces = pieces(&file.model.vocab, unknown)?;
    file.added_tokens.sort_by_key(|added| added.id);
    for added in &file.added_tokens {
        add(&mut pieces, added)?;
    }
    let merges = file.model.merges.into_iter().map(pair).collect::<Result<Merges, String>>()?;
    let id = |name: &str| {
        let found = pieces.iter().position(|piece| piece.spelling == name);
        found.map(|id| id as u32).ok_or_else(|| format!("it has no {name} piece"))
    };
    Ok(Parts { bos: id("<s>")?, eos: id("</s>")?, unk: id(unknown)?, pieces, merges, space_prefix })
}

fn pieces(vocabulary: &HashMap<String, u32>, unknown: &str) -> Result<Vec<Piece>, String> {
    let count = vocabulary.len();
    if count == 0 || count > MAX_PIECES {
        return Err(format!("{count} pieces, expected 1 to {MAX_PIECES}"));
    }
    let mut spellings = vec![None; count];
    for (spelling, &id) in vocabulary {
        let place = spellings
            .get_mut(id as usize)
            .ok_or_else(|| format!("id {id} leaves a gap in the vocabulary"))?;
        if place.replace(spelling).is_some() {
            return Err(format!("id {id} belongs to two pieces"));
        }
    }
    let piece = |spelling: &String| {
        let kind = match byte_of(spelling) {
            Some(byte) => Kind::Byte(byte),
            None if spelling == unknown => Kind::Unknown,
            None => Kind::Normal,
        };
        Piece { spelling: spelling.clone(), score: 0.0, kind }
    };
    // As many ids as places and no id twice: every place is taken.
    Ok(spellings.into_iter().flatten().map(piece).collect())
}

fn add(pieces: &mut Vec<Piece>, added: &AddedToken) -> Result<(), String> {
    let kind = if added.special { Kind::Control } else { Kind::Unmerged };
    let (id, count) = (added.id as usize, pieces.len());
    if id > count || count >= MAX_PIECES {
        return Err(format!("added token {:?} leaves a gap in the vocabulary", added.content));
    }
    if id == count {
        pieces.push(Piece { spelling: added.content.clone(), score: 0.0, kind });
    }
    let piece = &mut pieces[id];
    if piece.spelling != added.content {
        return Err(format!("added token {:?} has the id of {:?}", added.content, piece.spelling));
    }
    if piece.kind == Kind::Normal {
        piece.kind = kind;
    }
    Ok(())
}

fn pair(merge: Merge) -> Result<(String, String), String> {
    match merge {
        Merge::Pair(left, right) => Ok((left, right)),
        Merge::Joined(joined) => match joined.split_once(' ') {
            Some((left, right)) if !right.contains(' ') => Ok((left.to_owned(), right.to_owned())),
            _ => Err(format!("{joined:?} is no pair of pieces")),
        },
    }
}

/// Whether a text gets a leading space. It is asked for by a `Prepend` normalizer or, in newer
/// files, by a `Metaspace` pre-tokenizer; anything else there is not LLaMA's.
fn space_prefix(normalizer: &Value, pre_tokenizer: &Value) -> Result<bool, String> {
    let mut prefix = false;
    let steps = match normalizer["normalizers"].as_array() {
        Some(steps) => steps.as_slice(),
        None if normalizer.is_null() => &[],
        None => std::slice::from_ref(normalizer),
    };
    let space = SPACE.to_string();
    for step in steps {
        match step["type"].as_str() {
            Some("Prepend") if step["prepend"] == space => prefix = true,
            Some("Replace") if step["pattern"]["String"] == " " && step["content"] == space => {}
            other => return Err(format!("normalizer {} is not LLaMA's", other.unwrap_or("without type"))),
        }
    }
    match pre_tokenizer["type"].as_str() {
        None => Ok(prefix),
        Some("Metaspace") if pre_tokenizer["split"] == false => {
            let scheme = pre_tokenizer["prepend_scheme"].as_str();
            Ok(prefix || matches!(scheme, Some("first" | "always")))
        }
        Some(other) => Err(format!("pre-tokenizer {other} is not LLaMA's")),
    }
}
