//! A block of queries going through the pages of a head.

use super::kv::Head;
use crate::cpu::lanes::functions::exp;
use crate::cpu::lanes::{Lanes, Stored};
use crate::device::{PAGE, PageId};

/// Queries in a block: with two vectors each, their sums hide the latency of the arithmetic.
const ROWS: usize = 6;

/// Computes `count` queries, block by block.
#[inline(always)]
pub(super) fn run_queries<L: Lanes, E: Stored>(
    lanes: L,
    block: Block<'_, E>,
    count: usize,
    query: impl Fn(usize) -> Query,
) {
    let mut item = 0;
    while item < count {
        let next = |i| query(item + i);
        item += match count - item {
            ROWS.. => block.run::<L, ROWS>(lanes, std::array::from_fn(next)),
            2.. => block.run::<L, 2>(lanes, std::array::from_fn(next)),
            _ => block.run::<L, 1>(lanes, std::array::from_fn(next)),
        };
    }
}

/// One head of one query row.
#[derive(Clone, Copy)]
pub(super) struct Query {
    /// Where its numbers start, in q as in the result.
    pub(super) at: usize,
    /// Positions it sees, at least one.
    pub(super) seen: usize,
}

/// What the queries of a block share.
pub(super) struct Block<'a, E> {
    /// All queries.
    pub(super) q: &'a [f32],
    /// The whole result, laid out like `q`. Nobody else touches the parts of these queries.
    pub(super) out: *mut f32,
    pub(super) head: Head<'a, E>,
    /// Pages in the order of positions.
    pub(super) pages: &'a [PageId],
    /// Numbers of a head.
    pub(super) dim: usize,
}

// Derived, these would ask the same of `E`.
impl<E> Clone for Block<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Block<'_, E> {}

/// Scores of a page, then their exponentials.
#[repr(align(64))]
struct Scores<const R: usize>([[f32; PAGE]; R]);

