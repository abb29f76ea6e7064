//! `mobilevlmd`: describes what a robot's cameras see, continuously, on a zenoh bus.
//!
//! The modules stand in the order in which a frame travels: [`camera`] captures it, [`model`]
//! turns it into words, [`engine`] decides what is worked on next, [`bus`] carries the words.

pub mod cli;
pub mod config;
pub mod service;

pub mod camera;
pub mod model;
pub mod engine;
pub mod bus;
pub mod ros;

pub mod bench;
pub mod changes;
pub mod cores;
pub mod demo;
pub mod gpu;
pub mod health;
pub mod journal;
pub mod verify;
mod wall_clock;
mod whole_file;
#[cfg(test)]
mod test_folder;
