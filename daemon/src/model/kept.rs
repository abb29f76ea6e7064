//! Pages for what runs: prefixes that are kept meanwhile, and make room when pages are wanted.

use kernels::Device;

use super::MobileVlm;
use super::kv_cache::prefix_tree::{PrefixId, PrefixTree};
use super::kv_cache::{OutOfPages, Sequence};

impl<D: Device> MobileVlm<D> {
    /// Kept prefixes.
    pub fn prefixes(&self) -> &PrefixTree {
        &self.prefixes
    }

    /// Keeps a computed sequence as a node behind `parent`, not pinned: it stays until its pages are
    /// wanted elsewhere. What was set aside for it is given back.
    pub fn keep(&mut self, parent: Option<PrefixId>, mut sequence: Sequence) -> PrefixId {
        self.cache.unreserve(&mut sequence);
        self.prefixes.insert(parent, sequence)
    }

    /// Makes `to` hold the positions of a node, sharing its pages. Returns whether the node is there;
    /// otherwise `to` is released.
    pub fn fork_kept(&mut self, id: PrefixId, to: &mut Sequence) -> bool {
        match self.prefixes.use_sequence(id) {
            Some(from) => self.cache.fork(from, to),
            None => self.cache.release(to),
        }
        self.prefixes.contains(id)
    }

    /// Protects a node from eviction until it is unpinned as often. Returns whether it is there.
    pub fn pin(&mut self, id: PrefixId) -> bool {
        self.prefixes.pin(id)
    }

    /// Takes one pin of a node away.
    pub fn unpin(&mut self, id: PrefixId) {
        self.prefixes.unpin(id);
    }

    /// Takes a node away, pinned or not. What was forked from it goes on.
    pub fn forget(&mut self, id: PrefixId) {
        self.prefixes.remove(id, &mut self.cache);
    }

    /// Takes all nodes away. What was forked from them goes on.
    pub fn forget_all(&mut self) {
        self.prefixes.clear(&mut self.cache);
    }

    /// Frees `pages` pages by evicting kept prefixes that nobody pinned, the least recently used
    /// first. If that were not enough, nothing is evicted.
    pub fn make_room(&mut self, pages: usize) -> Result<(), OutOfPages> {
        self.prefixes.make_room(&mut self.cache, pages)
    }

    /// Gives the memory of pages back to the system that were not of use since the last call. Returns how many
    /// that are.
    pub fn forget_cold_pages(&mut self) -> usize {
        self.cache.forget_cold(&self.device)
    }

    /// Makes sure that `sequence` can be extended by `rows` positions without running out of pages:
    /// what is missing is set aside for it until it is released. Kept prefixes make room.
    pub fn reserve(&mut self, sequence: &mut Sequence, rows: usize) -> Result<(), OutOfPages> {
        self.make_room(self.cache.pages_missing(sequence, rows))?;
        self.cache.reserve(sequence, rows)
    }
}
