//! Positions, pages, marks and forks of the KV cache.
//!
//! A [`Sequence`] is a list of reference-counted pages and a length. Forking shares all pages; the
//! first row written to a shared page copies it. Rewinding gives pages back. Pages can be set aside
//! for a sequence beforehand, so that it cannot run out of them later. A sequence must be returned
//! with [`KvCache::release`]: dropping it keeps its pages for ever.

pub mod prefix_tree;

use kernels::{Device, DeviceError, KvDtype, KvShape, PAGE, PageId, Slot};

/// The arena has too few free pages: the same may succeed when others have given theirs back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the KV cache is full: {wanted} pages are wanted, {free} of {pages} are free; \
     try again later, or raise model.kv_cache_mib"
)]
pub struct OutOfPages {
    /// Pages that were asked for.
    pub wanted: usize,
    /// Pages that nobody holds.
    pub free: usize,
    /// Pages of the arena.
    pub pages: usize,
}

/// A row of positions in the cache.
#[must_use = "a sequence holds pages until it is released"]
#[derive(Debug, Default)]
pub struct Sequence {
    pages: Vec<PageId>,
    len: usize,
    /// Pages set aside for it.
    spare: Vec<PageId>,
    /// Positions up to which pages were set aside.
    reserved: usize,
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

impl Mark {
    /// The end of the first `positions`.
    pub fn at(positions: usize) -> Self {
        Self(positions)
    }
}

/// The arena and who uses which page.
pub struct KvCache<D: Device> {
    arena: D::Kv,
    bytes: usize,
    references: Vec<u32>,
    /// The page given back last is at the end, and taken first.
    free: Vec<PageId>,
    /// So many pages at the beginning of `free` were free since somebody looked.
    cold: usize,
    /// Pages that were taken and not forgotten since.
    written: Vec<bool>,
}

impl<D: Device> KvCache<D> {
    /// An arena of `pages` pages.
    pub fn new(device: &D, shape: KvShape, pages: usize, dtype: KvDtype) -> Result<Self, DeviceError> {
        let arena = device.kv(shape, pages, dtype)?;
        Ok(Self {
            bytes: device.kv_bytes(&arena),
            arena,
            references: vec![0; pages],
            cold: pages,
            written: vec![false; pages],
            free: (0..pages as u32).rev().map(PageId).collect(),
        })
    }

    /// Pages of the arena.
    pub fn pages(&self) -> usize {
        self.references.len()
    }

    /// Pages that nobody holds.
    pub fn pages_free(&self) -> usize {
        self.free.len()
    }

    /// Pages held by sequences, those set aside for them included.
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

    /// Pages that have to be free for extending `sequence` by `rows` positions: those set aside for it
    /// are not counted.
    pub fn pages_missing(&self, sequence: &Sequence, rows: usize) -> usize {
        self.pages_to_extend(sequence, rows).saturating_sub(sequence.spare.len())
    }

    /// Pages that extending `sequence` by `rows` positions takes, one for a copy of a shared page
    /// included.
    pub fn pages_to_extend(&self, sequence: &Sequence, rows: usize) -> usize {
        if rows == 0 {
            return 0;
        }
        let fresh = (sequence.len + rows).div_ceil(PAGE) - sequence.pages.len();
        fresh + usize::from(self.last_is_shared(sequence))
    }

    /// Sets aside what extending `sequence` by `rows` positions takes, until it is released. On error
    /// nothing has changed.
    ///
    /// The promise holds as long as the sequence is not forked and not rewound to before its present
    /// end.
    pub fn reserve(&mut self, sequence: &mut Sequence, rows: usize) -> Result<(), OutOfPages> {
        let wanted = self.pages_missing(sequence, rows);
        self.check_free(wanted)?;
        for _ in 0..wanted {
            let page = self.take_page();
            sequence.spare.push(page);
        }
        sequence.reserved = sequence.reserved.max(sequence.len + rows);
        Ok(())
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
        self.check_free(self.pages_missing(sequence, rows))?;
        if self.last_is_shared(sequence)
            && let Some(shared) = sequence.pages.pop()
        {
            let own = self.take_page_for(sequence);
            device.kv_copy_page(&mut self.arena, shared, own);
            self.give_back(shared);
            sequence.pages.push(own);
        }
        let start = sequence.len;
        while sequence.pages.len() < (start + rows).div_ceil(PAGE) {
            let page = self.take_page_for(sequence);
            sequence.pages.push(page);
        }
        sequence.len = start + rows;
        slots.extend((start..start + rows).map(|position| sequence.slot(position)));
        Ok(())
    }

    /// Forgets everything after `mark`. A mark beyond the end changes nothing. Pages that were set
    /// aside for the sequence are set aside again.
    pub fn rewind(&mut self, sequence: &mut Sequence, mark: Mark) {
        sequence.len = sequence.len.min(mark.0);
        let keep = sequence.len.div_ceil(PAGE);
        let reserved = sequence.reserved.div_ceil(PAGE);
        while sequence.pages.len() > keep {
            let last = sequence.pages.len();
            let Some(page) = sequence.pages.pop() else { break };
            if last <= reserved && self.references[page.0 as usize] == 1 {
                sequence.spare.push(page);
            } else {
                self.give_back(page);
            }
        }
    }

    /// Gives all pages back and leaves the sequence empty, its capacity kept.
    pub fn release(&mut self, sequence: &mut Sequence) {
        self.unreserve(sequence);
        self.rewind(sequence, Mark(0));
    }

    /// Gives back what was set aside for a sequence and is not used.
    pub fn unreserve(&mut self, sequence: &mut Sequence) {
        sequence.reserved = 0;
        while let Some(page) = sequence.spare.pop() {
            self.give_back(page);
        }
    }

    /// Gives the memory of pages back to the system that nobody took since the last call. Returns how many that are.
    pub fn forget_cold(&mut self, device: &D) -> usize {
        let cold = std::mem::replace(&mut self.cold, self.free.len());
        let was_written = |page: &PageId| std::mem::take(&mut self.written[page.0 as usize]);
        let mut pages: Vec<PageId> = self.free[..cold].iter().copied().filter(was_written).collect();
        pages.sort_unstable_by_key(|page| page.0);
        device.kv_forget(&mut self.arena, &pages);
        pages.len()
    }

    /// Whether the next row goes to a page that others hold too.
    fn last_is_shared(&self, sequence: &Sequence) -> bool {
        !sequence.len.is_multiple_of(PAGE)
            && sequence.pages.last().is_some_and(|page| self.references[page.0 as usize] > 1)
    }

    fn check_free(&self, wanted: usize) -> Result<(), OutOfPages> {
        let (free, pages) = (self.pages_free(), self.pages());
        if wanted > free { Err(OutOfPages { wanted, free, pages }) } else { Ok(()) }
    }

    /// Takes a page known to be set aside or free.
    fn take_page_for(&mut self, sequence: &mut Sequence) -> PageId {
        sequence.spare.pop().unwrap_or_else(|| self.take_page())
    }

    /// Takes a page known to be free.
    fn take_page(&mut self) -> PageId {
        let page = self.free.pop().expect("free pages were counted");
        self.cold = self.cold.min(self.free.len());
        self.references[page.0 as usize] = 1;
        self.written[page.0 as usize] = true;
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
mod tests;
