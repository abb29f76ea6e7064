//! The fast implementation for CPUs.
//!
//! `isa` chooses an instruction set once, `threads` shares work out, `ahead` keeps the memory busy
//! while a thread waits. Matrix products go from `packed` weights and `tiles` of activations through
//! a kernel of that instruction set to `matmul`. Everything else is written once over the vectors of
//! `lanes`; what only copies is the reference's.

pub(crate) mod isa;
pub(crate) mod lanes;
pub(crate) mod threads;

mod ahead;
mod processors;

mod buffer;
mod matmul;
mod packed;
mod tiles;
mod split;

mod activation;
mod attention;
mod conv;
mod norm;
mod rope;
mod rows;

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub mod probe;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};

pub use attention::Kv;
use conv::Depthwise;
use isa::Isa;
pub use isa::IsaLevel;
use matmul::Scratch;
pub use packed::PackedMatrix;
pub use processors::Processors;
use threads::Pool;

use crate::device::{
    Activation, Arithmetic, Device, DeviceError, Grid, KvDtype, KvShape, MatrixView, PageId, Pairing,
    Product, Slot, Span,
};
use crate::reference::Reference;
use crate::shared::SharedMatrix;
use crate::tensor::HostTensor;

/// Choices at start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuOptions {
    /// Threads that work, the caller's among them; 0 means one per physical core.
    pub threads: usize,
    /// The best instruction set to use; `None` means the best there is.
    pub isa_cap: Option<IsaLevel>,
}

/// The CPU device.
#[derive(Debug)]
pub struct Cpu {
    isa: Isa,
    pool: Pool,
    scratch: RefCell<Scratch>,
    attention: RefCell<attention::Scratch>,
}

impl Cpu {
    /// Starts the threads and chooses the instruction set: the best this processor has that is not
    /// above the cap.
    pub fn new(options: CpuOptions) -> Self {
        Self::on(Processors::default(), options)
    }

    /// The same with threads that stay on some processors, as many as these are unless told otherwise;
    /// [`Device::enter`] puts the caller's there.
    pub fn on(processors: Processors, options: CpuOptions) -> Self {
        let (isa, pool) = (Isa::best(options.isa_cap), Pool::on(processors, options.threads));
        Self { isa, pool, scratch: RefCell::default(), attention: RefCell::default() }
    }

    /// Instruction sets this processor has kernels for, plainest first.
    pub fn available() -> Vec<IsaLevel> {
        IsaLevel::ALL.into_iter().filter(|level| Isa::of(*level).is_some()).collect()
    }

    /// The instruction set in use.
    pub fn isa(&self) -> IsaLevel {
        self.isa.level()
    }

    /// Threads that work, the caller's among them.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Reads every byte once on all threads, each a part of its own, and does nothing else: what a
    /// decoded token is held against. Returns the bitwise or of all bytes.
    pub fn read(&self, bytes: &[u8]) -> u8 {
        let part = bytes.len().div_ceil(self.threads()).next_multiple_of(64).max(64);
        let all = AtomicU8::new(0);
        self.pool.run(bytes.len().div_ceil(part), &|index| {
            let end = bytes.len().min((index + 1) * part);
            all.fetch_or(probe::read(&bytes[index * part..end]), Ordering::Relaxed);
        });
        all.into_inner()
    }
}

impl Default for Cpu {
    fn default() -> Self {
        Self::new(CpuOptions::default())
    }
}

impl Device for Cpu {
    type Tensor = HostTensor;
    type Matrix = PackedMatrix;
    type Kv = Kv;

    fn name(&self) -> String {
        format!("cpu-{}-{}t", self.isa(), self.threads())
    }

    fn enter(&self) {
        self.pool.enter();
    }

    fn tensor(&self, capacity: usize, cols: usize) -> Result<HostTensor, DeviceError> {
        HostTensor::try_zeros(capacity, cols)
    }

    fn shape(&self, tensor: &HostTensor) -> (usize, usize) {
        (tensor.rows(), tensor.cols())
    }

    fn set_rows(&self, tensor: &mut HostTensor, rows: usize) {
        tensor.set_rows(rows);
    }

    fn write(&self, values: &[f32], to: &mut HostTensor, first_row: usize) {
        Reference.write(values, to, first_row);
    }

    fn read(&self, from: &HostTensor, first_row: usize, into: &mut [f32]) {
        Reference.read(from, first_row, into);
    }

    fn copy_rows(&self, from: &HostTensor, rows: Range<usize>, to: &mut HostTensor, first_row: usize) {
        Reference.copy_rows(from, rows, to, first_row);
    }

    fn matrix(&self, view: MatrixView<'_>, arithmetic: Arithmetic) -> Result<PackedMatrix, DeviceError> {
        PackedMatrix::pack(view, arithmetic, &self.pool)
    }

    fn matrix_bytes(&self, matrix: &PackedMatrix) -> usize {
        matrix.bytes()
    }

    fn matrix_layout(&self) -> Option<String> {
        Some(packed::LAYOUT.to_owned())
    }

