//! The implementation for NVIDIA GPUs.
//!
//! [`Cuda`] packs weights, keeps tensors and says which kernel runs over what; the kernels are the
//! `.cu` files beside this one, with the names of the CPU's operations. What it needs of the machine
//! is a [`Driver`]: [`native::Gpu`] for a real GPU.
//!
//! The kernels are compiled on the machine by NVRTC, at the first start on it, because one binary
//! then serves every architecture from Orin on, and neither building nor packaging needs NVIDIA's
//! tools. It takes half a minute, so the caller may keep the result under [`program::key`].
//!
//! Memory is taken when tensors, matrices and arenas are made, never by an operation. Operations only
//! put work on a list; [`Device::read`] alone waits for it. Row numbers, positions and pages go through
//! tables at fixed places that are uploaded when they change, so a pass over as many rows is the same
//! list each time. The second time the driver makes a CUDA graph of it, which is then launched as one.

pub mod driver;
pub mod native;
pub mod program;

mod queue;
mod matmul;
mod packed;
mod attention;
mod trial;

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

pub use attention::Kv;
pub use driver::{DeviceLost, Driver};
pub use matmul::Matrix;
pub use native::{Gpu, OpenError, Shelf};

use crate::device::{
    Activation, Arithmetic, Device, DeviceError, Grid, KvDtype, KvShape, MatrixView, PageId, Pairing,
    Product, Slot, Span,
};
use crate::shared::SharedMatrix;
use driver::{Argument, Launch};
use matmul::Activations;
use queue::{Buffer, Queue, Table};

/// An f32 matrix in the memory of a device.
#[derive(Debug)]
pub struct Tensor<D: Driver> {
    buffer: Buffer<D>,
    rows: usize,
    cols: usize,
    capacity: usize,
}

impl<D: Driver> Tensor<D> {
    fn set_rows(&mut self, rows: usize) {
        assert!(rows <= self.capacity, "{rows} rows asked of a tensor with room for {}", self.capacity);
        self.rows = rows;
    }

    fn len(&self) -> usize {
        self.rows * self.cols
    }

    /// Bytes from the start to a row, which may be the end.
    fn row(&self, row: usize) -> usize {
        assert!(row <= self.rows, "row {row} of {}", self.rows);
        4 * row * self.cols
    }
}

/// A size as kernels take it. Those of tensors were checked when they were made.
fn int(number: usize) -> Argument {
    Argument::Int(i32::try_from(number).expect("sizes fit 31 bits"))
}

/// What operations leave between them.
#[derive(Debug)]
struct Scratch<D: Driver> {
    /// Integers of activations: room for any tensor there is.
    integers: Buffer<D>,
    ids: Table<D>,
    positions: Table<D>,
    slots: Table<D>,
    spans: Table<D>,
}

/// A GPU.
pub struct Cuda<D: Driver> {
    queue: Arc<Queue<D>>,
    scratch: RefCell<Scratch<D>>,
}

impl<D: Driver> fmt::Debug for Cuda<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.queue.driver().name())
    }
}

impl<D: Driver> Cuda<D> {
    /// The device behind `driver`.
    pub fn new(driver: D) -> Result<Self, DeviceError> {
        let queue = Arc::new(Queue::new(driver));
        let scratch = Scratch {
            integers: Buffer::new(&queue, "activations", 0)?,
            ids: Table::new(&queue)?,
            positions: Table::new(&queue)?,
            slots: Table::new(&queue)?,
            spans: Table::new(&queue)?,
        };
        Ok(Self { queue, scratch: RefCell::new(scratch) })
    }

    /// What the device computes wrongly, if anything: a short comparison with the reference.
    pub fn trial(&self) -> Result<Option<&'static str>, DeviceError> {
        trial::trial(self)
    }

    /// What is behind the device.
    pub fn driver(&self) -> &D {
        self.queue.driver()
    }

    /// Gives the GPU what was asked for so far, and does not wait for it.
    pub fn flush(&self) {
        self.queue.flush();
    }

    /// Checks two tensors of the same shape and gives their places and length.
    fn pair(x: &Tensor<D>, y: &Tensor<D>) -> [Argument; 3] {
        assert_eq!((x.rows, x.cols), (y.rows, y.cols), "shapes of both tensors");
        [x.buffer.at(0), y.buffer.at(0), int(x.len())]
    }
}

