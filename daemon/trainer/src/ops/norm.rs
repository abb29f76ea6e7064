//! LayerNorm and RMSNorm over rows.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use super::lanes::sum;
use super::{gradient, shaped, stored, vectorized, view};

/// LayerNorm of every row of `x` `(rows, width)`; `weight` and `bias` `(width)`.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    x.apply_op3(weight, bias, LayerNorm { eps })
}

/// RMSNorm of every row of `x` `(rows, width)`; `weight` `(width)`.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    x.apply_op2(weight, RmsNorm { eps })
}

struct LayerNorm {
    eps: f32,
}

impl LayerNorm {
    /// Mean and inverse deviation of a row.
    #[inline(always)]
    fn moments(&self, row: &[f32]) -> (f32, f32) {
        let width = row.len() as f32;
        let mean = sum(row, row, |x, _| x) / width;
        let variance = sum(row, row, |x, _| (x - mean) * (x - mean)) / width;
        (mean, 1.0 / (variance + self.eps).sqrt())
    }
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight, bias) = (stored(s1, l1)?, stored(s2, l2)?, stored(s3, l3)?);
        let mut out = x.to_vec();
        vectorized(|| {
            for row in out.chunks_exact_mut(weight.len()) {
                let (mean, scale) = self.moments(row);
                for ((y, w), b) in row.iter_mut().zip(weight).zip(bias) {
                    *y = (*y - mean) * scale * w + b;
                }
            }
        });
        Ok(shaped(out, l1))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let views = (view(x)?, view(weight)?, view(grad)?);
        let (xs, w, dys) = (views.0.numbers()?, views.1.numbers()?, views.2.numbers()?);
        let width = w.len();
        let mut dxs = vec![0.0; xs.len()];
        let (mut dw, mut db) = (vec![0.0; width], vec![0.0; width]);
        let mut normed = vec![0.0; width];
        vectorized(|| {
            let rows = xs.chunks_exact(width).zip(dys.chunks_exact(width));
            for ((row, dy), dx) in rows.zip(dxs.chunks_exact_mut(width)) {
                let (mean, scale) = self.moments(row);
                for i in 0..width {
                    normed[i] = (row[i] - mean) * scale;
                    dx[i] = dy[i] * w[i];
                    dw[i] += dy[i] * normed[i];
                    db[i] += dy[i];
                }
                let mean_d = sum(dx, dx, |d, _| d) / width as f32;
                let mean_dn = sum(dx, &normed, |d, n| d * n) / width as f32;
                for (d, n) in dx.iter_mut().zip(&normed) {
                    *d = scale * (*d - mean_d - n * mean_dn);
                }
            }
        });
        Ok((gradient(dxs, x)?, gradient(dw, weight)?, gradient(db, bias)?))
    }
}

struct RmsNorm {
    eps: f32,
}

impl RmsNorm {
    #[inline(always)]
    fn scale(&self, row: &[f32]) -> f32 {
        1.0 / (sum(row, row, |x, _| x * x) / row.len() as f32 + self.eps).sqrt()
    }
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight) = (stored(s1, l1)?, stored(s2, l2)?);
        let mut out = x.to_vec();
        vectorized(|| {
            for row in out.chunks_exact_mut(weight.len()) {
                let scale = self.scale(row);
                for (y, w) in row.iter_mut().zip(weight) {
                    *y *= scale * w;
                }
            }
        });
        Ok(shaped(out, l1))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let views = (view(x)?, view(weight)?, view(grad)?);
        let (xs, w, dys) = (views.0.numbers()?, views.1.numbers()?, views.2.numbers()?);
        let width = w.len();
        let mut dxs = vec![0.0; xs.len()];
        let mut dw = vec![0.0; width];
        vectorized(|| {
            let rows = xs.chunks_exact(width).zip(dys.chunks_exact(width));
            for ((row, dy), dx) in rows.zip(dxs.chunks_exact_mut(width)) {
                let scale = self.scale(row);
                for i in 0..width {
                    dx[i] = dy[i] * w[i];
                    dw[i] += dy[i] * row[i] * scale;
                }
                let along = sum(dx, row, |d, x| d * x) * scale * scale / width as f32;
                for (d, x) in dx.iter_mut().zip(row) {
                    *d = scale * (*d - x * along);
                }
            }
        });
        Ok((gradient(dxs, x)?, gradient(dw, weight)?))
    }
}
