//! Prefixes worth keeping: the system prompt, behind it pictures, behind them turns of talk.
//!
//! A node owns a [`Sequence`] and stands behind the node it continues, whose pages it shares. Nodes
//! that somebody needs are pinned. When pages are wanted, leaves go that nobody pinned, the least
//! recently used first. A fork of a node keeps its own hold on the pages, so that taking a node away
//! never harms what runs.

use kernels::Device;

use super::{KvCache, OutOfPages, Sequence};

/// A node of a [`PrefixTree`]. It may have been evicted since: every use can find nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PrefixId {
    index: usize,
    /// Tells a node from those that had its place before.
    number: u64,
}

#[derive(Debug)]
struct Node {
    number: u64,
    sequence: Sequence,
    parent: Option<PrefixId>,
    children: usize,
    pins: usize,
    /// When it was last used, in uses of the whole tree.
    used: u64,
}

impl Node {
    fn is_evictable(&self) -> bool {
        self.children == 0 && self.pins == 0
    }
}

/// Kept prefixes.
#[derive(Debug, Default)]
pub struct PrefixTree {
    nodes: Vec<Option<Node>>,
    /// Nodes and uses so far.
    clock: u64,
    evictions: u64,
    /// For each page, how many nodes that could go hold it; kept for its room.
    holds: Vec<u32>,
}

impl PrefixTree {
    /// Nodes.
    pub fn len(&self) -> usize {
        self.nodes.iter().flatten().count()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Nodes that had to make room so far.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Keeps `sequence` behind `parent`; behind nothing if that is gone. The node is not pinned.
    pub fn insert(&mut self, parent: Option<PrefixId>, sequence: Sequence) -> PrefixId {
        let parent = parent.filter(|&parent| self.contains(parent));
        if let Some(parent) = parent.and_then(|parent| self.node_mut(parent)) {
            parent.children += 1;
        }
        let number = self.tick();
        let node = Node { number, sequence, parent, children: 0, pins: 0, used: number };
        let index = self.nodes.iter().position(Option::is_none).unwrap_or(self.nodes.len());
        if index == self.nodes.len() {
            self.nodes.push(Some(node));
        } else {
            self.nodes[index] = Some(node);
        }
        PrefixId { index, number }
    }

    /// Whether the node is still there.
    pub fn contains(&self, id: PrefixId) -> bool {
        self.node(id).is_some()
    }

    /// The positions of a node, unless it is gone. This is no use of it.
    pub fn sequence(&self, id: PrefixId) -> Option<&Sequence> {
        self.node(id).map(|node| &node.sequence)
    }

    /// The positions of a node, unless it is gone. Now it is the one used last.
    pub fn use_sequence(&mut self, id: PrefixId) -> Option<&Sequence> {
        let now = self.tick();
        let node = self.node_mut(id)?;
        node.used = now;
        Some(&node.sequence)
    }

    /// Protects a node from eviction until it is unpinned as often. Returns whether it is there.
    pub fn pin(&mut self, id: PrefixId) -> bool {
        self.node_mut(id).map(|node| node.pins += 1).is_some()
    }

    /// Takes one pin away. A node that is gone has none.
    pub fn unpin(&mut self, id: PrefixId) {
        if let Some(node) = self.node_mut(id) {
            node.pins = node.pins.saturating_sub(1);
        }
    }

    /// Takes a node away, pinned or not, and gives its pages back. What stood behind it stands behind
    /// its parent. A node that is gone already changes nothing.
    pub fn remove<D: Device>(&mut self, id: PrefixId, cache: &mut KvCache<D>) {
        if !self.contains(id) {
            return;
        }
        let Some(mut node) = self.nodes[id.index].take() else { return };
        cache.release(&mut node.sequence);
        for child in self.nodes.iter_mut().flatten().filter(|child| child.parent == Some(id)) {
            child.parent = node.parent;
        }
        if let Some(parent) = node.parent.and_then(|parent| self.node_mut(parent)) {
            parent.children = parent.children - 1 + node.children;
        }
    }

    /// Takes all nodes away, pinned or not, and gives their pages back.
    pub fn clear<D: Device>(&mut self, cache: &mut KvCache<D>) {
        for node in self.nodes.iter_mut().flatten() {
            cache.release(&mut node.sequence);
        }
        self.nodes.clear();
    }

    /// Evicts until `wanted` pages are free. If evicting all that may go were not enough, nothing
    /// is evicted.
    pub fn make_room<D: Device>(&mut self, cache: &mut KvCache<D>, wanted: usize) -> Result<(), OutOfPages> {
        if cache.pages_free() >= wanted {
            return Ok(());
        }
        if cache.pages_free() + self.pages_to_gain(cache) < wanted {
            return cache.check_free(wanted);
        }
        while cache.pages_free() < wanted && self.evict(cache) {}
        cache.check_free(wanted)
    }

    /// Takes the least recently used leaf that nobody pinned. Returns whether there was one.
    fn evict<D: Device>(&mut self, cache: &mut KvCache<D>) -> bool {
        let nodes = self.nodes.iter().enumerate().filter_map(|(index, node)| Some((index, node.as_ref()?)));
        let oldest = nodes.filter(|(_, node)| node.is_evictable()).min_by_key(|(_, node)| node.used);
        let Some((index, node)) = oldest else { return false };
        let id = PrefixId { index, number: node.number };
        self.remove(id, cache);
        self.evictions += 1;
        true
    }

    /// Pages that would be free if all nodes went that may go, one after the other.
    fn pages_to_gain<D: Device>(&mut self, cache: &KvCache<D>) -> usize {
        let mut holds = std::mem::take(&mut self.holds);
        holds.clear();
        holds.resize(cache.pages(), 0);
        for node in self.nodes.iter().flatten().filter(|node| !self.is_needed(node)) {
            for page in node.sequence.pages.iter().chain(&node.sequence.spare) {
                holds[page.0 as usize] += 1;
            }
        }
        let held = holds.iter().zip(&cache.references);
        let gained = held.filter(|(holds, references)| **holds > 0 && holds == references).count();
        self.holds = holds;
        gained
    }

    /// Whether the node or one behind it is pinned.
    fn is_needed(&self, node: &Node) -> bool {
        let pinned = self.nodes.iter().flatten().filter(|node| node.pins > 0);
        let mut lines = pinned.map(|pinned| {
            std::iter::successors(Some(pinned), |node| node.parent.and_then(|parent| self.node(parent)))
        });
        lines.any(|mut line| line.any(|above| above.number == node.number))
    }

    fn node(&self, id: PrefixId) -> Option<&Node> {
        self.nodes.get(id.index)?.as_ref().filter(|node| node.number == id.number)
    }

    fn node_mut(&mut self, id: PrefixId) -> Option<&mut Node> {
        self.nodes.get_mut(id.index)?.as_mut().filter(|node| node.number == id.number)
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

#[cfg(test)]
mod tests;
