//! A world that the daemon draws itself: coloured shapes that move, a doorway, a person, a lamp. The
//! test camera shows it, the built-in model is trained on it and judged by it. A world is a function
//! of its seed and the time; the same seed shows the same on every machine. Stills of worlds below
//! seed [`UNSEEN`] are for training, those from there up are never trained on.

mod dice;
mod things;
mod backdrop;
mod scene;
mod layout;
mod schedule;
mod canvas;
mod lens;
mod draw;
mod labels;
mod english;
mod wordings;
mod questions;
mod judge;

pub use draw::Painter;
pub use english::Style;
pub use judge::{Judgement, Tally, judge_answer, judge_caption};
pub use labels::{Extent, Label};
pub use questions::{Category, Exchange, exchanges};
pub use scene::{Group, MAX_OBJECTS, Relation, Scene};
pub use schedule::{Event, Happening, World};
pub use things::{Color, Door, DoorState, Lamp, Object, Person, Shape, Side, Size, WIDTH};

/// The first seed that is never trained on. The test camera `test:N` shows world `UNSEEN + N`.
pub const UNSEEN: u64 = 1 << 32;

#[cfg(test)]
mod tests;
