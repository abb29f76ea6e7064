//! The tree by hand, and cache and tree under random use beside a naive model of both.

use kernels::{HostTensor, KvDtype, KvShape, PAGE, PageId, Reference, Span};

use super::super::Mark;
use super::*;

fn cache(pages: usize) -> KvCache<Reference> {
    let shape = KvShape { layers: 1, kv_heads: 1, head_dim: 1 };
    KvCache::new(&Reference, shape, pages, KvDtype::F32).expect("a small arena")
}

/// A sequence of `rows` positions, whatever they hold.
fn sequence(cache: &mut KvCache<Reference>, rows: usize) -> Sequence {
    let mut sequence = Sequence::default();
    cache.extend(&Reference, &mut sequence, rows, &mut Vec::new()).expect("room");
    sequence
}

/// A fork of a node with `rows` more positions, kept behind it.
fn continued(cache: &mut KvCache<Reference>, tree: &mut PrefixTree, id: PrefixId, rows: usize) -> PrefixId {
    let mut child = Sequence::default();
    cache.fork(tree.use_sequence(id).expect("kept"), &mut child);
    cache.extend(&Reference, &mut child, rows, &mut Vec::new()).expect("room");
    tree.insert(Some(id), child)
}

#[test]
fn the_leaf_used_longest_ago_goes_first() {
    let (mut cache, mut tree) = (cache(8), PrefixTree::default());
    let system = sequence(&mut cache, PAGE);
    let system = tree.insert(None, system);
    let first = continued(&mut cache, &mut tree, system, 2 * PAGE);
    let second = continued(&mut cache, &mut tree, system, 2 * PAGE);
    let turn = continued(&mut cache, &mut tree, first, PAGE);
    assert_eq!((tree.len(), cache.pages_free()), (4, 2));
    tree.use_sequence(second);
    tree.make_room(&mut cache, 3).expect("a leaf can go");
    assert!(!tree.contains(turn) && tree.contains(first) && tree.contains(second));
    tree.use_sequence(first);
    tree.make_room(&mut cache, 4).expect("a leaf can go");
    assert!(tree.contains(first) && !tree.contains(second) && tree.contains(system));
    tree.make_room(&mut cache, 8).expect("all can go");
    assert_eq!((tree.len(), cache.pages_used(), tree.evictions()), (0, 0, 4));
}

#[test]
fn pinned_nodes_and_those_before_them_stay() {
    let (mut cache, mut tree) = (cache(4), PrefixTree::default());
    let system = sequence(&mut cache, PAGE);
    let system = tree.insert(None, system);
    let picture = continued(&mut cache, &mut tree, system, PAGE);
    let other = continued(&mut cache, &mut tree, system, PAGE);
    assert!(tree.pin(picture));
    // One page is free and one can be gained: asking for more evicts nothing.
    let refused = tree.make_room(&mut cache, 3);
    assert_eq!(refused, Err(OutOfPages { wanted: 3, free: 1, pages: 4 }));
    assert!(tree.contains(other));
    tree.make_room(&mut cache, 2).expect("the other can go");
    assert!(!tree.contains(other) && tree.contains(picture));
    tree.unpin(picture);
    tree.make_room(&mut cache, 4).expect("all can go");
    assert!(tree.is_empty() && !tree.pin(picture));
    tree.unpin(picture);
}

#[test]
fn what_stood_behind_a_removed_node_stands_behind_its_parent() {
    let (mut cache, mut tree) = (cache(4), PrefixTree::default());
    let system = sequence(&mut cache, 3);
    let system = tree.insert(None, system);
    let picture = continued(&mut cache, &mut tree, system, PAGE);
    let turn = continued(&mut cache, &mut tree, picture, 1);
    tree.remove(picture, &mut cache);
    tree.remove(picture, &mut cache);
    assert!(tree.sequence(picture).is_none());
    assert_eq!(tree.sequence(turn).map(Sequence::len), Some(PAGE + 4));
    // The system prompt is no leaf as long as the turn is there.
    assert!(tree.evict(&mut cache) && !tree.contains(turn));
    assert!(tree.evict(&mut cache) && !tree.contains(system));
    assert_eq!(cache.pages_used(), 0);
}

