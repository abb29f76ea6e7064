//! Whole-system promises, one module per promise.

mod allocation;
mod answers;
mod batch;
mod blocks;
mod bench;
mod bus;
mod camera;
mod config;
mod drafts;
mod engine;
mod fuzz;
mod golden;
mod hostile;
mod packed;
mod network;
mod prefix;
mod random;
mod rules;
mod control;
mod reload;
mod service;
mod sessions;
mod soak;
mod tidy;
mod tower;
mod world;
