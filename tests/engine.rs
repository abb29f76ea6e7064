//! Prefixes, marks and questions on the engine.
