//! What every device is held to: the reference within a bound, rows that do not depend on their
//! neighbours, and keys and values stored as said.

use kernels::{Device, KvDtype, KvShape, PageId, Reference, Slot, Span};

use crate::cases::sequences::{Heads, Sequence, attend};
use crate::cases::{Bound, Case, Op, Random, small};

/// Fails if a result is not what it should be, naming the case and the worst number.
pub(crate) fn check(what: &str, case: &Case, bound: Bound, got: &[f32], want: &[f32]) {
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

/// Every case on every device, with ordinary numbers.
pub(crate) fn agrees<D: Device>(devices: &[D], cases: impl Iterator<Item = Case>) {
    for case in cases {
        let x = case.input();
        let want = case.compute(&Reference, &x);
        for device in devices {
            check(&device.name(), &case, case.bound(device, &x), &case.compute(device, &x), &want);
        }
    }
}

/// Every case on every device, with numbers that are hard to compute with.
pub(crate) fn agrees_on_hostile_numbers<D: Device>(devices: &[D], cases: impl Iterator<Item = Case>) {
    type Number = fn(usize) -> f32;
    let kinds: [(&str, Number); 4] = [
        ("zeros", |_| 0.0),
        ("signed zeros", |i| if i.is_multiple_of(3) { -0.0 } else { 0.0 }),
        ("denormals", |i| f32::from_bits(i as u32 * 977 % 60_000)),
        ("huge", |i| ((i * 7919 % 2003) as f32 - 1001.0) * 1e12),
    ];
    for case in cases {
        // Attention has a test of its own, and large cases would add nothing.
        if matches!(case.op, Op::Attention { .. } | Op::Attend { .. }) || case.rows * case.cols > 6000 {
            continue;
        }
        for (kind, number) in kinds {
            let x: Vec<f32> = (0..case.rows * case.cols).map(number).collect();
            let want = case.compute(&Reference, &x);
            for device in devices {
                let what = format!("{} with {kind}", device.name());
                check(&what, &case, case.bound(device, &x), &case.compute(device, &x), &want);
            }
        }
    }
}

/// Attention where one score is far above the others.
pub(crate) fn the_highest_score_takes_all<D: Device>(devices: &[D]) {
    for rows in [2, 33, 70] {
        let case = Case { op: Op::Attention { heads: 1 }, rows, cols: 16 };
        for scale in [0.0, 1e-30, 100.0, 1e4] {
            let x: Vec<f32> = case.input().iter().map(|x| x * scale).collect();
            let want = case.compute(&Reference, &x);
            for device in devices {
                // Scores are this large, and their rounding errors are errors of exponents.
                let bound = Bound::Absolute(2e-5_f32.max(scale * 2e-4));
                check(&device.name(), &case, bound, &case.compute(device, &x), &want);
            }
        }
    }
}

/// Cases with several rows that do not look at each other.
fn cases_by_row() -> impl Iterator<Item = Case> {
    small().into_iter().filter(|case| case.op.by_row() && case.rows > 1)
}

/// Rows computed on their own have the bits they have in a batch.
pub(crate) fn rows_stand_alone<D: Device>(device: &D) {
    for case in cases_by_row() {
        let x = case.input();
        let batch = case.compute(device, &x);
        let width = batch.len() / case.rows;
        let step = case.rows.div_ceil(9);
        for first in (0..case.rows).step_by(step) {
            for rows in [first..first + 1, first..case.rows.min(first + step + 1)] {
                let got = case.compute_rows(device, &x, rows.clone());
                let want = &batch[rows.start * width..rows.end * width];
                let what = format!("{}, rows {rows:?} alone", device.name());
                check(&what, &Case { rows: rows.len(), ..case }, Bound::Exact, &got, want);
            }
        }
    }
}

/// A row of NaN, infinities or the largest numbers changes no other row.
pub(crate) fn poison_stays_in_its_row<D: Device>(device: &D) {
    for case in cases_by_row() {
        let x = case.input();
        let mut want = case.compute(device, &x);
        let width = want.len() / case.rows;
        for (i, poison) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX].into_iter().enumerate() {
            let row = i * 5 % case.rows;
            let mut poisoned = x.clone();
            poisoned[row * case.cols..(row + 1) * case.cols].fill(poison);
            let mut got = case.compute(device, &poisoned);
            got[row * width..(row + 1) * width].fill(0.0);
            let kept = want[row * width..(row + 1) * width].to_vec();
            want[row * width..(row + 1) * width].fill(0.0);
            let what = format!("{}, row {row} all {poison}", device.name());
            check(&what, &case, Bound::Exact, &got, &want);
            want[row * width..(row + 1) * width].copy_from_slice(&kept);
        }
    }
}

