//! The CUDA device on an emulated GPU: its kernels compiled for this processor, run thread by thread.
//!
//! What it shows is that the kernels and what launches them compute the right numbers, in any order of
//! threads, inside their memory. What it cannot show is that NVIDIA's hardware does the same.

#[path = "../parity/agreement.rs"]
mod agreement;
#[path = "../parity/cases.rs"]
mod cases;
mod emulated;
mod lost;
mod machine;

use agreement::{
    agrees, agrees_on_hostile_numbers, batches, chunks_make_the_whole, poison_stays_in_its_row,
    rows_stand_alone, sequences_stand_alone, shapes, stores_the_same_numbers, the_highest_score_takes_all,
};
use cases::sequences::Heads;
use cases::{Random, blocks, small};
use kernels::{Arithmetic, DType, Device, KvDtype, MatrixView, Pairing, Reference};
use machine::device;

#[test]
fn every_operation_agrees_with_the_reference() {
    agrees(&[device()], small().into_iter());
}

#[test]
fn hostile_numbers_agree_with_the_reference() {
    agrees_on_hostile_numbers(&[device()], small().into_iter());
}

#[test]
fn a_score_far_above_the_others_takes_all() {
    the_highest_score_takes_all(&[device()]);
}

#[test]
fn a_row_alone_is_the_row_in_a_batch() {
    rows_stand_alone(&device());
}

#[test]
fn poison_stays() {
    poison_stays_in_its_row(&device());
}

/// Fewer shapes than on a CPU: each type once, with and without shared heads.
fn some_shapes() -> impl Iterator<Item = Heads> {
    let wanted = [(KvDtype::F32, 40), (KvDtype::F16, 128), (KvDtype::Q8, 80)];
    shapes().filter(move |heads| wanted.contains(&(heads.dtype, heads.head_dim)))
}

#[test]
fn a_prompt_in_chunks_is_the_prompt_as_a_whole() {
    chunks_make_the_whole(&device(), some_shapes());
}

#[test]
fn sequences_do_not_see_their_neighbours() {
    for batch in batches() {
        sequences_stand_alone(&device(), batch, some_shapes());
    }
}

#[test]
fn the_arena_stores_the_same_numbers() {
    stores_the_same_numbers(&[device()]);
}

/// A table that is a matrix for integer arithmetic as well gives the rows it was made of.
#[test]
fn packed_tables_give_their_rows_back() {
    const ROWS: usize = 11;
    for dtype in DType::ALL.into_iter().filter(|dtype| !dtype.is_float()) {
        let cols = 5 * dtype.block_len();
        let bytes = blocks(&mut Random::new(3), dtype, ROWS, cols);
        let view = MatrixView { rows: ROWS, cols, dtype, bytes: &bytes };
        let ids = [3, 0, 10, 3];
        let rows = |device: &dyn Fn(&mut [f32])| {
            let mut got = vec![0.0; ids.len() * cols];
            device(&mut got);
            got.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        let got = rows(&|into| embedded(&device(), view, Arithmetic::Int8, &ids, into));
        let want = rows(&|into| embedded(&Reference, view, Arithmetic::F32, &ids, into));
        assert_eq!(got, want, "{dtype}");
    }
}

fn embedded<D: Device>(
    device: &D,
    view: MatrixView<'_>,
    arithmetic: Arithmetic,
    ids: &[u32],
    into: &mut [f32],
) {
    let table = device.matrix(view, arithmetic).unwrap();
    let mut out = device.tensor(ids.len(), view.cols).unwrap();
    device.embed(&table, ids, &mut out, 0);
    device.read(&out, 0, into);
}

#[test]
fn the_trial_before_a_model_is_passed() {
    assert_eq!(device().trial(), Ok(None));
}

/// Positions are uploaded before what uses them is given to the device, but not before what used the
/// old ones.
#[test]
fn each_operation_has_its_own_positions() {
    let positions = [[1, 2, 3], [4, 0, 1]];
    let (got, want) = (both_turned(&device(), positions), both_turned(&Reference, positions));
    for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
        assert!((got - want).abs() < 1e-5, "{got}, not {want}");
    }
}

/// Two tensors that are turned by other positions before either is read.
fn both_turned<D: Device>(device: &D, [first, second]: [[u32; 3]; 2]) -> [Vec<f32>; 2] {
    let numbers = Random::new(7).vec(60);
    let tensor = |from: usize, rows: usize| {
        let mut tensor = device.tensor(rows, 4).unwrap();
        device.write(&numbers[from..][..4 * rows], &mut tensor, 0);
        tensor
    };
    let (mut a, mut b, table) = (tensor(0, 3), tensor(12, 3), tensor(24, 5));
    device.rope(&mut a, 1, &table, &first, Pairing::Halves);
    device.rope(&mut b, 1, &table, &second, Pairing::Halves);
    [a, b].map(|tensor| {
        let mut values = vec![0.0; 12];
        device.read(&tensor, 0, &mut values);
        values
    })
}

#[test]
fn nothing_at_all_is_computed_without_rows() {
    let device = device();
    let mut x = device.tensor(3, 5).unwrap();
    device.set_rows(&mut x, 0);
    let (weight, mut out) = (device.tensor(1, 5).unwrap(), device.tensor(3, 5).unwrap());
    device.rms_norm(&x, &weight, 1e-6, &mut out);
    device.add(&mut x, &out);
    assert_eq!(device.shape(&out), (0, 5));
}
