//! Sums and maxima over rows in a form that compilers vectorize: they may not reorder a plain sum.

/// Partial results: one for each lane of the widest vector.
const LANES: usize = 16;

/// The sum of `term(a, b)` over two rows.
#[inline(always)]
pub(super) fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let (a_lanes, a_rest) = a.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for lane in 0..LANES {
            sums[lane] += term(a[lane], b[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(&a, &b)| term(a, b)).sum();
    sums.iter().sum::<f32>() + rest
}

/// The largest number of a row.
#[inline(always)]
pub(super) fn largest(a: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if a > b { a } else { b };
    let (lanes, rest) = a.as_chunks::<LANES>();
    let mut most = [f32::NEG_INFINITY; LANES];
    for a in lanes {
        for lane in 0..LANES {
            most[lane] = greater(most[lane], a[lane]);
        }
    }
    most.iter().chain(rest).copied().fold(f32::NEG_INFINITY, greater)
}
