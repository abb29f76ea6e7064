//! Pixel formats, resizing and normalization.