    fn share_matrix(&self, matrix: &PackedMatrix) -> Option<SharedMatrix> {
        Some(matrix.share())
    }

    fn adopt_matrix(
        &self,
        shared: SharedMatrix,
        arithmetic: Arithmetic,
    ) -> Result<PackedMatrix, DeviceError> {
        PackedMatrix::adopt(shared, arithmetic)
    }

    fn matmul(&self, x: &HostTensor, w: &PackedMatrix, bias: Option<&HostTensor>, out: &mut HostTensor) {
        self.matmul_each(x, &mut [Product { w, bias, out }]);
    }

    fn matmul_each(&self, x: &HostTensor, products: &mut [Product<'_, Self>]) {
        matmul::matmul_each((self.isa, &self.pool), &mut self.scratch.borrow_mut(), x, products);
    }

    fn embed(&self, table: &PackedMatrix, ids: &[u32], out: &mut HostTensor, first_row: usize) {
        matmul::embed(table, ids, out, first_row);
    }

    fn layer_norm(
        &self,
        x: &HostTensor,
        weight: &HostTensor,
        bias: &HostTensor,
        eps: f32,
        out: &mut HostTensor,
    ) {
        norm::layer_norm((self.isa, &self.pool), x, [weight, bias], eps, out);
    }

    fn rms_norm(&self, x: &HostTensor, weight: &HostTensor, eps: f32, out: &mut HostTensor) {
        norm::rms_norm((self.isa, &self.pool), x, weight, eps, out);
    }

    fn add(&self, x: &mut HostTensor, y: &HostTensor) {
        activation::add(self.isa, &self.pool, x, y);
    }

    fn activate(&self, f: Activation, x: &mut HostTensor) {
        activation::activate(self.isa, &self.pool, f, x);
    }

    fn silu_mul(&self, gate: &mut HostTensor, up: &HostTensor) {
        activation::silu_mul(self.isa, &self.pool, gate, up);
    }

    fn rope(
        &self,
        x: &mut HostTensor,
        heads: usize,
        table: &HostTensor,
        positions: &[u32],
        pairing: Pairing,
    ) {
        rope::rope((self.isa, &self.pool), x, heads, table, positions, pairing);
    }

    fn attention(&self, q: &HostTensor, k: &HostTensor, v: &HostTensor, heads: usize, out: &mut HostTensor) {
        let mut scratch = self.attention.borrow_mut();
        attention::attention((self.isa, &self.pool), &mut scratch, [q, k, v], heads, out);
    }

    fn kv(&self, shape: KvShape, pages: usize, dtype: KvDtype) -> Result<Kv, DeviceError> {
        Kv::new(shape, pages, dtype)
    }

    fn kv_bytes(&self, kv: &Kv) -> usize {
        kv.bytes()
    }

    fn kv_append(&self, kv: &mut Kv, layer: usize, k: &HostTensor, v: &HostTensor, slots: &[Slot]) {
        kv.append((self.isa, &self.pool), layer, [k, v], slots);
    }

    fn kv_forget(&self, kv: &mut Kv, pages: &[PageId]) {
        kv.forget(pages);
    }

    fn kv_copy_page(&self, kv: &mut Kv, from: PageId, to: PageId) {
        kv.copy_page(&self.pool, from, to);
    }

    fn kv_page_bytes(&self, kv: &Kv) -> usize {
        kv.page_bytes()
    }

    fn kv_read_page(&self, kv: &Kv, page: PageId, into: &mut [u8]) {
        into.copy_from_slice(kv.page(page));
    }

    fn kv_write_page(&self, kv: &mut Kv, page: PageId, from: &[u8]) {
        kv.page_mut(page).copy_from_slice(from);
    }

    fn attend(
        &self,
        q: &HostTensor,
        kv: &Kv,
        layer: usize,
        spans: &[Span<'_>],
        heads: usize,
        out: &mut HostTensor,
    ) {
        attention::attend((self.isa, &self.pool), q, (kv, layer), spans, heads, out);
    }

    fn patches(&self, image: &HostTensor, patch: usize, out: &mut HostTensor) {
        Reference.patches(image, patch, out);
    }

    fn depthwise3x3(
        &self,
        x: &HostTensor,
        grid: Grid,
        weight: &HostTensor,
        bias: Option<&HostTensor>,
        stride: usize,
        out: &mut HostTensor,
    ) {
        conv::depthwise3x3(self.isa, &self.pool, Depthwise { x, grid, weight, bias, stride }, out);
    }

    fn average_pool2x2(&self, x: &HostTensor, grid: Grid, out: &mut HostTensor) {
        conv::average_pool2x2(self.isa, &self.pool, x, grid, out);
    }

    fn column_mean(&self, x: &HostTensor, out: &mut HostTensor) {
        conv::column_mean(self.isa, &self.pool, x, out);
    }

    fn scale_columns(&self, x: &mut HostTensor, scale: &HostTensor) {
        conv::scale_columns(self.isa, &self.pool, x, scale);
    }
}
