//! Questions and answers.

use serde::{Deserialize, Serialize};

use crate::{FrameStamp, Timings, TokenCounts};

/// Which frame a question is about.
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
    Picture(Vec<u8>),
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

/// A question about what a camera sees.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Question {
    /// The question in words.
    pub text: String,
    /// The frame asked about.
    pub frame: FrameChoice,
    /// How old the capture of a cached frame may be for `Latest`; 0 takes the daemon's default.
    pub max_stale_ms: u32,
    /// Longest answer; 0 takes the daemon's default.
    pub max_tokens: u32,
    /// Time limit from arrival to final piece; 0 takes the daemon's default.
    pub deadline_ms: u32,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The answer ends before the first of these.
    pub stop: Vec<String>,
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
    /// Whether the token limit cut the text short.
    pub truncated: bool,
}

/// Why a question has no answer.
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
    #[error("no frame: {reason}")]
    NoFrame {
        /// State of the camera, or which frames are held.
        reason: String,
    },
    /// The question does not fit.
    #[error("too long: {what} is {got}, at most {limit}")]
    TooLong {
        /// What is too long, with its unit.
        what: String,
        /// Its size.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// Too many questions wait.
    #[error("overloaded: try again in {retry_after_ms} ms")]
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
    #[error("cancelled: {reason}")]
    Cancelled {
        /// Who cancelled.
        reason: String,
    },
    /// The payload cannot be understood.
    #[error("bad request: {reason}")]
    BadRequest {
        /// What is wrong and where.
        reason: String,
    },
    /// The daemon failed.
    #[error("internal error: {reason}")]
    Internal {
        /// What failed.
        reason: String,
    },
}
