//! Positions, pages, marks and forks of the KV cache.
//!
//! A [`Sequence`] is a list of reference-counted pages and a length. Forking shares all pages; the
//! first row written to a shared page copies it. Rewinding gives pages back. A sequence must be
//! returned with [`KvCache::release`]: dropping it keeps its pages for ever.

use kernels::{Device, DeviceError, KvDtype, KvShape, PAGE, PageId, Slot};

/// The arena has no page left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the KV cache is full: all {pages} pages are in use; raise model.kv_cache_mib")]
pub struct OutOfPages {
    /// Pages of the arena.
    pub pages: usize,
}

/// A row of positions in the cache.
#[must_use = "a sequence holds pages until it is released"]
#[derive(Debug, Default)]
pub struct Sequence {
    pages: Vec<PageId>,
    len: usize,
}

impl Sequence {
    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its pages in order.
    pub fn pages(&self) -> &[PageId] {
        &self.pages
    }

    /// The present end, to rewind to.
    pub fn mark(&self) -> Mark {
        Mark(self.len)
    }

    /// Where position `position` is kept.
    fn slot(&self, position: usize) -> Slot {
        Slot { page: self.pages[position / PAGE], offset: (position % PAGE) as u32 }
    }
}

/// A length a sequence once had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(usize);

/// The arena and who uses which page.
pub struct KvCache<D: Device> {
    arena: D::Kv,
    bytes: usize,
    references: Vec<u32>,
    free: Vec<PageId>,
}

impl<D: Device> KvCache<D> {
    /// An arena of `pages` pages.
    pub fn new(device: &D, shape: KvShape, pages: usize, dtype: KvDtype) -> Result<Self, DeviceError> {
        let arena = device.kv(shape, pages, dtype)?;
        Ok(Self {
            bytes: device.kv_bytes(&arena),
            arena,
            references: vec![0; pages],
            free: (0..pages as u32).rev().map(PageId).collect(),
        })
    }

    /// Pages of the arena.
    pub fn pages(&self) -> usize {
        self.references.len()
    }

    /// Pages held by sequences.
    pub fn pages_used(&self) -> usize {
        self.references.len() - self.free.len()
    }

    /// Bytes of the arena.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The stored keys and values.
    pub fn arena(&self) -> &D::Kv {
        &self.arena
    }

    /// The stored keys and values.
    pub fn arena_mut(&mut self) -> &mut D::Kv {
        &mut self.arena
    }

    /// Makes `to`, which is released first, hold the same positions as `from`.
    pub fn fork(&mut self, from: &Sequence, to: &mut Sequence) {
        self.release(to);
        to.pages.extend_from_slice(&from.pages);
        to.len = from.len;
        for page in &to.pages {
            self.references[page.0 as usize] += 1;
        }
    }

    /// Extends a sequence by `rows` positions and appends their slots to `slots`.
    ///
    /// Their contents are undefined until they are written. On error nothing has changed.
    pub fn extend(
        &mut self,
        device: &D,
        sequence: &mut Sequence,
        rows: usize,
        slots: &mut Vec<Slot>,
    ) -> Result<(), OutOfPages> {
        if rows == 0 {
            return Ok(());
        }
        let start = sequence.len;
        let last_is_shared = !start.is_multiple_of(PAGE)
            && sequence.pages.last().is_some_and(|page| self.references[page.0 as usize] > 1);
        let fresh = (start + rows).div_ceil(PAGE) - sequence.pages.len();
        if fresh + usize::from(last_is_shared) > self.free.len() {
            return Err(OutOfPages { pages: self.pages() });
        }
        if last_is_shared && let Some(shared) = sequence.pages.pop() {
            let own = self.take_page();
            device.kv_copy_page(&mut self.arena, shared, own);
            self.give_back(shared);
            sequence.pages.push(own);
        }
        for _ in 0..fresh {
            let page = self.take_page();
            sequence.pages.push(page);
        }
        sequence.len = start + rows;
        slots.extend((start..start + rows).map(|position| sequence.slot(position)));
        Ok(())
    }

    /// Forgets everything after `mark`. A mark beyond the end changes nothing.
    pub fn rewind(&mut self, sequence: &mut Sequence, mark: Mark) {
        sequence.len = sequence.len.min(mark.0);
        let keep = sequence.len.div_ceil(PAGE);
        while sequence.pages.len() > keep {
            if let Some(page) = sequence.pages.pop() {
                self.give_back(page);
            }
        }
    }

    /// Gives all pages back and leaves the sequence empty, its capacity kept.
    pub fn release(&mut self, sequence: &mut Sequence) {
        self.rewind(sequence, Mark(0));
    }

    /// Takes a page known to be there.
    fn take_page(&mut self) -> PageId {
        let page = self.free.pop().expect("free pages were counted");
        self.references[page.0 as usize] = 1;
        page
    }

