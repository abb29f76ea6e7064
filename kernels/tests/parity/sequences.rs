//! Sequences that attend to a cache.

use std::ops::Range;

use kernels::{Device, KvDtype, KvShape, PAGE, PageId, Slot, Span};

use super::random::Random;
use super::{read, upload};

/// Shape of an attention over a cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) dtype: KvDtype,
}

/// A sequence with `past` positions in the cache and `new` ones that ask. What stands at a position
/// depends on the seed and the position alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence {
    pub(crate) seed: u64,
    pub(crate) past: usize,
    pub(crate) new: usize,
    /// Whether every query and the newest key and value are NaN.
    pub(crate) poisoned: bool,
    /// Pages at the beginning that are those of all sequences that have as many.
    pub(crate) common: usize,
}

impl Sequence {
    fn len(&self) -> usize {
        self.past + self.new
    }

    fn rows(&self, what: u64, positions: Range<usize>, width: usize) -> Vec<f32> {
        let row = |position: usize| {
            let seed = if position < self.common * PAGE { 0 } else { self.seed };
            Random::new(seed << 32 | what << 24 | position as u64).vec(width)
        };
        positions.flat_map(row).collect()
    }
}

/// Runs the new rows of all sequences together.
pub(crate) fn attend<D: Device>(device: &D, heads: Heads, sequences: &[Sequence]) -> Vec<f32> {
    let rows = sequences.iter().map(|sequence| sequence.new).sum();
    let mut out = device.tensor(rows, heads.heads * heads.head_dim).unwrap();
    attend_step(device, heads, sequences)(&mut out);
    read(device, &out)
}

/// Fills a cache and returns what asks it. Pages are scattered, each is a copy of another page, every
/// other one by way of the host, and places beyond a sequence hold NaN.
pub(crate) fn attend_step<'d, D: Device>(
    device: &'d D,
    heads: Heads,
    sequences: &[Sequence],
) -> impl FnMut(&mut D::Tensor) + use<'d, D> {
    const LAYER: usize = 1;
    let Heads { heads, kv_heads, head_dim, dtype } = heads;
    let (width, kv_width) = (heads * head_dim, kv_heads * head_dim);
    let counts: Vec<usize> = sequences.iter().map(|sequence| sequence.len().div_ceil(PAGE)).collect();
    let total: usize = counts.iter().sum();
    let shape = KvShape { layers: 2, kv_heads, head_dim };
    let mut kv = device.kv(shape, 2 * total, dtype).unwrap();
    assert!(device.kv_bytes(&kv) >= 2 * total * shape.page_bytes(dtype));
    let stale = upload(device, &vec![f32::NAN; PAGE * kv_width], kv_width);
    let (mut q, mut pages, mut next) = (Vec::new(), Vec::<Vec<PageId>>::new(), 0);
    let mut carried = vec![0; device.kv_page_bytes(&kv)];
    for (sequence, &count) in sequences.iter().zip(&counts) {
        let first: Vec<PageId> = (next..next + count).map(|page| PageId((total + page) as u32)).collect();
        for &page in &first {
            let slots: Vec<Slot> = (0..PAGE as u32).map(|offset| Slot { page, offset }).collect();
            device.kv_append(&mut kv, LAYER, &stale, &stale, &slots);
        }
        let mut parts = [1, 2].map(|what| sequence.rows(what, 0..sequence.len(), kv_width));
        let mut queries = sequence.rows(0, sequence.past..sequence.len(), width);
        if sequence.poisoned {
            queries.fill(f32::NAN);
            let last = (sequence.len() - 1) * kv_width;
            parts.iter_mut().for_each(|part| part[last..].fill(f32::NAN));
        }
        q.extend(queries);
        let slots: Vec<Slot> =
            (0..sequence.len()).map(|p| Slot { page: first[p / PAGE], offset: (p % PAGE) as u32 }).collect();
        let [k, v] = parts.map(|part| upload(device, &part, kv_width));
        device.kv_append(&mut kv, LAYER, &k, &v, &slots);
        // Backwards, so that pages of a sequence are neither ordered nor in one place.
        let mut copies: Vec<PageId> = (0..count).map(|p| PageId((total - 1 - next - p) as u32)).collect();
        for (&from, &to) in first.iter().zip(&copies) {
            if to.0.is_multiple_of(2) {
                device.kv_copy_page(&mut kv, from, to);
            } else {
                device.kv_read_page(&kv, from, &mut carried);
                device.kv_write_page(&mut kv, to, &carried);
            }
        }
        device.kv_forget(&mut kv, &first);
        let common = sequence.common;
        if let Some(other) = sequences[..pages.len()].iter().position(|other| other.common == common) {
            copies[..common].copy_from_slice(&pages[other][..common]);
        }
        pages.push(copies);
        next += count;
    }
    let q = upload(device, &q, width);
    let sequences = sequences.to_vec();
    move |out| {
        let mut row = 0;
        let span = |(sequence, pages): (&Sequence, &'_ Vec<PageId>)| {
            row += sequence.new;
            (row - sequence.new..row, sequence.past, pages.clone())
        };
        let parts: Vec<_> = sequences.iter().zip(&pages).map(span).collect();
        let spans: Vec<Span<'_>> = parts
            .iter()
            .map(|(rows, position, pages)| Span { rows: rows.clone(), position: *position, pages })
            .collect();
        device.attend(&q, &kv, LAYER, &spans, heads, out);
    }
}
