//! Sources of frames.
