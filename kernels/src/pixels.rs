//! Pictures as cameras send them, to R, G, B; resizing.
//!
//! [`Picture`] says how the bytes lie, [`Converter`] makes R, G, B of them, the form that
//! [`SquareResizer`] takes. The conversions are portable code over blocks of pixels, written so that
//! the compiler makes vectors of it, and compiled once for each instruction set;
//! [`crate::reference::pixels`] has the same formulas pixel by pixel. The two are equal bit for bit.

mod plane;
mod picture;
mod color;
mod convert;
mod store;
mod rgb;
mod grey;
mod samples;
mod yuv;
mod bayer;
mod balance;
mod resize;

pub(crate) use balance::tones;
pub(crate) use bayer::mirrored;
pub(crate) use color::{CODE_SHIFT, FACTOR_BITS};
pub use color::{Color, SensorColor, ToneCurve, WhiteBalance, YuvColor, YuvMatrix, YuvRange};
pub use convert::Converter;
pub use picture::{BayerOrder, ChromaLines, PackedOrder, PairOrder, Picture, Planes, RgbOrder, Samples};
pub use plane::{PixelsError, Plane, PlaneMut, Size};
pub use resize::SquareResizer;
pub(crate) use samples::{FULL, sample_at};
