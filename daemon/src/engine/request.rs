//! What the rest of the daemon says to the engine and hears from it.

use std::sync::Arc;
use std::time::Instant;

use messages::{Alert, AnswerPiece, AskError, Caption, CaptionPiece, Question};
use tokio::sync::mpsc;

use super::admission::Admission;
use crate::camera::Wake;

/// Where the pieces of an answer go. The engine never waits on it: a caller who does not read
/// within the capacity of the channel is treated as gone. A closed channel cancels the question.
pub type Reply = mpsc::Sender<AnswerPiece>;

/// A question on its way to the engine.
#[derive(Debug)]
pub struct Ask {
    /// Name of the camera.
    pub camera: String,
    /// The question.
    pub question: Question,
    /// When it arrived.
    pub arrived: Instant,
    /// Pieces, then exactly one final answer or error.
    pub reply: Reply,
}

/// What the engine publishes.
#[derive(Clone, Debug)]
pub enum Event {
    /// A finished caption; its age is still to be set by whoever publishes it.
    Caption(Box<Caption>, Instant),
    /// Part of a caption being written.
    Piece(CaptionPiece),
    /// An alert that began or ended; its age is still to be set, from the time its frame was captured.
    Alert(Box<Alert>, Instant),
    /// The camera of this name is there no more: nothing follows about it, and what is kept of it is of
    /// no use.
    CameraRemoved(String),
}

/// The way to the engine. A question that finds the queue full is refused at once.
#[derive(Clone, Debug)]
pub struct AskSender {
    queue: mpsc::Sender<Ask>,
    wake: Wake,
    admission: Arc<Admission>,
}

impl AskSender {
    /// A queue for `capacity` questions whose arrival rings `wake`.
    pub fn channel(capacity: usize, wake: Wake) -> (Self, mpsc::Receiver<Ask>) {
        let (queue, receiver) = mpsc::channel(capacity.max(1));
        (Self { queue, wake, admission: Arc::default() }, receiver)
    }

    /// Hands a question over without waiting. On success the engine owes exactly one final piece
    /// or error on [`Ask::reply`]; on error the caller does.
    pub fn send(&self, ask: Ask) -> Result<(), AskError> {
        self.queue.try_send(ask).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => self.admission.refuse(),
            mpsc::error::TrySendError::Closed(_) => {
                AskError::Cancelled { reason: "the daemon is stopping".into() }
            }
        })?;
        self.wake.ring();
        Ok(())
    }

    /// Refuses a question that was not handed over because too many are open, and counts it. The
    /// caller is told when to try again, as questions went so far.
    pub fn refuse(&self) -> AskError {
        self.admission.refuse()
    }

    /// What all who refuse questions share.
    pub(super) fn admission(&self) -> Arc<Admission> {
        self.admission.clone()
    }
}