    fn give_back(&mut self, page: PageId) {
        let references = &mut self.references[page.0 as usize];
        *references -= 1;
        if *references == 0 {
            self.free.push(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use kernels::Reference;

    use super::*;

    const SHAPE: KvShape = KvShape { layers: 1, kv_heads: 1, head_dim: 2 };

    fn cache(pages: usize) -> (Reference, KvCache<Reference>) {
        let device = Reference;
        let cache = KvCache::new(&device, SHAPE, pages, KvDtype::F32).expect("a small arena");
        (device, cache)
    }

    #[test]
    fn extending_takes_pages_and_rewinding_gives_them_back() {
        let (device, mut cache) = cache(4);
        let (mut sequence, mut slots) = (Sequence::default(), Vec::new());
        cache.extend(&device, &mut sequence, PAGE, &mut slots).expect("room");
        let mark = sequence.mark();
        cache.extend(&device, &mut sequence, 1, &mut slots).expect("room");
        assert_eq!((sequence.len(), cache.pages_used()), (PAGE + 1, 2));
        assert_eq!(slots[PAGE], Slot { page: sequence.pages()[1], offset: 0 });
        cache.rewind(&mut sequence, mark);
        assert_eq!((sequence.len(), cache.pages_used()), (PAGE, 1));
        cache.release(&mut sequence);
        assert_eq!((sequence.len(), cache.pages_used()), (0, 0));
    }

    #[test]
    fn a_fork_shares_full_pages_and_copies_the_last_one_when_written() {
        let (device, mut cache) = cache(8);
        let (mut parent, mut child, mut slots) = (Sequence::default(), Sequence::default(), Vec::new());
        cache.extend(&device, &mut parent, PAGE + 3, &mut slots).expect("room");
        cache.fork(&parent, &mut child);
        assert_eq!((cache.pages_used(), child.pages()), (2, parent.pages()));
        cache.extend(&device, &mut child, 1, &mut slots).expect("room");
        assert_eq!(child.pages()[0], parent.pages()[0]);
        assert_ne!(child.pages()[1], parent.pages()[1]);
        assert_eq!(cache.pages_used(), 3);
        cache.release(&mut parent);
        assert_eq!(cache.pages_used(), 2);
        cache.release(&mut child);
        assert_eq!(cache.pages_used(), 0);
    }

    #[test]
    fn the_last_owner_of_a_page_writes_in_place() {
        let (device, mut cache) = cache(8);
        let (mut parent, mut child, mut slots) = (Sequence::default(), Sequence::default(), Vec::new());
        cache.extend(&device, &mut parent, 3, &mut slots).expect("room");
        cache.fork(&parent, &mut child);
        cache.release(&mut parent);
        let page = child.pages()[0];
        cache.extend(&device, &mut child, 1, &mut slots).expect("room");
        assert_eq!(child.pages(), [page]);
    }

    #[test]
    fn a_full_arena_refuses_and_changes_nothing() {
        let (device, mut cache) = cache(2);
        let (mut parent, mut child, mut slots) = (Sequence::default(), Sequence::default(), Vec::new());
        cache.extend(&device, &mut parent, PAGE + 1, &mut slots).expect("room");
        cache.fork(&parent, &mut child);
        let before = slots.len();
        let full = cache.extend(&device, &mut child, 1, &mut slots);
        assert_eq!(full, Err(OutOfPages { pages: 2 }));
        assert_eq!((child.len(), child.pages(), slots.len()), (PAGE + 1, parent.pages(), before));
        cache.release(&mut child);
        cache.extend(&device, &mut parent, 1, &mut slots).expect("room");
        cache.release(&mut parent);
        assert_eq!(cache.pages_used(), 0);
    }

    #[test]
    fn forks_see_their_own_rows_only() {
        let (device, mut cache) = cache(4);
        let row = |value: f32| kernels::HostTensor::from_rows(&[value, value], 2);
        let (mut a, mut b, mut slots) = (Sequence::default(), Sequence::default(), Vec::new());
        let mut write = |cache: &mut KvCache<Reference>, sequence: &mut Sequence, value: f32| {
            slots.clear();
            cache.extend(&device, sequence, 1, &mut slots).expect("room");
            device.kv_append(cache.arena_mut(), 0, &row(0.0), &row(value), &slots);
        };
        write(&mut cache, &mut a, 2.0);
        cache.fork(&a, &mut b);
        write(&mut cache, &mut a, 4.0);
        write(&mut cache, &mut b, 8.0);
        // All scores are 0, so attention is the mean of the values.
        let mean = |sequence: &Sequence| {
            let mut out = device.tensor(1, 2).expect("a row");
            let spans = [kernels::Span { rows: 0..1, position: 1, pages: sequence.pages() }];
            device.attend(&row(1.0), cache.arena(), 0, &spans, 1, &mut out);
            out.data()[0]
        };
        assert_eq!((mean(&a), mean(&b)), (3.0, 5.0));
    }
}
