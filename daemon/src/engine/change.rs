//! Changes on their way to the engine, which makes them one after the other and answers each.

use messages::{
    AskError, CaptionChange, CaptionSettings, Rule, RuleChange, Rules, SessionChange, SessionList,
};
use tokio::sync::{mpsc, oneshot};

use super::camera::CameraInput;
use crate::camera::Wake;
use crate::changes::Changes;
use crate::config::{CaptionConfig, QuestionConfig};

/// Changes that may wait.
const QUEUE: usize = 8;

/// What a refused caller is told.
const RETRY_AFTER_MS: u32 = 500;

/// Where the answer to a change goes: what is there then, or why nothing was changed.
pub type Settled<S> = oneshot::Sender<Result<S, AskError>>;

/// A change and where its answer goes.
#[derive(Debug)]
pub enum ControlRequest {
    /// Of the rules.
    Rules(RuleChange, Settled<Rules>),
    /// Of how cameras are described.
    Captions(CaptionChange, Settled<CaptionSettings>),
    /// Of the sessions.
    Sessions(SessionChange, Settled<SessionList>),
    /// Of the configuration.
    Reload(Box<Reload>, Settled<Reloaded>),
}

/// Another configuration for a running engine.
#[derive(Clone, Debug)]
pub struct Reload {
    /// The cameras there are from now on. One whose name and frames are those of a camera there was
    /// goes on undisturbed; all others are new ones.
    pub cameras: Vec<CameraInput>,
    /// What is asked of every frame.
    pub caption: CaptionConfig,
    /// Defaults and limits of questions. How many may wait stays, and what sessions may take.
    pub question: QuestionConfig,
    /// What is watched for.
    pub rules: Vec<Rule>,
    /// What was changed over the bus; it stands over the configuration.
    pub changes: Changes,
}

/// What a reload made of rules and captions, if it changed them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reloaded {
    /// The rules.
    pub rules: Option<Rules>,
    /// The captions.
    pub captions: Option<CaptionSettings>,
}

/// A kind of change.
pub trait Change {
    /// What there is after it.
    type State;

    /// The request that carries it.
    fn request(self, outcome: Settled<Self::State>) -> ControlRequest;
}

impl Change for RuleChange {
    type State = Rules;

    fn request(self, outcome: Settled<Rules>) -> ControlRequest {
        ControlRequest::Rules(self, outcome)
    }
}

impl Change for CaptionChange {
    type State = CaptionSettings;

    fn request(self, outcome: Settled<CaptionSettings>) -> ControlRequest {
        ControlRequest::Captions(self, outcome)
    }
}

impl Change for SessionChange {
    type State = SessionList;

    fn request(self, outcome: Settled<SessionList>) -> ControlRequest {
        ControlRequest::Sessions(self, outcome)
    }
}

impl Change for Reload {
    type State = Reloaded;

    fn request(self, outcome: Settled<Reloaded>) -> ControlRequest {
        ControlRequest::Reload(Box::new(self), outcome)
    }
}

/// The way to the engine for changes.
#[derive(Clone, Debug)]
pub struct ControlSender {
    queue: mpsc::Sender<ControlRequest>,
    wake: Wake,
}

impl ControlSender {
    /// A queue whose changes ring `wake`.
    pub fn channel(wake: Wake) -> (Self, mpsc::Receiver<ControlRequest>) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        (Self { queue, wake }, receiver)
    }

    /// Hands a change over without waiting. The answer comes through the receiver, which closes
    /// without one if the engine stops first.
    pub fn send<C: Change>(
        &self,
        change: C,
    ) -> Result<oneshot::Receiver<Result<C::State, AskError>>, AskError> {
        let (outcome, answer) = oneshot::channel();
        self.queue.try_send(change.request(outcome)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AskError::Overloaded { retry_after_ms: RETRY_AFTER_MS },
            mpsc::error::TrySendError::Closed(_) => {
                AskError::Cancelled { reason: "the daemon is stopping".into() }
            }
        })?;
        self.wake.ring();
        Ok(answer)
    }
}
