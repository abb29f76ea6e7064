//! Scalar implementation of every operation: specification, fallback and oracle.
//!
//! Each file of [`crate::cpu`] has its counterpart of the same name here, which reads like the
//! formula in [`crate::device`]. A matrix product has the bits specified there. The other operations
//! compute sums and functions in f64 and round once, so that the distance of a fast version from
//! this one is its own error.

mod activation;
mod attention;
mod conv;
mod matmul;
mod norm;
pub mod pixels;
mod rope;

use std::ops::Range;

pub use attention::Kv;
pub use matmul::Matrix;

use crate::device::{
    Activation, Arithmetic, Device, DeviceError, Grid, KvDtype, KvShape, MatrixView, PageId, Pairing, Slot,
    Span,
};
use crate::shared::SharedMatrix;
use crate::tensor::HostTensor;

/// The scalar device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

impl Device for Reference {
    type Tensor = HostTensor;
    type Matrix = Matrix;
    type Kv = Kv;

    fn name(&self) -> String {
        "reference".to_owned()
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
        assert!(
            values.len().is_multiple_of(to.cols()),
            "{} values are no whole rows of {}",
            values.len(),
            to.cols()
        );
        let start = first_row * to.cols();
        to.data_mut()[start..][..values.len()].copy_from_slice(values);
    }

    fn read(&self, from: &HostTensor, first_row: usize, into: &mut [f32]) {
        let start = first_row * from.cols();
        into.copy_from_slice(&from.data()[start..][..into.len()]);
    }

    fn copy_rows(&self, from: &HostTensor, rows: Range<usize>, to: &mut HostTensor, first_row: usize) {
        assert_eq!(from.cols(), to.cols(), "widths of both tensors");
        let cols = from.cols();
        let values = &from.data()[rows.start * cols..rows.end * cols];
        to.data_mut()[first_row * cols..][..values.len()].copy_from_slice(values);
    }

    fn matrix(&self, view: MatrixView<'_>, arithmetic: Arithmetic) -> Result<Matrix, DeviceError> {
        Matrix::new(view, arithmetic)
    }

    fn matrix_bytes(&self, matrix: &Matrix) -> usize {
        matrix.bytes()
    }

    fn matrix_layout(&self) -> Option<String> {
        None
    }

    fn share_matrix(&self, _: &Matrix) -> Option<SharedMatrix> {
        None
    }

    fn adopt_matrix(&self, shared: SharedMatrix, _: Arithmetic) -> Result<Matrix, DeviceError> {
        Err(shared.foreign())
    }

    fn matmul(&self, x: &HostTensor, w: &Matrix, bias: Option<&HostTensor>, out: &mut HostTensor) {
        matmul::matmul(x, w, bias, out);
    }

    fn embed(&self, table: &Matrix, ids: &[u32], out: &mut HostTensor, first_row: usize) {
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
        norm::layer_norm(x, weight, bias, eps, out);
    }

    fn rms_norm(&self, x: &HostTensor, weight: &HostTensor, eps: f32, out: &mut HostTensor) {
        norm::rms_norm(x, weight, eps, out);
    }

    fn add(&self, x: &mut HostTensor, y: &HostTensor) {
        activation::add(x, y);
    }

    fn activate(&self, f: Activation, x: &mut HostTensor) {
        activation::activate(f, x);
    }

    fn silu_mul(&self, gate: &mut HostTensor, up: &HostTensor) {
        activation::silu_mul(gate, up);
    }

    fn rope(
        &self,
        x: &mut HostTensor,
        heads: usize,
        table: &HostTensor,
        positions: &[u32],
        pairing: Pairing,
    ) {
        rope::rope(x, heads, table, positions, pairing);
    }

    fn attention(&self, q: &HostTensor, k: &HostTensor, v: &HostTensor, heads: usize, out: &mut HostTensor) {
        attention::attention(q, k, v, heads, out);
    }

    fn kv(&self, shape: KvShape, pages: usize, dtype: KvDtype) -> Result<Kv, DeviceError> {
        Kv::new(shape, pages, dtype)
    }

    fn kv_bytes(&self, kv: &Kv) -> usize {
        kv.bytes()
    }

    fn kv_append(&self, kv: &mut Kv, layer: usize, k: &HostTensor, v: &HostTensor, slots: &[Slot]) {
        kv.append(layer, k, v, slots);
    }

    fn kv_copy_page(&self, kv: &mut Kv, from: PageId, to: PageId) {
        kv.copy_page(from, to);
    }

    fn kv_page_bytes(&self, kv: &Kv) -> usize {
        kv.page_bytes()
    }

    fn kv_read_page(&self, kv: &Kv, page: PageId, into: &mut [u8]) {
        kv.read_page(page, into);
    }

    fn kv_write_page(&self, kv: &mut Kv, page: PageId, from: &[u8]) {
        kv.write_page(page, from);
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
        attention::attend(q, kv, layer, spans, heads, out);
    }

    fn patches(&self, image: &HostTensor, patch: usize, out: &mut HostTensor) {
        conv::patches(image, patch, out);
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
        conv::depthwise3x3(x, grid, weight, bias, stride, out);
    }

    fn average_pool2x2(&self, x: &HostTensor, grid: Grid, out: &mut HostTensor) {
        conv::average_pool2x2(x, grid, out);
    }

    fn column_mean(&self, x: &HostTensor, out: &mut HostTensor) {
        conv::column_mean(x, out);
    }

    fn scale_columns(&self, x: &mut HostTensor, scale: &HostTensor) {
        conv::scale_columns(x, scale);
    }
}
