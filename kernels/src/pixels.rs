//! Pixel formats, resizing and normalization.

mod packed_rgb;
mod packed_yuv;
mod planar_yuv;
mod plane;
mod resize;
mod yuv;

pub use packed_rgb::{rgb_from_bgr24, rgb_from_bgrx32, rgb_from_grey, rgb_from_rgb24, rgb_from_rgbx32};
pub use packed_yuv::{rgb_from_uyvy, rgb_from_yuyv};
pub use planar_yuv::{rgb_from_nv12, rgb_from_yu12};
pub use plane::{PixelsError, Plane, PlaneMut, Size};
pub use resize::SquareResizer;
pub use yuv::{YuvColor, YuvMatrix, YuvRange};
