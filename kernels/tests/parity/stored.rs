//! What a KV arena gives back: numbers as its type can hold them, whatever they were.

use kernels::{Device, KvDtype, KvShape, PageId, Reference, Slot, Span};

use crate::cases::Random;
use crate::devices;

const HEAD_DIMS: [usize; 6] = [1, 24, 32, 33, 80, 128];

/// Rows of numbers that are hard to store.
fn hostile(dim: usize) -> Vec<Vec<f32>> {
    type Number = fn(usize) -> f32;
    let kinds: [Number; 12] = [
        |_| 0.0,
        |i| if i.is_multiple_of(3) { -0.0 } else { 0.0 },
        |i| f32::from_bits(i as u32 * 977 % 60_000),
        |i| (i as f32 - 20.5) * 1e-9,
        |i| (i as f32 - 20.5) * 1e-6,
        |i| if i == 7 { 1e4 } else { 1e-3 * i as f32 },
        |i| i as f32 - 0.5,
        |_| 65_504.0 * 127.0,
        |i| 1e12 * (i as f32 - 3.0),
        |i| if i % 40 == 5 { f32::NAN } else { 1.0 },
        |i| if i % 40 == 35 { f32::NEG_INFINITY } else { 1.0 },
        |i| if i.is_multiple_of(2) { f32::MAX } else { f32::MIN },
    ];
    let random = (0..20).map(|seed| Random::new(seed).vec(dim));
    kinds.into_iter().map(|number| (0..dim).map(number).collect()).chain(random).collect()
}

/// A value as an arena gives it back: attention to one position is its value.
fn given_back<D: Device>(device: &D, dtype: KvDtype, row: &[f32]) -> Vec<f32> {
    let shape = KvShape { layers: 1, kv_heads: 1, head_dim: row.len() };
    let mut kv = device.kv(shape, 1, dtype).unwrap();
    let mut value = device.tensor(1, row.len()).unwrap();
    let (zeros, mut out) = (device.tensor(1, row.len()).unwrap(), device.tensor(1, row.len()).unwrap());
    device.write(row, &mut value, 0);
    device.kv_append(&mut kv, 0, &zeros, &value, &[Slot { page: PageId(0), offset: 0 }]);
    let spans = [Span { rows: 0..1, position: 0, pages: &[PageId(0)] }];
    device.attend(&zeros, &kv, 0, &spans, 1, &mut out);
    let mut got = vec![0.0; row.len()];
    device.read(&out, 0, &mut got);
    got
}

#[test]
fn every_instruction_set_stores_the_same_numbers() {
    let devices = devices(1);
    for dtype in KvDtype::ALL {
        for dim in HEAD_DIMS {
            for row in hostile(dim) {
                let want = given_back(&Reference, dtype, &row);
                for device in &devices {
                    let got = given_back(device, dtype, &row);
                    let same = got.iter().zip(&want).all(|(x, y)| x == y || x.is_nan() && y.is_nan());
                    assert!(same, "{}, {}: {row:?} as {got:?}, not {want:?}", device.name(), dtype.name());
                }
            }
        }
    }
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
