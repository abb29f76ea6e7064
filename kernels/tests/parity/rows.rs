//! Reproducible rows: batch, neighbours, chunks and threads never change the bits of a row.

use kernels::{Cpu, CpuOptions, Device, KvDtype};

use crate::cases::sequences::{Heads, Sequence, attend};
use crate::cases::{Bound, Case, small};
use crate::{check, devices, levels};

/// Cases with several rows that do not look at each other.
fn cases_by_row() -> impl Iterator<Item = Case> {
    small().into_iter().filter(|case| case.op.by_row() && case.rows > 1)
}

#[test]
fn a_row_alone_is_the_row_in_a_batch() {
    for device in devices(2) {
        for case in cases_by_row() {
            let x = case.input();
            let batch = case.compute(&device, &x);
            let width = batch.len() / case.rows;
            let step = case.rows.div_ceil(9);
            for first in (0..case.rows).step_by(step) {
                for rows in [first..first + 1, first..case.rows.min(first + step + 1)] {
                    let got = case.compute_rows(&device, &x, rows.clone());
                    let want = &batch[rows.start * width..rows.end * width];
                    let what = format!("{}, rows {rows:?} alone", device.name());
                    check(&what, &Case { rows: rows.len(), ..case }, Bound::Exact, &got, want);
                }
            }
        }
    }
}

#[test]
fn poison_stays_in_its_row() {
    for device in devices(2) {
        for case in cases_by_row() {
            let x = case.input();
            let mut want = case.compute(&device, &x);
            let width = want.len() / case.rows;
            for (i, poison) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX].into_iter().enumerate()
            {
                let row = i * 5 % case.rows;
                let mut poisoned = x.clone();
                poisoned[row * case.cols..(row + 1) * case.cols].fill(poison);
                let mut got = case.compute(&device, &poisoned);
                got[row * width..(row + 1) * width].fill(0.0);
                let kept = want[row * width..(row + 1) * width].to_vec();
                want[row * width..(row + 1) * width].fill(0.0);
                let what = format!("{}, row {row} all {poison}", device.name());
                check(&what, &case, Bound::Exact, &got, &want);
                want[row * width..(row + 1) * width].copy_from_slice(&kept);
            }
        }
    }
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

/// Shapes of attention over a cache: grouped heads, odd sizes, all types.
fn shapes() -> impl Iterator<Item = Heads> {
    [(1, 1, 16), (4, 2, 40), (2, 2, 64), (7, 1, 80), (2, 1, 128)].into_iter().flat_map(
        |(heads, kv_heads, head_dim)| KvDtype::ALL.map(|dtype| Heads { heads, kv_heads, head_dim, dtype }),
    )
}

fn sequence(seed: u64, past: usize, new: usize) -> Sequence {
    Sequence { seed, past, new, poisoned: false, common: 0 }
}

#[track_caller]
fn assert_same(device: &Cpu, heads: Heads, what: &str, got: &[f32], want: &[f32]) {
    let same =
        got.len() == want.len() && got.iter().zip(want).all(|(got, want)| got.to_bits() == want.to_bits());
    assert!(same, "{}: {heads:?}: {what}", device.name());
}

#[test]
fn a_prompt_in_chunks_is_the_prompt_as_a_whole() {
    const LEN: usize = 101;
    for device in (1..=3).flat_map(devices) {
        for heads in shapes() {
            let whole = attend(&device, heads, &[sequence(5, 0, LEN)]);
            assert!(whole.iter().all(|x| x.is_finite()));
            let width = heads.heads * heads.head_dim;
            for chunk in [1, 7, 32, 33, 64] {
                for first in (0..LEN).step_by(chunk) {
                    let rows = first..LEN.min(first + chunk);
                    let got = attend(&device, heads, &[sequence(5, first, rows.len())]);
                    let want = &whole[rows.start * width..rows.end * width];
                    assert_same(&device, heads, &format!("rows {rows:?} of {LEN} on their own"), &got, want);
                }
            }
        }
    }
}

#[test]
fn sequences_do_not_see_their_neighbours() {
    check_together([
        sequence(1, 0, 40),
        sequence(2, 63, 1),
        sequence(3, 200, 1),
        sequence(4, 31, 2),
        sequence(5, 9, 100),
    ]);
}

/// Some with few rows, so that they share blocks, and some with many.
#[test]
fn sequences_with_common_pages_are_as_if_alone() {
    let sharing = |seed, past, new, common| Sequence { common, ..sequence(seed, past, new) };
    check_together([
        sharing(1, 96, 1, 3),
        sharing(2, 130, 1, 3),
        sharing(3, 98, 2, 3),
        sharing(4, 101, 1, 3),
        sharing(5, 127, 3, 3),
    ]);
    check_together([
        sharing(6, 40, 60, 1),
        sharing(7, 32, 70, 1),
        sharing(8, 64, 1, 2),
        sharing(9, 64, 1, 2),
        sequence(10, 64, 1),
    ]);
}

/// Two of the sequences are poisoned in turn.
fn check_together(batch: [Sequence; 5]) {
    for device in (1..=3).flat_map(devices) {
        for heads in shapes() {
            let width = heads.heads * heads.head_dim;
            let together = attend(&device, heads, &batch);
            let mut poisoned = batch;
            poisoned[1].poisoned = true;
            poisoned[3].poisoned = true;
            let beside_poison = attend(&device, heads, &poisoned);
            let mut row = 0;
            for (alone, neighbour) in batch.iter().zip(poisoned) {
                let part = row * width..(row + alone.new) * width;
                let want = attend(&device, heads, &[*alone]);
                assert_same(&device, heads, &format!("{alone:?} in a batch"), &together[part.clone()], &want);
                if neighbour.poisoned {
                    assert!(beside_poison[part].iter().all(|x| x.is_nan()), "{neighbour:?}");
                } else {
                    let what = format!("{alone:?} beside a poisoned sequence");
                    assert_same(&device, heads, &what, &beside_poison[part], &want);
                }
                row += alone.new;
            }
        }
    }
}
