//! Messages to bytes and back.

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Alert, Answer, AnswerPiece, AskError, CameraState, Caption, CaptionChange, CaptionPiece, CaptionSettings,
    FrameStamp, Holder, Question, RuleChange, Rules, SessionChange, SessionList, Status,
};

/// Version of every message. It changes when an older reader could not read a newer message.
pub const SCHEMA: u16 = 1;

/// Longest reason quoted in an error, so that a foreign payload is not echoed whole.
const REASON_BYTES: usize = 300;

const POSTCARD: &str = "application/postcard";
const JSON: &str = "application/json";

/// How a message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Compact binary. The reader must have the same [`SCHEMA`].
    Postcard,
    /// Text for scripts and other languages; bytes are base64.
    Json,
}

/// A message of the bus. Only this crate's messages are.
pub trait Message: Serialize + DeserializeOwned + sealed::Sealed {
    /// Name in the encoding string.
    const NAME: &'static str;
    /// Longest payload that is read, in bytes.
    const MAX_BYTES: usize;

    /// The bus encoding of this message: `application/postcard;<name>@<schema>` or `application/json`.
    fn encoding(format: Format) -> String {
        match format {
            Format::Postcard => format!("{POSTCARD};{}@{SCHEMA}", Self::NAME),
            Format::Json => JSON.into(),
        }
    }

    /// The format that an encoding string names.
    ///
    /// Errors: another message, another schema version or another encoding.
    fn format(encoding: &str) -> Result<Format, DecodeError> {
        if encoding == Self::encoding(Format::Postcard) {
            return Ok(Format::Postcard);
        }
        match encoding.split(';').next() {
            Some(JSON) => Ok(Format::Json),
            _ => Err(DecodeError::Encoding {
                expected: Self::encoding(Format::Postcard),
                got: shorten(encoding.into()),
            }),
        }
    }
}

/// Why bytes are not the message they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The payload is longer than any message of this type may be.
    #[error("the {name} is {got} bytes, at most {limit} are read")]
    TooLong {
        /// Name of the message.
        name: &'static str,
        /// Bytes of the payload.
        got: usize,
        /// Bytes that are read.
        limit: usize,
    },
    /// The encoding string names something else.
    #[error("encoding \"{got}\" is not understood; send \"{expected}\" or \"application/json\"")]
    Encoding {
        /// The binary encoding that would be.
        expected: String,
        /// What it says.
        got: String,
    },
    /// The bytes are not this message.
    #[error("malformed {name}: {reason}")]
    Malformed {
        /// Name of the message and format.
        name: String,
        /// What is wrong and, in JSON, where.
        reason: String,
    },
}

/// The bytes of a message.
pub fn encode<M: Message>(message: &M, format: Format) -> Vec<u8> {
    // Both writers fail only on types no message has: unsized sequences, maps with odd keys.
    match format {
        Format::Postcard => postcard::to_allocvec(message).expect("every message can be written as postcard"),
        Format::Json => serde_json::to_vec(message).expect("every message can be written as JSON"),
    }
}

/// The message in some bytes, which may come from anywhere.
///
/// Errors: longer than [`Message::MAX_BYTES`], not this message, or bytes left over.
pub fn decode<M: Message>(bytes: &[u8], format: Format) -> Result<M, DecodeError> {
    if bytes.len() > M::MAX_BYTES {
        return Err(DecodeError::TooLong { name: M::NAME, got: bytes.len(), limit: M::MAX_BYTES });
    }
    let malformed = |format: &str, reason: String| DecodeError::Malformed {
        name: format!("{} ({format})", M::NAME),
        reason: shorten(reason),
    };
    match format {
        Format::Postcard => match postcard::take_from_bytes(bytes) {
            Ok((message, [])) => Ok(message),
            Ok((_, rest)) => Err(malformed("postcard", format!("{} bytes left over at the end", rest.len()))),
            Err(error) => Err(malformed("postcard", error.to_string())),
        },
        Format::Json => serde_json::from_slice(bytes).map_err(|error| malformed("JSON", error.to_string())),
    }
}

/// Cuts a text that may quote foreign bytes.
fn shorten(mut text: String) -> String {
    if text.len() > REASON_BYTES {
        text.truncate(text.floor_char_boundary(REASON_BYTES));
        text.push_str("...");
    }
    text
}

impl From<DecodeError> for AskError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::TooLong { name, got, limit } => {
                Self::TooLong { what: format!("{name} in bytes"), got: got as u64, limit: limit as u64 }
            }
            other => Self::BadRequest { reason: other.to_string() },
        }
    }
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! messages {
    ($($message:ty: $name:literal, $limit:expr;)*) => {$(
        impl sealed::Sealed for $message {}
        impl Message for $message {
            const NAME: &'static str = $name;
            const MAX_BYTES: usize = $limit;
        }
    )*};
}

messages! {
    Caption: "caption", 1 << 20;
    CaptionPiece: "caption_piece", 1 << 20;
    Alert: "alert", 1 << 20;
    Question: "question", 8 << 20;
    AnswerPiece: "answer_piece", 1 << 20;
    Answer: "answer", 1 << 20;
    AskError: "ask_error", 1 << 20;
    RuleChange: "rule_change", 1 << 20;
    Rules: "rules", 1 << 20;
    CaptionChange: "caption_change", 1 << 16;
    CaptionSettings: "caption_settings", 1 << 20;
    SessionChange: "session_change", 1 << 10;
    SessionList: "session_list", 1 << 20;
    CameraState: "camera_state", 1 << 20;
    FrameStamp: "frame_stamp", 1 << 10;
    Holder: "holder", 1 << 12;
    Status: "status", 4 << 20;
}

#[cfg(test)]
mod tests;
