//! State of cameras and daemon.

use serde::{Deserialize, Serialize};

use crate::AskError;

/// What a camera is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CameraPhase {
    /// Being opened; no frame yet.
    #[default]
    Opening,
    /// Delivering frames.
    Live,
    /// Open, but no frame for too long. It is closed and opened again.
    Stalled,
    /// It was there and is not any more.
    Gone,
    /// Backing off: it failed more than once in a row, and there are pauses between the attempts to
    /// open it again.
    Reopening,
    /// Finished: a finite source has no more frames.
    Ended,
    /// It was not there yet.
    Absent,
    /// It cannot be opened, or it failed while it delivered. The next attempt follows at once.
    Failing,
}

/// State of one camera, published when it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CameraState {
    /// Name in the configuration.
    pub camera: String,
    /// What it is doing.
    pub phase: CameraPhase,
    /// Why, in words; empty if there is nothing to add.
    pub reason: String,
    /// Since when: nanoseconds since the Unix epoch.
    pub since: u64,
    /// While new frames do not differ from the described one, and so are not described: the capture
    /// time of the first frame that looked like this, in nanoseconds since the Unix epoch.
    pub unchanged_since: Option<u64>,
}

/// Counters of one camera.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CameraStatus {
    /// State.
    pub state: CameraState,
    /// Source in words, with the chosen format and size.
    pub source: String,
    /// Frames captured since start.
    pub frames: u64,
    /// Frames that nobody looked at: replaced by newer ones, or given up when the camera failed.
    pub replaced: u64,
    /// Frames the driver lost (gaps in its sequence numbers).
    pub lost: u64,
    /// Frames dropped as damaged.
    pub damaged: u64,
    /// Captured frames per second over the last seconds.
    pub frames_per_second: f32,
    /// Captions published since start.
    pub captions: u64,
    /// Frames not described because they were too old when their turn came.
    pub too_old: u64,
    /// Frames not described because the model failed; the journal says why.
    pub failed: u64,
    /// Frames not described because they did not differ from the last described one.
    pub unchanged: u64,
    /// Age of the last caption when it was published.
    pub caption_age_ms: f32,
    /// Frames published for other nodes since start.
    pub published: u64,
    /// Frames that were due but not published as captured, because readers held all shared memory.
    pub unpublished: u64,
}

/// The model in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelStatus {
    /// Identity carried by every result.
    pub id: String,
    /// Types of the weights, in words.
    pub weights: String,
    /// Device and kernels, in words.
    pub device: String,
    /// Bytes of packed weights.
    pub weight_bytes: u64,
}

/// The KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheStatus {
    /// Bytes of the arena.
    pub bytes: u64,
    /// Pages of the arena.
    pub pages: u32,
    /// Pages in use.
    pub pages_used: u32,
    /// Pictures and turns of talk given up since start because others wanted their pages.
    pub evicted: u64,
    /// Prompt positions found in the cache since start.
    pub positions_reused: u64,
    /// Prompt positions computed since start.
    pub positions_computed: u64,
}

/// How long pieces of work of one kind took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Pieces since start.
    pub count: u64,
    /// Median of the last 256.
    pub median_ms: f32,
    /// 99th percentile of the last 256.
    pub p99_ms: f32,
    /// Longest since start.
    pub worst_ms: f32,
}

/// How long the stages of the engine's work took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageStatus {
    /// From the arrival of a question until its turn.
    pub queue: Latency,
    /// From the arrival of a question to its first token.
    pub first_token: Latency,
    /// From the arrival of a question to its whole answer.
    pub answer: Latency,
    /// From the capture of a frame to its whole caption.
    pub caption: Latency,
    /// Frame to tensor.
    pub preprocess: Latency,
    /// Vision tower and projector.
    pub encode: Latency,
    /// Visual tokens into the cache.
    pub picture: Latency,
    /// Passes through the language model that carry a prompt or a draft.
    pub prefill: Latency,
    /// Passes that carry one token for each of their sequences.
    pub decode: Latency,
    /// Units of work.
    pub unit: Latency,
}

/// How well earlier texts foretold new ones, since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DraftStatus {
    /// Tokens proposed from earlier texts.
    pub proposed: u64,
    /// Those that the model chose too.
    pub accepted: u64,
    /// Tokens of all texts.
    pub tokens: u64,
    /// Passes that chose them: as many as tokens without drafts.
    pub passes: u64,
}

/// Work done by the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// Units of work done since start; it grows while the engine is healthy.
    pub units: u64,
    /// Longest unit so far.
    pub longest_unit_ms: f32,
    /// Images encoded since start.
    pub images: u64,
    /// Questions waiting.
    pub questions_waiting: u32,
    /// Questions answered since start.
    pub questions_answered: u64,
    /// Questions that ended in an error since start.
    pub questions_failed: u64,
    /// Last image encode.
    pub encode_ms: f32,
    /// Last prefill rate.
    pub prefill_tokens_per_second: f32,
    /// Last decode rate.
    pub decode_tokens_per_second: f32,
    /// Texts being written and rules being evaluated.
    pub jobs: u32,
    /// Seconds spent on units since start.
    pub busy_s: f64,
    /// Questions refused since start because too many waited.
    pub questions_refused: u64,
    /// Passes through the language model since start.
    pub passes: u64,
    /// Rows they carried.
    pub rows: u64,
    /// How long each stage takes.
    pub stages: StageStatus,
    /// Drafts of texts.
    pub drafts: DraftStatus,
    /// Sessions open.
    pub sessions: u32,
    /// Times that the turns of a session were computed again, since start.
    pub sessions_recomputed: u64,
}

