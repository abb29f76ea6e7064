//! Tokens become text: pieces as they come, the end at the end token or a stop string.

use std::sync::Arc;

use super::sampler::StopText;
use super::tokenizer::{TextDecoder, Tokenizer};

/// The text of one answer. Its pieces join to exactly [`Speech::text`], which has no white space
/// at either end.
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
    /// An empty text that ends at the end token, at `</s>` or at any of `stop`.
    pub fn new(tokenizer: &Arc<Tokenizer>, stop: &[String]) -> Self {
        let strings = stop.iter().map(String::as_str).chain(["</s>"]).filter(|stop| !stop.is_empty());
        Self {
            decoder: tokenizer.decoder(),
            stop: StopText::new(strings),
            eos: tokenizer.eos(),
            text: String::new(),
            taken: 0,
        }
    }

    /// Adds a token.
    pub fn hear(&mut self, id: u32) -> Heard {
        if id == self.eos {
            self.finish();
            return Heard::End;
        }
        let new = self.decoder.push(id);
        if self.say(&new) { Heard::End } else { Heard::More }
    }

    /// Ends the text where it is.
    pub fn finish(&mut self) {
        let rest = self.decoder.finish();
        if !self.say(&rest) {
            let held = self.stop.finish();
            self.append(&held);
        }
        self.text.truncate(self.text.trim_end().len());
    }

    /// The text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Text that was not taken yet. White space at the end waits for what follows it.
    pub fn take_piece(&mut self) -> Option<String> {
        let end = self.text.trim_end().len();
        if end <= self.taken {
            return None;
        }
        let piece = self.text[self.taken..end].to_owned();
        self.taken = end;
        Some(piece)
    }

    /// Adds text that may hold a stop string. Returns whether it did.
    fn say(&mut self, new: &str) -> bool {
        let (released, is_stopped) = self.stop.push(new);
        self.append(&released);
        if is_stopped {
            self.text.truncate(self.text.trim_end().len());
        }
        is_stopped
    }

    fn append(&mut self, new: &str) {
        let new = if self.text.is_empty() { new.trim_start() } else { new };
        self.text.push_str(new);
    }
}
