//! A short comparison with the reference, made before a device is trusted with a model.

use crate::device::{Arithmetic, Device, DeviceError, MatrixView};
use crate::dtype::DType;
use crate::quant::quantize_row;
use crate::reference::Reference;

/// The sizes of what is tried: odd enough to leave lanes idle, long enough for every segment.
const OUTPUTS: usize = 37;
const INPUTS: usize = 576;
const HEADS: usize = 9;

/// What a device computes wrongly, if anything: products with few rows and with many, norms and
/// attention, on numbers made up for it.
pub(super) fn trial<D: Device>(device: &D) -> Result<Option<&'static str>, DeviceError> {
    for (rows, what) in
        [(1, "products of one row"), (7, "products of few rows"), (41, "products of many rows")]
    {
        for dtype in [DType::Q4_0, DType::Q8_0] {
            let [got, want] = [products(device, dtype, rows)?, products(&Reference, dtype, rows)?];
            if !are_close(&got, &want, 1e-4) {
                return Ok(Some(what));
            }
        }
    }
    if !are_close(&norms(device)?, &norms(&Reference)?, 1e-5) {
        return Ok(Some("norms"));
    }
    let is_close = are_close(&attention(device)?, &attention(&Reference)?, 1e-4);
    Ok(if is_close { None } else { Some("attention") })
}

/// Whether numbers differ by less than a fraction of the largest.
fn are_close(got: &[f32], want: &[f32], fraction: f32) -> bool {
    let largest = want.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    got.len() == want.len() && got.iter().zip(want).all(|(x, y)| (x - y).abs() <= fraction * largest)
}

/// Numbers from -1 to 1 without an order.
fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i + seed) * 7919 % 1013) as f32 / 506.0 - 1.0).collect()
}

fn tensor<D: Device>(device: &D, rows: usize, cols: usize, seed: usize) -> Result<D::Tensor, DeviceError> {
    let mut tensor = device.tensor(rows, cols)?;
    device.write(&numbers(rows * cols, seed), &mut tensor, 0);
    Ok(tensor)
}

fn values<D: Device>(device: &D, tensor: &D::Tensor) -> Vec<f32> {
    let (rows, cols) = device.shape(tensor);
    let mut values = vec![0.0; rows * cols];
    device.read(tensor, 0, &mut values);
    values
}

fn products<D: Device>(device: &D, dtype: DType, rows: usize) -> Result<Vec<f32>, DeviceError> {
    let mut bytes = vec![0; OUTPUTS * INPUTS / dtype.block_len() * dtype.block_bytes()];
    quantize_row(dtype, &numbers(OUTPUTS * INPUTS, 1), &mut bytes).expect("whole blocks");
    let view = MatrixView { rows: OUTPUTS, cols: INPUTS, dtype, bytes: &bytes };
    let w = device.matrix(view, Arithmetic::Int8Split)?;
    let (x, mut out) = (tensor(device, rows, INPUTS, 2)?, device.tensor(rows, OUTPUTS)?);
    device.matmul(&x, &w, None, &mut out);
    Ok(values(device, &out))
}

fn norms<D: Device>(device: &D) -> Result<Vec<f32>, DeviceError> {
    let (x, weight) = (tensor(device, 3, INPUTS, 3)?, tensor(device, 1, INPUTS, 4)?);
    let mut out = device.tensor(3, INPUTS)?;
    device.rms_norm(&x, &weight, 1e-6, &mut out);
    Ok(values(device, &out))
}

fn attention<D: Device>(device: &D) -> Result<Vec<f32>, DeviceError> {
    let [q, k, v] = [5, 6, 7].map(|seed| tensor(device, 70, INPUTS, seed));
    let mut out = device.tensor(70, INPUTS)?;
    device.attention(&q?, &k?, &v?, HEADS, &mut out);
    Ok(values(device, &out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;

    #[test]
    fn a_device_that_computes_right_is_trusted() {
        assert_eq!(trial(&Cpu::default()), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_seen() {
        let want = numbers(100, 1);
        let mut got = want.clone();
        got[70] += 0.01;
        assert!(are_close(&want, &want, 1e-4) && !are_close(&got, &want, 1e-4));
        got[70] = f32::NAN;
        assert!(!are_close(&got, &want, 1e-4));
    }
}
