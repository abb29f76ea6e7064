//! Trains the small built-in model of `mobilevlmd` from nothing on its synthetic world.
//!
//! A scene is drawn, described and asked about ([`example`]); many scenes make one matrix of rows
//! ([`batch`]); the networks ([`net`]) and their operations ([`ops`]) give a loss and its derivatives;
//! [`train`] takes the steps and [`export`] writes the pair of GGUF files,
//! which [`import`] reads back.

pub mod vocabulary;
pub mod thing;
pub mod example;
pub mod batch;
pub mod ops;
pub mod net;
pub mod start;
pub mod optimizer;
pub mod checkpoint;
pub mod train;
pub mod export;
pub mod import;
