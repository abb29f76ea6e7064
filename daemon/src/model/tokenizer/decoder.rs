//! Ids to text, one at a time.

use std::sync::Arc;

use super::pieces::{PieceTable, Shown};

/// What SentencePiece shows for a piece that could not be encoded.
const UNKNOWN: &str = " \u{2047} ";

/// Joins pieces to text. What it returns never ends inside a character.
///
/// The pieces join to exactly what [`super::Tokenizer::decode`] gives for all ids together.
#[derive(Debug)]
pub struct TextDecoder {
    pieces: Arc<PieceTable>,
    /// Bytes of a character that is not complete; at most 3 between calls.
    pending: Vec<u8>,
    /// Text of the last call.
    text: String,
    /// Whether the next piece still loses the leading space that encoding put there.
    strip_space: bool,
}

impl TextDecoder {
    pub(super) fn new(pieces: Arc<PieceTable>, strip_space: bool) -> Self {
        Self { pieces, pending: Vec::with_capacity(4), text: String::with_capacity(64), strip_space }
    }

    /// Text that `id` completes; often its piece, sometimes nothing.
    pub fn push(&mut self, id: u32) -> &str {
        self.text.clear();
        match self.pieces.shown(id) {
            Shown::Byte(byte) => {
                self.pending.push(*byte);
                self.strip_space = false;
                take_characters(&mut self.pending, &mut self.text);
            }
            Shown::Text(piece) => {
                replace_bytes(&mut self.pending, &mut self.text);
                let text = if self.strip_space { piece.strip_prefix(' ').unwrap_or(piece) } else { piece };
                self.strip_space = false;
                self.text.push_str(text);
            }
            Shown::Unknown => {
                replace_bytes(&mut self.pending, &mut self.text);
                self.strip_space = false;
                self.text.push_str(UNKNOWN);
            }
            Shown::Nothing => replace_bytes(&mut self.pending, &mut self.text),
        }
        &self.text
    }

    /// Text of the bytes that are left when no more ids follow.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        replace_bytes(&mut self.pending, &mut self.text);
        &self.text
    }
}

/// Moves complete characters from `bytes` to `text`; a byte that can begin none becomes U+FFFD.
fn take_characters(bytes: &mut Vec<u8>, text: &mut String) {
    while !bytes.is_empty() {
        let taken = match std::str::from_utf8(bytes) {
            Ok(valid) => {
                text.push_str(valid);
                bytes.len()
            }
            Err(error) if error.valid_up_to() == 0 && error.error_len().is_none() => return,
            Err(_) => {
                text.push(char::REPLACEMENT_CHARACTER);
                1
            }
        };
        bytes.drain(..taken);
    }
}

/// Moves everything from `bytes` to `text`: they will not be completed any more.
fn replace_bytes(bytes: &mut Vec<u8>, text: &mut String) {
    text.extend(bytes.drain(..).map(|_| char::REPLACEMENT_CHARACTER));
}
