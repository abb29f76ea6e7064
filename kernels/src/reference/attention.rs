//! Attention, plain and over cached keys and values.

use half::f16;

use crate::device::{DeviceError, KV_BLOCK, KvDtype, KvShape, PAGE, PageId, Slot, Span};
use crate::tensor::HostTensor;

/// Keys and values as f32; where the arena is of another type they are rounded when stored.
#[derive(Clone, Debug)]
pub struct Kv {
    shape: KvShape,
    dtype: KvDtype,
    pages: usize,
    /// `[page][layer][key or value][offset][head][dim]`.
    data: Vec<f32>,
}

impl Kv {
    pub(super) fn new(shape: KvShape, pages: usize, dtype: KvDtype) -> Result<Self, DeviceError> {
        let dims = [pages, shape.layers, 2, PAGE, shape.kv_heads, shape.head_dim];
        let len = dims.iter().try_fold(1_usize, |len, &dim| len.checked_mul(dim));
        let error = DeviceError::OutOfMemory {
            what: "the KV cache",
            bytes: len.and_then(|len| len.checked_mul(4)).unwrap_or(usize::MAX),
        };
        let mut data = Vec::new();
        match len {
            Some(len) if data.try_reserve_exact(len).is_ok() => data.resize(len, 0.0),
            _ => return Err(error),
        }
        Ok(Self { shape, dtype, pages, data })
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.data.as_slice())
    }

    /// Numbers in one row of keys or of values.
    fn width(&self) -> usize {
        self.shape.kv_heads * self.shape.head_dim
    }

    /// Where a row of keys (`part` 0) or values (1) starts.
    fn start(&self, layer: usize, part: usize, slot: Slot) -> usize {
        let (page, offset) = (slot.page.0 as usize, slot.offset as usize);
        assert!(page < self.pages && layer < self.shape.layers && offset < PAGE, "{slot:?} is in the arena");
        (((page * self.shape.layers + layer) * 2 + part) * PAGE + offset) * self.width()
    }

    /// The keys or values of `head` at `position` of a sequence.
    fn head(&self, layer: usize, part: usize, pages: &[PageId], position: usize, head: usize) -> &[f32] {
        let slot = Slot { page: pages[position / PAGE], offset: (position % PAGE) as u32 };
        &self.data[self.start(layer, part, slot) + head * self.shape.head_dim..][..self.shape.head_dim]
    }

    pub(super) fn append(&mut self, layer: usize, k: &HostTensor, v: &HostTensor, slots: &[Slot]) {
        let width = self.width();
        for (part, rows) in [k, v].into_iter().enumerate() {
            assert_eq!((rows.rows(), rows.cols()), (slots.len(), width), "shape of the keys and values");
            for (r, &slot) in slots.iter().enumerate() {
                let start = self.start(layer, part, slot);
                let stored = &mut self.data[start..][..width];
                stored.copy_from_slice(rows.row(r));
                match self.dtype {
                    KvDtype::F32 => {}
                    KvDtype::F16 => stored.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32()),
                    KvDtype::Q8 => {
                        let heads = stored.chunks_exact_mut(self.shape.head_dim);
                        heads.flat_map(|head| head.chunks_mut(KV_BLOCK)).for_each(round_block);
                    }
                }
            }
        }
    }

    pub(super) fn copy_page(&mut self, from: PageId, to: PageId) {
        let first = |page| self.start(0, 0, Slot { page, offset: 0 });
        let (from, to) = (first(from), first(to));
        let len = self.data.len() / self.pages;
        self.data.copy_within(from..from + len, to);
    }

    pub(super) fn page_bytes(&self) -> usize {
        4 * self.data.len() / self.pages.max(1)
    }

    pub(super) fn read_page(&self, page: PageId, into: &mut [u8]) {
        assert_eq!(into.len(), self.page_bytes(), "bytes of a page");
        let numbers = &self.data[self.start(0, 0, Slot { page, offset: 0 })..];
        for (to, from) in into.chunks_exact_mut(4).zip(numbers) {
            to.copy_from_slice(&from.to_le_bytes());
        }
    }

    pub(super) fn write_page(&mut self, page: PageId, from: &[u8]) {
        assert_eq!(from.len(), self.page_bytes(), "bytes of a page");
        let start = self.start(0, 0, Slot { page, offset: 0 });
        for (to, from) in self.data[start..].iter_mut().zip(from.as_chunks().0) {
            *to = f32::from_le_bytes(*from);
        }
    }
}