impl<E: Stored> Block<'_, E> {
    /// Computes `R` queries. Returns `R`.
    #[inline(always)]
    fn run<L: Lanes, const R: usize>(self, lanes: L, queries: [Query; R]) -> usize {
        let mut scores = Scores([[0.0; PAGE]; R]);
        let mut largest = [f32::NEG_INFINITY; R];
        let mut sums = [lanes.splat(0.0); R];
        let mut most = 0;
        for query in queries {
            most = most.max(query.seen);
            // SAFETY: the query's part of the result belongs to this block alone.
            unsafe { std::slice::from_raw_parts_mut(self.out.add(query.at), self.dim) }.fill(0.0);
        }
        for (p, &page) in self.pages[..most.div_ceil(PAGE)].iter().enumerate() {
            self.scores(lanes, page, &queries, &mut scores);
            let mut seen = [0; R];
            for r in 0..R {
                seen[r] = queries[r].seen.saturating_sub(p * PAGE).min(PAGE);
            }
            self.raise(lanes, &queries, &scores, seen, &mut largest, &mut sums);
            for r in 0..R {
                // A query that sees nothing of this page has no weights there.
                if seen[r] > 0 {
                    sums[r] = soften(lanes, &mut scores.0[r], seen[r], largest[r], sums[r]);
                }
            }
            self.add_values(lanes, page, &queries, &scores, seen);
        }
        for r in 0..R {
            self.rescale(lanes, queries[r], 1.0 / lanes.sum(sums[r]));
        }
        R
    }

    /// Scores of the queries with all keys of a page.
    #[inline(always)]
    fn scores<L: Lanes, const R: usize>(
        self,
        lanes: L,
        page: PageId,
        queries: &[Query; R],
        scores: &mut Scores<R>,
    ) {
        let mut q = [self.q.as_ptr(); R];
        for r in 0..R {
            q[r] = self.q[queries[r].at..][..self.dim].as_ptr();
        }
        let keys = self.head.keys(page);
        let scale = lanes.splat(1.0 / (self.dim as f32).sqrt());
        for first in (0..PAGE).step_by(2 * L::LANES) {
            // SAFETY: `q` has `dim` numbers for each query; the page has as many lines of `PAGE`
            // keys, of which two vectors from `first` on are used.
            unsafe {
                let zero = [[lanes.splat(0.0); 2]; R];
                let sums = multiply::<L, E, R, 2>(lanes, zero, q, (keys.add(first), PAGE), self.dim);
                for (row, sums) in scores.0.iter_mut().zip(&sums) {
                    lanes.store(lanes.mul(sums[0], scale), row.as_mut_ptr().add(first));
                    lanes.store(lanes.mul(sums[1], scale), row.as_mut_ptr().add(first + L::LANES));
                }
            }
        }
    }

    /// Updates the largest scores, and scales down what was summed before where they rise.
    #[inline(always)]
    fn raise<L: Lanes, const R: usize>(
        self,
        lanes: L,
        queries: &[Query; R],
        scores: &Scores<R>,
        seen: [usize; R],
        largest: &mut [f32; R],
        sums: &mut [L::V; R],
    ) {
        let before = *largest;
        for r in 0..R {
            largest[r] = most(lanes, &scores.0[r], seen[r]).max(before[r]);
        }
        for r in 0..R {
            if largest[r] > before[r] {
                let factor = lanes.largest(exp(lanes, lanes.splat(before[r] - largest[r])));
                sums[r] = lanes.mul(sums[r], lanes.splat(factor));
                self.rescale(lanes, queries[r], factor);
            }
        }
    }

    /// Adds the values of a page, weighted by `scores`, to the results.
    #[inline(always)]
    fn add_values<L: Lanes, const R: usize>(
        self,
        lanes: L,
        page: PageId,
        queries: &[Query; R],
        scores: &Scores<R>,
        seen: [usize; R],
    ) {
        let mut alike = true;
        let mut weights = [scores.0[0].as_ptr(); R];
        for r in 0..R {
            alike &= seen[r] == seen[0];
            weights[r] = scores.0[r].as_ptr();
        }
        if alike {
            self.add_weighted::<L, R>(lanes, page, queries, weights, seen[0]);
            return;
        }
        for r in 0..R {
            self.add_weighted::<L, 1>(lanes, page, &[queries[r]], [weights[r]], seen[r]);
        }
    }

    /// Adds the first `seen` values of a page to the results of `R` queries.
    #[inline(always)]
    fn add_weighted<L: Lanes, const R: usize>(
        self,
        lanes: L,
        page: PageId,
        queries: &[Query; R],
        weights: [*const f32; R],
        seen: usize,
    ) {
        assert!(seen <= PAGE);
        let (values, stride) = (self.head.values(page), self.head.stride());
        let mut d = 0;
        while d + 2 * L::LANES <= self.dim {
            // SAFETY: numbers `d .. d + 2 * LANES` lie inside a value and a result; there are
            // `PAGE` weights and values.
            unsafe { self.strip::<L, R, 2>(lanes, queries, weights, (values.add(d), stride), (d, seen)) };
            d += 2 * L::LANES;
        }
        while d < self.dim {
            // SAFETY: as above for one vector, which may end in the padding of the values.
            unsafe { self.strip::<L, R, 1>(lanes, queries, weights, (values.add(d), stride), (d, seen)) };
            d += L::LANES;
        }
    }

    /// [`Block::add_weighted`] for `N` vectors from number `d` on.
    ///
    /// # Safety
    /// `values` points to `seen` lines `stride` apart, of `N` vectors each; `weights` to `seen`
    /// numbers for each query.
    #[inline(always)]
    unsafe fn strip<L: Lanes, const R: usize, const N: usize>(
        self,
        lanes: L,
        queries: &[Query; R],
        weights: [*const f32; R],
        values: (*const E, usize),
        (d, seen): (usize, usize),
    ) {
        let mut sums = [[lanes.splat(0.0); N]; R];
        // SAFETY: what is loaded and stored is cut to the numbers of the result, which belong to
        // this block alone; the rest is as promised by the caller.
        unsafe {
            for (sums, query) in sums.iter_mut().zip(queries) {
                for (n, sum) in sums.iter_mut().enumerate() {
                    let (at, len) = self.result::<L>(*query, d + n * L::LANES);
                    *sum = lanes.load_first(at, len);
                }
            }
            let sums = multiply::<L, E, R, N>(lanes, sums, weights, values, seen);
            for (sums, query) in sums.iter().zip(queries) {
                for (n, sum) in sums.iter().enumerate() {
                    let (at, len) = self.result::<L>(*query, d + n * L::LANES);
                    lanes.store_first(*sum, at, len);
                }
            }
        }
    }

    /// Address of number `d` of a query's result, and how many of a vector's numbers there are.
    #[inline(always)]
    fn result<L: Lanes>(self, query: Query, d: usize) -> (*mut f32, usize) {
        (self.out.wrapping_add(query.at + d), L::LANES.min(self.dim - d))
    }

    /// Multiplies the result of a query.
    #[inline(always)]
    fn rescale<L: Lanes>(self, lanes: L, query: Query, factor: f32) {
        let factor = lanes.splat(factor);
        for d in (0..self.dim).step_by(L::LANES) {
            let (at, n) = self.result::<L>(query, d);
            // SAFETY: `n` numbers are left, which belong to this block alone.
            unsafe { lanes.store_first(lanes.mul(lanes.load_first(at, n), factor), at, n) };
        }
    }
}

