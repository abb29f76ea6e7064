//! A block of queries going through the pages of a head.

use std::ops::Range;

use half::f16;

use super::kv::Head;
use crate::cpu::lanes::functions::exp;
use crate::cpu::lanes::{Lanes, Stored};
use crate::device::{PAGE, PageId};

/// Queries in a block: with two vectors each, their sums hide the latency of the arithmetic.
const ROWS: usize = 6;

/// Computes `count` queries, block by block.
#[inline(always)]
pub(super) fn run_queries<'a, L: Lanes, E: Stored>(
    lanes: L,
    block: Block<'_, E>,
    count: usize,
    query: impl Fn(usize) -> Query<'a>,
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
pub(super) struct Query<'a> {
    /// Where its numbers start, in q as in the result.
    pub(super) at: usize,
    /// Positions it sees, at least one.
    pub(super) seen: usize,
    /// Their pages in order.
    pub(super) pages: &'a [PageId],
}

impl Query<'_> {
    /// Positions of page `p` that it sees.
    #[inline(always)]
    fn seen_of(&self, p: usize) -> usize {
        self.seen.saturating_sub(p * PAGE).min(PAGE)
    }
}

/// What the queries of a block share.
pub(super) struct Block<'a, E> {
    /// All queries.
    pub(super) q: &'a [f32],
    /// The whole result, laid out like `q`. Nobody else touches the parts of these queries.
    pub(super) out: *mut f32,
    pub(super) head: Head<'a, E>,
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

/// Scores of a page, then their exponentials. One for all pages: each of them fills it.
#[repr(align(64))]
struct Scores<const R: usize>([[f32; PAGE]; R]);

/// What queries keep from page to page, beside their weighted sums in the result.
struct Kept<V, const R: usize> {
    /// The largest scores so far.
    largest: [f32; R],
    /// The sums of exponentials, lane by lane.
    sums: [V; R],
}