impl Cuda<Gpu> {
    /// Opens GPU `ordinal`, with kernels from `shelf` or compiled for it, and tries it.
    pub fn open(ordinal: usize, shelf: &dyn Shelf) -> Result<Self, OpenError> {
        let device = Self::new(Gpu::open(ordinal, shelf)?)?;
        // A GPU that is lost in the trial is none; nothing but this value has seen it.
        match std::panic::catch_unwind(AssertUnwindSafe(|| device.trial())) {
            Ok(found) => match found? {
                None => Ok(device),
                Some(what) => Err(OpenError::Wrong { what }),
            },
            Err(payload) => match DeviceLost::of(&*payload) {
                Some(lost) => Err(OpenError::Lost(lost.clone())),
                None => std::panic::resume_unwind(payload),
            },
        }
    }
}

impl<D: Driver> Device for Cuda<D> {
    type Tensor = Tensor<D>;
    type Matrix = Matrix<D>;
    type Kv = Kv<D>;

    fn name(&self) -> String {
        self.queue.driver().name()
    }

    fn sums_in_one_order(&self) -> bool {
        false
    }

    fn tensor(&self, capacity: usize, cols: usize) -> Result<Tensor<D>, DeviceError> {
        let what = "a tensor";
        let numbers = capacity.checked_mul(cols).filter(|numbers| *numbers <= i32::MAX as usize);
        let Some(numbers) = numbers else {
            let bytes = capacity.saturating_mul(cols).saturating_mul(4);
            return Err(DeviceError::OutOfMemory { what, bytes });
        };
        let buffer = Buffer::of(&self.queue, what, &[numbers, 4])?;
        // So that a product never has to find memory for its integers.
        let room = Activations::room(capacity, cols);
        let mut scratch = self.scratch.borrow_mut();
        if scratch.integers.bytes() < room {
            scratch.integers = Buffer::new(&self.queue, "activations", room)?;
        }
        Ok(Tensor { buffer, rows: capacity, cols, capacity })
    }

    fn shape(&self, tensor: &Tensor<D>) -> (usize, usize) {
        (tensor.rows, tensor.cols)
    }

    fn set_rows(&self, tensor: &mut Tensor<D>, rows: usize) {
        tensor.set_rows(rows);
    }

    fn write(&self, values: &[f32], to: &mut Tensor<D>, first_row: usize) {
        let whole = to.cols > 0 && values.len().is_multiple_of(to.cols);
        assert!(whole || values.is_empty(), "{} values are no whole rows of {}", values.len(), to.cols);
        assert!(4 * values.len() <= to.row(to.rows) - to.row(first_row), "rows of the tensor");
        to.buffer.upload(as_bytes(values), to.row(first_row));
    }

    fn read(&self, from: &Tensor<D>, first_row: usize, into: &mut [f32]) {
        assert!(4 * into.len() <= from.row(from.rows) - from.row(first_row), "rows of the tensor");
        from.buffer.download(from.row(first_row), as_bytes_mut(into));
    }

    fn copy_rows(&self, from: &Tensor<D>, rows: Range<usize>, to: &mut Tensor<D>, first_row: usize) {
        assert_eq!(from.cols, to.cols, "widths of both tensors");
        let start = from.row(rows.start);
        let bytes = from.row(rows.end) - start;
        let place = to.row(first_row);
        assert!(place + bytes <= to.row(to.rows), "rows of the tensor");
        from.buffer.copy_to(start, &to.buffer, place, bytes);
    }

    fn matrix(&self, view: MatrixView<'_>, arithmetic: Arithmetic) -> Result<Matrix<D>, DeviceError> {
        Matrix::new(&self.queue, view, arithmetic)
    }

    fn matrix_bytes(&self, matrix: &Matrix<D>) -> usize {
        matrix.bytes()
    }

    fn matrix_layout(&self) -> Option<String> {
        Some(packed::LAYOUT.to_owned())
    }

    fn share_matrix(&self, matrix: &Matrix<D>) -> Option<SharedMatrix> {
        Some(matrix.share())
    }

    fn adopt_matrix(&self, shared: SharedMatrix, arithmetic: Arithmetic) -> Result<Matrix<D>, DeviceError> {
        Matrix::adopt(&self.queue, &shared, arithmetic)
    }

    fn matmul(&self, x: &Tensor<D>, w: &Matrix<D>, bias: Option<&Tensor<D>>, out: &mut Tensor<D>) {
        self.matmul_each(x, &mut [Product { w, bias, out }]);
    }

