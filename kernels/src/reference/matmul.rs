//! Matrix products, bit for bit as [`crate::Device::matmul`] specifies them.

use half::f16;

use crate::device::{Arithmetic, DeviceError, MatrixView};
use crate::dtype::DType;
use crate::quant::{Block32, Block256, block32, block256, dequantize_row};
use crate::tensor::HostTensor;

/// A weight matrix as it was stored.
#[derive(Clone, Debug)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    dtype: DType,
    arithmetic: Arithmetic,
    data: Vec<u8>,
}

impl Matrix {
    pub(super) fn new(view: MatrixView<'_>, arithmetic: Arithmetic) -> Result<Self, DeviceError> {
        let MatrixView { rows, cols, dtype, bytes } = view;
        let want = dtype.row_bytes(cols).and_then(|row| row.checked_mul(rows));
        if want != Some(bytes.len()) {
            let (got, want) = (bytes.len(), want.unwrap_or(0));
            return Err(DeviceError::MatrixBytes { dtype, rows, cols, got, want });
        }
        if arithmetic != Arithmetic::F32 && dtype.is_float() {
            return Err(DeviceError::NoIntegerArithmetic(dtype));
        }
        let mut data = Vec::new();
        data.try_reserve_exact(bytes.len())
            .map_err(|_| DeviceError::OutOfMemory { what: "a weight matrix", bytes: bytes.len() })?;
        data.extend_from_slice(bytes);
        Ok(Self { rows, cols, dtype, arithmetic, data })
    }

    pub(super) fn bytes(&self) -> usize {
        self.data.len()
    }

    /// The stored bytes of row `index`.
    fn row(&self, index: usize) -> &[u8] {
        let len = self.data.len() / self.rows;
        &self.data[index * len..][..len]
    }
}

pub(super) fn matmul(x: &HostTensor, w: &Matrix, bias: Option<&HostTensor>, out: &mut HostTensor) {
    assert_eq!(x.cols(), w.cols, "inputs of the matrix");
    assert_eq!(out.cols(), w.rows, "outputs of the matrix");
    out.set_rows(x.rows());
    let family = match w.arithmetic {
        Arithmetic::F32 => 1,
        Arithmetic::Int8 | Arithmetic::Int8Split => w.dtype.block_len(),
    };
    match family {
        block32::LEN => matmul32(x, w, out),
        block256::LEN => matmul256(x, w, out),
        _ => matmul_f32(x, w, out),
    }
    if let Some(bias) = bias {
        assert_eq!((bias.rows(), bias.cols()), (1, w.rows), "shape of the bias");
        for r in 0..out.rows() {
            out.row_mut(r).iter_mut().zip(bias.row(0)).for_each(|(value, bias)| *value += bias);
        }
    }
}

fn matmul_f32(x: &HostTensor, w: &Matrix, out: &mut HostTensor) {
    let mut weights = vec![0.0; w.cols];
    for o in 0..w.rows {
        widen(w, o, &mut weights);
        for r in 0..x.rows() {
            let products = x.row(r).iter().zip(&weights);
            out.row_mut(r)[o] = products.fold(0.0, |acc, (x, w)| x.mul_add(*w, acc));
        }
    }
}

/// 32 activations, or 256: integers and their scale.
struct Activations<const N: usize> {
    q: [i32; N],
    scale: f32,
}

fn matmul32(x: &HostTensor, w: &Matrix, out: &mut HostTensor) {
    let blocks: Vec<_> = x.data().chunks_exact(block32::LEN).map(quantize32).collect();
    let is_split = w.arithmetic == Arithmetic::Int8Split;
    let splits: Vec<_> = x.data().chunks_exact(block32::LEN).map(|x| split(x).filter(|_| is_split)).collect();
    let per_row = w.cols / block32::LEN;
    for o in 0..w.rows {
        let weights: Vec<_> = w
            .row(o)
            .chunks_exact(w.dtype.block_bytes())
            .map(|bytes| Block32::decode(w.dtype, bytes))
            .collect();
        for r in 0..x.rows() {
            let pairs = weights.iter().zip(&blocks[r * per_row..]);
            let acc = pairs.fold(0.0, |acc, (w, x)| add_block32(acc, w, x));
            let pairs = weights.iter().zip(&splits[r * per_row..]);
            let parts = pairs.filter_map(|(w, x)| Some(add_block32(0.0, w, x.as_ref()?)));
            let more = parts.fold(None, |sum: Option<f32>, part| Some(sum.unwrap_or(0.0) + part));
            out.row_mut(r)[o] = more.map_or(acc, |more| acc + more);
        }
    }
}

/// What the integers of a block with few large entries leave over.
fn split(x: &[f32]) -> Option<Activations<{ block32::LEN }>> {
    let first = quantize32(x);
    let loud = first.q.iter().filter(|q| q.abs() >= 4).count();
    if loud >= 16 || first.scale == 0.0 || !first.scale.is_finite() {
        return None;
    }
    let left: [f32; block32::LEN] = std::array::from_fn(|i| x[i] - first.q[i] as f32 * first.scale);
    Some(quantize32(&left))
}

fn add_block32(acc: f32, w: &Block32, x: &Activations<{ block32::LEN }>) -> f32 {
    let dot: i32 = w.codes.iter().zip(&x.q).map(|(&w, q)| i32::from(w) * q).sum();
    let acc = (dot as f32).mul_add(w.scale * x.scale, acc);
    let Some(minimum) = w.minimum else { return acc };
    let sum: i32 = x.q.iter().sum();
    (sum as f32).mul_add(minimum * x.scale, acc)
}