#[test]
fn running_forks_outlive_the_node() {
    let (mut cache, mut tree) = (cache(3), PrefixTree::default());
    let system = sequence(&mut cache, 2 * PAGE);
    let system = tree.insert(None, system);
    let mut fork = Sequence::default();
    cache.fork(tree.sequence(system).expect("kept"), &mut fork);
    // Its pages would not come back, so it stays.
    assert!(tree.make_room(&mut cache, 2).is_err() && tree.contains(system));
    tree.remove(system, &mut cache);
    assert_eq!((fork.len(), cache.pages_used()), (2 * PAGE, 2));
    cache.release(&mut fork);
    assert_eq!(cache.pages_used(), 0);
}

/// A stream of numbers (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end
    }
}

/// A sequence and the values that it must hold.
#[derive(Default)]
struct Held {
    sequence: Sequence,
    values: Vec<f32>,
    /// Pages surely there for it: positions up to here cannot fail.
    reserved: usize,
}

/// A node and what it must hold while it is there.
struct Kept {
    id: PrefixId,
    values: Vec<f32>,
    pins: usize,
}

/// Cache and tree in random use.
struct Use {
    cache: KvCache<Reference>,
    tree: PrefixTree,
    random: Random,
    held: Vec<Held>,
    kept: Vec<Kept>,
    written: f32,
}

impl Use {
    fn new(seed: u64) -> Self {
        let held = (0..5).map(|_| Held::default()).collect();
        let tree = PrefixTree::default();
        Self { cache: cache(24), tree, random: Random(seed), held, kept: Vec::new(), written: 0.0 }
    }

    fn step(&mut self) {
        let index = self.random.below(self.held.len());
        match self.random.below(12) {
            0..4 => self.extend(index),
            4 => self.reserve(index),
            5 => self.rewind(index),
            6 => self.release(index),
            7 => self.fork(index),
            8 => self.keep(index),
            9 => self.continue_kept(index),
            10 => self.pin(),
            _ => self.make_room(),
        }
    }

    fn extend(&mut self, index: usize) {
        let rows = [1, 1, 2, 7, PAGE, 50][self.random.below(6)];
        let held = &mut self.held[index];
        let wanted = self.cache.pages_to_extend(&held.sequence, rows);
        let (free, was) = (self.cache.pages_free(), held.sequence.len());
        let mut slots = Vec::new();
        let done = self.cache.extend(&Reference, &mut held.sequence, rows, &mut slots);
        if done.is_err() {
            assert!(was + rows > held.reserved && free < wanted && held.sequence.len() == was);
            return;
        }
        let values: Vec<f32> = (1..=rows).map(|i| self.written + i as f32).collect();
        self.written += rows as f32;
        let (keys, rows) = (HostTensor::zeros(rows, 1), HostTensor::from_rows(&values, 1));
        Reference.kv_append(self.cache.arena_mut(), 0, &keys, &rows, &slots);
        held.values.extend(values);
    }

    fn reserve(&mut self, index: usize) {
        let rows = 1 + self.random.below(3 * PAGE);
        let held = &mut self.held[index];
        if self.cache.reserve(&mut held.sequence, rows).is_ok() {
            held.reserved = held.reserved.max(held.values.len() + rows);
        }
    }

    fn rewind(&mut self, index: usize) {
        let held = &mut self.held[index];
        // Behind the end is allowed too and changes nothing.
        let len = self.random.below(held.values.len() + 9);
        self.cache.rewind(&mut held.sequence, Mark(len));
        held.values.truncate(len);
        held.reserved = 0;
    }

    fn release(&mut self, index: usize) {
        let held = &mut self.held[index];
        self.cache.release(&mut held.sequence);
        *held = Held { sequence: std::mem::take(&mut held.sequence), ..Held::default() };
    }

    fn fork(&mut self, index: usize) {
        let from = self.random.below(self.held.len());
        if from == index {
            return;
        }
        let mut to = std::mem::take(&mut self.held[index]);
        let from = &mut self.held[from];
        self.cache.fork(&from.sequence, &mut to.sequence);
        from.reserved = 0;
        self.held[index] = Held { sequence: to.sequence, values: from.values.clone(), reserved: 0 };
    }

