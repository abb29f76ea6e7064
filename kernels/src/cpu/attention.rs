//! Attention, plain and over cached keys and values.
//!
//! Both run the same kernel over pages: plain attention first packs its keys and values into pages of
//! one sequence. Keys of a page lie transposed, so that a vector holds one number of several
//! positions; scores and weighted sums are then the same small matrix product.
//!
//! A block of up to [`ROWS`] query rows of one kv head goes through the pages in order and keeps for
//! each row the largest score so far, the sum of exponentials and the weighted sum of values, scaled
//! down when the largest score rises. What happens to a row depends on the row and on what it sees,
//! never on the rest of its block: that makes rows reproducible.

mod kv;

use std::marker::PhantomData;

use half::f16;

pub use kv::Kv;

use super::isa::Isa;
use super::lanes::functions::exp;
use super::lanes::{Kernel, Lanes, Stored, dispatch};
use super::threads::{Base, Pool};
use crate::device::{DeviceError, KvDtype, KvShape, PAGE, PageId, Slot, Span};
use crate::tensor::HostTensor;
use kv::Head;

/// Query rows in a block: with two vectors each, their sums fill the registers and hide the latency.
const ROWS: usize = 6;

/// Rows of a span in one task.
const TASK_ROWS: usize = 96;

/// Products below which threads are not worth waking.
const LEAST_PRODUCTS: usize = 64 * 1024;

/// Pages that plain attention packs its keys and values into, kept from call to call.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    kv: Option<Kv>,
    pages: Vec<PageId>,
    slots: Vec<Slot>,
}

impl Scratch {
    /// Room for `rows` positions. Panics if there is no memory for them.
    fn fit(&mut self, shape: KvShape, rows: usize) {
        let pages = rows.div_ceil(PAGE);
        let fits = self.kv.as_ref().is_some_and(|kv| kv.shape() == shape && kv.pages() >= pages);
        if !fits {
            let kv: Result<Kv, DeviceError> = Kv::new(shape, pages, KvDtype::F32);
            self.kv = Some(kv.expect("attention packs keys and values that are in memory already"));
        }
        self.pages.clear();
        self.pages.extend((0..pages as u32).map(PageId));
        self.slots.clear();
        self.slots.extend(
            (0..rows).map(|row| Slot { page: PageId((row / PAGE) as u32), offset: (row % PAGE) as u32 }),
        );
    }
}

pub(super) fn attention(
    (isa, pool): (Isa, &Pool),
    scratch: &mut Scratch,
    [q, k, v]: [&HostTensor; 3],
    heads: usize,
    out: &mut HostTensor,
) {
    let shape = (q.rows(), q.cols());
    assert!((k.rows(), k.cols()) == shape && (v.rows(), v.cols()) == shape, "q, k and v are alike");
    assert!(q.cols().is_multiple_of(heads) && out.cols() == q.cols(), "width of the heads");
    out.set_rows(q.rows());
    scratch.fit(KvShape { layers: 1, kv_heads: heads, head_dim: q.cols() / heads }, q.rows());
    let Scratch { kv: Some(kv), pages, slots } = scratch else { return };
    kv.append((isa, pool), 0, [k, v], slots);
    let spans = [Span { rows: 0..q.rows(), position: 0, pages }];
    run((isa, pool), Job { q, kv, layer: 0, spans: &spans, heads, sees: Sees::All(q.rows()) }, out);
}

pub(super) fn attend(
    (isa, pool): (Isa, &Pool),
    q: &HostTensor,
    (kv, layer): (&Kv, usize),
    spans: &[Span<'_>],
    heads: usize,
    out: &mut HostTensor,
) {
    let KvShape { kv_heads, head_dim, .. } = kv.shape();
    assert_eq!((q.cols(), out.cols()), (heads * head_dim, heads * head_dim), "width of the heads");
    assert!(heads.is_multiple_of(kv_heads), "{heads} query heads share {kv_heads} kv heads");
    assert_eq!(spans.iter().map(|span| span.rows.len()).sum::<usize>(), q.rows(), "spans cover all rows");
    out.set_rows(q.rows());
    run((isa, pool), Job { q, kv, layer, spans, heads, sees: Sees::Past }, out);
}

/// What the rows of a span see.
#[derive(Clone, Copy)]
enum Sees {
    /// This many positions.
    All(usize),
    /// Their own position and those before.
    Past,
}

impl Sees {
    /// Positions seen by the row at `position`.
    fn count(self, position: usize) -> usize {
        match self {
            Sees::All(count) => count,
            Sees::Past => position + 1,
        }
    }
}

/// One call.
#[derive(Clone, Copy)]
struct Job<'a> {
    q: &'a HostTensor,
    kv: &'a Kv,
    layer: usize,
    spans: &'a [Span<'a>],
    heads: usize,
    sees: Sees,
}

