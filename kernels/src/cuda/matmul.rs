//! Weights on the device, and the products with them.

use std::sync::Arc;

use super::driver::{Argument, Driver, Launch};
use super::packed::{Layout, SEGMENTS, UNIT};
use super::queue::{Buffer, Queue};
use super::{Tensor, int};
use crate::device::{Arithmetic, DeviceError, MatrixView};
use crate::dtype::DType;
use crate::quant::{block32, block256};
use crate::shared::{SharedBytes, SharedMatrix};

/// Kernels of a type: products of one, four, eight and any number of rows, and rows themselves.
macro_rules! kernels_of {
    ($($format:literal),*) => {
        [$([
            concat!("one_row_", $format),
            concat!("four_rows_", $format),
            concat!("eight_rows_", $format),
            concat!("many_rows_", $format),
            concat!("embed_", $format),
        ]),*]
    };
}

/// The quantized types in the order of [`DType::ALL`].
pub(super) const KERNELS: [[&str; 5]; 10] =
    kernels_of!("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k");

/// Outputs and rows of a tile of `many_rows`.
const TILE: usize = 32;

/// Outputs of a block of `few_rows` and of `exact_rows`, and rows of the latter.
const OUTPUTS: usize = 16;
const EXACT_ROWS: usize = 4;

/// How a matrix lies in memory.
#[derive(Clone, Debug)]
enum Form {
    /// As it was stored: for f32 arithmetic and tables.
    Stored { row_bytes: usize },
    /// For integer arithmetic.
    Packed(Layout),
}

/// A weight matrix on a device.
#[derive(Debug)]
pub struct Matrix<D: Driver> {
    buffer: Buffer<D>,
    rows: usize,
    cols: usize,
    dtype: DType,
    arithmetic: Arithmetic,
    form: Form,
}

/// Place of a type in [`DType::ALL`], which is how kernels are told it.
fn index_of(dtype: DType) -> usize {
    DType::ALL.into_iter().position(|other| other == dtype).expect("every type is in ALL")
}

impl Form {
    fn of(dtype: DType, shape: (usize, usize), arithmetic: Arithmetic) -> Result<Self, DeviceError> {
        let (rows, cols) = shape;
        let too_large = DeviceError::OutOfMemory { what: "a weight matrix", bytes: usize::MAX };
        if arithmetic == Arithmetic::F32 {
            let row_bytes = dtype.row_bytes(cols).ok_or_else(|| too_large.clone())?;
            return Ok(Form::Stored { row_bytes });
        }
        if dtype.is_float() {
            return Err(DeviceError::NoIntegerArithmetic(dtype));
        }
        Layout::new(dtype, rows, cols).map(Form::Packed).ok_or(too_large)
    }

    fn bytes(&self, rows: usize) -> usize {
        match self {
            Form::Stored { row_bytes } => row_bytes * rows,
            Form::Packed(layout) => layout.bytes(),
        }
    }
}

impl<D: Driver> Matrix<D> {
    pub(super) fn new(
        queue: &Arc<Queue<D>>,
        view: MatrixView<'_>,
        arithmetic: Arithmetic,
    ) -> Result<Self, DeviceError> {
        let MatrixView { rows, cols, dtype, bytes } = view;
        let want = dtype.row_bytes(cols).and_then(|row| row.checked_mul(rows));
        if want != Some(bytes.len()) {
            let (got, want) = (bytes.len(), want.unwrap_or(0));
            return Err(DeviceError::MatrixBytes { dtype, rows, cols, got, want });
        }
        let form = Form::of(dtype, (rows, cols), arithmetic)?;
        let Form::Packed(layout) = &form else {
            return Self::upload(queue, bytes, (rows, cols), (dtype, arithmetic), form);
        };
        let mut packed = Vec::new();
        packed
            .try_reserve_exact(layout.bytes())
            .map_err(|_| DeviceError::OutOfMemory { what: "a weight matrix", bytes: layout.bytes() })?;
        packed.resize(layout.bytes(), 0);
        layout.pack(bytes, &mut packed);
        Self::upload(queue, &packed, (rows, cols), (dtype, arithmetic), form)
    }

