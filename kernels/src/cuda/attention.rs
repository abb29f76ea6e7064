//! Attention, and the arena of keys and values.

use std::sync::Arc;

use super::driver::{Argument, Driver, Launch};
use super::queue::{Buffer, Queue, Table};
use super::{Tensor, int};
use crate::device::{DeviceError, KV_BLOCK, KvDtype, KvShape, PAGE, PageId, Slot, Span};

/// The widest head the kernels have room for.
const WIDEST_HEAD: usize = 128;

/// Query rows of a block of threads, without and with a cache.
const ROWS: usize = 8;
const CACHED_ROWS: usize = 4;

/// Keys and values on a device, page after page, each with all its layers.
#[derive(Debug)]
pub struct Kv<D: Driver> {
    buffer: Buffer<D>,
    shape: KvShape,
    dtype: KvDtype,
    pages: usize,
}

impl<D: Driver> Kv<D> {
    pub(super) fn new(
        queue: &Arc<Queue<D>>,
        shape: KvShape,
        pages: usize,
        dtype: KvDtype,
    ) -> Result<Self, DeviceError> {
        let what = "the KV cache";
        let KvShape { layers, kv_heads, head_dim } = shape;
        // Larger than any type takes, so that nothing overflows below.
        let dims = [pages, layers, kv_heads, head_dim, 16 * PAGE];
        if dims.iter().try_fold(1_usize, |bytes, &dim| bytes.checked_mul(dim)).is_none() {
            return Err(DeviceError::OutOfMemory { what, bytes: usize::MAX });
        }
        let buffer = Buffer::of(queue, what, &[pages, shape.page_bytes(dtype)])?;
        Ok(Self { buffer, shape, dtype, pages })
    }

    pub(super) fn bytes(&self) -> usize {
        self.pages * self.page_bytes()
    }

    pub(super) fn page_bytes(&self) -> usize {
        self.shape.page_bytes(self.dtype)
    }

    fn start(&self, page: PageId) -> usize {
        assert!((page.0 as usize) < self.pages, "{page:?} of {} pages", self.pages);
        page.0 as usize * self.page_bytes()
    }

    pub(super) fn copy_page(&self, from: PageId, to: PageId) {
        if from != to {
            self.buffer.copy_to(self.start(from), &self.buffer, self.start(to), self.page_bytes());
        }
    }

    pub(super) fn read_page(&self, page: PageId, into: &mut [u8]) {
        assert_eq!(into.len(), self.page_bytes(), "bytes of a page");
        self.buffer.download(self.start(page), into);
    }

    pub(super) fn write_page(&self, page: PageId, from: &[u8]) {
        assert_eq!(from.len(), self.page_bytes(), "bytes of a page");
        self.buffer.upload(from, self.start(page));
    }

    /// The arena and the size of its pages, as kernels take them.
    fn arguments(&self) -> [Argument; 2] {
        [self.buffer.at(0), Argument::Wide(self.page_bytes() as u64)]
    }

    pub(super) fn append(
        &self,
        (queue, table): (&Queue<D>, &mut Table<D>),
        layer: usize,
        [k, v]: [&Tensor<D>; 2],
        slots: &[Slot],
    ) {
        let KvShape { layers, kv_heads, head_dim } = self.shape;
        assert!(layer < layers, "layer {layer} of {layers}");
        for rows in [k, v] {
            let shape = (slots.len(), kv_heads * head_dim);
            assert_eq!((rows.rows, rows.cols), shape, "shape of the keys and values");
        }
        for slot in slots {
            assert!((slot.page.0 as usize) < self.pages && (slot.offset as usize) < PAGE, "{slot:?}");
        }
        // A table holds half as many slots as numbers.
        for (i, slots) in slots.chunks(Table::<D>::LEN / 2).enumerate() {
            let at = 4 * i * (Table::<D>::LEN / 2) * k.cols;
            let numbers = slots.iter().flat_map(|slot| [slot.page.0, slot.offset]);
            let [arena, page_bytes] = self.arguments();
            let (rows, kind) = (int(slots.len()), int(self.kind()));
            let (from, places) = ([k.buffer.at(at), v.buffer.at(at)], table.set(numbers));
            let sizes = [rows, int(kv_heads), int(head_dim)];
            let [rows, heads, dim] = sizes;
            let arguments = [arena, page_bytes, kind, int(layer), from[0], from[1], places, rows, heads, dim];
            let warps = slots.len() * 2 * kv_heads * head_dim.div_ceil(KV_BLOCK);
            let grid = [warps.div_ceil(4) as u32, 1];
            queue.launch(Launch { kernel: "kv_append", grid, threads: 128, arguments: &arguments });
        }
    }

    /// The number `attention.cu` has for the type.
    fn kind(&self) -> usize {
        match self.dtype {
            KvDtype::F32 => 0,
            KvDtype::F16 => 1,
            KvDtype::Q8 => 2,
        }
    }

