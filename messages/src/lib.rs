//! What `mobilevlmd` says and hears on the bus.
//!
//! Types, keys and encodings only: no IO, no clock, no runtime. A robot's own crate can depend on
//! this one without pulling in the bus.

#![forbid(unsafe_code)]

mod caption;
mod question;
mod stamp;
mod status;

pub use caption::{Caption, CaptionPiece};
pub use question::{Answer, AnswerPiece, AskError, FrameChoice, Question, Sampling};
pub use stamp::{FrameStamp, Timings, TokenCounts};
pub use status::{CacheStatus, CameraPhase, CameraState, CameraStatus, EngineStatus, ModelStatus, Status};
