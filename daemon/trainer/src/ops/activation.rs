//! What happens to single numbers: bias, quick GELU, SwiGLU.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

use super::exp::sigmoid;
use super::{gradient, shaped, stored, vectorized, view, width};

/// `x + bias` for every row of `x` `(rows, width)`; `bias` `(width)`.
pub fn add_bias(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    x.apply_op2(bias, AddBias)
}

/// `x * sigmoid(1.702 x)`.
pub fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    x.apply_op1(QuickGelu)
}

/// `gate * sigmoid(gate) * up`.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.apply_op2(up, SwiGlu)
}

struct AddBias;

impl CustomOp2 for AddBias {
    fn name(&self) -> &'static str {
        "add-bias"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, bias) = (stored(s1, l1)?, stored(s2, l2)?);
        let mut out = x.to_vec();
        vectorized(|| {
            for row in out.chunks_exact_mut(bias.len()) {
                for (y, b) in row.iter_mut().zip(bias) {
                    *y += b;
                }
            }
        });
        Ok(shaped(out, l1))
    }

    fn bwd(
        &self,
        _x: &Tensor,
        bias: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let seen = view(grad)?;
        let dy = seen.numbers()?;
        let mut db = vec![0.0; bias.elem_count()];
        vectorized(|| {
            for row in dy.chunks_exact(db.len()) {
                for (b, d) in db.iter_mut().zip(row) {
                    *b += d;
                }
            }
        });
        Ok((Some(grad.clone()), gradient(db, bias)?))
    }
}

/// The factor of quick GELU.
const SLOPE: f32 = 1.702;

struct QuickGelu;

impl CustomOp1 for QuickGelu {
    fn name(&self) -> &'static str {
        "quick-gelu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut out = stored(storage, layout)?.to_vec();
        vectorized(|| out.iter_mut().for_each(|x| *x *= sigmoid(SLOPE * *x)));
        Ok(shaped(out, layout))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (x_seen, grad_seen) = (view(x)?, view(grad)?);
        let mut dx = grad_seen.numbers()?.to_vec();
        let numbers = x_seen.numbers()?;
        vectorized(|| {
            for (d, &x) in dx.iter_mut().zip(numbers) {
                let s = sigmoid(SLOPE * x);
                *d *= s * (1.0 + SLOPE * x * (1.0 - s));
            }
        });
        gradient(dx, x)
    }
}

struct SwiGlu;

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (gate, up) = (stored(s1, l1)?, stored(s2, l2)?);
        let mut out = gate.to_vec();
        vectorized(|| {
            for (g, u) in out.iter_mut().zip(up) {
                *g *= sigmoid(*g) * u;
            }
        });
        debug_assert_eq!(width(l1)?, width(l2)?);
        Ok(shaped(out, l1))
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let views = (view(gate)?, view(up)?, view(grad)?);
        let (g, u, d) = (views.0.numbers()?, views.1.numbers()?, views.2.numbers()?);
        let (mut dg, mut du) = (d.to_vec(), d.to_vec());
        vectorized(|| {
            let pairs = dg.iter_mut().zip(du.iter_mut());
            for ((dg, du), (&g, &u)) in pairs.zip(g.iter().zip(u)) {
                let s = sigmoid(g);
                *du *= g * s;
                *dg *= u * s * (1.0 + g * (1.0 - s));
            }
        });
        Ok((gradient(dg, gate)?, gradient(du, up)?))
    }
}
