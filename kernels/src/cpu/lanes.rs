//! Vectors of f32 of the width of the machine.
//!
//! Every operation but matrix products is written once over [`Lanes`]. A value of a `Lanes` type is
//! the proof that this processor has the instructions, so its methods are safe where they take no
//! pointer. They only become single instructions inside [`dispatch`], which compiles a [`Kernel`]
//! once for each instruction set. Everything on the way from there is `#[inline(always)]`; closures
//! cannot be, so none computes with vectors.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod functions;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use half::f16;

use super::isa::Isa;
#[cfg(target_arch = "aarch64")]
use super::isa::Neon;
#[cfg(target_arch = "x86_64")]
use super::isa::{Avx2, Avx512Vnni};
use crate::device::KV_BLOCK;
use portable::Portable;

/// Numbers in the widest vector.
pub(crate) const WIDEST: usize = 16;

/// A vector type and its arithmetic. Each operation rounds once and to nearest even.
///
/// Pointers need no alignment; each method says how many numbers have to be there.
pub(crate) trait Lanes: Copy {
    /// A vector.
    type V: Copy;

    /// Numbers in a vector: a power of two of at most [`WIDEST`].
    const LANES: usize;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::V;

    /// A vector from memory.
    ///
    /// # Safety
    /// `LANES` numbers can be read.
    unsafe fn load(self, from: *const f32) -> Self::V;

    /// The first `n` lanes from memory, `n` at most `LANES`; the others are 0.
    ///
    /// # Safety
    /// `n` numbers can be read.
    unsafe fn load_first(self, from: *const f32, n: usize) -> Self::V;

    /// A vector to memory.
    ///
    /// # Safety
    /// `LANES` numbers can be written.
    unsafe fn store(self, v: Self::V, to: *mut f32);

    /// The first `n` lanes to memory, `n` at most `LANES`.
    ///
    /// # Safety
    /// `n` numbers can be written.
    unsafe fn store_first(self, v: Self::V, to: *mut f32, n: usize);

    /// [`Lanes::load`] from f16.
    ///
    /// # Safety
    /// `LANES` numbers can be read.
    unsafe fn load_f16(self, from: *const f16) -> Self::V;

    /// [`Lanes::store`] to f16.
    ///
    /// # Safety
    /// `LANES` numbers can be written.
    unsafe fn store_f16(self, v: Self::V, to: *mut f16);

    /// [`Lanes::load`] from integers.
    ///
    /// # Safety
    /// `LANES` numbers can be read.
    unsafe fn load_i8(self, from: *const i8) -> Self::V;

    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;

    /// `a` where `a > b`, otherwise `b`: a NaN in `b` stays.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a` where `a < b`, otherwise `b`: a NaN in `b` stays.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;

    /// To the nearest integer, halves to even.
    fn round(self, v: Self::V) -> Self::V;

    /// `2 ^ v` for integers of `-126 ..= 128`, the last being infinity; for anything else unspecified.
    fn pow2(self, v: Self::V) -> Self::V;

    /// The first `n` lanes of `v`, `n` at most `LANES`, and the others of `rest`.
    fn keep_first(self, v: Self::V, n: usize, rest: Self::V) -> Self::V;

    /// The sum of all lanes, in an order that is always the same.
    fn sum(self, v: Self::V) -> f32;

    /// The largest lane; unspecified if one is NaN.
    fn largest(self, v: Self::V) -> f32;

    /// Exchanges rows and columns of a square: lane `j` of vector `i` goes to lane `i` of vector `j`,
    /// for the first `LANES` vectors. The others are unspecified.
    fn transpose(self, rows: [Self::V; WIDEST]) -> [Self::V; WIDEST];

    /// A vector from half as many numbers, each in two neighbouring lanes.
    ///
    /// # Safety
    /// `LANES / 2` numbers can be read.
    unsafe fn load_twice(self, from: *const f32) -> Self::V;

    /// Turns each pair of neighbours `(a, b)` into `(a cos - b sin, b cos + a sin)`.
    fn rotate_pairs(self, v: Self::V, cos: Self::V, sin: Self::V) -> Self::V;
}

/// A number that vectors are loaded from.
pub(crate) trait Stored: Copy + Default + Send + Sync {
    /// Neighbours that share a scale, by which they have to be multiplied; none has one where this
    /// is more than any row has.
    const BLOCK: usize = usize::MAX;

