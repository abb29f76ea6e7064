//! Damaged and foreign model files are refused.
