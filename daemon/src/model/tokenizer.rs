//! Text to token ids and back.
//!
//! LLaMA tokenizers only: SentencePiece BPE with byte fallback and a leading space, whichever file
//! it comes from. Everything is reduced to a table of pieces and an ordered list of merges.

use std::path::PathBuf;
use std::sync::Arc;

use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Merges};

use super::files::{ModelFiles, TokenizerSource};

mod decoder;
mod json;
mod pieces;
mod sentencepiece;

pub use decoder::TextDecoder;
use pieces::{Piece, PieceTable};

/// What stands for a space inside pieces.
const SPACE: char = '\u{2581}';

/// Why a tokenizer was refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file could not be read.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The file is larger than any tokenizer.
    #[error("{}: {bytes} bytes is too large for a tokenizer, at most {limit}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The file is no LLaMA tokenizer.
    #[error("{place}: {problem}")]
    Invalid {
        /// The file, or where in a model the vocabulary is.
        place: String,
        /// What is wrong.
        problem: String,
    },
}

/// A LLaMA tokenizer.
pub struct Tokenizer {
    model: BPE,
    pieces: Arc<PieceTable>,
    bos: u32,
    eos: u32,
    space_prefix: bool,
    legacy: bool,
}

/// What the readers of the three sources deliver.
struct Parts {
    pieces: Vec<Piece>,
    merges: Merges,
    bos: u32,
    eos: u32,
    unk: u32,
    space_prefix: bool,
}

impl Tokenizer {
    /// The tokenizer of a model, which must not know more pieces than the model.
    pub fn of_model(files: &ModelFiles) -> Result<Self, TokenizerError> {
        let mut tokenizer = Self::from_source(&files.tokenizer)?;
        tokenizer.legacy = files.tokenizer_legacy;
        let (pieces, known) = (tokenizer.vocabulary_size(), files.language.vocabulary);
        if pieces > known {
            let problem =
                format!("{pieces} pieces for a model that knows {known}: it belongs to another model");
            return Err(invalid(place_of(&files.tokenizer), problem));
        }
        Ok(tokenizer)
    }

    /// Builds a tokenizer from one of the three kinds of source, with the `legacy` rule.
    pub fn from_source(source: &TokenizerSource) -> Result<Self, TokenizerError> {
        let place = place_of(source);
        let parts = match source {
            TokenizerSource::Json(path) => json::read(path)?,
            TokenizerSource::SentencePiece(path) => sentencepiece::read(path)?,
            TokenizerSource::Vocabulary(vocabulary) => {
                pieces::from_vocabulary(vocabulary).map_err(|problem| invalid(&place, problem))?
            }
        };
        Self::build(parts, &place)
    }

    fn build(parts: Parts, place: &str) -> Result<Self, TokenizerError> {
        let count = parts.pieces.len();
        for (name, id) in [("bos", parts.bos), ("eos", parts.eos), ("unk", parts.unk)] {
            if id as usize >= count {
                return Err(invalid(place, format!("the {name} id {id} is outside the {count} pieces")));
            }
        }
        let model =
            pieces::bpe(&parts.pieces, parts.merges, parts.unk).map_err(|problem| invalid(place, problem))?;
        Ok(Self {
            model,
            pieces: Arc::new(PieceTable::new(parts.pieces)),
            bos: parts.bos,
            eos: parts.eos,
            space_prefix: parts.space_prefix,
            legacy: true,
        })
    }

    /// Ids of plain text, without begin or end. Nothing in the text is a special token.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.encode_pieces(text, self.space_prefix)
    }

    /// Ids of the text that follows a special token of the same piece of a prompt: with a leading
    /// space if the tokenizer is a `legacy` one, without otherwise.
    pub fn encode_after_special(&self, text: &str) -> Vec<u32> {
        self.encode_pieces(text, self.space_prefix && self.legacy)
    }

    fn encode_pieces(&self, text: &str, prefix: bool) -> Vec<u32> {
        if text.is_empty() {
            return Vec::new();
        }
        let mut spaced = String::with_capacity(text.len() + text.len() / 4 + 3);
        if prefix {
            spaced.push(SPACE);
        }
        spaced.extend(text.chars().map(|letter| if letter == ' ' { SPACE } else { letter }));
        let tokens = self.model.tokenize(&spaced).expect("the unknown piece is part of the vocabulary");
        tokens.into_iter().map(|token| token.id).collect()
    }

    /// Text of ids. Special tokens have none; bytes that are no UTF-8 become U+FFFD each.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut decoder = self.decoder();
        let mut text = String::new();
        for &id in ids {
            text.push_str(decoder.push(id));
        }
        text.push_str(decoder.finish());
        text
    }

    /// A decoder that takes one id at a time.
    pub fn decoder(&self) -> TextDecoder {
        TextDecoder::new(Arc::clone(&self.pieces), self.space_prefix)
    }

    /// A decoder for text that follows other text: it keeps the leading space.
    pub fn inner_decoder(&self) -> TextDecoder {
        TextDecoder::new(Arc::clone(&self.pieces), false)
    }

    /// The bytes each id adds to a text, in order of the ids: none for special tokens.
    pub fn piece_bytes(&self) -> Vec<Vec<u8>> {
        (0..self.pieces.len() as u32).map(|id| self.pieces.bytes(id)).collect()
    }

    /// Id that begins a prompt.
    pub fn bos(&self) -> u32 {
        self.bos
    }

    /// Id that ends an answer.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// Number of pieces.
    pub fn vocabulary_size(&self) -> usize {
        self.pieces.len()
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} pieces)", self.vocabulary_size())
    }
}

fn place_of(source: &TokenizerSource) -> String {
    match source {
        TokenizerSource::Json(path) | TokenizerSource::SentencePiece(path) => path.display().to_string(),
        TokenizerSource::Vocabulary(_) => "the vocabulary of the GGUF file".to_owned(),
    }
}

fn invalid(place: impl Into<String>, problem: impl Into<String>) -> TokenizerError {
    TokenizerError::Invalid { place: place.into(), problem: problem.into() }
}

/// Reads a file of at most `limit` bytes.
fn read_bounded(path: &std::path::Path, limit: u64) -> Result<Vec<u8>, TokenizerError> {
    use std::io::Read;

    let io = |error| TokenizerError::Io { path: path.to_owned(), error };
    let file = std::fs::File::open(path).map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    if bytes > limit {
        return Err(TokenizerError::TooLarge { path: path.to_owned(), bytes, limit });
    }
    let mut content = Vec::new();
    file.take(limit).read_to_end(&mut content).map_err(io)?;
    Ok(content)
}

#[cfg(test)]
mod tests;
