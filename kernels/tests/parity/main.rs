//! Every operation of every device against the scalar reference, and the promise that rows are
//! reproducible.

mod cases;
mod pictures;
mod pixels;
mod rows;
mod stored;

use cases::{Bound, Case, Op, small};
use kernels::{Cpu, CpuOptions, Device, IsaLevel, Reference};

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

/// Fails if a result is not what it should be, naming the case and the worst number.
fn check(what: &str, case: &Case, bound: Bound, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}: {case:?}");
    let width = want.len() / case_rows(case, want.len());
    for (r, (got, want)) in got.chunks(width).zip(want.chunks(width)).enumerate() {
        let largest = want.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        for (c, (&got, &want)) in got.iter().zip(want).enumerate() {
            let fits = match bound {
                Bound::Exact => got.to_bits() == want.to_bits(),
                // Beside the fraction, a few steps of the smallest numbers.
                Bound::OfRow(fraction) => (got - want).abs() <= fraction * largest + 1e-44,
                Bound::Absolute(limit) => (got - want).abs() <= limit,
            };
            let same = got.is_nan() && want.is_nan() || got == want && bound != Bound::Exact;
            assert!(fits || same, "{what}: {case:?}: row {r}, column {c} is {got:e}, not {want:e}");
        }
    }
}

/// Rows of a result of `len` numbers.
fn case_rows(case: &Case, len: usize) -> usize {
    match case.op {
        Op::Matmul { .. } => case.rows,
        Op::MatmulEach { dtypes, .. } => case.rows * dtypes.len(),
        Op::Patches { patch } => (case.cols / patch).pow(2),
        _ => len / case.cols,
    }
}

#[test]
fn every_operation_agrees_with_the_reference() {
    let devices: Vec<Cpu> = (1..=3).flat_map(devices).collect();
    for case in small() {
        let x = case.input();
        let want = case.compute(&Reference, &x);
        for device in &devices {
            check(&device.name(), &case, case.op.bound(), &case.compute(device, &x), &want);
        }
    }
}

#[test]
fn hostile_numbers_agree_with_the_reference() {
    type Number = fn(usize) -> f32;
    let kinds: [(&str, Number); 4] = [
        ("zeros", |_| 0.0),
        ("signed zeros", |i| if i.is_multiple_of(3) { -0.0 } else { 0.0 }),
        ("denormals", |i| f32::from_bits(i as u32 * 977 % 60_000)),
        ("huge", |i| ((i * 7919 % 2003) as f32 - 1001.0) * 1e12),
    ];
    let devices = devices(2);
    for case in small() {
        // Attention has a test of its own, and large cases would add nothing.
        if matches!(case.op, Op::Attention { .. } | Op::Attend { .. }) || case.rows * case.cols > 6000 {
            continue;
        }
        for (kind, number) in kinds {
            let x: Vec<f32> = (0..case.rows * case.cols).map(number).collect();
            let want = case.compute(&Reference, &x);
            for device in &devices {
                let what = format!("{} with {kind}", device.name());
                check(&what, &case, case.op.bound(), &case.compute(device, &x), &want);
            }
        }
    }
}

#[test]
fn a_score_far_above_the_others_takes_all() {
    for rows in [2, 33, 70] {
        let case = Case { op: Op::Attention { heads: 1 }, rows, cols: 16 };
        for scale in [0.0, 1e-30, 100.0, 1e4] {
            let x: Vec<f32> = case.input().iter().map(|x| x * scale).collect();
            let want = case.compute(&Reference, &x);
            for device in devices(1) {
                // Scores are this large, and their rounding errors are errors of exponents.
                let bound = Bound::Absolute(2e-5_f32.max(scale * 2e-4));
                check(&device.name(), &case, bound, &case.compute(&device, &x), &want);
            }
        }
    }
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
        let everywhere = ["name", "enter", "tensor", "shape", "write", "read"].contains(&method);
        let covered = cases.iter().any(|case| case.op.methods().contains(&method));
        assert!(everywhere || covered, "no parity case goes through Device::{method}");
    }
}
