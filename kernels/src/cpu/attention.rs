//! Attention, plain and over cached keys and values.
//!
//! Both run the same kernel over pages: plain attention packs the keys and values of a head into
//! pages first. Keys of a page lie transposed, so that a vector holds one number of several
//! positions; scores and weighted sums are then the same small matrix product.
//!
//! A block of a few query rows of one kv head goes through the pages in order and keeps for each row
//! the largest score so far, the sum of exponentials and the weighted sum of values, scaled down
//! when the largest score rises. What happens to a row depends on the row and on what it sees, never
//! on the rest of its block: that makes rows reproducible.
//!
//! Neighbouring spans that have about half of their pages in common go through them together, block by
//! block: what all rows of a block share is read from memory once.

mod block;
mod kv;
mod plain;

use std::marker::PhantomData;
use std::ops::Range;

use half::f16;

use block::{Block, Query, run_queries};
pub use kv::Kv;
pub(super) use plain::{Scratch, attention};

use super::isa::Isa;
use super::lanes::{Kernel, Lanes, Stored, dispatch};
use super::threads::{Base, Pool};
use crate::device::{KvDtype, KvShape, PAGE, Span};
use crate::tensor::HostTensor;

/// Rows of a span, or of spans with a common beginning, in one task.
const TASK_ROWS: usize = 96;

/// Products below which threads are not worth waking.
const LEAST_PRODUCTS: usize = 64 * 1024;

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
    check_spans(spans, q.rows());
    out.set_rows(q.rows());
    let job = Job { q, kv, layer, spans, heads };
    let out = Base(out.data_mut().as_mut_ptr());
    let run = |index| {
        let (task, out) = (job.task(index), out.at(0));
        match kv.dtype() {
            KvDtype::F32 => dispatch(isa, TaskKernel { job, task, out, numbers: PhantomData::<f32> }),
            KvDtype::F16 => dispatch(isa, TaskKernel { job, task, out, numbers: PhantomData::<f16> }),
            KvDtype::Q8 => dispatch(isa, TaskKernel { job, task, out, numbers: PhantomData::<i8> }),
        }
    };
    if job.products() < LEAST_PRODUCTS {
        (0..job.tasks()).for_each(run);
    } else {
        pool.run(job.tasks(), &run);
    }
}

/// Makes sure that spans cover each of `rows` once and have the pages they read.
fn check_spans(spans: &[Span<'_>], rows: usize) {
    for (i, span) in spans.iter().enumerate() {
        let Range { start, end } = span.rows;
        assert!(end <= rows, "rows {start}..{end} of {rows}");
        let apart = |other: &Span<'_>| other.rows.end <= start || end <= other.rows.start;
        assert!(spans[i + 1..].iter().all(apart), "another span covers some of rows {start}..{end}");
        let seen = if start < end { span.position + (end - start) } else { 0 };
        assert!(seen <= span.pages.len() * PAGE, "pages for {seen} positions");
    }
    assert_eq!(spans.iter().map(|span| span.rows.len()).sum::<usize>(), rows, "spans cover all rows");
}

/// One call.
#[derive(Clone, Copy)]
struct Job<'a> {
    q: &'a HostTensor,
    kv: &'a Kv,
    layer: usize,
    spans: &'a [Span<'a>],
    heads: usize,
}

/// Rows of neighbouring spans and a kv head.
struct Task<'a> {
    spans: &'a [Span<'a>],
    /// First row and number of rows, counted from the first row of the first span.
    first: usize,
    rows: usize,
    kv_head: usize,
}

impl<'a> Task<'a> {
    /// The span of row `row` of the task, and its number there.
    fn row(&self, row: usize) -> (&'a Span<'a>, usize) {
        let mut row = self.first + row;
        for span in self.spans {
            if row < span.rows.len() {
                return (span, row);
            }
            row -= span.rows.len();
        }
        panic!("no such row");
    }
}

/// Spans from the first on that share half of their pages with it and together make one task, at
/// least one.
fn family(spans: &[Span<'_>]) -> usize {
    let (mut rows, first) = (0, spans[0].pages);
    let fits = |span: &&Span<'_>| {
        rows += span.rows.len();
        // What is common are beginnings, so the pages before this one are too.
        let middle = span.pages.len().min(first.len()).saturating_sub(1) / 2;
        span.pages.get(middle) == first.get(middle) && rows <= TASK_ROWS
    };
    spans.iter().take_while(fits).count().max(1)
}

impl<'a> Job<'a> {
    /// Families of spans, and into how many tasks the rows of each are cut for a head.
    fn families(&self) -> impl Iterator<Item = (&'a [Span<'a>], usize)> + use<'a> {
        let mut rest = self.spans;
        std::iter::from_fn(move || {
            let (spans, others) = rest.split_at(if rest.is_empty() { return None } else { family(rest) });
            rest = others;
            let rows: usize = spans.iter().map(|span| span.rows.len()).sum();
            Some((spans, rows.div_ceil(TASK_ROWS)))
        })
    }

    fn tasks(&self) -> usize {
        let chunks: usize = self.families().map(|(_, chunks)| chunks).sum();
        chunks * self.kv.shape().kv_heads
    }

    /// Task `index`, counted family by family, head by head.
    fn task(&self, mut index: usize) -> Task<'a> {
        let kv_heads = self.kv.shape().kv_heads;
        for (spans, chunks) in self.families() {
            if index < chunks * kv_heads {
                let rows: usize = spans.iter().map(|span| span.rows.len()).sum();
                let (kv_head, first) = (index / chunks, index % chunks * TASK_ROWS);
                return Task { spans, first, rows: TASK_ROWS.min(rows - first), kv_head };
            }
            index -= chunks * kv_heads;
        }
        panic!("no such task");
    }

    /// Multiplications of one kind, at most: pages are computed and read as a whole.
    fn products(&self) -> usize {
        let seen =
            |span: &Span<'_>| (span.position + span.rows.len()).next_multiple_of(PAGE) * span.rows.len();
        self.spans.iter().map(seen).sum::<usize>() * self.q.cols()
    }
}

/// A task with the type of its keys and values.
struct TaskKernel<'a, E> {
    job: Job<'a>,
    task: Task<'a>,
    /// The whole result. No other task touches the rows and heads of this one.
    out: *mut f32,
    numbers: PhantomData<E>,
}

impl<E: Stored> Kernel for TaskKernel<'_, E> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { job, task, out, .. } = self;
        let KvShape { kv_heads, head_dim: dim, .. } = job.kv.shape();
        let group = job.heads / kv_heads;
        let head = job.kv.head::<E>(job.layer, task.kv_head);
        let block = Block { q: job.q.data(), out, head, dim };
        run_queries(lanes, block, task.rows * group, |item| {
            let ((span, row), head) = (task.row(item / group), task.kv_head * group + item % group);
            let at = ((span.rows.start + row) * job.heads + head) * dim;
            Query { at, seen: span.position + row + 1, pages: span.pages }
        });
    }
}