impl<E: Stored> Block<'_, E> {
    /// Computes `R` queries. Returns `R`.
    #[inline(always)]
    fn run<L: Lanes, const R: usize>(self, lanes: L, queries: [Query<'_>; R]) -> usize {
        let mut kept = Kept { largest: [f32::NEG_INFINITY; R], sums: [lanes.splat(0.0); R] };
        let (mut scores, mut score) = (Scores([[0.0; PAGE]; R]), Scores([[0.0; PAGE]; 1]));
        let mut most = 0;
        for query in queries {
            most = most.max(query.seen);
            // SAFETY: the query's part of the result belongs to this block alone.
            unsafe { std::slice::from_raw_parts_mut(self.out.add(query.at), self.dim) }.fill(0.0);
        }
        for p in 0..most.div_ceil(PAGE) {
            if let Some(page) = common_page(&queries, p) {
                self.step(lanes, (p, page), &queries, &mut kept, &mut scores);
                continue;
            }
            for (r, query) in queries.iter().enumerate() {
                if query.seen_of(p) > 0 {
                    let mut one = Kept { largest: [kept.largest[r]], sums: [kept.sums[r]] };
                    self.step(lanes, (p, query.pages[p]), &[*query], &mut one, &mut score);
                    (kept.largest[r], kept.sums[r]) = (one.largest[0], one.sums[0]);
                }
            }
        }
        for (query, sum) in queries.iter().zip(kept.sums) {
            self.rescale(lanes, *query, 1.0 / lanes.sum(sum));
        }
        R
    }

    /// Lets queries see a page, the one at place `p` of those that see any of it.
    #[inline(always)]
    fn step<L: Lanes, const R: usize>(
        self,
        lanes: L,
        (p, page): (usize, PageId),
        queries: &[Query<'_>; R],
        kept: &mut Kept<L::V, R>,
        scores: &mut Scores<R>,
    ) {
        self.scores(lanes, page, queries, scores);
        let mut seen = [0; R];
        for (seen, query) in seen.iter_mut().zip(queries) {
            *seen = query.seen_of(p);
        }
        self.raise(lanes, queries, scores, seen, kept);
        for (r, row) in scores.0.iter_mut().enumerate() {
            // A query that sees nothing of this page has no weights there.
            if seen[r] > 0 {
                kept.sums[r] = soften(lanes, row, seen[r], kept.largest[r], kept.sums[r]);
            }
        }
        self.add_values(lanes, page, queries, scores, seen);
    }

    /// Scores of the queries with all keys of a page.
    #[inline(always)]
    fn scores<L: Lanes, const R: usize>(
        self,
        lanes: L,
        page: PageId,
        queries: &[Query<'_>; R],
        scores: &mut Scores<R>,
    ) {
        let mut q = [self.q.as_ptr(); R];
        for r in 0..R {
            q[r] = self.q[queries[r].at..][..self.dim].as_ptr();
        }
        let keys = self.head.keys(page);
        let scale = lanes.splat(1.0 / (self.dim as f32).sqrt());
        let zero = [[lanes.splat(0.0); 2]; R];
        for first in (0..PAGE).step_by(2 * L::LANES) {
            let mut sums = zero;
            for d in (0..self.dim).step_by(E::BLOCK) {
                let count = E::BLOCK.min(self.dim - d);
                // SAFETY: `q` has `dim` numbers for each query; the page has as many lines of `PAGE`
                // keys, of which two vectors from `first` on are used.
                let part = unsafe {
                    let line = keys.add(d * PAGE + first);
                    multiply::<L, E, R, 2>(lanes, zero, q.map(|q| q.add(d)), (line, PAGE), count)
                };
                sums = if E::BLOCK < usize::MAX {
                    let scales = self.head.key_scales(page).wrapping_add(d / E::BLOCK * PAGE + first);
                    // SAFETY: each block of the page has `PAGE` scales.
                    unsafe { add_scaled(lanes, sums, part, scales) }
                } else {
                    part
                };
            }
            for (row, sums) in scores.0.iter_mut().zip(&sums) {
                // SAFETY: the row has `PAGE` numbers, two vectors of them from `first` on.
                unsafe {
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
        queries: &[Query<'_>; R],
        scores: &Scores<R>,
        seen: [usize; R],
        kept: &mut Kept<L::V, R>,
    ) {
        let Kept { largest, sums } = kept;
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
        queries: &[Query<'_>; R],
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
        queries: &[Query<'_>; R],
        weights: [*const f32; R],
        seen: usize,
    ) {
        assert!(seen <= PAGE);
        if E::BLOCK == usize::MAX {
            self.add_columns::<L, R>(lanes, page, queries, weights, (0..self.dim, seen));
            return;
        }
        for d in (0..self.dim).step_by(E::BLOCK) {
            let scales = self.head.value_scales(page).wrapping_add(d / E::BLOCK * PAGE);
            let mut scaled = Scores([[0.0; PAGE]; R]);
            for first in (0..PAGE).step_by(L::LANES) {
                // SAFETY: each block of the page has `PAGE` scales, as has each query weights.
                unsafe {
                    let scale = lanes.load_f16(scales.add(first));
                    for (scaled, weights) in scaled.0.iter_mut().zip(weights) {
                        let weight = lanes.mul(lanes.load(weights.add(first)), scale);
                        lanes.store(weight, scaled.as_mut_ptr().add(first));
                    }
                }
            }
            let mut weights = weights;
            for (weights, scaled) in weights.iter_mut().zip(&scaled.0) {
                *weights = scaled.as_ptr();
            }
            let columns = d..self.dim.min(d + E::BLOCK);
            self.add_columns::<L, R>(lanes, page, queries, weights, (columns, seen));
        }
    }

    /// [`Block::add_weighted`] for some numbers of the values, a block's or all.
    #[inline(always)]
    fn add_columns<L: Lanes, const R: usize>(
        self,
        lanes: L,
        page: PageId,
        queries: &[Query<'_>; R],
        weights: [*const f32; R],
        (columns, seen): (Range<usize>, usize),
    ) {
        let (values, stride) = (self.head.values(page), self.head.stride());
        let mut d = columns.start;
        while d + 2 * L::LANES <= columns.end {
            // SAFETY: numbers `d .. d + 2 * LANES` lie inside a value and a result; there are
            // `PAGE` weights and values.
            unsafe { self.strip::<L, R, 2>(lanes, queries, weights, (values.add(d), stride), (d, seen)) };
            d += 2 * L::LANES;
        }
        while d < columns.end {
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
        queries: &[Query<'_>; R],
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
    fn result<L: Lanes>(self, query: Query<'_>, d: usize) -> (*mut f32, usize) {
        (self.out.wrapping_add(query.at + d), L::LANES.min(self.dim - d))
    }

    /// Multiplies the result of a query.
    #[inline(always)]
    fn rescale<L: Lanes>(self, lanes: L, query: Query<'_>, factor: f32) {
        let factor = lanes.splat(factor);
        for d in (0..self.dim).step_by(L::LANES) {
            let (at, n) = self.result::<L>(query, d);
            // SAFETY: `n` numbers are left, which belong to this block alone.
            unsafe { lanes.store_first(lanes.mul(lanes.load_first(at, n), factor), at, n) };
        }
    }
}

/// The page at place `p` if all queries that see any of it have the same.
#[inline(always)]
fn common_page<const R: usize>(queries: &[Query<'_>; R], p: usize) -> Option<PageId> {
    let mut common = None;
    for query in queries {
        if query.seen_of(p) > 0 {
            let page = query.pages[p];
            if *common.get_or_insert(page) != page {
                return None;
            }
        }
    }
    common
}

/// `sums[r][n] = fma(part[r][n], scales[n], sums[r][n])`.
///
/// # Safety
/// There are as many scales as two vectors have numbers.
#[inline(always)]
unsafe fn add_scaled<L: Lanes, const R: usize>(
    lanes: L,
    mut sums: [[L::V; 2]; R],
    part: [[L::V; 2]; R],
    scales: *const f16,
) -> [[L::V; 2]; R] {
    // SAFETY: as promised by the caller.
    let scales = unsafe { [lanes.load_f16(scales), lanes.load_f16(scales.add(L::LANES))] };
    for (sums, part) in sums.iter_mut().zip(part) {
        for n in 0..2 {
            sums[n] = lanes.fma(part[n], scales[n], sums[n]);
        }
    }
    sums
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
