//! Lines for what is seen: finished ones stay, and on a terminal the last row grows.

use std::io::{self, Write};

use messages::{Alert, AlertEnd, AlertEvent, Caption, CaptionPiece, Format, FrameStamp, Message, encode};

use crate::bus::client::Seen;
use crate::cli::terminal::{ALERT, FAINT, Look, color_of, time_of_day};
use crate::model::speech::one_line;

/// Goes to the beginning of the row and empties it.
const EMPTY_ROW: &str = "\r\x1b[2K";

/// Writes lines. Captions under way are kept for each camera; the oldest of them is shown in the last row.
pub(super) struct Printer<W> {
    out: W,
    json: bool,
    look: Look,
    growing: Vec<Growing>,
}

/// A caption that is not complete.
struct Growing {
    frame: FrameStamp,
    next: u32,
    text: String,
}

impl<W: Write> Printer<W> {
    pub(super) fn new(out: W, json: bool, look: Look) -> Self {
        Self { out, json, look, growing: Vec::new() }
    }

    /// Shows what was seen.
    pub(super) fn print(&mut self, seen: &Seen) -> io::Result<()> {
        match seen {
            Seen::Caption(caption) if self.json => self.object(caption)?,
            Seen::Alert(alert) if self.json => self.object(alert)?,
            // What else happens is no message: it must not stand among them.
            Seen::Missed(number) if self.json => eprintln!("{}", missed(*number)),
            Seen::Gone | Seen::Back if self.json => eprintln!("{}", presence(seen)),
            Seen::Caption(caption) => {
                self.growing.retain(|growing| growing.frame.camera != caption.frame.camera);
                let line = self.caption(caption);
                self.line(&line)?;
            }
            Seen::Piece(piece) => self.piece(piece)?,
            Seen::Alert(alert) => {
                let line = self.alert(alert);
                self.line(&line)?;
            }
            Seen::Missed(number) => self.line(&self.look.paint(FAINT, &missed(*number)))?,
            Seen::Gone | Seen::Back => {
                // What was under way is not finished any more.
                self.growing.clear();
                self.line(&self.look.paint(FAINT, presence(seen)))?;
            }
        }
        self.out.flush()
    }

    fn object<M: Message>(&mut self, message: &M) -> io::Result<()> {
        self.out.write_all(&encode(message, Format::Json))?;
        self.out.write_all(b"\n")
    }

    /// A whole line, above the one that grows.
    fn line(&mut self, line: &str) -> io::Result<()> {
        let empty = if self.look.columns.is_some() { EMPTY_ROW } else { "" };
        writeln!(self.out, "{empty}{line}")?;
        self.grow()
    }

    fn caption(&self, caption: &Caption) -> String {
        let more = if caption.truncated { " ..." } else { "" };
        let age = self.look.paint(FAINT, &format!("({:.1} s)", caption.age_ms / 1000.0));
        format!("{}{}{more} {age}", self.head(&caption.frame), one_line(&caption.text))
    }

    fn alert(&self, alert: &Alert) -> String {
        let event = match alert.event {
            AlertEvent::Began => "begins",
            AlertEvent::Ended(AlertEnd::Answer) => "ends",
            AlertEvent::Ended(AlertEnd::CameraGone) => "ends: the camera is gone",
            AlertEvent::Ended(AlertEnd::RuleChanged) => "ends: the rule was changed",
            AlertEvent::Ended(AlertEnd::Stopping) => "ends: the daemon stops",
            AlertEvent::Ended(AlertEnd::Paused) => "ends: the camera is paused",
        };
        let what = self.look.paint(ALERT, &format!("alert \"{}\" {event}", alert.rule));
        let (question, percent) = (one_line(&alert.question), 100.0 * alert.p_yes);
        format!("{}{what} ({question} yes: {percent:.0} %)", self.head(&alert.frame))
    }

    /// Lets a caption grow, or begins one. One of which a piece is lost stays as it is.
    fn piece(&mut self, piece: &CaptionPiece) -> io::Result<()> {
        if piece.index == 0 {
            self.growing.retain(|growing| growing.frame.camera != piece.frame.camera);
            self.growing.push(Growing { frame: piece.frame.clone(), next: 0, text: String::new() });
        }
        let mut growing = self.growing.iter_mut();
        if let Some(growing) =
            growing.find(|growing| growing.frame == piece.frame && growing.next == piece.index)
        {
            growing.next += 1;
            growing.text.push_str(&one_line(&piece.text));
        }
        self.grow()
    }

    /// Writes the row that grows again.
    fn grow(&mut self) -> io::Result<()> {
        let (Some(columns), Some(growing)) = (self.look.columns, self.growing.first()) else { return Ok(()) };
        let head = format!("{} {}: ", time_of_day(growing.frame.captured_at), growing.frame.camera);
        // A row that is full would scroll.
        let room = columns().saturating_sub(1 + head.chars().count());
        write!(self.out, "{EMPTY_ROW}{}{}", self.head(&growing.frame), end_of(&growing.text, room))
    }

    /// Capture time of day and camera.
    fn head(&self, frame: &FrameStamp) -> String {
        let time = self.look.paint(FAINT, &time_of_day(frame.captured_at));
        format!("{time} {}: ", self.look.paint(color_of(&frame.camera), &frame.camera))
    }
}

fn missed(number: u32) -> String {
    format!("... {number} messages were lost on the way")
}

fn presence(seen: &Seen) -> &'static str {
    match seen {
        Seen::Gone => "... the daemon is gone; waiting for it (Ctrl-C ends)",
        _ => "... the daemon is there again",
    }
}

