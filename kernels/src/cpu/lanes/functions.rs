//! Functions of vectors.
//!
//! The polynomials are minimax fits of their own: `exp` errs by about 1 ulp, `erfc` by less than
//! 1e-7 of 1.

use std::f32::consts::LOG2_E;

use super::Lanes;

/// `ln 2` in two parts: the first has few bits, so that an integer times it is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// Results below `exp(-87.3)` would not be normal numbers; `exp(89)` is infinite.
const EXP_LOW: f32 = -87.3;
const EXP_HIGH: f32 = 89.0;

/// `(exp(r) - 1 - r) / r^2` near 0, the constant first.
const EXP: [f32; 5] = [0.499_999_93, 0.166_665_2, 0.041_668_39, 0.008_368_745, 0.001_381_454];

/// `erfc(z) * exp(z * z)` as a polynomial of `u = 1 / (1 + ERFC_U z)` without constant, `u^1` first.
const ERFC: [f32; 7] =
    [0.258_989_74, 0.201_009_05, 0.460_171_73, -0.375_804_7, 0.857_169_6, -0.494_105_28, 0.092_569_84];
const ERFC_U: f32 = 0.45;

/// `exp(x)`; below -87.3 that of the bound, above 88.37 infinity. NaN stays NaN.
#[inline(always)]
pub(crate) fn exp<L: Lanes>(lanes: L, x: L::V) -> L::V {
    let x = lanes.min(lanes.splat(EXP_HIGH), lanes.max(lanes.splat(EXP_LOW), x));
    let n = lanes.round(lanes.mul(x, lanes.splat(LOG2_E)));
    let r = lanes.fma(n, lanes.splat(-LN2_HIGH), x);
    let r = lanes.fma(n, lanes.splat(-LN2_LOW), r);
    let p = polynomial(lanes, &EXP, r);
    let tail = lanes.fma(lanes.mul(r, r), p, r);
    lanes.mul(lanes.add(tail, lanes.splat(1.0)), lanes.pow2(n))
}

/// `1 / (1 + exp(-x))`.
#[inline(always)]
pub(crate) fn sigmoid<L: Lanes>(lanes: L, x: L::V) -> L::V {
    let one = lanes.splat(1.0);
    let minus = lanes.sub(lanes.splat(0.0), x);
    lanes.div(one, lanes.add(one, exp(lanes, minus)))
}

/// `1 - erf(z)` for `z >= 0`.
#[inline(always)]
pub(crate) fn erfc<L: Lanes>(lanes: L, z: L::V) -> L::V {
    let one = lanes.splat(1.0);
    let u = lanes.div(one, lanes.fma(lanes.splat(ERFC_U), z, one));
    let p = lanes.mul(polynomial(lanes, &ERFC, u), u);
    let minus = lanes.sub(lanes.splat(0.0), z);
    lanes.mul(p, exp(lanes, lanes.mul(minus, z)))
}

/// `terms[0] + terms[1] x + ..`.
#[inline(always)]
fn polynomial<L: Lanes, const N: usize>(lanes: L, terms: &[f32; N], x: L::V) -> L::V {
    let mut sum = lanes.splat(terms[N - 1]);
    let mut i = N - 1;
    while i > 0 {
        i -= 1;
        sum = lanes.fma(sum, x, lanes.splat(terms[i]));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::tests::all;
    use super::super::{Kernel, dispatch};
    use super::*;

    struct Check;

    impl Kernel for Check {
        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) {
            for i in -87_000..=88_000 {
                let x = i as f32 / 1000.0;
                let (got, want) = (lanes.largest(exp(lanes, lanes.splat(x))), f64::from(x).exp());
                assert!((f64::from(got) - want).abs() <= want * 2e-7, "exp({x}) = {got}, not {want}");
            }
            for (z, want) in [(0.0, 1.0), (0.5, 0.479_500_122_2), (1.0, 0.157_299_207), (2.0, 0.004_677_735)]
            {
                let got = lanes.largest(erfc(lanes, lanes.splat(z)));
                assert!((f64::from(got) - want).abs() <= 2e-7, "erfc({z}) = {got}, not {want}");
            }
            assert!(lanes.sum(exp(lanes, lanes.splat(f32::NAN))).is_nan());
            assert!(lanes.largest(exp(lanes, lanes.splat(f32::NEG_INFINITY))) < 2e-38);
            assert_eq!(lanes.largest(exp(lanes, lanes.splat(f32::INFINITY))), f32::INFINITY);
            assert_eq!(lanes.largest(sigmoid(lanes, lanes.splat(0.0))), 0.5);
            assert_eq!(lanes.largest(sigmoid(lanes, lanes.splat(-1000.0))), 0.0);
        }
    }

    #[test]
    fn exponentials_are_right_to_two_ulps() {
        all().for_each(|isa| dispatch(isa, Check));
    }
}
