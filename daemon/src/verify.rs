//! Holds the whole path against reference data.
