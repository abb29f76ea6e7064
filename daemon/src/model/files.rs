//! What is on disk: opened, mapped and checked before any weight is loaded.
