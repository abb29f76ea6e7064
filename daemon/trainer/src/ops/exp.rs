//! The exponential function in a form that compilers vectorize.

/// Adding it rounds to whole numbers: 1.5 * 2^23.
const ROUND: f32 = 12_582_912.0;

/// e^x within 3e-7 of the true value, relative; arguments are clamped to where the result is normal.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let t = x.clamp(-87.0, 88.0) * std::f32::consts::LOG2_E;
    let rounded = t + ROUND;
    let fraction = t - (rounded - ROUND); // within one half
    // 2^fraction by its Taylor series.
    let mut power = 1.540_353e-4_f32;
    for coefficient in [1.333_355_8e-3, 9.618_129e-3, 5.550_411e-2, 0.240_226_5, std::f32::consts::LN_2, 1.0]
    {
        power = power.mul_add(fraction, coefficient);
    }
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    power * f32::from_bits(exponent << 23)
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_close_everywhere() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((got / want - 1.0).abs() < 1e-5, "{x}: {got} {want}");
        }
        assert!(exp(-1e30) < 1e-37 && exp(1e30).is_finite());
    }
}
