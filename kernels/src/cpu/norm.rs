//! LayerNorm and RMSNorm.

use super::isa::Isa;
use super::lanes::{Kernel, Lanes, dispatch};
use super::rows::{Formula, least_rows, sum, update};
use super::threads::Pool;
use crate::tensor::HostTensor;

pub(super) fn layer_norm(
    (isa, pool): (Isa, &Pool),
    x: &HostTensor,
    [weight, bias]: [&HostTensor; 2],
    eps: f32,
    out: &mut HostTensor,
) {
    check(x, weight, out);
    check(x, bias, out);
    out.set_rows(x.rows());
    let (weight, bias) = (weight.row(0), bias.row(0));
    for_rows((isa, pool), x, out, &|x, out| dispatch(isa, LayerNorm { x, weight, bias, eps, out }));
}

pub(super) fn rms_norm(
    (isa, pool): (Isa, &Pool),
    x: &HostTensor,
    weight: &HostTensor,
    eps: f32,
    out: &mut HostTensor,
) {
    check(x, weight, out);
    out.set_rows(x.rows());
    let weight = weight.row(0);
    for_rows((isa, pool), x, out, &|x, out| dispatch(isa, RmsNorm { x, weight, eps, out }));
}

fn check(x: &HostTensor, weight: &HostTensor, out: &HostTensor) {
    assert_eq!((weight.rows(), weight.cols()), (1, x.cols()), "shape of the weight or bias");
    assert_eq!(out.cols(), x.cols(), "width of the result");
}

/// Calls `f` with each row of `x` and of `out`.
fn for_rows(
    (_, pool): (Isa, &Pool),
    x: &HostTensor,
    out: &mut HostTensor,
    f: &(dyn Fn(&[f32], &mut [f32]) + Sync),
) {
    let cols = x.cols();
    pool.rows(out.data_mut(), cols, least_rows(cols), &|first, out| {
        for (i, out) in out.chunks_exact_mut(cols).enumerate() {
            f(x.row(first + i), out);
        }
    });
}

/// One row.
struct LayerNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for LayerNorm<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let count = self.x.len() as f32;
        let mean = sum(lanes, Itself, self.x) / count;
        let variance = sum(lanes, SquareLess(mean), self.x) / count;
        let factor = 1.0 / (variance + self.eps).sqrt();
        update(lanes, Normalize { mean, factor }, self.out, [self.x, self.weight, self.bias]);
    }
}

/// One row.
struct RmsNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let mean = sum(lanes, SquareLess(0.0), self.x) / self.x.len() as f32;
        let factor = 1.0 / (mean + self.eps).sqrt();
        update(lanes, Scale(factor), self.out, [self.x, self.weight]);
    }
}

/// `x`.
#[derive(Clone, Copy)]
struct Itself;

impl Formula<0> for Itself {
    #[inline(always)]
    fn at<L: Lanes>(self, _: L, x: L::V, []: [L::V; 0]) -> L::V {
        x
    }
}

/// `(x - mean)^2`.
#[derive(Clone, Copy)]
struct SquareLess(f32);

impl Formula<0> for SquareLess {
    #[inline(always)]
    fn at<L: Lanes>(self, lanes: L, x: L::V, []: [L::V; 0]) -> L::V {
        let x = lanes.sub(x, lanes.splat(self.0));
        lanes.mul(x, x)
    }
}

/// `(x - mean) * factor * weight + bias`.
#[derive(Clone, Copy)]
struct Normalize {
    mean: f32,
    factor: f32,
}

impl Formula<3> for Normalize {
    #[inline(always)]
    fn at<L: Lanes>(self, lanes: L, _: L::V, [x, weight, bias]: [L::V; 3]) -> L::V {
        let normal = lanes.mul(lanes.sub(x, lanes.splat(self.mean)), lanes.splat(self.factor));
        lanes.fma(normal, weight, bias)
    }
}

/// `x * factor * weight`.
#[derive(Clone, Copy)]
struct Scale(f32);

impl Formula<2> for Scale {
    #[inline(always)]
    fn at<L: Lanes>(self, lanes: L, _: L::V, [x, weight]: [L::V; 2]) -> L::V {
        lanes.mul(lanes.mul(x, lanes.splat(self.0)), weight)
    }
}