/// Makes numbers what 8-bit integers with one scale can hold.
fn round_block(block: &mut [f32]) {
    let largest = block.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let scale = f16::from_f32(largest / 127.0);
    if scale.is_infinite() || block.iter().any(|x| !x.is_finite()) {
        block.fill(f32::NAN);
        return;
    }
    let d = scale.to_f32();
    for x in block {
        let q = if d == 0.0 { 0.0 } else { (*x / d).clamp(-127.0, 127.0).round_ties_even() };
        *x = q * d;
    }
}

pub(super) fn attention(q: &HostTensor, k: &HostTensor, v: &HostTensor, heads: usize, out: &mut HostTensor) {
    let shape = (q.rows(), q.cols());
    assert!((k.rows(), k.cols()) == shape && (v.rows(), v.cols()) == shape, "q, k and v are alike");
    assert!(q.cols().is_multiple_of(heads) && out.cols() == q.cols(), "width of the heads");
    out.set_rows(q.rows());
    let dim = q.cols() / heads;
    for r in 0..q.rows() {
        for (h, out) in out.row_mut(r).chunks_exact_mut(dim).enumerate() {
            let head = |x| heads_of(x, dim).skip(h).step_by(heads);
            let (keys, values): (Vec<_>, Vec<_>) = head(k).zip(head(v)).unzip();
            one_row(&q.row(r)[h * dim..][..dim], &keys, &values, out);
        }
    }
}

