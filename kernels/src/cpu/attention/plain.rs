//! Attention of every row to every row.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use super::block::{Block, Query, run_queries};
use super::kv::{Head, stride};
use super::{LEAST_PRODUCTS, TASK_ROWS};
use crate::cpu::buffer::Buffer;
use crate::cpu::isa::Isa;
use crate::cpu::lanes::{Kernel, Lanes, WIDEST, dispatch};
use crate::cpu::threads::{Base, Pool};
use crate::device::{PAGE, PageId};
use crate::tensor::HostTensor;

/// Tasks for each thread, so that one that lags has little to be waited for.
const TASKS_PER_THREAD: usize = 4;

/// Room for the packed keys and values of one head on each thread, kept from call to call.
///
/// It is small enough to stay in a core's cache while the rows of the head go through it.
#[derive(Debug, Default)]
pub(in crate::cpu) struct Scratch {
    /// Buffers that no thread works with.
    free: Mutex<Vec<Buffer>>,
    /// Bytes of each.
    bytes: usize,
    pages: Vec<PageId>,
}

impl Scratch {
    /// Makes room for `threads` threads. Panics if there is no memory for it.
    fn fit(&mut self, threads: usize, bytes: usize, pages: usize) {
        let free = self.free.get_mut().expect("nothing panics under this lock");
        if self.bytes < bytes {
            free.clear();
            self.bytes = bytes;
        }
        while free.len() < threads {
            let buffer = Buffer::zeroed(self.bytes, "attention");
            free.push(buffer.expect("memory for the keys and values of a head"));
        }
        self.pages.clear();
        self.pages.extend((0..pages as u32).map(PageId));
    }

    fn free(&self) -> MutexGuard<'_, Vec<Buffer>> {
        self.free.lock().expect("nothing panics under this lock")
    }
}

pub(in crate::cpu) fn attention(
    (isa, pool): (Isa, &Pool),
    scratch: &mut Scratch,
    [q, k, v]: [&HostTensor; 3],
    heads: usize,
    out: &mut HostTensor,
) {
    let (rows, cols) = (q.rows(), q.cols());
    let shape = (rows, cols);
    assert!((k.rows(), k.cols()) == shape && (v.rows(), v.cols()) == shape, "q, k and v are alike");
    assert!(cols.is_multiple_of(heads) && out.cols() == cols, "width of the heads");
    out.set_rows(rows);
    let (dim, pages) = (cols / heads, rows.div_ceil(PAGE));
    let tile = PAGE * (dim + stride(dim));
    scratch.fit(pool.threads(), pages * tile * size_of::<f32>(), pages);
    let scratch = &*scratch;
    // Each task packs its head again, so there are no more than threads need.
    let chunks = (TASKS_PER_THREAD * pool.threads()).div_ceil(heads).min(rows.div_ceil(TASK_ROWS)).max(1);
    let step = rows.div_ceil(chunks).max(1);
    let out = Base(out.data_mut().as_mut_ptr());
    let run = |index: usize| {
        let (head, first) = (index / chunks, index % chunks * step);
        let rows = first.min(rows)..rows.min(first + step);
        let mut buffer = scratch.free().pop().expect("a buffer for each thread");
        let tiles = buffer.as_mut_ptr().cast::<f32>();
        dispatch(
            isa,
            Task { tensors: [q, k, v], dim, pages: &scratch.pages, head, rows, tiles, out: out.at(0) },
        );
        scratch.free().push(buffer);
    };
    if 2 * rows * rows * cols < LEAST_PRODUCTS {
        (0..heads * chunks).for_each(run);
    } else {
        pool.run(heads * chunks, &run);
    }
}

/// Some rows of one head.
struct Task<'a> {
    /// Queries, keys and values.
    tensors: [&'a HostTensor; 3],
    dim: usize,
    /// 0, 1, 2 and so on.
    pages: &'a [PageId],
    head: usize,
    rows: Range<usize>,
    /// A tile for each page, this task's alone.
    tiles: *mut f32,
    /// The whole result. No other task touches these rows of this head.
    out: *mut f32,
}

impl Kernel for Task<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { tensors: [q, k, v], dim, pages, head, rows, tiles, out } = self;
        let tile = PAGE * (dim + stride(dim));
        for page in 0..pages.len() {
            let first = page * PAGE;
            let part = Part { rows: first..k.rows().min(first + PAGE), at: head * dim, dim };
            // SAFETY: there is a tile for each page: keys, then values.
            unsafe {
                let tile = tiles.add(page * tile);
                part.pack_keys(lanes, k, tile);
                part.pack_values(lanes, v, tile.add(PAGE * dim));
            }
        }
        // SAFETY: the tiles were just written and stay as they are.
        let head_tiles = unsafe { Head::new(tiles, tile, pages.len(), dim) };
        let block = Block { q: q.data(), out, head: head_tiles, dim };
        run_queries(lanes, block, rows.len(), |item| Query {
            at: (rows.start + item) * q.cols() + head * dim,
            seen: k.rows(),
            pages,
        });
    }
}

/// Numbers `at .. at + dim` of up to a page of rows.
struct Part {
    rows: Range<usize>,
    at: usize,
    dim: usize,
}

impl Part {
    /// Writes them to `[dim][PAGE]`, with 0 for rows that are not there.
    ///
    /// # Safety
    /// There is room for them.
    #[inline(always)]
    unsafe fn pack_keys<L: Lanes>(&self, lanes: L, k: &HostTensor, to: *mut f32) {
        for offset in (0..PAGE).step_by(L::LANES) {
            for d in (0..self.dim).step_by(L::LANES) {
                let n = L::LANES.min(self.dim - d);
                let mut square = [lanes.splat(0.0); WIDEST];
                let start = self.rows.start + offset;
                for (row, vector) in (start..self.rows.end).zip(square[..L::LANES].iter_mut()) {
                    let numbers = &k.row(row)[self.at + d..][..n];
                    // SAFETY: the slice has `n` numbers.
                    *vector = unsafe { lanes.load_first(numbers.as_ptr(), n) };
                }
                for (i, column) in lanes.transpose(square)[..n].iter().enumerate() {
                    // SAFETY: line `d + i` is below `dim` and has `PAGE` numbers.
                    unsafe { lanes.store(*column, to.add((d + i) * PAGE + offset)) };
                }
            }
        }
    }

    /// Writes them to `[PAGE][stride]`, padded with zeros; lines of rows that are not there stay as
    /// they are.
    ///
    /// # Safety
    /// There is room for them.
    #[inline(always)]
    unsafe fn pack_values<L: Lanes>(&self, lanes: L, v: &HostTensor, to: *mut f32) {
        let stride = stride(self.dim);
        for (offset, row) in self.rows.clone().enumerate() {
            let numbers = &v.row(row)[self.at..][..self.dim];
            for d in (0..self.dim).step_by(L::LANES) {
                let n = L::LANES.min(self.dim - d);
                // SAFETY: `n` numbers from `d` on are in the slice; lines have whole vectors.
                unsafe {
                    let vector = lanes.load_first(numbers.as_ptr().add(d), n);
                    lanes.store(vector, to.add(offset * stride + d));
                }
            }
        }
    }
}
