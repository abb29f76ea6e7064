//! The shipped files equal the defaults.