fn quantize32(x: &[f32]) -> Activations<{ block32::LEN }> {
    if x.iter().any(|x| !x.is_finite()) {
        return Activations { q: [0; block32::LEN], scale: f32::NAN };
    }
    let largest = x.iter().fold(0.0_f32, |best, x| best.max(x.abs()));
    let scale = largest / 127.0;
    let inverse = 1.0 / scale;
    if !inverse.is_finite() {
        return Activations { q: [0; block32::LEN], scale: 0.0 };
    }
    Activations {
        q: std::array::from_fn(|i| (x[i] * inverse).round() as i32),
        scale: f16::from_f32(scale).to_f32(),
    }
}

fn matmul256(x: &HostTensor, w: &Matrix, out: &mut HostTensor) {
    let blocks: Vec<_> = x.data().chunks_exact(block256::LEN).map(quantize256).collect();
    let per_row = w.cols / block256::LEN;
    for o in 0..w.rows {
        let weights: Vec<_> = w
            .row(o)
            .chunks_exact(w.dtype.block_bytes())
            .map(|bytes| Block256::decode(w.dtype, bytes))
            .collect();
        for r in 0..x.rows() {
            let pairs = weights.iter().zip(&blocks[r * per_row..]);
            out.row_mut(r)[o] = pairs.fold(0.0, |acc, (w, x)| add_block256(acc, w, x));
        }
    }
}

fn add_block256(acc: f32, w: &Block256, x: &Activations<{ block256::LEN }>) -> f32 {
    let (mut dots, mut sums) = (0, 0);
    for (j, q) in x.q.chunks_exact(block256::SUB).enumerate() {
        let codes = &w.codes[j * block256::SUB..];
        let dot: i32 = codes.iter().zip(q).map(|(&w, q)| i32::from(w) * q).sum();
        dots += i32::from(w.scales[j]) * dot;
        sums += i32::from(w.minimums[j]) * q.iter().sum::<i32>();
    }
    let acc = (dots as f32).mul_add(w.scale * x.scale, acc);
    let Some(minimum) = w.minimum else { return acc };
    (sums as f32).mul_add(-(minimum * x.scale), acc)
}

fn quantize256(x: &[f32]) -> Activations<{ block256::LEN }> {
    if x.iter().any(|x| !x.is_finite()) {
        return Activations { q: [0; block256::LEN], scale: f32::NAN };
    }
    let largest = x.iter().fold(0.0_f32, |best, &x| if x.abs() > best.abs() { x } else { best });
    let inverse = -127.0 / largest;
    if !inverse.is_finite() {
        return Activations { q: [0; block256::LEN], scale: 0.0 };
    }
    Activations {
        q: std::array::from_fn(|i| ((x[i] * inverse).round_ties_even() as i32).min(127)),
        scale: 1.0 / inverse,
    }
}

pub(super) fn embed(table: &Matrix, ids: &[u32], out: &mut HostTensor, first_row: usize) {
    assert_eq!(out.cols(), table.cols, "width of the table");
    for (i, &id) in ids.iter().enumerate() {
        widen(table, id as usize, out.row_mut(first_row + i));
    }
}

fn widen(w: &Matrix, row: usize, out: &mut [f32]) {
    dequantize_row(w.dtype, w.row(row), out).expect("lengths were checked when the matrix was made");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_of_32_round_halves_away_from_zero() {
        let mut x = [0.0; 32];
        (x[0], x[1], x[2]) = (127.0, 2.5, -2.5);
        let block = quantize32(&x);
        assert_eq!((&block.q[..3], block.scale), (&[127, 3, -3][..], 1.0));
    }

    #[test]
    fn activations_of_256_follow_the_first_largest() {
        let mut x = [0.0; 256];
        (x[7], x[9], x[11], x[12]) = (-127.0, 127.0, 2.5, -3.5);
        let block = quantize256(&x);
        assert_eq!((block.q[7], block.q[9], block.q[11], block.q[12]), (-127, 127, 2, -4));
        assert_eq!(block.scale, 1.0);
        (x[7], x[9]) = (127.0, -127.0);
        let block = quantize256(&x);
        assert_eq!((block.q[7], block.q[11], block.scale), (-127, -2, -1.0));
    }

    #[test]
    fn zeros_and_what_is_too_small_vanish() {
        for x in [0.0, 1e-42] {
            assert_eq!(quantize32(&[x; 32]).scale, 0.0);
            assert_eq!(quantize256(&[x; 256]).scale, 0.0);
        }
        assert!(quantize32(&[f32::INFINITY; 32]).scale.is_nan());
        assert!(quantize256(&[f32::NAN; 256]).scale.is_nan());
    }

    #[test]
    fn matrices_must_fit_their_bytes() {
        let view = MatrixView { rows: 2, cols: 32, dtype: DType::Q4_0, bytes: &[0; 35] };
        let error = Matrix::new(view, Arithmetic::F32).unwrap_err();
        assert_eq!(error.to_string(), "a q4_0 matrix of 2 x 32 has 35 bytes, expected 36");
        let view = MatrixView { rows: usize::MAX, cols: 4, dtype: DType::F32, bytes: &[] };
        assert!(matches!(Matrix::new(view, Arithmetic::F32), Err(DeviceError::MatrixBytes { want: 0, .. })));
        let view = MatrixView { rows: 1, cols: 1, dtype: DType::F16, bytes: &[0; 2] };
        let error = Matrix::new(view, Arithmetic::Int8).unwrap_err();
        assert_eq!(error, DeviceError::NoIntegerArithmetic(DType::F16));
    }
}
