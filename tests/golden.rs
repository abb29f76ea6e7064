//! Every stage against the reference data.