/// The newest words, as far as there is room for them.
fn end_of(text: &str, room: usize) -> String {
    let length = text.chars().count();
    if length <= room {
        return text.into();
    }
    let tail: String = text.chars().skip(length - room.saturating_sub(3)).collect();
    format!("...{tail}").chars().take(room).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(camera: &str, sequence: u64) -> FrameStamp {
        FrameStamp { camera: camera.into(), sequence, captured_at: 45_296_789_000_000 }
    }

    fn piece(frame: &FrameStamp, index: u32, text: &str) -> Seen {
        Seen::Piece(CaptionPiece { frame: frame.clone(), index, text: text.into() })
    }

    fn caption(frame: &FrameStamp, text: &str) -> Seen {
        Seen::Caption(Caption {
            text: text.into(),
            frame: frame.clone(),
            age_ms: 1200.0,
            ..Caption::default()
        })
    }

    fn alert(frame: &FrameStamp, event: AlertEvent) -> Seen {
        let (rule, question) = ("door".into(), "Is the door\nopen?".into());
        Seen::Alert(Alert { rule, question, event, p_yes: 0.93, frame: frame.clone(), ..Alert::default() })
    }

    fn printed(json: bool, look: Look, seen: impl IntoIterator<Item = Seen>) -> String {
        let mut printer = Printer::new(Vec::new(), json, look);
        for seen in seen {
            printer.print(&seen).unwrap();
        }
        String::from_utf8(printer.out).unwrap()
    }

    /// What a terminal of forty columns without colours shows at the end: its rows.
    fn shown(seen: impl IntoIterator<Item = Seen>) -> Vec<String> {
        let written = printed(false, Look { has_colors: false, columns: Some(|| 40) }, seen);
        let row = |row: &str| row.rsplit(EMPTY_ROW).next().unwrap_or_default().to_owned();
        assert!(
            written.split(EMPTY_ROW).all(|text| text.contains('\n') || text.chars().count() < 40),
            "{written}"
        );
        written.split('\n').map(row).collect()
    }

    const AT: &str = "12:34:56.789Z";

    #[test]
    fn pieces_grow_into_the_caption() {
        let front = frame("front", 1);
        let begun = [piece(&front, 0, "A red"), piece(&front, 1, " box")];
        assert_eq!(shown(begun.clone()), [format!("{AT} front: A red box")]);
        let done = begun.into_iter().chain([caption(&front, "A red box.")]);
        assert_eq!(shown(done), [format!("{AT} front: A red box. (1.2 s)"), String::new()]);
    }

    #[test]
    fn cameras_that_are_described_at_once_do_not_meet() {
        let (front, rear) = (frame("front", 1), frame("rear", 1));
        let seen = [
            piece(&front, 0, "A"),
            piece(&rear, 0, "Dark"),
            piece(&front, 1, " red"),
            caption(&rear, "Darkness."),
            // The piece between was lost.
            piece(&front, 3, " box"),
        ];
        let lines = [format!("{AT} rear: Darkness. (1.2 s)"), format!("{AT} front: A red")];
        assert_eq!(shown(seen.clone()), lines);
        let done = seen.into_iter().chain([piece(&rear, 0, "Now"), caption(&front, "A red\nbox.")]);
        let first = format!("{AT} rear: Darkness. (1.2 s)");
        assert_eq!(
            shown(done),
            [first, format!("{AT} front: A red box. (1.2 s)"), format!("{AT} rear: Now")]
        );
    }

    #[test]
    fn a_long_row_shows_the_newest_words() {
        let text = "one two three four five six seven eight nine ten";
        let rows = shown([piece(&frame("front", 1), 0, text)]);
        assert_eq!(rows, [format!("{AT} front: ... eight nine ten")]);
        assert_eq!(end_of("abcdef", 2), "..");
    }

    #[test]
    fn files_get_whole_lines() {
        let front = frame("front", 1);
        let seen = [
            piece(&front, 0, "A red"),
            alert(&front, AlertEvent::Began),
            alert(&front, AlertEvent::Ended(AlertEnd::CameraGone)),
            Seen::Missed(3),
            Seen::Gone,
            Seen::Back,
            caption(&front, "A red box."),
        ];
        let lines = [
            "12:34:56.789Z front: alert \"door\" begins (Is the door open? yes: 93 %)",
            "12:34:56.789Z front: alert \"door\" ends: the camera is gone (Is the door open? yes: 93 %)",
            "... 3 messages were lost on the way",
            "... the daemon is gone; waiting for it (Ctrl-C ends)",
            "... the daemon is there again",
            "12:34:56.789Z front: A red box. (1.2 s)",
        ];
        assert_eq!(printed(false, Look::plain(), seen), lines.map(|line| format!("{line}\n")).concat());
    }

    #[test]
    fn colours_stay_with_their_camera() {
        let look = Look { has_colors: true, columns: None };
        let text =
            printed(false, look, [caption(&frame("front", 1), "A."), caption(&frame("front", 2), "B.")]);
        let color = format!("\x1b[{}mfront\x1b[0m: ", color_of("front"));
        assert_eq!(text.matches(&color).count(), 2, "{text:?}");
    }

    #[test]
    fn json_is_one_object_per_line() {
        let front = frame("front", 1);
        let text =
            printed(true, Look::plain(), [caption(&front, "a\nb"), Seen::Missed(1), caption(&front, "c")]);
        let captions: Vec<Caption> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(captions[0].text, "a\nb");
        assert_eq!(captions.len(), 2);
    }
}
