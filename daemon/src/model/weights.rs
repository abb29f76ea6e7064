//! Tensor names to packed device weights: the only file that knows names.
