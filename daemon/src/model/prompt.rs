//! The conversation template and the place of the image in it.
