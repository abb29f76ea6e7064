//! The table of pieces and the merges that build them.

use std::collections::HashMap;

use tokenizers::models::bpe::{BPE, Merges, Vocab};

use super::{Parts, SPACE};
use crate::model::files::Vocabulary;

/// Most pieces a tokenizer may have. LLaMA has 32000; the largest known ones about 260000.
pub(super) const MAX_PIECES: usize = 1 << 19;
/// Longest piece in bytes. LLaMA's longest has 48. Finding merges is quadratic in it.
pub(super) const MAX_PIECE_BYTES: usize = 256;

/// What an id stands for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    /// As spelled in the file.
    pub spelling: String,
    /// Its place in the order of merges: higher first. Unused where the file lists merges.
    pub score: f32,
    /// What it does.
    pub kind: Kind,
}

/// Kinds of pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text, the result of merges.
    Normal,
    /// Text that is never the result of a merge.
    Unmerged,
    /// No text: begin, end and their like.
    Control,
    /// What could not be encoded.
    Unknown,
    /// One byte of text.
    Byte(u8),
}

impl Kind {
    /// From the number in SentencePiece and GGUF files.
    pub(super) fn from_number(number: i32, spelling: &str) -> Result<Self, String> {
        Ok(match number {
            1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 | 5 => Kind::Unmerged,
            6 => Kind::Byte(
                byte_of(spelling)
                    .ok_or_else(|| format!("piece {spelling:?} is marked as a byte but is none"))?,
            ),
            other => return Err(format!("piece {spelling:?} is of unknown kind {other}")),
        })
    }
}

/// The byte that a spelling such as `<0x0A>` stands for.
pub(super) fn byte_of(spelling: &str) -> Option<u8> {
    let digits = spelling.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// Text of every id, ready to be shown.
#[derive(Debug)]
pub(super) struct PieceTable {
    texts: Vec<Shown>,
}

/// What an id shows.
#[derive(Debug)]
pub(super) enum Shown {
    /// Text with real spaces.
    Text(String),
    /// One byte of a character.
    Byte(u8),
    /// A mark for what could not be encoded.
    Unknown,
    /// Nothing.
    Nothing,
}

impl PieceTable {
    pub(super) fn new(pieces: Vec<Piece>) -> Self {
        let show = |piece: Piece| match piece.kind {
            Kind::Normal | Kind::Unmerged => Shown::Text(piece.spelling.replace(SPACE, " ")),
            Kind::Unknown => Shown::Unknown,
            Kind::Byte(byte) => Shown::Byte(byte),
            Kind::Control => Shown::Nothing,
        };
        Self { texts: pieces.into_iter().map(show).collect() }
    }

    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The bytes `id` adds to a text; none for special tokens and for what could not be encoded.
    pub(super) fn bytes(&self, id: u32) -> Vec<u8> {
        match self.shown(id) {
            Shown::Text(text) => text.as_bytes().to_vec(),
            Shown::Byte(byte) => vec![*byte],
            Shown::Unknown | Shown::Nothing => Vec::new(),
        }
    }

    /// What `id` shows; nothing if there is no such id, since a model's vocabulary may be padded.
    pub(super) fn shown(&self, id: u32) -> &Shown {
        self.texts.get(id as usize).unwrap_or(&Shown::Nothing)
    }
}

/// From the vocabulary of a GGUF file.
pub(super) fn from_vocabulary(vocabulary: &Vocabulary) -> Result<Parts, String> {
    let count = vocabulary.pieces.len();
    if vocabulary.scores.len() != count || vocabulary.kinds.len() != count {
        return Err(format!(
            "{count} pieces, {} scores and {} kinds do not belong together",
            vocabulary.scores.len(),
            vocabulary.kinds.len()
        ));
    }
    let mut pieces = Vec::with_capacity(count);
    for ((spelling, &score), &kind) in vocabulary.pieces.iter().zip(&vocabulary.scores).zip(&vocabulary.kinds)
    {
        let kind = Kind::from_number(kind, spelling)?;
        pieces.push(Piece { spelling: spelling.clone(), score, kind });
    }
    let merges = merges(&pieces)?;
    Ok(Parts {
        pieces,
        merges,
        bos: vocabulary.bos,
        eos: vocabulary.eos,
        unk: vocabulary.unk,
        space_prefix: vocabulary.add_space_prefix,
    })
}

/// Every way to make a piece of two others, best piece first.
///
/// SentencePiece joins the neighbours whose piece has the highest score; a list of merges in the
/// order of scores does the same.
pub(super) fn merges(pieces: &[Piece]) -> Result<Merges, String> {
    check(pieces)?;
    let ids: HashMap<&str, usize> =
        pieces.iter().enumerate().rev().map(|(id, piece)| (piece.spelling.as_str(), id)).collect();
    let mut found = Vec::with_capacity(2 * pieces.len());
    for (id, piece) in pieces.iter().enumerate().filter(|(_, piece)| piece.kind == Kind::Normal) {
        for (cut, _) in piece.spelling.char_indices().skip(1) {
            let (left, right) = piece.spelling.split_at(cut);
            if let (Some(&left), Some(&right)) = (ids.get(left), ids.get(right)) {
                found.push((id, left, right));
            }
        }
    }
    found.sort_unstable_by(|a, b| pieces[b.0].score.total_cmp(&pieces[a.0].score).then_with(|| a.cmp(b)));
    let spelling = |id: usize| pieces[id].spelling.clone();
    Ok(found.into_iter().map(|(_, left, right)| (spelling(left), spelling(right))).collect())
}

fn check(pieces: &[Piece]) -> Result<(), String> {
    if pieces.is_empty() || pieces.len() > MAX_PIECES {
        return Err(format!("{} pieces, expected 1 to {MAX_PIECES}", pieces.len()));
    }
    for (id, piece) in pieces.iter().enumerate() {
        if piece.spelling.is_empty() || piece.spelling.len() > MAX_PIECE_BYTES {
            let bytes = piece.spelling.len();
            return Err(format!("piece {id} has {bytes} bytes, expected 1 to {MAX_PIECE_BYTES}"));
        }
    }
    Ok(())
}

/// The encoder of checked pieces and merges.
pub(super) fn bpe(pieces: &[Piece], merges: Merges, unk: u32) -> Result<BPE, String> {
    check(pieces)?;
    let vocabulary: Vocab =
        pieces.iter().enumerate().rev().map(|(id, piece)| (piece.spelling.clone(), id as u32)).collect();
    for (left, right) in &merges {
        // The library copies a merged piece into a buffer as long as the longest piece.
        if !vocabulary.contains_key(&format!("{left}{right}")) {
            return Err(format!("the merge of {left:?} and {right:?} makes no piece"));
        }
    }
    BPE::builder()
        .vocab_and_merges(vocabulary, merges)
        .unk_token(pieces[unk as usize].spelling.clone())
        .fuse_unk(true)
        .byte_fallback(true)
        .cache_capacity(0)
        .build()
        .map_err(|error| error.to_string())
}
