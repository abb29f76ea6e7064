//! What every result says about the frame it describes and the work it took.

use serde::{Deserialize, Serialize};

/// The frame a result is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameStamp {
    /// Name of the camera in the configuration.
    pub camera: String,
    /// Number of the frame, counted by the camera from 0 since the daemon started.
    pub sequence: u64,
    /// When the frame was captured: nanoseconds since the Unix epoch.
    pub captured_at: u64,
}

/// Tokens that went in and came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCounts {
    /// Positions of the prompt, image included.
    pub prompt: u32,
    /// Of these, positions that were already in the KV cache.
    pub cached: u32,
    /// Tokens generated, the end token excluded.
    pub generated: u32,
}

/// Milliseconds spent in each stage. A stage that was not needed is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Waiting for the engine.
    pub queue_ms: f32,
    /// Picture to tensor.
    pub preprocess_ms: f32,
    /// Vision tower and projector.
    pub encode_ms: f32,
    /// Prompt into the KV cache.
    pub prefill_ms: f32,
    /// Generated tokens.
    pub decode_ms: f32,
}
