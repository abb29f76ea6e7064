//! Kernels for aarch64.
//!
//! A quarter of a panel, four outputs, is a vector. The loops over blocks are written once in
//! `blocks`; instruction sets only say how they add up products of bytes.

pub(crate) mod dotprod;
pub(crate) mod i8mm;
pub(crate) mod neon;

mod blocks;
mod rows;
mod unpack;
