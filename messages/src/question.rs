//! Questions and answers.

use serde::{Deserialize, Serialize};

use crate::{Constraint, FrameStamp, Timings, TokenCounts};

/// Longest question in bytes of text.
const TEXT_BYTES: usize = 4096;

/// Most stop texts of a question, and the longest of them in bytes.
const STOPS: usize = 16;
const STOP_BYTES: usize = 256;

/// Longest name of a session in bytes.
const SESSION_BYTES: usize = 64;

/// Which frame a question is about. In JSON `"latest"`, `"fresh"`, `{"sequence": 5}` or
/// `{"picture": "<base64>"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameChoice {
    /// The newest frame whose image is already in the cache, if it is young enough
    /// ([`Question::max_stale_ms`]); otherwise the newest frame.
    #[default]
    Latest,
    /// The newest frame, encoded first.
    Fresh,
    /// A frame still held, by sequence number.
    Sequence(u64),
    /// A picture brought along: JPEG or PNG bytes.
    Picture(#[serde(with = "picture")] Vec<u8>),
}

/// How tokens are chosen. The default is greedy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// Nucleus: the smallest set of tokens with this much probability; 0 or 1 turns it off.
    pub top_p: f32,
    /// Seed of the random choice.
    pub seed: u64,
}

/// The conversation a question belongs to. In JSON everything but `name` may be left out.
///
/// The first question of a name opens the session, on the frame it chooses. Later ones are answered
/// with the earlier turns in view. Whoever knows the name and the camera can join.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Name of the session on its camera, 1 to 64 bytes.
    pub name: String,
    /// Whether the session moves on to the frame this question chooses; otherwise it stays with the
    /// frame it was opened on, whatever the question chooses.
    #[serde(default)]
    pub follow: bool,
    /// Whether the session is over after this question, whose text may then be empty.
    #[serde(default)]
    pub end: bool,
}

/// A question about what a camera sees. In JSON everything but `text` may be left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The question in words, at most 4096 bytes.
    pub text: String,
    /// The frame asked about.
    #[serde(default)]
    pub frame: FrameChoice,
    /// How old the capture of a cached frame may be for `Latest`; 0 takes the daemon's default.
    #[serde(default)]
    pub max_stale_ms: u32,
    /// Longest answer; 0 takes the daemon's default.
    #[serde(default)]
    pub max_tokens: u32,
    /// Time limit from arrival to final piece; 0 takes the daemon's default.
    #[serde(default)]
    pub deadline_ms: u32,
    /// How tokens are chosen.
    #[serde(default)]
    pub sampling: Sampling,
    /// The answer ends before the first of these: at most 16, each 1 to 256 bytes.
    #[serde(default)]
    pub stop: Vec<String>,
    /// The conversation it belongs to; without one it stands alone.
    #[serde(default)]
    pub session: Option<Session>,
    /// What the answer must look like.
    #[serde(default)]
    pub constraint: Option<Constraint>,
}

impl Question {
    /// A question about the latest frame, everything else as the daemon likes it.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Checks everything that can be checked without looking at a picture or the model.
    ///
    /// Errors: no words, or a value outside what its field allows.
    pub fn check(&self) -> Result<(), AskError> {
        let at_most = |what: &str, got: usize, limit: usize| {
            let too_long = AskError::TooLong { what: what.into(), got: got as u64, limit: limit as u64 };
            if got > limit { Err(too_long) } else { Ok(()) }
        };
        let bad = |reason: &str| Err(AskError::BadRequest { reason: reason.into() });
        at_most("question text in bytes", self.text.len(), TEXT_BYTES)?;
        at_most("number of stop texts", self.stop.len(), STOPS)?;
        for stop in &self.stop {
            at_most("stop text in bytes", stop.len(), STOP_BYTES)?;
        }
        if let Some(session) = &self.session {
            at_most("name of the session in bytes", session.name.len(), SESSION_BYTES)?;
            if session.name.is_empty() {
                return bad("the session has no name");
            }
        }
        if let Some(constraint) = &self.constraint {
            constraint.check()?;
        }
        let Sampling { temperature, top_p, .. } = self.sampling;
        if self.text.trim().is_empty() && !self.only_ends_session() {
            bad("the question is empty")
        } else if self.stop.iter().any(String::is_empty) {
            bad("a stop text is empty")
        } else if !(0.0..=100.0).contains(&temperature) {
            bad("sampling.temperature must be from 0 to 100")
        } else if !(0.0..=1.0).contains(&top_p) {
            bad("sampling.top_p must be from 0 to 1")
        } else {
            Ok(())
        }
    }

    /// Whether nothing is asked but that a session ends.
    pub fn only_ends_session(&self) -> bool {
        self.text.trim().is_empty() && self.session.as_ref().is_some_and(|session| session.end)
    }
}

/// One reply to a question: pieces of text, then exactly one final answer or one error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerPiece {
    /// More text.
    Text {
        /// Number of the piece, from 0.
        index: u32,
        /// New text; the pieces join to the answer.
        text: String,
    },
    /// The end: the whole answer.
    Final(Answer),
    /// The end: no answer.
    Error(AskError),
}

/// A finished answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The whole text.
    pub text: String,
    /// The frame it is about. A picture brought along has sequence 0 and the time of arrival.
    pub frame: FrameStamp,
    /// Milliseconds from capture to publication.
    pub age_ms: f32,
    /// `question`: the prompt was the caller's.
    pub prompt_id: String,
    /// Which model answered.
    pub model_id: String,
    /// Tokens in and out.
    pub tokens: TokenCounts,
    /// Where the time went.
    pub timings: Timings,
    /// Whether the text was cut short: by the token limit, or by a stop text before it met the
    /// question's constraint.
    pub truncated: bool,
    /// Earlier turns of the session that the model saw. The oldest go when the context is full.
    pub turns: u32,
    /// Whether those turns had to be computed again: their memory had been given to others, the
    /// oldest of them went, or the session moved on to another frame.
    pub recomputed: bool,
}