/// The largest of the first `seen` scores.
#[inline(always)]
fn most<L: Lanes>(lanes: L, row: &[f32; PAGE], seen: usize) -> f32 {
    let unseen = lanes.splat(f32::NEG_INFINITY);
    let mut most = unseen;
    for first in (0..PAGE).step_by(L::LANES) {
        let n = seen.saturating_sub(first).min(L::LANES);
        // SAFETY: the row has `PAGE` numbers.
        let score = unsafe { lanes.load(row.as_ptr().add(first)) };
        most = lanes.max(most, lanes.keep_first(score, n, unseen));
    }
    lanes.largest(most)
}

/// Turns scores into exponentials of their distance from `top`, 0 from `seen` on, and adds them to
/// `sum`.
#[inline(always)]
fn soften<L: Lanes>(lanes: L, row: &mut [f32; PAGE], seen: usize, top: f32, mut sum: L::V) -> L::V {
    for first in (0..PAGE).step_by(L::LANES) {
        let n = seen.saturating_sub(first).min(L::LANES);
        // SAFETY: the row has `PAGE` numbers.
        unsafe {
            let at = row.as_mut_ptr().add(first);
            let weight = exp(lanes, lanes.sub(lanes.load(at), lanes.splat(top)));
            let weight = lanes.keep_first(weight, n, lanes.splat(0.0));
            lanes.store(weight, at);
            sum = lanes.add(sum, weight);
        }
    }
    sum
}

/// `sums[r][n] = fma(a[r][i], b[i][n], sums[r][n])` for ascending `i` below `len`, where `b[i]` is
/// the line of `N` vectors at `i` times the stride.
///
/// # Safety
/// Each of `a` points to `len` numbers, `b` to `len` lines.
#[inline(always)]
unsafe fn multiply<L: Lanes, E: Stored, const R: usize, const N: usize>(
    lanes: L,
    mut sums: [[L::V; N]; R],
    a: [*const f32; R],
    (b, stride): (*const E, usize),
    len: usize,
) -> [[L::V; N]; R] {
    let mut line = [lanes.splat(0.0); N];
    for i in 0..len {
        for (n, vector) in line.iter_mut().enumerate() {
            // SAFETY: as promised by the caller.
            *vector = unsafe { E::load(lanes, b.add(i * stride + n * L::LANES)) };
        }
        for (sums, a) in sums.iter_mut().zip(a) {
            // SAFETY: as promised by the caller.
            let factor = lanes.splat(unsafe { *a.add(i) });
            for (sum, vector) in sums.iter_mut().zip(line) {
                *sum = lanes.fma(factor, vector, *sum);
            }
        }
    }
    sums
}
