//! `mobilevlmd ask`: asks a camera a question.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use messages::{Answer, Constraint, Format, FrameChoice, Question, Sampling, Session, encode};

use super::Failure;
use super::terminal::{FAINT, Look, time_of_day};
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
    /// Ask within a conversation of this name, which keeps earlier questions and answers in view
    #[arg(long, value_name = "NAME")]
    session: Option<String>,
    /// Move the conversation on to the newest frame; otherwise it stays with the one it began on
    #[arg(long, requires = "session")]
    follow: bool,
    /// End the conversation after this question, which may be empty ("") then
    #[arg(long, requires = "session")]
    end_session: bool,
    /// Answer with one of these texts: give it once for each
    #[arg(long = "choice", value_name = "TEXT", group = "form")]
    choices: Vec<String>,
    /// Answer with a text that matches this regular expression
    #[arg(long, value_name = "EXPRESSION", group = "form")]
    regex: Option<String>,
    /// Answer with JSON that the schema in this file allows
    #[arg(long, value_name = "FILE", group = "form")]
    json_schema: Option<PathBuf>,
    /// 0 takes the likeliest words; 1 draws them by their probability; more is wilder
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// Draw among the likeliest words that together have this probability; 0 among all
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    top_p: f32,
    /// The same seed draws the same words
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// End the answer before this text: give it once for each
    #[arg(long = "stop", value_name = "TEXT")]
    stops: Vec<String>,
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
        let session = self.session.as_ref().map(|name| Session {
            name: name.clone(),
            follow: self.follow,
            end: self.end_session,
        });
        let (temperature, top_p, seed) = (self.temperature, self.top_p, self.seed);
        Ok(Question {
            frame,
            max_tokens: self.max_tokens,
            deadline_ms: self.timeout.unwrap_or(0),
            sampling: Sampling { temperature, top_p, seed },
            stop: self.stops.clone(),
            session,
            constraint: self.constraint()?,
            ..Question::new(&self.question)
        })
    }

    /// What the answer must look like.
    fn constraint(&self) -> Result<Option<Constraint>, Failure> {
        if let Some(path) = &self.json_schema {
            let schema = std::fs::read_to_string(path)
                .map_err(|error| Failure::new(format!("{}: cannot be read: {error}", path.display())))?;
            return Ok(Some(Constraint::JsonSchema(schema)));
        }
        let regex = self.regex.clone().map(Constraint::Regex);
        Ok(regex.or_else(|| (!self.choices.is_empty()).then(|| Constraint::Choices(self.choices.clone()))))
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let question = args.question()?;
    let client = Client::connect(&args.connect)?;
    let stdout = io::stdout();
    let look = if stdout.is_terminal() { Look::of_terminal() } else { Look::plain() };
    let mut out = stdout.lock();
    let mut shown = String::new();
    let outcome = client.ask(&args.camera, &question, |text| {
        shown.push_str(text);
        if !args.json {
            // A reader who left has no use for the rest; the end of the answer tells.
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    });
    let printed = match &outcome {
        Ok(answer) if args.json => line(&mut out, &encode(answer, Format::Json)),
        Ok(answer) => {
            let rest = answer.text.strip_prefix(&shown).unwrap_or("");
            let note = look.columns.map(|_| format!("\n{}", look.paint(FAINT, &note(answer))));
            line(&mut out, format!("{rest}{}", note.unwrap_or_default()).as_bytes())
        }
        Err(ClientError::Refused { error }) if args.json => line(&mut out, &encode(error, Format::Json)),
        Err(_) if !args.json && !shown.is_empty() => line(&mut out, b""),
        Err(_) => Ok(()),
    };
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        // Whoever closed the pipe has read enough.
        _ => outcome.map(drop).map_err(Failure::from),
    }
}

/// Writes and ends a line.
fn line(out: &mut impl Write, line: &[u8]) -> io::Result<()> {
    out.write_all(line)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// What a person wants to know of an answer besides its words.
fn note(answer: &Answer) -> String {
    let Answer { frame, age_ms, tokens, timings, truncated, .. } = answer;
    let work = timings.preprocess_ms + timings.encode_ms + timings.prefill_ms + timings.decode_ms;
    let cut = if *truncated { ", cut short" } else { "" };
    format!(
        "({} {}, frame {}, {:.1} s old; {} tokens in {:.2} s{cut})",
        time_of_day(frame.captured_at),
        frame.camera,
        frame.sequence,
        age_ms / 1000.0,
        tokens.generated,
        work / 1000.0
    )
}
