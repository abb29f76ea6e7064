//! Every operation of every device against the scalar reference, and the promise that rows are
//! reproducible.

mod agreement;
mod cases;
mod pictures;
mod pixels;
mod rows;
mod stored;

use cases::small;
use kernels::{Cpu, CpuOptions, IsaLevel};

/// The instruction sets to try: all this machine has, or those that `PARITY_LEVELS` names, which it
/// then must have.
fn levels() -> Vec<IsaLevel> {
    let available = Cpu::available();
    let Ok(names) = std::env::var("PARITY_LEVELS") else { return available };
    let level = |name: &str| name.parse().unwrap_or_else(|error| panic!("PARITY_LEVELS: {error}"));
    let levels: Vec<IsaLevel> = names.split(',').map(level).collect();
    assert!(levels.iter().all(|level| available.contains(level)), "{levels:?} of {available:?}");
    levels
}

/// A CPU device for each instruction set to try.
fn devices(threads: usize) -> Vec<Cpu> {
    levels().into_iter().map(|level| Cpu::new(CpuOptions { threads, isa_cap: Some(level) })).collect()
}

#[test]
fn every_operation_agrees_with_the_reference() {
    let devices: Vec<Cpu> = (1..=3).flat_map(devices).collect();
    agreement::agrees(&devices, small().into_iter());
}

#[test]
fn hostile_numbers_agree_with_the_reference() {
    agreement::agrees_on_hostile_numbers(&devices(2), small().into_iter());
}

#[test]
fn a_score_far_above_the_others_takes_all() {
    agreement::the_highest_score_takes_all(&devices(1));
}

/// Reads the names of the trait's methods, so that a new one without a case fails here.
#[test]
fn every_method_of_device_has_a_case() {
    let source = include_str!("../../src/device.rs");
    let (_, body) = source.split_once("pub trait Device").unwrap();
    let lines = body.lines().filter_map(|line| line.strip_prefix("    fn "));
    let methods: Vec<&str> = lines.map(|line| line.split_once('(').unwrap().0).collect();
    assert!(methods.len() > 20, "{methods:?}");
    let cases = small();
    for method in methods {
        const EVERYWHERE: [&str; 7] =
            ["name", "enter", "sums_in_one_order", "tensor", "shape", "write", "read"];
        let everywhere = EVERYWHERE.contains(&method);
        let covered = cases.iter().any(|case| case.op.methods().contains(&method));
        assert!(everywhere || covered, "no parity case goes through Device::{method}");
    }
}