    /// See [`Lanes::load`].
    ///
    /// # Safety
    /// `LANES` numbers can be read.
    unsafe fn load<L: Lanes>(lanes: L, from: *const Self) -> L::V;
}

/// A number that vectors are rounded to.
pub(crate) trait Rounded: Stored {
    /// See [`Lanes::store`].
    ///
    /// # Safety
    /// `LANES` numbers can be written.
    unsafe fn store<L: Lanes>(lanes: L, v: L::V, to: *mut Self);
}

impl Stored for f32 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(lanes: L, from: *const Self) -> L::V {
        // SAFETY: as promised by the caller.
        unsafe { lanes.load(from) }
    }
}

impl Rounded for f32 {
    #[inline(always)]
    unsafe fn store<L: Lanes>(lanes: L, v: L::V, to: *mut Self) {
        // SAFETY: as promised by the caller.
        unsafe { lanes.store(v, to) }
    }
}

impl Stored for f16 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(lanes: L, from: *const Self) -> L::V {
        // SAFETY: as promised by the caller.
        unsafe { lanes.load_f16(from) }
    }
}

impl Stored for i8 {
    const BLOCK: usize = KV_BLOCK;

    #[inline(always)]
    unsafe fn load<L: Lanes>(lanes: L, from: *const Self) -> L::V {
        // SAFETY: as promised by the caller.
        unsafe { lanes.load_i8(from) }
    }
}

impl Rounded for f16 {
    #[inline(always)]
    unsafe fn store<L: Lanes>(lanes: L, v: L::V, to: *mut Self) {
        // SAFETY: as promised by the caller.
        unsafe { lanes.store_f16(v, to) }
    }
}

/// Work written over vectors of any width.
pub(crate) trait Kernel {
    /// Does the work. Implementations are `#[inline(always)]`.
    fn run<L: Lanes>(self, lanes: L);
}

