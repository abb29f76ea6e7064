//! Scene descriptions.

use serde::{Deserialize, Serialize};

use crate::{FrameStamp, Timings, TokenCounts};

/// A description of one frame.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Caption {
    /// The description.
    pub text: String,
    /// The frame it describes.
    pub frame: FrameStamp,
    /// Milliseconds from capture to publication.
    pub age_ms: f32,
    /// Which prompt was asked, as named in the configuration.
    pub prompt_id: String,
    /// Which model answered.
    pub model_id: String,
    /// Tokens in and out.
    pub tokens: TokenCounts,
    /// Where the time went.
    pub timings: Timings,
    /// Whether the token limit cut the text short.
    pub truncated: bool,
    /// Where a frame is described again only because the last caption is old: the capture time of the
    /// first frame that looked like this, in nanoseconds since the Unix epoch.
    pub unchanged_since: Option<u64>,
}

/// Part of a caption while it is being written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptionPiece {
    /// The frame being described.
    pub frame: FrameStamp,
    /// Number of the piece, from 0.
    pub index: u32,
    /// New text; pieces of one frame join to the caption.
    pub text: String,
}