    fn upload(
        queue: &Arc<Queue<D>>,
        bytes: &[u8],
        (rows, cols): (usize, usize),
        (dtype, arithmetic): (DType, Arithmetic),
        form: Form,
    ) -> Result<Self, DeviceError> {
        let buffer = Buffer::new(queue, "a weight matrix", bytes.len())?;
        buffer.upload(bytes, 0);
        Ok(Self { buffer, rows, cols, dtype, arithmetic, form })
    }

    /// Takes back what [`Matrix::share`] gave.
    pub(super) fn adopt(
        queue: &Arc<Queue<D>>,
        shared: &SharedMatrix,
        arithmetic: Arithmetic,
    ) -> Result<Self, DeviceError> {
        let SharedMatrix { rows, cols, dtype, ref bytes } = *shared;
        // A shape that no layout has is refused before anything is multiplied.
        let stored = dtype.row_bytes(cols).and_then(|row| row.checked_mul(rows));
        if stored.is_none_or(|stored| stored > bytes.len()) {
            return Err(shared.foreign());
        }
        let form = Form::of(dtype, (rows, cols), arithmetic)?;
        if form.bytes(rows) != bytes.len() {
            return Err(shared.foreign());
        }
        Self::upload(queue, bytes, (rows, cols), (dtype, arithmetic), form)
    }

    pub(super) fn share(&self) -> SharedMatrix {
        let mut bytes = vec![0; self.bytes()];
        self.buffer.download(0, &mut bytes);
        let bytes = SharedBytes::all(Arc::new(bytes));
        SharedMatrix { rows: self.rows, cols: self.cols, dtype: self.dtype, bytes }
    }

    pub(super) fn bytes(&self) -> usize {
        self.form.bytes(self.rows)
    }

    /// How its integer arithmetic wants activations: `None` for f32 arithmetic.
    pub(super) fn activations(&self) -> Option<Activations> {
        match (&self.form, self.dtype.block_len()) {
            (Form::Stored { .. }, _) => None,
            (_, block256::LEN) => Some(Activations::Blocks256),
            _ => Some(Activations::Blocks32 { is_split: self.arithmetic == Arithmetic::Int8Split }),
        }
    }
}

/// How activations become integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activations {
    Blocks32 { is_split: bool },
    Blocks256,
}

impl Activations {
    fn parts(self) -> usize {
        1 + usize::from(self == Activations::Blocks32 { is_split: true })
    }

    /// Bytes that the integers of `rows` rows of `cols` numbers take at most.
    pub(super) fn room(rows: usize, cols: usize) -> usize {
        2 * (rows * (cols / UNIT) * 40).next_multiple_of(16)
    }

    /// Quantizes all rows of `x`.
    pub(super) fn quantize<D: Driver>(self, queue: &Queue<D>, x: &Tensor<D>, into: &Buffer<D>) {
        let units = x.rows * x.cols / UNIT;
        assert!(into.bytes() >= Activations::room(x.rows, x.cols), "room for the integers of all rows");
        let arguments = [x.buffer.at(0), into.at(0), int(units), int(self.parts())];
        let (kernel, warps, arguments) = match self {
            Activations::Blocks32 { .. } => ("quantize32", units, &arguments[..]),
            Activations::Blocks256 => ("quantize256", units * UNIT / block256::LEN, &arguments[..3]),
        };
        queue.launch(Launch { kernel, grid: [warps.div_ceil(4) as u32, 1], threads: 128, arguments });
    }
}

/// Multiplies with weights of any form; `integers` are the activations of a packed one.
pub(super) fn matmul<D: Driver>(
    queue: &Queue<D>,
    (x, integers): (&Tensor<D>, &Buffer<D>),
    w: &Matrix<D>,
    bias: Option<&Tensor<D>>,
    out: &mut Tensor<D>,
) {
    assert_eq!(x.cols, w.cols, "inputs of the matrix");
    assert_eq!(out.cols, w.rows, "outputs of the matrix");
    assert!(bias.is_none_or(|bias| (bias.rows, bias.cols) == (1, w.rows)), "shape of the bias");
    out.set_rows(x.rows);
    let bias = bias.map_or(Argument::Wide(0), |bias| bias.buffer.at(0));
    let tail = [bias, out.buffer.at(0)];
    match &w.form {
        Form::Stored { row_bytes } => exact(queue, (x, w), *row_bytes, tail),
        Form::Packed(layout) => integer(queue, (x.rows, integers), (w, layout), tail),
    }
}

