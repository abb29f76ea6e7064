//! What `mobilevlmd` says and hears on the bus.
//!
//! Types, keys and encodings only: no IO, no clock, no runtime. A robot's own crate can depend on
//! this one without pulling in the bus.
//!
//! [`keys`] has every key expression, [`encode`] and [`decode`] are the only ways between a message
//! and its bytes, and each message is one plain struct or enum:
//!
//! ```
//! let question = messages::Question::new("Is the door open?");
//! let payload = messages::encode(&question, messages::Format::Postcard);
//! assert_eq!(messages::decode::<messages::Question>(&payload, messages::Format::Postcard)?, question);
//! # Ok::<(), messages::DecodeError>(())
//! ```
//!
//! # Asking
//!
//! A question is a query on `mobilevlm/<device>/camera/<name>/ask`. Its encoding chooses the form of
//! every reply:
//!
//! | encoding of the question | pieces | final reply | error reply |
//! | --- | --- | --- | --- |
//! | `text/plain`, `zenoh/string` or none: the words alone | `text/plain`: new text | `text/plain`: the whole text; the attachment is the [`Answer`] as JSON | `text/plain`: `kind: message` of an [`AskError`] |
//! | `application/json`: a [`Question`] | [`AnswerPiece::Text`] as JSON | [`AnswerPiece::Final`] as JSON | [`AskError`] as JSON |
//! | `application/postcard;question@1`: a [`Question`] | [`AnswerPiece::Text`] | [`AnswerPiece::Final`] | [`AskError`] |
//!
//! Errors are zenoh's error replies. Every question gets exactly one final reply or one error
//! reply, and it is the last.
//!
//! All replies have one key, and zenoh's default is to keep only the newest reply of a key: whoever
//! wants no more than the answer gets the final reply alone. To see the pieces as they come, ask for
//! unconsolidated replies (`ConsolidationMode::None`); a piece has no attachment, the final reply has.
//!
//! # Changes while running
//!
//! A query on `mobilevlm/<device>/control/<name>` carries a change as JSON or postcard; no payload at all
//! only asks. The reply has the format of the query and holds what is there then; an [`AskError`] says
//! why nothing was changed.
//!
//! | `<name>` | change | reply |
//! | --- | --- | --- |
//! | `rules` | [`RuleChange`] | [`Rules`] |
//! | `captions` | [`CaptionChange`] | [`CaptionSettings`] |
//! | `sessions` | [`SessionChange`] | [`SessionList`] |
//!
//! Changes are made one after the other. After each one the new rules or captions are also published
//! on the same key, so that others who change them see it; their `revision` tells which is newer.

#![forbid(unsafe_code)]

pub mod keys;

mod alert;
mod caption;
mod constraint;
mod control;
mod encoding;
mod holder;
mod question;
mod rule;
mod stamp;
mod status;

pub use alert::{Alert, AlertEnd, AlertEvent};
pub use caption::{Caption, CaptionPiece};
pub use constraint::Constraint;
pub use control::{
    CaptionChange, CaptionSettings, Captioning, NewCaptioning, SessionChange, SessionList, SessionName,
    SessionState,
};
pub use encoding::{DecodeError, Format, Message, SCHEMA, decode, encode};
pub use holder::{Claim, Holder};
pub use question::{Answer, AnswerPiece, AskError, FrameChoice, Question, Sampling, Session};
pub use rule::{MAX_RULES, Rule, RuleChange, RuleError, Rules};
pub use stamp::{FrameStamp, Timings, TokenCounts};
pub use status::{
    BusStatus, CacheStatus, CameraPhase, CameraState, CameraStatus, DraftStatus, EngineStatus, ErrorCounts,
    Latency, ModelStatus, RulePhase, RuleStatus, StageStatus, Status,
};