/// How far the alert of a rule is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RulePhase {
    /// No alert.
    #[default]
    Quiet,
    /// The answer is yes, but not for long enough, or the cool-down is not over.
    Rising,
    /// The alert is on.
    Active,
}

/// A rule on one camera.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleStatus {
    /// Name of the rule.
    pub rule: String,
    /// Name of the camera.
    pub camera: String,
    /// How far its alert is.
    pub phase: RulePhase,
    /// Capture time of the frame that changed the phase: nanoseconds since the Unix epoch.
    pub since: u64,
    /// Probability of yes among yes and no in the last answer; absent before the first one.
    pub p_yes: Option<f32>,
    /// Probability that the last answer is yes or no at all. Far below 1 the question is not one of
    /// yes or no.
    pub p_either: Option<f32>,
    /// Pictures the question was put to since the rule was set.
    pub evaluations: u64,
    /// Alerts that began since the rule was set.
    pub alerts: u64,
    /// Milliseconds the last evaluation took.
    pub evaluation_ms: f32,
}

/// Questions that ended in an error since start, by the kind of the error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorCounts {
    /// [`AskError::UnknownCamera`]
    pub unknown_camera: u64,
    /// [`AskError::NoFrame`]
    pub no_frame: u64,
    /// [`AskError::TooLong`]
    pub too_long: u64,
    /// [`AskError::Overloaded`]
    pub overloaded: u64,
    /// [`AskError::Deadline`]
    pub deadline: u64,
    /// [`AskError::Cancelled`]
    pub cancelled: u64,
    /// [`AskError::Constraint`]
    pub constraint: u64,
    /// [`AskError::BadRequest`]
    pub bad_request: u64,
    /// [`AskError::Internal`]
    pub internal: u64,
    /// [`AskError::UnknownRule`]
    pub unknown_rule: u64,
}

impl ErrorCounts {
    /// Counts one more.
    pub fn add(&mut self, error: &AskError) {
        *match error {
            AskError::UnknownCamera { .. } => &mut self.unknown_camera,
            AskError::NoFrame { .. } => &mut self.no_frame,
            AskError::TooLong { .. } => &mut self.too_long,
            AskError::Overloaded { .. } => &mut self.overloaded,
            AskError::Deadline { .. } => &mut self.deadline,
            AskError::Cancelled { .. } => &mut self.cancelled,
            AskError::Constraint { .. } => &mut self.constraint,
            AskError::BadRequest { .. } => &mut self.bad_request,
            AskError::Internal { .. } => &mut self.internal,
            AskError::UnknownRule { .. } => &mut self.unknown_rule,
        } += 1;
    }

    /// Name and number of each kind, in the order of [`AskError`].
    pub fn kinds(&self) -> [(&'static str, u64); 10] {
        [
            ("unknown_camera", self.unknown_camera),
            ("no_frame", self.no_frame),
            ("too_long", self.too_long),
            ("overloaded", self.overloaded),
            ("deadline", self.deadline),
            ("cancelled", self.cancelled),
            ("constraint", self.constraint),
            ("bad_request", self.bad_request),
            ("internal", self.internal),
            ("unknown_rule", self.unknown_rule),
        ]
    }

    /// All together.
    pub fn total(&self) -> u64 {
        self.kinds().iter().map(|(_, number)| number).sum()
    }
}

/// What came over the bus since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusStatus {
    /// Questions: those answered, those that ended in an error, and those still open.
    pub questions: u64,
    /// Questions whose final answer was sent.
    pub answered: u64,
    /// Questions whose error was sent, refused ones among them.
    pub failed: ErrorCounts,
    /// Questions still open.
    pub open: u32,
    /// Requests for the status, states and frames, and changes.
    pub requests: u64,
    /// Those of them that ended in an error.
    pub requests_failed: u64,
    /// Neighbours connected now: callers, subscribers, routers.
    pub neighbours: u32,
    /// Connections that were refused: no certificate, an unknown user, a wrong password.
    pub strangers: u64,
    /// Neighbours that were disconnected because they did not read what they had subscribed to.
    pub too_slow: u64,
}

/// The daemon, published once a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the device: the second part of every key.
    pub device: String,
    /// Version of the program.
    pub version: String,
    /// Seconds since start.
    pub uptime_s: f64,
    /// When this was written: nanoseconds since the Unix epoch.
    pub written_at: u64,
    /// The model.
    pub model: ModelStatus,
    /// The engine.
    pub engine: EngineStatus,
    /// The KV cache.
    pub cache: CacheStatus,
    /// Resident memory of the process.
    pub resident_bytes: u64,
    /// Hottest thermal zone in degrees Celsius; absent where the board tells none.
    pub temperature_c: Option<f32>,
    /// Every camera.
    pub cameras: Vec<CameraStatus>,
    /// Every rule on every camera it watches.
    pub rules: Vec<RuleStatus>,
    /// The bus.
    pub bus: BusStatus,
}