/// Runs a kernel with the vectors of an instruction set.
pub(crate) fn dispatch(isa: Isa, kernel: impl Kernel) {
    match isa {
        Isa::Scalar => kernel.run(Portable),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the token proves the features.
        Isa::Avx2(lanes) => unsafe { run_avx2(lanes, kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the token proves the features.
        Isa::AvxVnni(token) => unsafe { run_avx2(token.avx2(), kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the token proves the features.
        Isa::Avx512Vnni(lanes) => unsafe { run_avx512(lanes, kernel) },
        #[cfg(target_arch = "aarch64")]
        Isa::Neon(lanes) => run_neon(lanes, kernel),
        #[cfg(target_arch = "aarch64")]
        Isa::Dotprod(isa) => run_neon(isa.neon(), kernel),
        #[cfg(target_arch = "aarch64")]
        Isa::I8mm(isa) => run_neon(isa.dotprod().neon(), kernel),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2(lanes: Avx2, kernel: impl Kernel) {
    kernel.run(lanes);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn run_avx512(lanes: Avx512Vnni, kernel: impl Kernel) {
    kernel.run(lanes);
}

/// Shared by all instruction sets of aarch64; none needs to be enabled for NEON.
#[cfg(target_arch = "aarch64")]
fn run_neon(lanes: Neon, kernel: impl Kernel) {
    kernel.run(lanes);
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::isa::IsaLevel;
    use super::*;

    /// The instruction sets of this processor.
    pub(in crate::cpu) fn all() -> impl Iterator<Item = Isa> {
        IsaLevel::ALL.into_iter().filter_map(Isa::of)
    }

    struct Check(Isa);

    impl Kernel for Check {
        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) {
            check_memory(lanes);
            check_lanes(lanes);
            check_transpose(lanes);
            println!("{} is right", self.0.level());
        }
    }

    fn lanes_of<L: Lanes>(lanes: L, v: L::V) -> Vec<f32> {
        let mut out = vec![0.0; L::LANES];
        // SAFETY: `out` has `LANES` numbers.
        unsafe { lanes.store(v, out.as_mut_ptr()) };
        out
    }

    /// 1, 2, 3 and so on.
    fn count<L: Lanes>(lanes: L) -> L::V {
        let numbers: Vec<f32> = (1..=L::LANES).map(|i| i as f32).collect();
        // SAFETY: `numbers` has `LANES` numbers.
        unsafe { lanes.load(numbers.as_ptr()) }
    }

    fn check_memory<L: Lanes>(lanes: L) {
        let numbers: Vec<f32> = (0..16).map(|i| i as f32 - 2.5).collect();
        for n in 0..=L::LANES {
            let mut out = [9.0; 16];
            // SAFETY: both have 16 numbers, no vector has more.
            let v = unsafe { lanes.load_first(numbers.as_ptr(), n) };
            let read = lanes_of(lanes, v);
            assert_eq!(read[..n], numbers[..n]);
            assert!(read[n..].iter().all(|&x| x == 0.0));
            // SAFETY: as above.
            unsafe { lanes.store_first(v, out.as_mut_ptr(), n) };
            assert_eq!(out[..n], numbers[..n]);
            assert!(out[n..].iter().all(|&x| x == 9.0));
        }
        let mut halves = [f16::ZERO; 16];
        // SAFETY: as above.
        let back = unsafe {
            lanes.store_f16(lanes.splat(1.0 + 1.0 / 2048.0), halves.as_mut_ptr());
            lanes.load_f16(halves.as_ptr())
        };
        assert_eq!(lanes_of(lanes, back), vec![1.0; L::LANES]);
        let integers: [i8; 16] = [-128, -127, -1, 0, 1, 2, 126, 127, 5, 6, 7, 8, 9, 10, 11, 12];
        // SAFETY: as above.
        let read = lanes_of(lanes, unsafe { lanes.load_i8(integers.as_ptr()) });
        assert!(read.iter().zip(integers).all(|(&x, want)| x == f32::from(want)));
        // SAFETY: as above.
        let twice = lanes_of(lanes, unsafe { lanes.load_twice(numbers.as_ptr()) });
        assert!(twice.iter().enumerate().all(|(i, &x)| x == numbers[i / 2]));
    }

    fn check_transpose<L: Lanes>(lanes: L) {
        let mut rows = [lanes.splat(0.0); WIDEST];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = lanes.add(count(lanes), lanes.splat(100.0 * i as f32));
        }
        for (j, column) in lanes.transpose(rows).into_iter().enumerate().take(L::LANES) {
            let want: Vec<f32> = (0..L::LANES).map(|i| (100 * i + j + 1) as f32).collect();
            assert_eq!(lanes_of(lanes, column), want);
        }
    }

    fn check_lanes<L: Lanes>(lanes: L) {
        let n = L::LANES as f32;
        let v = count(lanes);
        assert_eq!(lanes.sum(v), n * (n + 1.0) / 2.0);
        assert_eq!(lanes.largest(lanes.sub(lanes.splat(0.0), v)), -1.0);
        let kept = lanes_of(lanes, lanes.keep_first(v, 3, lanes.splat(-1.0)));
        assert_eq!(kept[..4], [1.0, 2.0, 3.0, -1.0]);
        let turned = lanes_of(lanes, lanes.rotate_pairs(v, lanes.splat(2.0), lanes.splat(3.0)));
        assert_eq!(turned[..4], [2.0 - 6.0, 4.0 + 3.0, 6.0 - 12.0, 8.0 + 9.0]);
        let rounded = lanes_of(lanes, lanes.round(lanes.mul(v, lanes.splat(0.5))));
        assert_eq!(rounded[..4], [0.0, 1.0, 2.0, 2.0]);
        let powers = lanes_of(lanes, lanes.pow2(lanes.sub(v, lanes.splat(3.0))));
        assert_eq!(powers[..4], [0.25, 0.5, 1.0, 2.0]);
        for (power, want) in [(-126.0, f32::MIN_POSITIVE), (127.0, 2_f32.powi(127)), (128.0, f32::INFINITY)] {
            assert_eq!(lanes_of(lanes, lanes.pow2(lanes.splat(power)))[0], want);
        }
        let nan = lanes.splat(f32::NAN);
        assert!(lanes_of(lanes, lanes.max(v, nan))[0].is_nan());
        assert!(lanes_of(lanes, lanes.min(v, nan))[0].is_nan());
        let quotient = lanes_of(lanes, lanes.div(v, lanes.add(v, v)));
        assert!(quotient.iter().all(|&x| x == 0.5));
        let fused =
            lanes.fma(lanes.splat(1.0 + f32::EPSILON), lanes.splat(1.0 - f32::EPSILON), lanes.splat(-1.0));
        assert_eq!(lanes_of(lanes, fused)[0], -f32::EPSILON * f32::EPSILON);
    }

    #[test]
    fn every_vector_type_computes_alike() {
        all().for_each(|isa| dispatch(isa, Check(isa)));
    }
}
