//! Operations on images and grids.

use crate::device::Grid;
use crate::tensor::HostTensor;

pub(super) fn patches(image: &HostTensor, patch: usize, out: &mut HostTensor) {
    let side = image.cols();
    assert_eq!(image.rows(), 3 * side, "rows of three square planes");
    assert!(patch > 0 && side.is_multiple_of(patch), "a side of {side} is no multiple of {patch}");
    assert_eq!(out.cols(), 3 * patch * patch, "numbers of a patch");
    let n = side / patch;
    out.set_rows(n * n);
    for y in 0..n {
        for x in 0..n {
            for (i, line) in out.row_mut(y * n + x).chunks_exact_mut(patch).enumerate() {
                let (c, dy) = (i / patch, i % patch);
                line.copy_from_slice(&image.row(c * side + y * patch + dy)[x * patch..][..patch]);
            }
        }
    }
}

pub(super) fn depthwise3x3(
    x: &HostTensor,
    grid: Grid,
    weight: &HostTensor,
    bias: Option<&HostTensor>,
    stride: usize,
    out: &mut HostTensor,
) {
    let channels = x.cols();
    assert_eq!(x.rows(), grid.len(), "positions of the grid");
    assert_eq!((weight.rows(), weight.cols()), (9, channels), "shape of the weight");
    assert!(bias.is_none_or(|bias| (bias.rows(), bias.cols()) == (1, channels)), "shape of the bias");
    assert_eq!(out.cols(), channels, "channels of the result");
    let (width, height) = (grid.width.div_ceil(stride), grid.height.div_ceil(stride));
    out.set_rows(width * height);
    for (r, c) in (0..width * height).flat_map(|r| (0..channels).map(move |c| (r, c))) {
        let mut sum = bias.map_or(0.0, |bias| f64::from(bias.row(0)[c]));
        for tap in 0..9 {
            // One more than the position, so that the padding in front of 0 stays unsigned.
            let (in_y, in_x) = (r / width * stride + tap / 3, r % width * stride + tap % 3);
            if (1..=grid.height).contains(&in_y) && (1..=grid.width).contains(&in_x) {
                let position = (in_y - 1) * grid.width + in_x - 1;
                sum += f64::from(weight.row(tap)[c]) * f64::from(x.row(position)[c]);
            }
        }
        out.row_mut(r)[c] = sum as f32;
    }
}

pub(super) fn average_pool2x2(x: &HostTensor, grid: Grid, out: &mut HostTensor) {
    assert_eq!(x.rows(), grid.len(), "positions of the grid");
    assert!(grid.width.is_multiple_of(2) && grid.height.is_multiple_of(2), "sides are even");
    assert_eq!(out.cols(), x.cols(), "channels of the result");
    let width = grid.width / 2;
    out.set_rows(grid.len() / 4);
    for r in 0..out.rows() {
        let corner = r / width * 2 * grid.width + r % width * 2;
        let square = [corner, corner + 1, corner + grid.width, corner + grid.width + 1];
        for (c, value) in out.row_mut(r).iter_mut().enumerate() {
            *value = (square.iter().map(|&p| f64::from(x.row(p)[c])).sum::<f64>() / 4.0) as f32;
        }
    }
}

pub(super) fn column_mean(x: &HostTensor, out: &mut HostTensor) {
    assert_eq!(out.cols(), x.cols(), "channels of the result");
    out.set_rows(1);
    for (c, value) in out.row_mut(0).iter_mut().enumerate() {
        let sum: f64 = (0..x.rows()).map(|r| f64::from(x.row(r)[c])).sum();
        *value = (sum / x.rows() as f64) as f32;
    }
}

pub(super) fn scale_columns(x: &mut HostTensor, scale: &HostTensor) {
    assert_eq!((scale.rows(), scale.cols()), (1, x.cols()), "shape of the scale");
    for r in 0..x.rows() {
        x.row_mut(r).iter_mut().zip(scale.row(0)).for_each(|(x, scale)| *x *= scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_go_channel_line_column() {
        let image: Vec<f32> = (0..48).map(|i| i as f32).collect();
        let mut out = HostTensor::zeros(4, 12);
        patches(&HostTensor::from_rows(&image, 4), 2, &mut out);
        assert_eq!(out.row(1), [2., 3., 6., 7., 18., 19., 22., 23., 34., 35., 38., 39.]);
        assert_eq!(out.row(2)[..4], [8., 9., 12., 13.]);
    }

    #[test]
    fn depthwise_does_not_flip_the_kernel() {
        let x = HostTensor::from_rows(&[1., 2., 3., 4., 5., 6., 7., 8., 9.], 1);
        let weight = HostTensor::from_rows(&[0., 0., 0., 0., 1., 10., 0., 0., 0.], 1);
        let bias = HostTensor::from_rows(&[0.5], 1);
        let mut out = HostTensor::zeros(9, 1);
        depthwise3x3(&x, Grid::square(3), &weight, Some(&bias), 1, &mut out);
        assert_eq!(out.data(), [21.5, 32.5, 3.5, 54.5, 65.5, 6.5, 87.5, 98.5, 9.5]);
        depthwise3x3(&x, Grid::square(3), &weight, None, 2, &mut out);
        assert_eq!(out.data(), [21., 3., 87., 9.]);
    }

    #[test]
    fn pools_and_means_by_hand() {
        let x = HostTensor::from_rows(&[1., 2., 3., 4., 5., 6., 7., 8.], 1);
        let mut out = HostTensor::zeros(2, 1);
        average_pool2x2(&x, Grid { width: 4, height: 2 }, &mut out);
        assert_eq!(out.data(), [3.5, 5.5]);
        column_mean(&x, &mut out);
        assert_eq!(out.data(), [4.5]);
    }
}
