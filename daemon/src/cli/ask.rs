//! `mobilevlmd ask`: asks a camera a question.

use std::io::Write;
use std::path::PathBuf;

use messages::{Format, FrameChoice, Question, encode};

use super::Failure;
use crate::bus::client::{Client, ClientError, Connect};

/// Asks a camera a question
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the camera
    camera: String,
    /// The question in words
    question: String,
    /// Print the whole answer, or the error, as one JSON object
    #[arg(long)]
    json: bool,
    /// Encode the newest frame first instead of taking one already in the cache
    #[arg(long, group = "frame")]
    fresh: bool,
    /// Ask about a frame still held
    #[arg(long, value_name = "NUMBER", group = "frame")]
    sequence: Option<u64>,
    /// Ask about a picture of your own, JPEG or PNG
    #[arg(long, value_name = "FILE", group = "frame")]
    picture: Option<PathBuf>,
    /// Longest answer in tokens [default: the daemon's]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    max_tokens: u32,
    /// Time limit in seconds [default: the daemon's]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<u32>,
    #[command(flatten)]
    connect: Connect,
}

/// Seconds as milliseconds.
fn seconds(text: &str) -> Result<u32, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=600.0).contains(&seconds) => Ok((seconds * 1000.0) as u32),
        _ => Err("seconds from 0.001 to 600 are expected".into()),
    }
}

impl Args {
    fn question(&self) -> Result<Question, Failure> {
        let frame = match (&self.picture, self.sequence) {
            (Some(path), _) => {
                let bytes = std::fs::read(path)
                    .map_err(|error| Failure::new(format!("{}: cannot be read: {error}", path.display())))?;
                FrameChoice::Picture(bytes)
            }
            (None, Some(number)) => FrameChoice::Sequence(number),
            (None, None) if self.fresh => FrameChoice::Fresh,
            (None, None) => FrameChoice::Latest,
        };
        Ok(Question {
            frame,
            max_tokens: self.max_tokens,
            deadline_ms: self.timeout.unwrap_or(0),
            ..Question::new(&self.question)
        })
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let question = args.question()?;
    let client = Client::connect(&args.connect)?;
    let mut out = std::io::stdout().lock();
    let mut shown = String::new();
    let outcome = client.ask(&args.camera, &question, |text| {
        shown.push_str(text);
        if !args.json {
            // A reader who left has no use for the rest; the end of the answer tells.
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    });
    match outcome {
        Ok(answer) if args.json => print(&mut out, &encode(&answer, Format::Json)),
        Ok(answer) => print(&mut out, answer.text.strip_prefix(&shown).unwrap_or("").as_bytes()),
        Err(error) => {
            if args.json
                && let ClientError::Refused { error: refusal } = &error
            {
                print(&mut out, &encode(refusal, Format::Json))?;
            } else if !shown.is_empty() {
                print(&mut out, b"")?;
            }
            Err(error.into())
        }
    }
}

/// Writes and ends a line.
fn print(out: &mut impl Write, line: &[u8]) -> Result<(), Failure> {
    out.write_all(line)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}
