//! Functions of single numbers and of pairs.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use crate::device::Activation;
use crate::tensor::HostTensor;

pub(super) fn add(x: &mut HostTensor, y: &HostTensor) {
    check(x, y);
    x.data_mut().iter_mut().zip(y.data()).for_each(|(x, y)| *x += y);
}

pub(super) fn activate(f: Activation, x: &mut HostTensor) {
    x.data_mut().iter_mut().for_each(|x| *x = apply(f, f64::from(*x)) as f32);
}

pub(super) fn silu_mul(gate: &mut HostTensor, up: &HostTensor) {
    check(gate, up);
    for (gate, &up) in gate.data_mut().iter_mut().zip(up.data()) {
        let t = f64::from(*gate);
        *gate = (t * sigmoid(t) * f64::from(up)) as f32;
    }
}

fn apply(f: Activation, t: f64) -> f64 {
    match f {
        Activation::QuickGelu => t * sigmoid(1.702 * t),
        Activation::Gelu => t / 2.0 * (1.0 + erf(t * FRAC_1_SQRT_2)),
        Activation::Relu => t.max(0.0),
        Activation::HardSwish => t * hard_sigmoid(t),
        Activation::HardSigmoid => hard_sigmoid(t),
    }
}

fn sigmoid(t: f64) -> f64 {
    1.0 / (1.0 + (-t).exp())
}

fn hard_sigmoid(t: f64) -> f64 {
    (t + 3.0).clamp(0.0, 6.0) / 6.0
}

/// The error function by `2 / sqrt(pi) * exp(-t t) * sum over n of t (2 t t)^n / (1 * 3 * .. (2 n + 1))`,
/// a series of one sign and so without cancellation.
fn erf(t: f64) -> f64 {
    if t.abs() > 6.0 {
        return t.signum();
    }
    let (mut term, mut sum, mut odd) = (t, t, 1.0);
    while term.abs() > sum.abs() * 1e-17 {
        odd += 2.0;
        term *= 2.0 * t * t / odd;
        sum += term;
    }
    2.0 / PI.sqrt() * (-t * t).exp() * sum
}

fn check(x: &HostTensor, y: &HostTensor) {
    assert_eq!((x.rows(), x.cols()), (y.rows(), y.cols()), "shapes of both tensors");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_has_its_known_values() {
        // From tables of the function.
        let known = [(0.0, 0.0), (0.5, 0.520_499_877_813_046_5), (1.0, 0.842_700_792_949_714_9)];
        let tail = [(2.0, 0.995_322_265_018_952_7), (3.5, 0.999_999_256_901_627_7), (7.0, 1.0)];
        for (t, want) in known.into_iter().chain(tail) {
            assert!((erf(t) - want).abs() < 1e-14, "erf({t}) = {}", erf(t));
            assert_eq!(erf(-t), -erf(t));
        }
        assert!(erf(f64::NAN).is_nan());
    }

    #[test]
    fn activations_have_their_fixed_points() {
        use Activation::{Gelu, HardSigmoid, HardSwish, QuickGelu, Relu};
        for (f, at_minus_4, at_0, at_4) in [
            (QuickGelu, -0.004_414_7, 0.0, 3.995_585_3),
            (Gelu, -0.000_126_7, 0.0, 3.999_873_3),
            (Relu, 0.0, 0.0, 4.0),
            (HardSwish, 0.0, 0.0, 4.0),
            (HardSigmoid, 0.0, 0.5, 1.0),
        ] {
            for (t, want) in [(-4.0, at_minus_4), (0.0, at_0), (4.0, at_4)] {
                assert!((apply(f, t) - want).abs() < 1e-6, "{f:?}({t}) = {}", apply(f, t));
            }
        }
    }
}