/// Shapes of attention over a cache: grouped heads, odd sizes, all types.
pub(crate) fn shapes() -> impl Iterator<Item = Heads> {
    [(1, 1, 16), (4, 2, 40), (2, 2, 64), (7, 1, 80), (2, 1, 128)].into_iter().flat_map(
        |(heads, kv_heads, head_dim)| KvDtype::ALL.map(|dtype| Heads { heads, kv_heads, head_dim, dtype }),
    )
}

fn sequence(seed: u64, past: usize, new: usize) -> Sequence {
    Sequence { seed, past, new, poisoned: false, common: 0 }
}

#[track_caller]
fn assert_same<D: Device>(device: &D, heads: Heads, what: &str, got: &[f32], want: &[f32]) {
    let same =
        got.len() == want.len() && got.iter().zip(want).all(|(got, want)| got.to_bits() == want.to_bits());
    assert!(same, "{}: {heads:?}: {what}", device.name());
}

/// A prompt in chunks has the bits it has as a whole.
pub(crate) fn chunks_make_the_whole<D: Device>(device: &D, shapes: impl Iterator<Item = Heads>) {
    const LEN: usize = 101;
    for heads in shapes {
        let whole = attend(device, heads, &[sequence(5, 0, LEN)]);
        assert!(whole.iter().all(|x| x.is_finite()));
        let width = heads.heads * heads.head_dim;
        for chunk in [1, 7, 32, 33, 64] {
            for first in (0..LEN).step_by(chunk) {
                let rows = first..LEN.min(first + chunk);
                let got = attend(device, heads, &[sequence(5, first, rows.len())]);
                let want = &whole[rows.start * width..rows.end * width];
                assert_same(device, heads, &format!("rows {rows:?} of {LEN} on their own"), &got, want);
            }
        }
    }
}

/// Sequences that have no pages in common, and some that do.
pub(crate) fn batches() -> [[Sequence; 5]; 3] {
    let apart = [
        sequence(1, 0, 40),
        sequence(2, 63, 1),
        sequence(3, 200, 1),
        sequence(4, 31, 2),
        sequence(5, 9, 100),
    ];
    let sharing = |seed, past, new, common| Sequence { common, ..sequence(seed, past, new) };
    // Some with few rows, so that they share blocks, and some with many.
    let few = [
        sharing(1, 96, 1, 3),
        sharing(2, 130, 1, 3),
        sharing(3, 98, 2, 3),
        sharing(4, 101, 1, 3),
        sharing(5, 127, 3, 3),
    ];
    let many = [
        sharing(6, 40, 60, 1),
        sharing(7, 32, 70, 1),
        sharing(8, 64, 1, 2),
        sharing(9, 64, 1, 2),
        sequence(10, 64, 1),
    ];
    [apart, few, many]
}

/// Sequences together have the bits they have alone. Two of them are poisoned in turn.
pub(crate) fn sequences_stand_alone<D: Device>(
    device: &D,
    batch: [Sequence; 5],
    shapes: impl Iterator<Item = Heads>,
) {
    for heads in shapes {
        let width = heads.heads * heads.head_dim;
        let together = attend(device, heads, &batch);
        let mut poisoned = batch;
        poisoned[1].poisoned = true;
        poisoned[3].poisoned = true;
        let beside_poison = attend(device, heads, &poisoned);
        let mut row = 0;
        for (alone, neighbour) in batch.iter().zip(poisoned) {
            let part = row * width..(row + alone.new) * width;
            let want = attend(device, heads, &[*alone]);
            assert_same(device, heads, &format!("{alone:?} in a batch"), &together[part.clone()], &want);
            if neighbour.poisoned {
                assert!(beside_poison[part].iter().all(|x| x.is_nan()), "{neighbour:?}");
            } else {
                let what = format!("{alone:?} beside a poisoned sequence");
                assert_same(device, heads, &what, &beside_poison[part], &want);
            }
            row += alone.new;
        }
    }
}

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
pub(crate) fn given_back<D: Device>(device: &D, dtype: KvDtype, row: &[f32]) -> Vec<f32> {
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

/// Sizes of heads that fill blocks or do not.
pub(crate) const HEAD_DIMS: [usize; 6] = [1, 24, 32, 33, 80, 128];

/// Keys and values come back as the reference gives them back.
pub(crate) fn stores_the_same_numbers<D: Device>(devices: &[D]) {
    for dtype in KvDtype::ALL {
        for dim in HEAD_DIMS {
            for row in hostile(dim) {
                let want = given_back(&Reference, dtype, &row);
                for device in devices {
                    let got = given_back(device, dtype, &row);
                    let same = got.iter().zip(&want).all(|(x, y)| x == y || x.is_nan() && y.is_nan());
                    assert!(same, "{}, {}: {row:?} as {got:?}, not {want:?}", device.name(), dtype.name());
                }
            }
        }
    }
}
