//! Alerts: a rule's answer became yes, or is not yes any more.

use serde::{Deserialize, Serialize};

use crate::{FrameStamp, Timings, TokenCounts};

/// What happened to an alert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertEvent {
    /// It began. Exactly one end follows, unless the daemon is killed.
    #[default]
    Began,
    /// It ended.
    Ended(AlertEnd),
}

/// Why an alert ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertEnd {
    /// The probability of yes fell below the release threshold.
    Answer,
    /// The camera delivers no frames any more, so nobody knows.
    CameraGone,
    /// The rule was removed or changed.
    RuleChanged,
    /// The daemon stops.
    Stopping,
    /// The camera is paused.
    Paused,
}

/// The begin or the end of an alert.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Name of the rule.
    pub rule: String,
    /// The question that was asked.
    pub question: String,
    /// What happened.
    pub event: AlertEvent,
    /// Probability of yes among yes and no, on `frame`.
    pub p_yes: f32,
    /// Probability that the answer is yes or no at all. Far below 1 the question is not one of yes or
    /// no, and `p_yes` tells little.
    pub p_either: f32,
    /// The frame that caused the event; at an end without an answer the last frame looked at.
    pub frame: FrameStamp,
    /// The frame that caused the begin.
    pub began: FrameStamp,
    /// The first of the frames whose answer was yes without a break until `began`.
    pub first: FrameStamp,
    /// Milliseconds from capture of `frame` to publication.
    pub age_ms: f32,
    /// Which model answered.
    pub model_id: String,
    /// Tokens of the last evaluation; none are generated.
    pub tokens: TokenCounts,
    /// Where the time of the last evaluation went.
    pub timings: Timings,
}

impl Alert {
    /// Name of the camera.
    pub fn camera(&self) -> &str {
        &self.frame.camera
    }
}
