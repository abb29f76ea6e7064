//! Scalar implementation of every operation: specification, fallback and oracle.

/// The scalar device.
#[derive(Debug, Default)]
pub struct Reference;
