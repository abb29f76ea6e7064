//! The text a caller sees: cut at the first stop string, without the white space around it.

/// Passes text on and holds back what may still turn out to be a stop string or trailing space.
///
/// What it releases joins to the text before the stop string that is complete first, trimmed, whichever way the
/// text was cut into pieces.
#[derive(Debug, Default)]
pub struct StopText {
    stops: Vec<String>,
    /// Text that was not released yet.
    held: String,
    /// Text that was released last.
    released: String,
    /// Whether anything but white space was released.
    begun: bool,
    stopped: bool,
    /// Whether white space is shown, but for one space at the beginning.
    is_exact: bool,
}

impl StopText {
    /// Stops at the first of `stops`; empty ones are ignored.
    pub fn new(stops: impl IntoIterator<Item = String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self { stops, ..Self::default() }
    }

    /// The same for text whose white space matters: only one space at its beginning is not shown.
    pub fn exact(stops: impl IntoIterator<Item = String>) -> Self {
        Self { is_exact: true, ..Self::new(stops) }
    }

    /// Takes more text and returns what can be shown now.
    pub fn push(&mut self, text: &str) -> &str {
        self.released.clear();
        if self.stopped {
            return &self.released;
        }
        let mut text = text;
        if self.is_exact && !self.begun && !text.is_empty() {
            self.begun = true;
            text = text.strip_prefix(' ').unwrap_or(text);
        }
        self.held.push_str(text);
        let end = match self.first_stop() {
            Some(start) => {
                self.stopped = true;
                self.held.truncate(start);
                start
            }
            None => self.held.len() - self.begun_stop(),
        };
        self.release(end);
        &self.released
    }

    /// Returns what was held back, now that no more text follows.
    pub fn finish(&mut self) -> &str {
        self.released.clear();
        self.release(self.held.len());
        self.held.clear();
        &self.released
    }

    /// Whether a stop string was found: nothing more will be shown.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Where the stop string begins that is complete first.
    fn first_stop(&self) -> Option<usize> {
        let found = |stop: &String| self.held.find(stop.as_str()).map(|start| (start + stop.len(), start));
        self.stops.iter().filter_map(found).min().map(|(_, start)| start)
    }

    /// Length of the longest end of the held text that begins a stop string.
    fn begun_stop(&self) -> usize {
        let longest = |stop: &String| {
            let fits = |&(cut, _): &(usize, char)| self.held.ends_with(&stop[..cut]);
            stop.char_indices().rev().find(fits).map_or(0, |(cut, _)| cut)
        };
        self.stops.iter().map(longest).max().unwrap_or(0)
    }

    /// Releases `held[..end]` but for white space before the first word and after the last.
    fn release(&mut self, end: usize) {
        if self.is_exact {
            self.released.push_str(&self.held[..end]);
            self.held.drain(..end);
            return;
        }
        let shown = self.held[..end].trim_end().len();
        let start =
            if self.begun { 0 } else { self.held[..shown].len() - self.held[..shown].trim_start().len() };
        self.released.push_str(&self.held[start..shown]);
        self.begun |= shown > start;
        self.held.drain(..shown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown of `text` when it comes in pieces of `size` characters, and whether it stopped.
    fn shown(text: &str, stops: &[&str], size: usize) -> (String, bool) {
        let mut stop = StopText::new(stops.iter().map(|stop| (*stop).to_owned()));
        let letters: Vec<char> = text.chars().collect();
        let mut all = String::new();
        for piece in letters.chunks(size) {
            all.push_str(stop.push(&piece.iter().collect::<String>()));
        }
        all.push_str(stop.finish());
        (all, stop.stopped())
    }

    #[test]
    fn text_ends_before_the_first_stop_string_however_it_is_cut() {
        for (text, stops, want, stopped) in [
            (" a cat </s> and more", &["</s>"][..], "a cat", true),
            ("a < b </ c", &["</s>"], "a < b </ c", false),
            ("a</</s>", &["</s>"], "a</", true),
            ("one two three", &["three", "two"], "one", true),
            ("aaab", &["aab"], "a", true),
            ("  \n ", &["x"], "", false),
            ("\u{4f60}\u{597d}\u{4e16}", &["\u{597d}\u{4e16}"], "\u{4f60}", true),
            ("end.\n\n", &[], "end.", false),
            ("a  b", &["", "zz"], "a  b", false),
            ("stop", &["stop"], "", true),
            ("abcd", &["abcd", "bc"], "a", true),
            ("abc", &["bc", "abc"], "", true),
        ] {
            for size in 1..=text.chars().count() {
                assert_eq!(shown(text, stops, size), (want.to_owned(), stopped), "{text:?} by {size}");
            }
        }
    }

    #[test]
    fn exact_text_keeps_its_white_space_but_for_one_space_before_it() {
        for (text, want) in [("  a \n", " a \n"), ("a ", "a "), (" ", ""), ("", ""), (" a x b", "a ")] {
            let mut stop = StopText::exact(["x".to_owned()]);
            let mut all: String =
                text.chars().map(|letter| stop.push(&letter.to_string()).to_owned()).collect();
            all.push_str(stop.finish());
            assert_eq!(all, want, "{text:?}");
        }
    }

    #[test]
    fn text_is_shown_as_soon_as_it_cannot_be_a_stop_string() {
        let mut stop = StopText::new(["</s>".to_owned()]);
        assert_eq!(stop.push(" It"), "It");
        assert_eq!(stop.push(" <"), "");
        assert_eq!(stop.push("b"), " <b");
        assert_eq!(stop.push(" </s"), "");
        assert_eq!(stop.push("> x"), "");
        assert!(stop.stopped());
        assert_eq!(stop.push("more"), "");
        assert_eq!(stop.finish(), "");
    }
}
