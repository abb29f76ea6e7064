//! Where a demonstration is seen: on a terminal, as lines of text, or as files.

use std::io::{self, Write};
use std::path::PathBuf;

use image::RgbImage;

use super::{Asked, Seen, blocks};
use crate::model::speech::one_line;

/// Somebody who watches.
pub trait Show {
    /// A frame that is being looked at.
    fn picture(&mut self, _picture: &RgbImage) -> io::Result<()> {
        Ok(())
    }

    /// A piece of its caption.
    fn piece(&mut self, _text: &str) -> io::Result<()> {
        Ok(())
    }

    /// Frame `number`, with all there is to say about it.
    fn seen(&mut self, number: u64, seen: &Seen) -> io::Result<()>;
}

/// A moving picture on a terminal with its caption below.
pub struct Screen<W> {
    out: W,
    columns: u32,
    /// Lines drawn last.
    drawn: usize,
    picture: Vec<String>,
    said: String,
    /// What stands below the caption: of the frame before until the next one is described.
    below: Vec<String>,
}

impl<W: Write> Screen<W> {
    /// A screen with pictures of `columns` letters across.
    pub fn new(out: W, columns: u32) -> Self {
        Self { out, columns, drawn: 0, picture: Vec::new(), said: String::new(), below: Vec::new() }
    }

    /// Draws everything over what was drawn last.
    fn draw(&mut self) -> io::Result<()> {
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\u{1b}[{}A", self.drawn));
        }
        self.drawn = 0;
        let said = wrapped(&one_line(&self.said), self.columns as usize);
        for line in self.picture.iter().chain(&said).chain(&self.below) {
            text.push_str("\r\u{1b}[2K");
            text.push_str(line);
            text.push('\n');
            self.drawn += 1;
        }
        // What was longer before, and no line may take two on a narrow terminal.
        write!(self.out, "\u{1b}[?7l{text}\u{1b}[J\u{1b}[?7h")?;
        self.out.flush()
    }
}

impl<W: Write> Show for Screen<W> {
    fn picture(&mut self, picture: &RgbImage) -> io::Result<()> {
        self.picture = blocks::lines(picture, self.columns);
        self.said.clear();
        Ok(())
    }

    fn piece(&mut self, text: &str) -> io::Result<()> {
        self.said.push_str(text);
        self.draw()
    }

    fn seen(&mut self, _number: u64, seen: &Seen) -> io::Result<()> {
        let columns = self.columns as usize;
        self.said.clone_from(&seen.caption.text);
        let truth = seen.truth.as_deref().unwrap_or("(changing)");
        let mut below = vec![String::new()];
        below.extend(wrapped(&format!("world: {truth}"), columns));
        if let Some(asked) = &seen.asked {
            below.push(String::new());
            below.extend(wrapped(&exchange(asked), columns));
        }
        self.below = below;
        self.draw()
    }
}

/// Three lines of text for each frame.
pub struct Lines<W> {
    out: W,
}

impl<W: Write> Lines<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out }
    }
}

impl<W: Write> Show for Lines<W> {
    fn seen(&mut self, number: u64, seen: &Seen) -> io::Result<()> {
        writeln!(self.out, "frame {number}\n{}", described(seen))
    }
}

/// A picture and a text file for each frame.
pub struct Folder<W> {
    folder: PathBuf,
    lines: Lines<W>,
}

impl<W: Write> Folder<W> {
    /// Files go into `folder`, which is made if need be; what they hold is also written to `out`.
    pub fn new(folder: PathBuf, out: W) -> io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder, lines: Lines::new(out) })
    }
}

impl<W: Write> Show for Folder<W> {
    fn seen(&mut self, number: u64, seen: &Seen) -> io::Result<()> {
        let path = self.folder.join(format!("frame-{number:05}.png"));
        seen.picture.save(&path).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        std::fs::write(path.with_extension("txt"), described(seen) + "\n")?;
        self.lines.seen(number, seen)
    }
}

/// What was said of a frame and what is true.
fn described(seen: &Seen) -> String {
    let truth = seen.truth.as_deref().unwrap_or("(changing)");
    let mut text = format!("  model: {}\n  world: {truth}", one_line(&seen.caption.text));
    if let Some(asked) = &seen.asked {
        text.push_str(&format!("\n  asked: {}", exchange(asked)));
    }
    text
}

fn exchange(Asked { question, answer, truth }: &Asked) -> String {
    format!("{question} {} (world: {truth})", one_line(answer))
}

/// Words in lines of at most `columns` letters, but for longer words.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is a line from the beginning");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > columns {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use messages::Caption;

    use super::*;

    fn seen(caption: &str, truth: Option<&str>) -> Seen {
        Seen {
            picture: RgbImage::new(8, 6),
            caption: Caption { text: caption.into(), ..Caption::default() },
            truth: truth.map(str::to_owned),
            asked: None,
        }
    }

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrapped("a red ball and a box", 10), ["a red ball", "and a box"]);
        assert_eq!(wrapped("incomprehensible", 4), ["incomprehensible"]);
        assert_eq!(wrapped("", 4), [""]);
    }

    #[test]
    fn text_shows_both_sides_and_steers_nothing() {
        let mut out = Vec::new();
        Lines::new(&mut out).seen(7, &seen("A red\n\u{1b}ball.", Some("A red ball."))).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "frame 7\n  model: A red  ball.\n  world: A red ball.\n");
    }

    #[test]
    fn a_screen_is_drawn_over_itself() {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, 8);
        screen.picture(&RgbImage::new(8, 6)).unwrap();
        screen.piece("A red").unwrap();
        screen.piece(" ball.").unwrap();
        screen.seen(0, &seen("A red ball.", None)).unwrap();
        let text = String::from_utf8(out).unwrap();
        // Three lines of picture and one or two of text, the last drawing with an empty line and two more.
        let ups: Vec<&str> =
            text.split("\u{1b}[").filter(|part| part.contains('A') && part.len() < 4).collect();
        assert_eq!(text.matches("\u{1b}[J").count(), 3);
        assert!(text.contains("\u{1b}[4A") && text.contains("\u{1b}[5A"), "{ups:?}");
        assert!(text.contains("world:") && text.contains("(changing)"));
    }
}