/// Rows of a span and a kv head.
struct Task<'a> {
    span: &'a Span<'a>,
    /// First row and number of rows, counted in the span.
    first: usize,
    rows: usize,
    kv_head: usize,
}

impl<'a> Job<'a> {
    fn tasks(&self) -> usize {
        self.spans.iter().map(|span| span.rows.len().div_ceil(TASK_ROWS)).sum::<usize>()
            * self.kv.shape().kv_heads
    }

    /// Task `index`, counted span by span, head by head.
    fn task(&self, mut index: usize) -> Task<'a> {
        let kv_heads = self.kv.shape().kv_heads;
        for span in self.spans {
            let chunks = span.rows.len().div_ceil(TASK_ROWS);
            if index < chunks * kv_heads {
                let (kv_head, first) = (index / chunks, index % chunks * TASK_ROWS);
                return Task { span, first, rows: TASK_ROWS.min(span.rows.len() - first), kv_head };
            }
            index -= chunks * kv_heads;
        }
        panic!("no such task");
    }

    /// Multiplications of one kind, about.
    fn products(&self) -> usize {
        let seen = |span: &Span<'_>| self.sees.count(span.position + span.rows.len()) * span.rows.len();
        self.spans.iter().map(seen).sum::<usize>() * self.q.cols()
    }
}

fn run((isa, pool): (Isa, &Pool), job: Job<'_>, out: &mut HostTensor) {
    for span in job.spans {
        assert!(span.rows.end <= job.q.rows(), "rows {:?} of {}", span.rows, job.q.rows());
        let seen = job.sees.count(span.position + span.rows.len().saturating_sub(1));
        assert!(span.rows.is_empty() || seen <= span.pages.len() * PAGE, "pages for {seen} positions");
    }
    let out = Base(out.data_mut().as_mut_ptr());
    let run_task = |index| {
        let (task, out) = (job.task(index), out.at(0));
        match job.kv.dtype() {
            KvDtype::F32 => dispatch(isa, TaskKernel { job, task, numbers: PhantomData::<f32>, out }),
            KvDtype::F16 => dispatch(isa, TaskKernel { job, task, numbers: PhantomData::<f16>, out }),
        }
    };
    if job.products() < LEAST_PRODUCTS {
        (0..job.tasks()).for_each(run_task);
    } else {
        pool.run(job.tasks(), &run_task);
    }
}

/// A task with the type of its keys and values.
struct TaskKernel<'a, E> {
    job: Job<'a>,
    task: Task<'a>,
    numbers: PhantomData<E>,
    /// The whole result. No other task touches the rows and heads of this one.
    out: *mut f32,
}

impl<E: Stored> Kernel for TaskKernel<'_, E> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { job, task, numbers: _, out } = self;
        let KvShape { kv_heads, head_dim, .. } = job.kv.shape();
        let group = job.heads / kv_heads;
        let head = job.kv.head::<E>(job.layer, task.kv_head);
        let items = task.rows * group;
        let mut item = 0;
        while item < items {
            let left = items - item;
            let row = |i: usize| {
                let (row, head) = (task.first + (item + i) / group, (item + i) % group);
                let start = (task.span.rows.start + row) * job.heads * head_dim;
                Query {
                    at: start + (task.kv_head * group + head) * head_dim,
                    seen: job.sees.count(task.span.position + row),
                }
            };
            let block = Block { q: job.q.data(), out, head, pages: task.span.pages, dim: head_dim };
            item += match left {
                ROWS.. => block.run::<L, ROWS>(lanes, std::array::from_fn(row)),
                2.. => block.run::<L, 2>(lanes, std::array::from_fn(row)),
                _ => block.run::<L, 1>(lanes, std::array::from_fn(row)),
            };
        }
    }
}

