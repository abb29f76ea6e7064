//! Formulas applied to whole rows of numbers, on vectors and threads.
//!
//! What happens to a number does not depend on where its vector or its chunk begins: the last,
//! partial vector of a row goes through the same instructions as the others.

use super::isa::Isa;
use super::lanes::{Kernel, Lanes, dispatch};
use super::threads::Pool;

/// Numbers that are worth waking a thread for.
const LEAST: usize = 16 * 1024;

/// Rows of `width` that are worth waking a thread for.
pub(super) fn least_rows(width: usize) -> usize {
    LEAST.div_ceil(width.max(1))
}

/// A new value from an old one and `N` numbers beside it.
pub(super) trait Formula<const N: usize>: Copy + Sync {
    /// The formula on vectors. Implementations are `#[inline(always)]`.
    fn at<L: Lanes>(self, lanes: L, x: L::V, beside: [L::V; N]) -> L::V;
}

/// `x[i] = formula(x[i], [beside[0][i], ..])`.
#[inline(always)]
pub(super) fn update<L: Lanes, const N: usize>(
    lanes: L,
    formula: impl Formula<N>,
    x: &mut [f32],
    beside: [&[f32]; N],
) {
    let len = x.len();
    for slice in beside {
        assert_eq!(slice.len(), len, "lengths of the rows");
    }
    let x = x.as_mut_ptr();
    let mut vectors = [lanes.splat(0.0); N];
    let mut i = 0;
    while i + L::LANES <= len {
        // SAFETY: numbers `i .. i + LANES` lie inside every slice.
        unsafe {
            for n in 0..N {
                vectors[n] = lanes.load(beside[n].as_ptr().add(i));
            }
            let value = formula.at(lanes, lanes.load(x.add(i)), vectors);
            lanes.store(value, x.add(i));
        }
        i += L::LANES;
    }
    let rest = len - i;
    if rest > 0 {
        // SAFETY: numbers `i .. i + rest` lie inside every slice.
        unsafe {
            for n in 0..N {
                vectors[n] = lanes.load_first(beside[n].as_ptr().add(i), rest);
            }
            let value = formula.at(lanes, lanes.load_first(x.add(i), rest), vectors);
            lanes.store_first(value, x.add(i), rest);
        }
    }
}

/// The sum of `term(x[i])`, in an order that depends on the length of `x` alone.
#[inline(always)]
pub(super) fn sum<L: Lanes>(lanes: L, term: impl Formula<0>, x: &[f32]) -> f32 {
    const CHAINS: usize = 4;
    let zero = lanes.splat(0.0);
    let mut sums = [zero; CHAINS];
    let mut i = 0;
    while i + CHAINS * L::LANES <= x.len() {
        for (c, sum) in sums.iter_mut().enumerate() {
            // SAFETY: `CHAINS` vectors from `i` lie inside the slice.
            let v = unsafe { lanes.load(x.as_ptr().add(i + c * L::LANES)) };
            *sum = lanes.add(*sum, term.at(lanes, v, []));
        }
        i += CHAINS * L::LANES;
    }
    while i < x.len() {
        let n = L::LANES.min(x.len() - i);
        // SAFETY: numbers `i .. i + n` lie inside the slice.
        let v = unsafe { lanes.load_first(x.as_ptr().add(i), n) };
        sums[0] = lanes.add(sums[0], lanes.keep_first(term.at(lanes, v, []), n, zero));
        i += n;
    }
    lanes.sum(lanes.add(lanes.add(sums[0], sums[1]), lanes.add(sums[2], sums[3])))
}

/// [`update`] as a kernel.
struct Update<'a, F, const N: usize> {
    formula: F,
    x: &'a mut [f32],
    beside: [&'a [f32]; N],
}

impl<F: Formula<N>, const N: usize> Kernel for Update<'_, F, N> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        update(lanes, self.formula, self.x, self.beside);
    }
}

/// [`update`] on all threads.
pub(super) fn update_all<const N: usize>(
    isa: Isa,
    pool: &Pool,
    formula: impl Formula<N>,
    x: &mut [f32],
    beside: [&[f32]; N],
) {
    pool.rows(x, 1, LEAST, &|first, x| {
        let beside = beside.map(|slice| &slice[first..first + x.len()]);
        dispatch(isa, Update { formula, x, beside });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::lanes::tests::all;

    #[derive(Clone, Copy)]
    struct Square;

    impl Formula<0> for Square {
        #[inline(always)]
        fn at<L: Lanes>(self, lanes: L, x: L::V, []: [L::V; 0]) -> L::V {
            lanes.mul(lanes.add(x, lanes.splat(1.0)), lanes.add(x, lanes.splat(1.0)))
        }
    }

    #[derive(Clone, Copy)]
    struct AddProduct;

    impl Formula<2> for AddProduct {
        #[inline(always)]
        fn at<L: Lanes>(self, lanes: L, x: L::V, [a, b]: [L::V; 2]) -> L::V {
            lanes.fma(a, b, x)
        }
    }

    struct Check(usize);

    impl Kernel for Check {
        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) {
            let numbers: Vec<f32> = (0..self.0).map(|i| i as f32).collect();
            let want: f32 = (1..=self.0).map(|i| (i * i) as f32).sum();
            assert_eq!(sum(lanes, Square, &numbers), want, "{} numbers", self.0);
        }
    }

    #[test]
    fn sums_take_every_number_once() {
        for isa in all() {
            for len in [0, 1, 7, 8, 9, 31, 64, 65, 200] {
                dispatch(isa, Check(len));
            }
        }
    }

    #[test]
    fn updates_take_every_number_once() {
        let pool = Pool::new(2);
        for isa in all() {
            for len in [0, 1, 15, 16, 17, 33, 3 * LEAST + 5] {
                let a: Vec<f32> = (0..len).map(|i| i as f32).collect();
                let mut x = vec![1.0; len];
                update_all(isa, &pool, AddProduct, &mut x, [&a, &a]);
                assert!(x.iter().enumerate().all(|(i, &x)| x == (i as f32).mul_add(i as f32, 1.0)));
            }
        }
    }
}
