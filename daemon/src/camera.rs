//! Where frames come from.

mod frame;
mod latest;

pub use frame::{Frame, PixelFormat};
pub use latest::{Latest, Wake};
