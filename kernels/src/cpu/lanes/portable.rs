//! Vectors as arrays, for processors without own code: the compiler finds what vectors there are.

use half::f16;

use super::{Lanes, WIDEST};

/// Arrays of eight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portable;

const LANES: usize = 8;

/// The vector of `f(0)`, `f(1)` and so on.
#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    std::array::from_fn(f)
}

impl Lanes for Portable {
    type V = [f32; LANES];

    const LANES: usize = LANES;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        // SAFETY: as promised by the caller.
        unsafe { from.cast::<Self::V>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, n: usize) -> Self::V {
        // SAFETY: as promised by the caller.
        each(|i| if i < n { unsafe { from.add(i).read() } } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn store(self, v: Self::V, to: *mut f32) {
        // SAFETY: as promised by the caller.
        unsafe { to.cast::<Self::V>().write_unaligned(v) }
    }

    #[inline(always)]
    unsafe fn store_first(self, v: Self::V, to: *mut f32, n: usize) {
        for (i, x) in v.into_iter().enumerate().take(n) {
            // SAFETY: as promised by the caller.
            unsafe { to.add(i).write(x) }
        }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> Self::V {
        // SAFETY: as promised by the caller.
        each(|i| unsafe { from.add(i).read() }.to_f32())
    }

    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> Self::V {
        // SAFETY: as promised by the caller.
        each(|i| f32::from(unsafe { from.add(i).read() }))
    }

    #[inline(always)]
    unsafe fn store_f16(self, v: Self::V, to: *mut f16) {
        for (i, x) in v.into_iter().enumerate() {
            // SAFETY: as promised by the caller.
            unsafe { to.add(i).write(f16::from_f32(x)) }
        }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        each(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn round(self, v: Self::V) -> Self::V {
        each(|i| v[i].round_ties_even())
    }

    #[inline(always)]
    fn pow2(self, v: Self::V) -> Self::V {
        // The exponent field, whose bias is 127, in its place.
        each(|i| f32::from_bits(((v[i] as i32 + 127) as u32) << 23))
    }

    #[inline(always)]
    fn keep_first(self, v: Self::V, n: usize, rest: Self::V) -> Self::V {
        each(|i| if i < n { v[i] } else { rest[i] })
    }

    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
    }

    #[inline(always)]
    fn largest(self, v: Self::V) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[inline(always)]
    fn transpose(self, rows: [Self::V; WIDEST]) -> [Self::V; WIDEST] {
        let mut columns = rows;
        for (j, column) in columns.iter_mut().enumerate().take(LANES) {
            *column = each(|i| rows[i][j]);
        }
        columns
    }

    #[inline(always)]
    unsafe fn load_twice(self, from: *const f32) -> Self::V {
        // SAFETY: as promised by the caller.
        each(|i| unsafe { from.add(i / 2).read() })
    }

    #[inline(always)]
    fn rotate_pairs(self, v: Self::V, cos: Self::V, sin: Self::V) -> Self::V {
        each(|i| {
            let turned = v[i ^ 1] * sin[i];
            v[i].mul_add(cos[i], if i % 2 == 0 { -turned } else { turned })
        })
    }
}