/// Why a question or a request has no answer. Shown, it is the message without the [kind](AskError::kind).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum AskError {
    /// No camera of that name.
    #[error("no camera \"{camera}\"; there are: {}", known.join(", "))]
    UnknownCamera {
        /// The name asked for.
        camera: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// The camera has not delivered a frame yet, or the frame named is no longer held.
    #[error("{reason}")]
    NoFrame {
        /// State of the camera, or which frames are held.
        reason: String,
    },
    /// The question does not fit.
    #[error("{what} is {got}, at most {limit}")]
    TooLong {
        /// What is too long, with its unit.
        what: String,
        /// Its size.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// Too many questions wait.
    #[error("too many questions wait; try again in {retry_after_ms} ms")]
    Overloaded {
        /// When to try again.
        retry_after_ms: u32,
    },
    /// The deadline passed.
    #[error("the deadline of {deadline_ms} ms passed")]
    Deadline {
        /// The deadline that was asked for.
        deadline_ms: u32,
    },
    /// The caller went away or the daemon is stopping.
    #[error("{reason}")]
    Cancelled {
        /// Who cancelled.
        reason: String,
    },
    /// No answer can be made to have the form asked for.
    #[error("{reason}")]
    Constraint {
        /// What is wrong with the constraint.
        reason: String,
    },
    /// The payload cannot be understood.
    #[error("{reason}")]
    BadRequest {
        /// What is wrong and where.
        reason: String,
    },
    /// The daemon failed.
    #[error("{reason}")]
    Internal {
        /// What failed.
        reason: String,
    },
    /// No rule of that name.
    #[error("no rule \"{rule}\"; there are: {}", known.join(", "))]
    UnknownRule {
        /// The name asked for.
        rule: String,
        /// The names there are.
        known: Vec<String>,
    },
}

impl AskError {
    /// The name of the variant, as it is in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::UnknownCamera { .. } => "unknown_camera",
            Self::NoFrame { .. } => "no_frame",
            Self::TooLong { .. } => "too_long",
            Self::Overloaded { .. } => "overloaded",
            Self::Deadline { .. } => "deadline",
            Self::Cancelled { .. } => "cancelled",
            Self::Constraint { .. } => "constraint",
            Self::BadRequest { .. } => "bad_request",
            Self::Internal { .. } => "internal",
            Self::UnknownRule { .. } => "unknown_rule",
        }
    }
}

/// Bytes in binary formats, base64 in text formats.
mod picture {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde::{Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&STANDARD.encode(bytes))
        } else {
            serializer.serialize_bytes(bytes)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Base64)
        } else {
            deserializer.deserialize_byte_buf(Bytes)
        }
    }

    struct Base64;

    impl de::Visitor<'_> for Base64 {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a picture as base64")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
            STANDARD.decode(text).map_err(|error| E::custom(format!("the picture is not base64: {error}")))
        }
    }

    struct Bytes;

    impl de::Visitor<'_> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("the bytes of a picture")
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_checked() {
        let question = Question::new("What is ahead?");
        assert_eq!(question.check(), Ok(()));
        let kind = |question: Question| question.check().map_err(|error| error.kind());
        assert_eq!(kind(Question::new(" \n")), Err("bad_request"));
        assert_eq!(kind(Question::new("x".repeat(4096))), Ok(()));
        assert_eq!(kind(Question::new("x".repeat(4097))), Err("too_long"));
        assert_eq!(kind(Question { stop: vec!["a".into(); 17], ..question.clone() }), Err("too_long"));
        assert_eq!(kind(Question { stop: vec!["a".repeat(257)], ..question.clone() }), Err("too_long"));
        assert_eq!(kind(Question { stop: vec![String::new()], ..question.clone() }), Err("bad_request"));
        let session = |name: &str, end| Some(Session { name: name.into(), end, ..Session::default() });
        assert_eq!(kind(Question { session: session("s", false), ..question.clone() }), Ok(()));
        assert_eq!(kind(Question { session: session("", false), ..question.clone() }), Err("bad_request"));
        let long = "x".repeat(65);
        assert_eq!(kind(Question { session: session(&long, false), ..question.clone() }), Err("too_long"));
        assert_eq!(kind(Question { session: session("s", true), ..Question::new("") }), Ok(()));
        assert_eq!(kind(Question { session: session("s", false), ..Question::new("") }), Err("bad_request"));
        let constraint = Some(Constraint::Choices(Vec::new()));
        assert_eq!(kind(Question { constraint, ..question.clone() }), Err("constraint"));
        for sampling in [
            Sampling { temperature: -0.1, ..Sampling::default() },
            Sampling { temperature: f32::NAN, ..Sampling::default() },
            Sampling { top_p: 1.5, ..Sampling::default() },
        ] {
            assert_eq!(kind(Question { sampling, ..question.clone() }), Err("bad_request"));
        }
    }

    #[test]
    fn kinds_are_the_names_in_json() {
        let error = AskError::UnknownCamera { camera: "a".into(), known: vec!["b".into(), "c".into()] };
        assert_eq!(error.to_string(), "no camera \"a\"; there are: b, c");
        for error in [
            error,
            AskError::Overloaded { retry_after_ms: 1 },
            AskError::BadRequest { reason: "r".into() },
            AskError::Constraint { reason: "r".into() },
        ] {
            let json = serde_json::to_string(&error).unwrap();
            assert!(json.starts_with(&format!("{{\"{}\":", error.kind())), "{json}");
        }
    }
}