    pub(super) fn attend(
        &self,
        (queue, table): (&Queue<D>, &mut Table<D>),
        (q, layer): (&Tensor<D>, usize),
        spans: &[Span<'_>],
        heads: usize,
        out: &mut Tensor<D>,
    ) {
        let KvShape { layers, kv_heads, head_dim } = self.shape;
        assert!(layer < layers, "layer {layer} of {layers}");
        assert!(head_dim <= WIDEST_HEAD, "heads of {head_dim} numbers, at most {WIDEST_HEAD}");
        assert_eq!((q.cols, out.cols), (heads * head_dim, heads * head_dim), "width of the heads");
        assert!(heads.is_multiple_of(kv_heads), "{heads} query heads share {kv_heads} kv heads");
        let covered: usize = spans.iter().map(|span| span.rows.len()).sum();
        assert_eq!(covered, q.rows, "spans cover all rows");
        out.set_rows(q.rows);
        let mut rest = spans;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.spans_in_table(rest, q.rows));
            let places = table.set(numbers(now));
            let count = groups(now).count();
            let [arena, page_bytes] = self.arguments();
            let sizes = [int(count), int(heads), int(kv_heads), int(head_dim)];
            let [group_count, head_count, kv_head_count, dim] = sizes;
            let ends = [q.buffer.at(0), out.buffer.at(0)];
            let arguments = [
                ends[0],
                arena,
                page_bytes,
                int(layer),
                places,
                group_count,
                head_count,
                kv_head_count,
                dim,
                ends[1],
            ];
            let kernel = ["attend_f32", "attend_f16", "attend_q8"][self.kind()];
            let grid = [count as u32, heads as u32];
            queue.launch(Launch { kernel, grid, threads: 256, arguments: &arguments });
            rest = later;
        }
    }

    /// How many of the first spans a table has room for, after checking them.
    fn spans_in_table(&self, spans: &[Span<'_>], rows: usize) -> usize {
        let mut used = 0;
        for (i, span) in spans.iter().enumerate() {
            let pages = pages_of(span);
            assert!(pages.iter().all(|page| (page.0 as usize) < self.pages), "pages of the arena");
            assert!(span.rows.end <= rows, "rows {:?} of {rows}", span.rows);
            used += pages.len() + 4 * span.rows.len().div_ceil(CACHED_ROWS);
            if used > Table::<D>::LEN {
                assert!(i > 0, "one sequence has too many pages: {}", pages.len());
                return i;
            }
        }
        spans.len()
    }
}

/// The pages a span sees.
fn pages_of<'a>(span: &Span<'a>) -> &'a [PageId] {
    &span.pages[..(span.position + span.rows.len()).div_ceil(PAGE)]
}

/// First row, rows, position and first page of groups of a few rows.
fn groups(spans: &[Span<'_>]) -> impl Iterator<Item = [u32; 4]> + Clone {
    let starts = spans.iter().scan(0, |next, span| {
        let first = *next;
        *next += pages_of(span).len();
        Some(first)
    });
    spans.iter().zip(starts).flat_map(|(span, first_page)| {
        let (rows, position) = (span.rows.clone(), span.position);
        rows.clone().step_by(CACHED_ROWS).map(move |row| {
            let count = CACHED_ROWS.min(rows.end - row);
            [row, count, position + row - rows.start, first_page].map(|number| number as u32)
        })
    })
}

/// What `attend` reads of some spans: their groups, then the pages of all.
fn numbers(spans: &[Span<'_>]) -> impl Iterator<Item = u32> + Clone {
    let pages = spans.iter().flat_map(|span| pages_of(span)).map(|page| page.0);
    groups(spans).flatten().chain(pages)
}

/// Attention of every row to every row.
pub(super) fn attention<D: Driver>(
    queue: &Queue<D>,
    [q, k, v]: [&Tensor<D>; 3],
    heads: usize,
    out: &mut Tensor<D>,
) {
    let shape = (q.rows, q.cols);
    assert!((k.rows, k.cols) == shape && (v.rows, v.cols) == shape, "q, k and v are alike");
    assert!(q.cols.is_multiple_of(heads) && out.cols == q.cols, "width of the heads");
    let dim = q.cols / heads;
    assert!(dim <= WIDEST_HEAD, "heads of {dim} numbers, at most {WIDEST_HEAD}");
    out.set_rows(q.rows);
    let tensors = [&q.buffer, &k.buffer, &v.buffer, &out.buffer].map(|buffer| buffer.at(0));
    let sizes = [int(q.rows), int(heads), int(dim)];
    let arguments: Vec<Argument> = tensors.into_iter().chain(sizes).collect();
    let grid = [q.rows.div_ceil(ROWS) as u32, heads as u32];
    queue.launch(Launch { kernel: "attention", grid, threads: 128, arguments: &arguments });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_become_groups_of_a_few_rows() {
        let pages = [7, 5, 3].map(PageId);
        let first = Span { rows: 0..1, position: 40, pages: &pages };
        let second = Span { rows: 1..7, position: 30, pages: &pages[1..] };
        let got: Vec<u32> = numbers(&[first, second]).collect();
        assert_eq!(got, [[0, 1, 40, 0], [1, 4, 30, 2], [5, 2, 34, 2], [7, 5, 5, 3]].concat());
    }
}