    fn keep(&mut self, index: usize) {
        if self.kept.len() > 12 {
            return;
        }
        let parent = self.kept.last().map(|kept| kept.id);
        let Held { sequence, values, .. } = std::mem::take(&mut self.held[index]);
        self.kept.push(Kept { id: self.tree.insert(parent, sequence), values, pins: 0 });
    }

    fn continue_kept(&mut self, index: usize) {
        if self.kept.is_empty() {
            return;
        }
        let kept = &self.kept[self.random.below(self.kept.len())];
        let held = &mut self.held[index];
        if let Some(sequence) = self.tree.use_sequence(kept.id) {
            self.cache.fork(sequence, &mut held.sequence);
            *held = Held {
                sequence: std::mem::take(&mut held.sequence),
                values: kept.values.clone(),
                reserved: 0,
            };
        }
    }

    fn pin(&mut self) {
        if self.kept.is_empty() {
            return;
        }
        let index = self.random.below(self.kept.len());
        let kept = &mut self.kept[index];
        match self.random.below(4) {
            0 => {
                assert!(self.tree.pin(kept.id));
                kept.pins += 1;
            }
            1..3 => {
                self.tree.unpin(kept.id);
                kept.pins = kept.pins.saturating_sub(1);
            }
            _ => {
                self.tree.remove(kept.id, &mut self.cache);
                self.kept.remove(index);
            }
        }
    }

    fn make_room(&mut self) {
        let wanted = self.random.below(self.cache.pages() + 2);
        let before = (self.cache.pages_free(), self.tree.len());
        match self.tree.make_room(&mut self.cache, wanted) {
            Ok(()) => assert!(self.cache.pages_free() >= wanted),
            Err(OutOfPages { free, .. }) => assert_eq!((free, self.tree.len()), before),
        }
        let tree = &self.tree;
        self.kept.retain(|kept| {
            assert!(kept.pins == 0 || tree.contains(kept.id), "a pinned node is gone");
            tree.contains(kept.id)
        });
    }

    /// Every page is free once or held as often as counted, and every row is the one written.
    fn check(&self) {
        let nodes = self.kept.iter().map(|kept| (self.tree.sequence(kept.id).expect("kept"), &kept.values));
        let held = self.held.iter().map(|held| (&held.sequence, &held.values));
        let mut holders = vec![0; self.cache.pages()];
        for (sequence, values) in nodes.chain(held) {
            assert_eq!((sequence.len(), sequence.pages.len()), (values.len(), values.len().div_ceil(PAGE)));
            for page in sequence.pages.iter().chain(&sequence.spare) {
                holders[page.0 as usize] += 1;
            }
            assert_eq!(self.values(sequence), *values);
        }
        assert_eq!(self.cache.references, holders);
        let mut free: Vec<PageId> = self.cache.free.clone();
        free.sort_unstable();
        let unheld = (0..).zip(&holders).filter(|(_, holders)| **holders == 0);
        assert_eq!(free, unheld.map(|(page, _)| PageId(page)).collect::<Vec<_>>());
        assert_eq!(self.tree.len(), self.kept.len());
    }

    /// What stands at each position. Where all scores are equal, attention gives means of values:
    /// their sums are exact for small integers, and differences of sums are values.
    fn values(&self, sequence: &Sequence) -> Vec<f32> {
        let mut values = Vec::new();
        for page in &sequence.pages {
            let rows = PAGE.min(sequence.len() - values.len());
            let (queries, mut means) = (HostTensor::zeros(rows, 1), HostTensor::zeros(rows, 1));
            let span = Span { rows: 0..rows, position: 0, pages: std::slice::from_ref(page) };
            Reference.attend(&queries, self.cache.arena(), 0, &[span], 1, &mut means);
            let mut before = 0.0;
            for (mean, count) in means.data().iter().zip(1..) {
                let sum = (f64::from(*mean) * f64::from(count)).round();
                values.push((sum - before) as f32);
                before = sum;
            }
        }
        values
    }
}

#[test]
fn no_page_is_lost_and_no_row_is_stale_whatever_is_done() {
    for seed in 1..=12 {
        let mut cache = Use::new(seed * 0x9e37_79b9);
        for _ in 0..400 {
            cache.step();
            cache.check();
        }
    }
}