fn exact<D: Driver>(
    queue: &Queue<D>,
    (x, w): (&Tensor<D>, &Matrix<D>),
    row_bytes: usize,
    [bias, out]: [Argument; 2],
) {
    let kernel = if w.dtype == DType::F32 { "exact_f32" } else { "exact_stored" };
    let weights = [w.buffer.at(0), int(index_of(w.dtype)), int(row_bytes), int(w.rows)];
    let inputs = [x.buffer.at(0), int(x.rows), int(x.cols)];
    let mut arguments = [bias; 9];
    arguments[..4].copy_from_slice(&weights);
    arguments[4..7].copy_from_slice(&inputs);
    arguments[8] = out;
    let grid = [w.rows.div_ceil(OUTPUTS) as u32, x.rows.div_ceil(EXACT_ROWS) as u32];
    queue.launch(Launch { kernel, grid, threads: 128, arguments: &arguments });
}

fn integer<D: Driver>(
    queue: &Queue<D>,
    (rows, integers): (usize, &Buffer<D>),
    (w, layout): (&Matrix<D>, &Layout),
    [bias, out]: [Argument; 2],
) {
    let parts = w.activations().map_or(1, Activations::parts);
    let planes = layout.planes.each_ref().map(|plane| w.buffer.at(plane.start));
    let sizes = [int(layout.outputs), int(layout.units), int(layout.steps)];
    let inputs = [integers.at(0), int(parts), int(rows), bias, out];
    let mut arguments = [bias; 12];
    arguments[..4].copy_from_slice(&planes);
    arguments[4..7].copy_from_slice(&sizes);
    arguments[7..].copy_from_slice(&inputs);
    let [one, four, eight, many, _] = w.kernels();
    let few = [layout.outputs.div_ceil(OUTPUTS) as u32, 1];
    let tiles = [layout.outputs.div_ceil(TILE) as u32, rows.div_ceil(TILE) as u32];
    let (kernel, grid, threads) = match rows {
        0 | 1 => (one, few, 128),
        2..=4 => (four, few, 128),
        5..=8 => (eight, few, 128),
        _ => (many, tiles, 32 * SEGMENTS as u32),
    };
    queue.launch(Launch { kernel, grid, threads, arguments: &arguments });
}

/// `out[first_row + i] = row ids[i] of table`; `ids` is the table of them on the device.
pub(super) fn embed<D: Driver>(
    queue: &Queue<D>,
    table: &Matrix<D>,
    (ids, count): (Argument, usize),
    out: &mut Tensor<D>,
    first_row: usize,
) {
    assert_eq!(out.cols, table.cols, "width of the table");
    assert!(first_row + count <= out.rows, "rows of the result");
    let to = out.buffer.at(4 * first_row * out.cols);
    let numbers = count * table.cols;
    match &table.form {
        Form::Stored { row_bytes } => {
            let stored = [table.buffer.at(0), int(index_of(table.dtype)), int(*row_bytes)];
            let arguments = [stored[0], stored[1], stored[2], ids, to, int(count), int(table.cols)];
            queue.each("embed", numbers, &arguments);
        }
        Form::Packed(layout) => {
            let [codes, extra, scales, factors] =
                layout.planes.each_ref().map(|plane| table.buffer.at(plane.start));
            let sizes = [int(layout.outputs), int(layout.units), int(layout.steps)];
            let [outputs, units, steps] = sizes;
            let arguments = [codes, extra, scales, factors, outputs, units, steps, ids, to, int(numbers)];
            queue.each(table.kernels()[4], numbers, &arguments);
        }
    }
}

impl<D: Driver> Matrix<D> {
    /// Fails where a row is named that a table does not have.
    pub(super) fn check_ids(&self, ids: &[u32]) {
        assert!(ids.iter().all(|&id| (id as usize) < self.rows), "ids of a table of {} rows", self.rows);
    }

    fn kernels(&self) -> [&'static str; 5] {
        KERNELS[index_of(self.dtype) - index_of(DType::Q4_0)]
    }
}

const _: () = assert!(block32::LEN == UNIT && block256::LEN.is_multiple_of(UNIT));