    fn matmul_each(&self, x: &Tensor<D>, products: &mut [Product<'_, Self>]) {
        let scratch = self.scratch.borrow();
        let mut held = None;
        for Product { w, bias, out } in products {
            let wanted = w.activations();
            if let Some(activations) = wanted.filter(|_| wanted != held) {
                activations.quantize(&self.queue, x, &scratch.integers);
                held = wanted;
            }
            matmul::matmul(&self.queue, (x, &scratch.integers), w, *bias, out);
        }
    }

    fn embed(&self, table: &Matrix<D>, ids: &[u32], out: &mut Tensor<D>, first_row: usize) {
        table.check_ids(ids);
        // A pass through the language model begins.
        self.queue.flush();
        let places = self.scratch.borrow_mut().ids.set(ids.iter().copied());
        matmul::embed(&self.queue, table, (places, ids.len()), out, first_row);
    }

    fn layer_norm(&self, x: &Tensor<D>, weight: &Tensor<D>, bias: &Tensor<D>, eps: f32, out: &mut Tensor<D>) {
        check_norm(x, &[weight, bias], out);
        let [x_at, weight, bias, out] = [x, weight, bias, &*out].map(|tensor| tensor.buffer.at(0));
        let arguments = [x_at, weight, bias, Argument::Float(eps.to_bits()), out, int(x.cols)];
        let grid = [x.rows as u32, 1];
        self.queue.launch(Launch { kernel: "layer_norm", grid, threads: 128, arguments: &arguments });
    }

    fn rms_norm(&self, x: &Tensor<D>, weight: &Tensor<D>, eps: f32, out: &mut Tensor<D>) {
        check_norm(x, &[weight], out);
        let [x_at, weight, out] = [x, weight, &*out].map(|tensor| tensor.buffer.at(0));
        let arguments = [x_at, weight, Argument::Float(eps.to_bits()), out, int(x.cols)];
        let grid = [x.rows as u32, 1];
        self.queue.launch(Launch { kernel: "rms_norm", grid, threads: 128, arguments: &arguments });
    }

    fn add(&self, x: &mut Tensor<D>, y: &Tensor<D>) {
        self.queue.each("add", x.len(), &Self::pair(x, y));
    }

    fn activate(&self, f: Activation, x: &mut Tensor<D>) {
        let function = match f {
            Activation::QuickGelu => 0,
            Activation::Gelu => 1,
            Activation::Relu => 2,
            Activation::HardSwish => 3,
            Activation::HardSigmoid => 4,
        };
        let arguments = [x.buffer.at(0), int(x.len()), int(function)];
        self.queue.each("activate", x.len(), &arguments);
    }

    fn silu_mul(&self, gate: &mut Tensor<D>, up: &Tensor<D>) {
        self.queue.each("silu_mul", gate.len(), &Self::pair(gate, up));
    }

    fn rope(&self, x: &mut Tensor<D>, heads: usize, table: &Tensor<D>, positions: &[u32], pairing: Pairing) {
        assert_eq!(x.rows, positions.len(), "one position for each row");
        let head_dim = table.cols;
        assert_eq!(x.cols, heads * head_dim, "width of the heads");
        assert!(head_dim.is_multiple_of(2), "a head of {head_dim} has no pairs");
        let last = positions.iter().max().copied().unwrap_or(0);
        assert!((last as usize) < table.rows, "position {last} of {}", table.rows);
        let places = self.scratch.borrow_mut().positions.set(positions.iter().copied());
        let neighbours = usize::from(pairing == Pairing::Neighbours);
        let sizes = [int(x.rows), int(heads), int(head_dim), int(neighbours)];
        let [rows, heads, dim, neighbours] = sizes;
        let arguments = [x.buffer.at(0), table.buffer.at(0), places, rows, heads, dim, neighbours];
        self.queue.each("rope", x.len() / 2, &arguments);
    }

    fn attention(&self, q: &Tensor<D>, k: &Tensor<D>, v: &Tensor<D>, heads: usize, out: &mut Tensor<D>) {
        attention::attention(&self.queue, [q, k, v], heads, out);
    }

    fn kv(&self, shape: KvShape, pages: usize, dtype: KvDtype) -> Result<Kv<D>, DeviceError> {
        Kv::new(&self.queue, shape, pages, dtype)
    }

    fn kv_bytes(&self, kv: &Kv<D>) -> usize {
        kv.bytes()
    }

    fn kv_append(&self, kv: &mut Kv<D>, layer: usize, k: &Tensor<D>, v: &Tensor<D>, slots: &[Slot]) {
        kv.append((&self.queue, &mut self.scratch.borrow_mut().slots), layer, [k, v], slots);
    }

    fn kv_copy_page(&self, kv: &mut Kv<D>, from: PageId, to: PageId) {
        kv.copy_page(from, to);
    }

    fn kv_page_bytes(&self, kv: &Kv<D>) -> usize {
        kv.page_bytes()
    }

    fn kv_read_page(&self, kv: &Kv<D>, page: PageId, into: &mut [u8]) {
        kv.read_page(page, into);
    }

    fn kv_write_page(&self, kv: &mut Kv<D>, page: PageId, from: &[u8]) {
        kv.write_page(page, from);
    }

    fn attend(
        &self,
        q: &Tensor<D>,
        kv: &Kv<D>,
        layer: usize,
        spans: &[Span<'_>],
        heads: usize,
        out: &mut Tensor<D>,
    ) {
        kv.attend((&self.queue, &mut self.scratch.borrow_mut().spans), (q, layer), spans, heads, out);
    }

    fn patches(&self, image: &Tensor<D>, patch: usize, out: &mut Tensor<D>) {
        let side = image.cols;
        assert_eq!(image.rows, 3 * side, "rows of three square planes");
        assert!(patch > 0 && side.is_multiple_of(patch), "a side of {side} is no multiple of {patch}");
        assert_eq!(out.cols, 3 * patch * patch, "numbers of a patch");
        out.set_rows((side / patch).pow(2));
        let arguments = [image.buffer.at(0), out.buffer.at(0), int(side), int(patch)];
        self.queue.each("patches", out.len(), &arguments);
    }

    fn depthwise3x3(
        &self,
        x: &Tensor<D>,
        grid: Grid,
        weight: &Tensor<D>,
        bias: Option<&Tensor<D>>,
        stride: usize,
        out: &mut Tensor<D>,
    ) {
        let channels = x.cols;
        assert_eq!(x.rows, grid.len(), "positions of the grid");
        assert_eq!((weight.rows, weight.cols), (9, channels), "shape of the weight");
        assert!(bias.is_none_or(|bias| (bias.rows, bias.cols) == (1, channels)), "shape of the bias");
        assert_eq!(out.cols, channels, "channels of the result");
        out.set_rows(grid.width.div_ceil(stride) * grid.height.div_ceil(stride));
        let bias = bias.map_or(Argument::Wide(0), |bias| bias.buffer.at(0));
        let [x, weight, out_at] = [x, weight, &*out].map(|tensor| tensor.buffer.at(0));
        let sizes = [int(grid.width), int(grid.height), int(channels), int(stride)];
        let [width, height, channels, stride] = sizes;
        let arguments = [x, weight, bias, out_at, width, height, channels, stride];
        self.queue.each("depthwise3x3", out.len(), &arguments);
    }

    fn average_pool2x2(&self, x: &Tensor<D>, grid: Grid, out: &mut Tensor<D>) {
        assert_eq!(x.rows, grid.len(), "positions of the grid");
        assert!(grid.width.is_multiple_of(2) && grid.height.is_multiple_of(2), "sides are even");
        assert_eq!(out.cols, x.cols, "channels of the result");
        out.set_rows(grid.len() / 4);
        let sizes = [int(grid.width), int(grid.height), int(x.cols)];
        let arguments = [x.buffer.at(0), out.buffer.at(0), sizes[0], sizes[1], sizes[2]];
        self.queue.each("average_pool2x2", out.len(), &arguments);
    }

    fn column_mean(&self, x: &Tensor<D>, out: &mut Tensor<D>) {
        assert_eq!(out.cols, x.cols, "channels of the result");
        out.set_rows(1);
        let arguments = [x.buffer.at(0), out.buffer.at(0), int(x.rows), int(x.cols)];
        self.queue.each("column_mean", x.cols, &arguments);
    }

    fn scale_columns(&self, x: &mut Tensor<D>, scale: &Tensor<D>) {
        assert_eq!((scale.rows, scale.cols), (1, x.cols), "shape of the scale");
        let arguments = [x.buffer.at(0), scale.buffer.at(0), int(x.len()), int(x.cols)];
        self.queue.each("scale_columns", x.len(), &arguments);
    }
}

/// Checks the shapes of a norm and sets the rows of its result.
fn check_norm<D: Driver>(x: &Tensor<D>, weights: &[&Tensor<D>], out: &mut Tensor<D>) {
    for weight in weights {
        assert_eq!((weight.rows, weight.cols), (1, x.cols), "shape of the weight or bias");
    }
    assert_eq!(out.cols, x.cols, "width of the result");
    out.set_rows(x.rows);
}

fn as_bytes(values: &[f32]) -> &[u8] {
    // SAFETY: any bits of an f32 are bytes, and the length is that of the slice.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

fn as_bytes_mut(values: &mut [f32]) -> &mut [u8] {
    // SAFETY: as above, and any bytes are an f32.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}
