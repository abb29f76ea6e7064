//! Reproducible rows: batch, neighbours, chunks and threads never change the bits of a row.

use kernels::{Cpu, CpuOptions, Device};

use crate::agreement::{
    batches, check, chunks_make_the_whole, poison_stays_in_its_row, rows_stand_alone, sequences_stand_alone,
    shapes,
};
use crate::cases::{Bound, small};
use crate::{devices, levels};

#[test]
fn a_row_alone_is_the_row_in_a_batch() {
    devices(2).iter().for_each(rows_stand_alone);
}

#[test]
fn poison_stays() {
    devices(2).iter().for_each(poison_stays_in_its_row);
}

#[test]
fn threads_do_not_change_bits() {
    for level in levels() {
        let device = |threads| Cpu::new(CpuOptions { threads, isa_cap: Some(level) });
        let (one, others) = (device(1), [device(2), device(3), device(7)]);
        for case in small() {
            let x = case.input();
            let want = case.compute(&one, &x);
            for other in &others {
                check(&other.name(), &case, Bound::Exact, &case.compute(other, &x), &want);
            }
        }
    }
}

#[test]
fn a_prompt_in_chunks_is_the_prompt_as_a_whole() {
    (1..=3).flat_map(devices).for_each(|device| chunks_make_the_whole(&device, shapes()));
}

#[test]
fn sequences_do_not_see_their_neighbours() {
    for device in (1..=3).flat_map(devices) {
        batches().into_iter().for_each(|batch| sequences_stand_alone(&device, batch, shapes()));
    }
}
