//! What the rest of the daemon says to the engine and hears from it.

use std::time::Instant;

use messages::{AnswerPiece, Caption, CaptionPiece, Question};
use tokio::sync::mpsc;

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
}