pub(super) fn attend(
    q: &HostTensor,
    kv: &Kv,
    layer: usize,
    spans: &[Span<'_>],
    heads: usize,
    out: &mut HostTensor,
) {
    let KvShape { kv_heads, head_dim: dim, .. } = kv.shape;
    assert_eq!((q.cols(), out.cols()), (heads * dim, heads * dim), "width of the heads");
    assert!(heads.is_multiple_of(kv_heads), "{heads} query heads share {kv_heads} kv heads");
    assert_eq!(spans.iter().map(|span| span.rows.len()).sum::<usize>(), q.rows(), "spans cover all rows");
    out.set_rows(q.rows());
    for span in spans {
        for (i, r) in span.rows.clone().enumerate() {
            for (h, out) in out.row_mut(r).chunks_exact_mut(dim).enumerate() {
                let seen = 0..=span.position + i;
                let head = h / (heads / kv_heads);
                let row = |part, j| kv.head(layer, part, span.pages, j, head);
                let (keys, values): (Vec<_>, Vec<_>) = seen.map(|j| (row(0, j), row(1, j))).unzip();
                one_row(&q.row(r)[h * dim..][..dim], &keys, &values, out);
            }
        }
    }
}

/// All heads of all rows in order.
fn heads_of(x: &HostTensor, dim: usize) -> impl Iterator<Item = &[f32]> {
    x.data().chunks_exact(dim)
}

/// `out = sum over j of softmax(q . keys[j] / sqrt(dim))[j] * values[j]`.
fn one_row(q: &[f32], keys: &[&[f32]], values: &[&[f32]], out: &mut [f32]) {
    let root = (q.len() as f64).sqrt();
    let score = |key: &&[f32]| q.iter().zip(*key).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
    let mut weights: Vec<f64> = keys.iter().map(score).map(|dot: f64| dot / root).collect();
    // The largest score is taken off: it cancels, and keeps the exponentials finite.
    let largest = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    weights.iter_mut().for_each(|weight| *weight = (*weight - largest).exp());
    let sum: f64 = weights.iter().sum();
    for (i, out) in out.iter_mut().enumerate() {
        let products = weights.iter().zip(values).map(|(w, value)| w * f64::from(value[i]));
        *out = (products.sum::<f64>() / sum) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_average_the_values() {
        let q = HostTensor::from_rows(&[0.0, 0.0, 0.0, 0.0], 2);
        let v = HostTensor::from_rows(&[1.0, 2.0, 3.0, 6.0], 2);
        let mut out = HostTensor::zeros(2, 2);
        attention(&q, &v, &v, 1, &mut out);
        assert_eq!(out.data(), [2.0, 4.0, 2.0, 4.0]);
    }

    #[test]
    fn rows_see_their_own_past_in_page_order() {
        let shape = KvShape { layers: 2, kv_heads: 1, head_dim: 1 };
        let mut kv = Kv::new(shape, 3, KvDtype::F32).unwrap();
        let pages = [PageId(2), PageId(0)];
        let values: Vec<f32> = (0..=PAGE).map(|i| i as f32).collect();
        let slots: Vec<_> =
            (0..=PAGE).map(|i| Slot { page: pages[i / PAGE], offset: (i % PAGE) as u32 }).collect();
        let v = HostTensor::from_rows(&values, 1);
        kv.append(1, &HostTensor::zeros(PAGE + 1, 1), &v, &slots);
        let q = HostTensor::from_rows(&[1.0, 1.0], 1);
        let mut out = HostTensor::zeros(2, 1);
        let span = Span { rows: 0..2, position: PAGE - 1, pages: &pages };
        attend(&q, &kv, 1, &[span], 1, &mut out);
        assert_eq!(out.data(), [15.5, 16.0]);
        kv.copy_page(PageId(2), PageId(1));
        let span = Span { rows: 0..2, position: 0, pages: &[PageId(1)] };
        attend(&q, &kv, 1, &[span], 1, &mut out);
        assert_eq!(out.data(), [0.0, 0.5]);
    }

    #[test]
    fn blocks_are_rounded_to_steps_of_their_own() {
        let shape = KvShape { layers: 1, kv_heads: 1, head_dim: KV_BLOCK + 2 };
        let mut kv = Kv::new(shape, 1, KvDtype::Q8).unwrap();
        let mut row = vec![0.5; KV_BLOCK];
        row[3] = 127.0;
        row.extend([1e-20, -1e-20]);
        let row = HostTensor::from_rows(&row, KV_BLOCK + 2);
        kv.append(0, &row, &row, &[Slot { page: PageId(0), offset: 0 }]);
        let stored = kv.head(0, 1, &[PageId(0)], 0, 0);
        assert_eq!((stored[3], stored[4], stored[KV_BLOCK]), (127.0, 0.0, 0.0));
        for poison in [f32::NAN, f32::INFINITY, 1e30] {
            let mut block = [1.0, poison, 2.0];
            round_block(&mut block);
            assert!(block.iter().all(|x| x.is_nan()));
        }
    }

    #[test]
    fn pages_go_to_the_host_and_back() {
        let shape = KvShape { layers: 2, kv_heads: 1, head_dim: 2 };
        let mut kv = Kv::new(shape, 2, KvDtype::F32).unwrap();
        let row = HostTensor::from_rows(&[1.5, -2.0], 2);
        kv.append(1, &row, &row, &[Slot { page: PageId(0), offset: 9 }]);
        let mut bytes = vec![0; kv.page_bytes()];
        kv.read_page(PageId(0), &mut bytes);
        kv.write_page(PageId(1), &bytes);
        assert_eq!(kv.data[..kv.data.len() / 2], kv.data[kv.data.len() / 2..]);
    }

    #[test]
    fn an_impossible_arena_is_refused() {
        let shape = KvShape { layers: 24, kv_heads: 16, head_dim: 128 };
        for pages in [1 << 40, usize::MAX] {
            let error = Kv::new(shape, pages, KvDtype::F16).unwrap_err();
            assert!(matches!(error, DeviceError::OutOfMemory { what: "the KV cache", .. }));
        }
    }
}
