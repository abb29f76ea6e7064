//! Norms of rows.

use crate::tensor::HostTensor;

pub(super) fn layer_norm(
    x: &HostTensor,
    weight: &HostTensor,
    bias: &HostTensor,
    eps: f32,
    out: &mut HostTensor,
) {
    check(x, weight, out);
    check(x, bias, out);
    out.set_rows(x.rows());
    for r in 0..x.rows() {
        let row = x.row(r);
        let mean = mean(row.iter().map(|&x| f64::from(x)));
        let variance = self::mean(row.iter().map(|&x| (f64::from(x) - mean).powi(2)));
        let deviation = (variance + f64::from(eps)).sqrt();
        for (i, out) in out.row_mut(r).iter_mut().enumerate() {
            let normal = (f64::from(row[i]) - mean) / deviation;
            *out = (normal * f64::from(weight.row(0)[i]) + f64::from(bias.row(0)[i])) as f32;
        }
    }
}

pub(super) fn rms_norm(x: &HostTensor, weight: &HostTensor, eps: f32, out: &mut HostTensor) {
    check(x, weight, out);
    out.set_rows(x.rows());
    for r in 0..x.rows() {
        let row = x.row(r);
        let mean = mean(row.iter().map(|&x| f64::from(x).powi(2)));
        let root = (mean + f64::from(eps)).sqrt();
        for (i, out) in out.row_mut(r).iter_mut().enumerate() {
            *out = (f64::from(row[i]) / root * f64::from(weight.row(0)[i])) as f32;
        }
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

fn check(x: &HostTensor, weight: &HostTensor, out: &HostTensor) {
    assert_eq!((weight.rows(), weight.cols()), (1, x.cols()), "shape of the weight or bias");
    assert_eq!(out.cols(), x.cols(), "width of the result");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_norm_by_hand() {
        let x = HostTensor::from_rows(&[1.0, 3.0, -5.0, 5.0], 2);
        let weight = HostTensor::from_rows(&[2.0, 1.0], 2);
        let bias = HostTensor::from_rows(&[0.5, 0.0], 2);
        let mut out = HostTensor::zeros(2, 2);
        layer_norm(&x, &weight, &bias, 0.0, &mut out);
        assert_eq!(out.data(), [-1.5, 1.0, -1.5, 1.0]);
    }

    #[test]
    fn an_rms_norm_by_hand() {
        let x = HostTensor::from_rows(&[1.0, -7.0], 2);
        let weight = HostTensor::from_rows(&[1.0, 3.0], 2);
        let mut out = HostTensor::zeros(1, 2);
        rms_norm(&x, &weight, 0.0, &mut out);
        assert_eq!(out.data(), [0.2, -4.2]);
    }
}
