//! What a KV arena gives back: numbers as its type can hold them, whatever they were.

use kernels::{KvDtype, Reference};

use crate::agreement::{HEAD_DIMS, given_back, stores_the_same_numbers};
use crate::cases::Random;
use crate::devices;

#[test]
fn every_instruction_set_stores_the_same_numbers() {
    stores_the_same_numbers(&devices(1));
}

#[test]
fn integers_are_off_by_half_a_step_at_most() {
    for dim in HEAD_DIMS {
        for seed in 0..200 {
            let scale = 10_f32.powi(seed % 9 - 4);
            let row: Vec<f32> = Random::new(seed as u64).vec(dim).iter().map(|x| x * scale).collect();
            let got = given_back(&Reference, KvDtype::Q8, &row);
            for (block, got) in row.chunks(kernels::KV_BLOCK).zip(got.chunks(kernels::KV_BLOCK)) {
                let largest = block.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
                // Half a step, and what rounding the step to f16 takes from the largest numbers.
                let bound = largest * (0.5 / 127.0 + 1.0 / 2048.0) + 127.0 * 3e-8;
                for (x, got) in block.iter().zip(got) {
                    assert!((x - got).abs() <= bound, "{x} became {got}, which is more than {bound} off");
                }
            }
        }
    }
}
