//! Changes of the rules on their way to the engine, which answers each of them.

use messages::{AskError, RuleChange, Rules};
use tokio::sync::{mpsc, oneshot};

use crate::camera::Wake;

/// Changes that may wait.
const QUEUE: usize = 8;

/// What a refused caller is told.
const RETRY_AFTER_MS: u32 = 500;

/// A change of the rules and where its answer goes.
#[derive(Debug)]
pub struct RuleRequest {
    /// What is to be done.
    pub change: RuleChange,
    /// The rules there are then, or why nothing was changed.
    pub reply: oneshot::Sender<Result<Rules, AskError>>,
}

/// The way to the engine for changes of the rules.
#[derive(Clone, Debug)]
pub struct RuleSender {
    queue: mpsc::Sender<RuleRequest>,
    wake: Wake,
}

impl RuleSender {
    /// A queue whose changes ring `wake`.
    pub fn channel(wake: Wake) -> (Self, mpsc::Receiver<RuleRequest>) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        (Self { queue, wake }, receiver)
    }

    /// Hands a change over without waiting. The answer comes through the receiver, which closes
    /// without one if the engine stops first.
    pub fn send(&self, change: RuleChange) -> Result<oneshot::Receiver<Result<Rules, AskError>>, AskError> {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(RuleRequest { change, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AskError::Overloaded { retry_after_ms: RETRY_AFTER_MS },
            mpsc::error::TrySendError::Closed(_) => {
                AskError::Cancelled { reason: "the daemon is stopping".into() }
            }
        })?;
        self.wake.ring();
        Ok(answer)
    }
}
