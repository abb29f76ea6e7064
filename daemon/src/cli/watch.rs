//! `mobilevlmd watch`: prints captions and alerts as they are published.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;

use messages::{Alert, AlertEnd, AlertEvent, Caption, CaptionPiece, Format, FrameStamp, Message, encode};

use super::Failure;
use crate::bus::client::{Client, Connect, Seen};
use crate::model::speech::one_line;

/// Prints captions and alerts as they are published
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of a camera; all cameras if left out
    camera: Option<String>,
    /// Print alerts only
    #[arg(long)]
    alerts: bool,
    /// Print each caption, or with --alerts each alert, as one JSON object per line
    #[arg(long)]
    json: bool,
    /// Stop after this many captions, or with --alerts this many alerts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    connect: Connect,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let client = Client::connect(&args.connect)?;
    let stdout = io::stdout();
    let stream = stdout.is_terminal() && !args.json && !args.alerts;
    let mut printer = Printer { out: stdout.lock(), json: args.json, open: None };
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut outcome = Ok(());
    client.watch(args.camera.as_deref(), stream, |seen| {
        let is_alert = matches!(seen, Seen::Alert(_));
        // A script is given messages of one kind only.
        if is_alert != args.alerts && (args.alerts || args.json) {
            return ControlFlow::Continue(());
        }
        left -= u64::from(is_alert == args.alerts && !matches!(seen, Seen::Piece(_)));
        outcome = printer.print(seen);
        if left == 0 || outcome.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    match outcome {
        // Whoever read the captions has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Writes lines; at most one of them is still growing.
struct Printer<W> {
    out: W,
    json: bool,
    open: Option<Growing>,
}

/// A line whose caption is not complete.
struct Growing {
    frame: FrameStamp,
    next: u32,
    text: String,
}

impl<W: Write> Printer<W> {
    fn print(&mut self, seen: Seen) -> io::Result<()> {
        match seen {
            Seen::Caption(caption) if self.json => self.object(&caption)?,
            Seen::Caption(caption) => self.caption(&caption)?,
            Seen::Piece(piece) => self.piece(&piece)?,
            Seen::Alert(alert) if self.json => self.object(&alert)?,
            Seen::Alert(alert) => self.alert(&alert)?,
        }
        self.out.flush()
    }

    fn object<M: Message>(&mut self, message: &M) -> io::Result<()> {
        self.out.write_all(&encode(message, Format::Json))?;
        self.out.write_all(b"\n")
    }

    /// Ends the open line and prints one of its own.
    fn alert(&mut self, alert: &Alert) -> io::Result<()> {
        let end = if self.open.take().is_some() { " ...\n" } else { "" };
        let (head, rule, question) = (head(&alert.frame), &alert.rule, one_line(&alert.question));
        let event = match alert.event {
            AlertEvent::Began => "begins",
            AlertEvent::Ended(AlertEnd::Answer) => "ends",
            AlertEvent::Ended(AlertEnd::CameraGone) => "ends: the camera is gone",
            AlertEvent::Ended(AlertEnd::RuleChanged) => "ends: the rule was changed",
            AlertEvent::Ended(AlertEnd::Stopping) => "ends: the daemon stops",
            AlertEvent::Ended(AlertEnd::Paused) => "ends: the camera is paused",
        };
        let percent = 100.0 * alert.p_yes;
        writeln!(self.out, "{end}{head}alert \"{rule}\" {event} ({question} yes: {percent:.0} %)")
    }

    /// Lets the open line grow, or begins one. Pieces of other cameras wait for their caption.
    fn piece(&mut self, piece: &CaptionPiece) -> io::Result<()> {
        if self.open.is_none() && piece.index == 0 {
            write!(self.out, "{}", head(&piece.frame))?;
            self.open = Some(Growing { frame: piece.frame.clone(), next: 0, text: String::new() });
        }
        match &mut self.open {
            Some(line) if line.frame == piece.frame && line.next == piece.index => {
                line.next += 1;
                line.text.push_str(&piece.text);
                write!(self.out, "{}", one_line(&piece.text))
            }
            _ => Ok(()),
        }
    }

    /// Completes the open line if it is this caption's, else ends it and prints a whole line.
    fn caption(&mut self, caption: &Caption) -> io::Result<()> {
        let rest = match self.open.take() {
            Some(line) if line.frame == caption.frame && caption.text.starts_with(&line.text) => {
                one_line(&caption.text[line.text.len()..])
            }
            open => {
                let end = if open.is_some() { " ...\n" } else { "" };
                format!("{end}{}{}", head(&caption.frame), one_line(&caption.text))
            }
        };
        let more = if caption.truncated { " ..." } else { "" };
        writeln!(self.out, "{rest}{more} ({:.1} s)", caption.age_ms / 1000.0)
    }
}

/// Capture time of day in UTC and camera.
fn head(frame: &FrameStamp) -> String {
    let milliseconds = frame.captured_at / 1_000_000;
    let seconds = milliseconds / 1000;
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03}Z {}: ", seconds % 60, milliseconds % 1000, frame.camera)
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

    fn printed(json: bool, seen: impl IntoIterator<Item = Seen>) -> String {
        let mut printer = Printer { out: Vec::new(), json, open: None };
        for seen in seen {
            printer.print(seen).unwrap();
        }
        String::from_utf8(printer.out).unwrap()
    }

    #[test]
    fn pieces_grow_into_the_caption() {
        let front = frame("front", 1);
        let text = printed(
            false,
            [piece(&front, 0, "A red"), piece(&front, 1, " box"), caption(&front, "A red box.")],
        );
        assert_eq!(text, "12:34:56.789Z front: A red box. (1.2 s)\n");
    }

    #[test]
    fn a_lost_piece_or_another_camera_costs_no_caption() {
        let (front, rear) = (frame("front", 1), frame("rear", 1));
        let text = printed(
            false,
            [
                piece(&front, 0, "A"),
                piece(&rear, 0, "Dark"),
                caption(&rear, "Darkness."),
                piece(&front, 2, " box"),
                caption(&front, "A red\nbox."),
            ],
        );
        let lines = ["front: A ...", "rear: Darkness. (1.2 s)", "front: A red box. (1.2 s)"];
        assert_eq!(text, lines.map(|line| format!("12:34:56.789Z {line}\n")).concat());
    }

    #[test]
    fn an_alert_has_a_line_of_its_own() {
        let front = frame("front", 1);
        let alert = |event| {
            let (rule, question) = ("door".into(), "Is the door\nopen?".into());
            Seen::Alert(Alert {
                rule,
                question,
                event,
                p_yes: 0.93,
                frame: front.clone(),
                ..Alert::default()
            })
        };
        let text = printed(
            false,
            [
                piece(&front, 0, "A red"),
                alert(AlertEvent::Began),
                alert(AlertEvent::Ended(AlertEnd::CameraGone)),
                caption(&front, "A red box."),
            ],
        );
        let lines = [
            "front: A red ...",
            "front: alert \"door\" begins (Is the door open? yes: 93 %)",
            "front: alert \"door\" ends: the camera is gone (Is the door open? yes: 93 %)",
            "front: A red box. (1.2 s)",
        ];
        assert_eq!(text, lines.map(|line| format!("12:34:56.789Z {line}\n")).concat());
    }

    #[test]
    fn json_is_one_object_per_line() {
        let front = frame("front", 1);
        let text = printed(true, [caption(&front, "a\nb"), caption(&front, "c")]);
        let captions: Vec<Caption> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(captions[0].text, "a\nb");
        assert_eq!(captions.len(), 2);
    }
}
