//! Functions of single numbers and of pairs.

use std::f32::consts::FRAC_1_SQRT_2;

use super::isa::Isa;
use super::lanes::Lanes;
use super::lanes::functions::{erfc, sigmoid};
use super::rows::{Formula, update_all};
use super::threads::Pool;
use crate::device::Activation;
use crate::tensor::HostTensor;

pub(super) fn add(isa: Isa, pool: &Pool, x: &mut HostTensor, y: &HostTensor) {
    check(x, y);
    update_all(isa, pool, Add, x.data_mut(), [y.data()]);
}

pub(super) fn activate(isa: Isa, pool: &Pool, f: Activation, x: &mut HostTensor) {
    let x = x.data_mut();
    match f {
        Activation::QuickGelu => update_all(isa, pool, QuickGelu, x, []),
        Activation::Gelu => update_all(isa, pool, Gelu, x, []),
        Activation::Relu => update_all(isa, pool, Relu, x, []),
        Activation::HardSwish => update_all(isa, pool, HardSwish, x, []),
        Activation::HardSigmoid => update_all(isa, pool, HardSigmoid, x, []),
    }
}

pub(super) fn silu_mul(isa: Isa, pool: &Pool, gate: &mut HostTensor, up: &HostTensor) {
    check(gate, up);
    update_all(isa, pool, SiluMul, gate.data_mut(), [up.data()]);
}

fn check(x: &HostTensor, y: &HostTensor) {
    assert_eq!((x.rows(), x.cols()), (y.rows(), y.cols()), "shapes of both tensors");
}

#[derive(Clone, Copy)]
struct Add;

impl Formula<1> for Add {
    #[inline(always)]
    fn at<L: Lanes>(self, lanes: L, x: L::V, [y]: [L::V; 1]) -> L::V {
        lanes.add(x, y)
    }
}

#[derive(Clone, Copy)]
struct SiluMul;

impl Formula<1> for SiluMul {
    #[inline(always)]
    fn at<L: Lanes>(self, lanes: L, gate: L::V, [up]: [L::V; 1]) -> L::V {
        lanes.mul(lanes.mul(gate, sigmoid(lanes, gate)), up)
    }
}

#[derive(Clone, Copy)]
struct QuickGelu;

impl Formula<0> for QuickGelu {
    #[inline(always)]
    fn at<L: Lanes>(self, lanes: L, t: L::V, []: [L::V; 0]) -> L::V {
        lanes.mul(t, sigmoid(lanes, lanes.mul(t, lanes.splat(1.702))))
    }
}

/// `max(t, 0) - |t| / 2 * erfc(|t| / sqrt(2))`: the usual form without its cancellation for
/// negative `t`.
#[derive(Clone, Copy)]
struct Gelu;

impl Formula<0> for Gelu {
    #[inline(always)]
    fn at<L: Lanes>(self, lanes: L, t: L::V, []: [L::V; 0]) -> L::V {
        let zero = lanes.splat(0.0);
        let size = lanes.max(lanes.sub(zero, t), t);
        let rest = erfc(lanes, lanes.mul(size, lanes.splat(FRAC_1_SQRT_2)));
        lanes.fma(lanes.mul(size, lanes.splat(-0.5)), rest, lanes.max(zero, t))
    }
}

#[derive(Clone, Copy)]
struct Relu;

impl Formula<0> for Relu {
    #[inline(always)]
    fn at<L: Lanes>(self, lanes: L, t: L::V, []: [L::V; 0]) -> L::V {
        lanes.max(lanes.splat(0.0), t)
    }
}

#[derive(Clone, Copy)]
struct HardSwish;

impl Formula<0> for HardSwish {
    #[inline(always)]
    fn at<L: Lanes>(self, lanes: L, t: L::V, []: [L::V; 0]) -> L::V {
        lanes.mul(t, HardSigmoid.at(lanes, t, []))
    }
}

#[derive(Clone, Copy)]
struct HardSigmoid;

impl Formula<0> for HardSigmoid {
    #[inline(always)]
    fn at<L: Lanes>(self, lanes: L, t: L::V, []: [L::V; 0]) -> L::V {
        let shifted = lanes.add(t, lanes.splat(3.0));
        let clamped = lanes.min(lanes.splat(6.0), lanes.max(lanes.splat(0.0), shifted));
        lanes.div(clamped, lanes.splat(6.0))
    }
}
