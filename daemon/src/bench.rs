//! Measurements: limits of the machine and every stage against them.
