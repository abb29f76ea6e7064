//! Tokens become text: pieces as they come, the end at the end token or a stop string.

use std::sync::Arc;

use super::prompt::END;
use super::sampler::StopText;
use super::tokenizer::{TextDecoder, Tokenizer};

/// The text of one answer, in general without white space at either end.
pub struct Speech {
    decoder: TextDecoder,
    stop: StopText,
    eos: u32,
    text: String,
    taken: usize,
}

/// What a token led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The text goes on.
    More,
    /// The text is complete; the token is not part of it.
    End,
}

impl Speech {
    /// An empty text that ends at the end token, at [`END`] or at any of `stop`.
    pub fn new(tokenizer: &Arc<Tokenizer>, stop: &[String]) -> Self {
        Self {
            decoder: tokenizer.decoder(),
            stop: StopText::new(stop.iter().cloned().chain([END.to_owned()])),
            eos: tokenizer.eos(),
            text: String::new(),
            taken: 0,
        }
    }

    /// An empty text that ends at the end token or at any of `stop` and keeps its white space, but
    /// for one space at its beginning: what a grammar asked for is shown as it is.
    pub fn exact(tokenizer: &Arc<Tokenizer>, stop: &[String]) -> Self {
        Self {
            decoder: tokenizer.inner_decoder(),
            stop: StopText::exact(stop.iter().cloned()),
            ..Self::new(tokenizer, &[])
        }
    }

    /// The end token.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// Adds a token.
    pub fn hear(&mut self, id: u32) -> Heard {
        if id == self.eos {
            self.finish();
            return Heard::End;
        }
        self.text.push_str(self.stop.push(self.decoder.push(id)));
        if self.stop.stopped() { Heard::End } else { Heard::More }
    }

    /// Ends the text where it is.
    pub fn finish(&mut self) {
        self.text.push_str(self.stop.push(self.decoder.finish()));
        self.text.push_str(self.stop.finish());
    }

    /// The text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Text that was not taken yet. All pieces join to [`Speech::text`].
    pub fn take_piece(&mut self) -> Option<String> {
        let piece = &self.text[self.taken..];
        if piece.is_empty() {
            return None;
        }
        let piece = piece.to_owned();
        self.taken = self.text.len();
        Some(piece)
    }
}

/// Text of a model for a terminal: it stays on its line and steers nothing.
pub fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