/// One head of one query row.
#[derive(Clone, Copy)]
struct Query {
    /// Where its numbers start, in q as in the result.
    at: usize,
    /// Positions it sees, at least one.
    seen: usize,
}

/// What the queries of a block share.
#[derive(Clone, Copy)]
struct Block<'a, E> {
    q: &'a [f32],
    out: *mut f32,
    head: Head<'a, E>,
    pages: &'a [PageId],
    dim: usize,
}

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
                if seen[r] > 0 {
                    let row = &mut scores.0[r];
                    let (top, factor) = self.soften(lanes, row, seen[r], largest[r]);
                    if let Some(factor) = factor {
                        self.rescale(lanes, queries[r], factor);
                        sums[r] = lanes.mul(sums[r], lanes.splat(factor));
                    }
                    largest[r] = top;
                    sums[r] = add_up(lanes, sums[r], row);
                }
            }
            self.add_values(lanes, page, &queries, &scores, seen);
        }
        for r in 0..R {
            self.rescale(lanes, queries[r], 1.0 / lanes.sum(sums[r]));
        }
        R
    }

    /// Products of the queries with all keys of a page.
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
        for first in (0..PAGE).step_by(2 * L::LANES) {
            // SAFETY: `q` has `dim` numbers for each query; the page has as many lines of `PAGE`
            // keys, of which two vectors from `first` on are used.
            unsafe {
                let zero = [[lanes.splat(0.0); 2]; R];
                let sums = multiply::<L, E, R, 2>(lanes, zero, q, (keys.add(first), PAGE), self.dim);
                for (row, sums) in scores.0.iter_mut().zip(&sums) {
                    lanes.store(sums[0], row.as_mut_ptr().add(first));
                    lanes.store(sums[1], row.as_mut_ptr().add(first + L::LANES));
                }
            }
        }
    }

    /// Turns products into exponentials of scores below the largest one, 0 from `seen` on. Returns
    /// the largest score so far and, if it rose, the factor for what was summed before.
    #[inline(always)]
    fn soften<L: Lanes>(
        self,
        lanes: L,
        row: &mut [f32; PAGE],
        seen: usize,
        before: f32,
    ) -> (f32, Option<f32>) {
        let scale = lanes.splat(1.0 / (self.dim as f32).sqrt());
        let unseen = lanes.splat(f32::NEG_INFINITY);
        let mut most = unseen;
        for first in (0..PAGE).step_by(L::LANES) {
            let n = seen.saturating_sub(first).min(L::LANES);
            // SAFETY: the row has `PAGE` numbers.
            let score = unsafe { lanes.mul(lanes.load(row.as_ptr().add(first)), scale) };
            most = lanes.max(most, lanes.keep_first(score, n, unseen));
        }
        let top = lanes.largest(most).max(before);
        for first in (0..PAGE).step_by(L::LANES) {
            let n = seen.saturating_sub(first).min(L::LANES);
            // SAFETY: the row has `PAGE` numbers.
            unsafe {
                let at = row.as_mut_ptr().add(first);
                let score = lanes.mul(lanes.load(at), scale);
                let weight = exp(lanes, lanes.sub(score, lanes.splat(top)));
                lanes.store(lanes.keep_first(weight, n, lanes.splat(0.0)), at);
            }
        }
        if top > before {
            return (top, Some(lanes.largest(exp(lanes, lanes.splat(before - top)))));
        }
        (top, None)
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

/// `sums` plus all exponentials of a page.
#[inline(always)]
fn add_up<L: Lanes>(lanes: L, mut sums: L::V, row: &[f32; PAGE]) -> L::V {
    for first in (0..PAGE).step_by(L::LANES) {
        // SAFETY: the row has `PAGE` numbers.
        sums = lanes.add(sums, unsafe { lanes.load(row.as_ptr().add(first)) });
    }
    sums
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
