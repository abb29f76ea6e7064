//! Lists that were seen before, as graphs that the GPU is given at once.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use cudarc::driver::{result, sys};

use crate::cuda::driver::List;

/// Shorter lists gain nothing.
const SHORTEST: usize = 16;

/// Graphs that are kept: decode steps and draft checks of some numbers of rows.
const MOST: usize = 24;

/// Lists that are remembered until they come again.
const SEEN: usize = 64;

/// Graphs by their lists, the newest used last, and what was seen once.
#[derive(Debug, Default)]
pub(super) struct Graphs {
    kept: Vec<(u64, List, sys::CUgraphExec)>,
    seen: Vec<u64>,
    are_off: bool,
}

fn name(list: &List) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(list)
}

impl Graphs {
    /// Whether the list came before, so that it will come again.
    pub(super) fn wants(&mut self, list: &List) -> bool {
        if self.are_off || list.len() < SHORTEST {
            return false;
        }
        let name = name(list);
        if self.seen.contains(&name) || self.kept.iter().any(|(kept, ..)| *kept == name) {
            return true;
        }
        if self.seen.len() == SEEN {
            self.seen.remove(0);
        }
        self.seen.push(name);
        false
    }

    /// The graph of a list.
    pub(super) fn find(&mut self, list: &List) -> Option<sys::CUgraphExec> {
        let name = name(list);
        let place = self.kept.iter().position(|(kept, same, _)| *kept == name && same == list)?;
        self.kept[place..].rotate_left(1);
        self.kept.last().map(|(.., graph)| *graph)
    }

    /// Keeps the graph of a list, in place of the one that was not used for longest.
    pub(super) fn keep(&mut self, list: &List, graph: sys::CUgraphExec) -> sys::CUgraphExec {
        if self.kept.len() == MOST {
            destroy(self.kept.remove(0).2);
        }
        self.kept.push((name(list), list.clone(), graph));
        graph
    }

    /// Makes no graphs from now on.
    pub(super) fn give_up(&mut self) {
        self.are_off = true;
        self.kept.drain(..).for_each(|(.., graph)| destroy(graph));
    }
}

fn destroy(graph: sys::CUgraphExec) {
    // What fails here has failed before. SAFETY: the graph is in no list any more, and the driver
    // waits until it has run.
    let _ = unsafe { result::graph::exec_destroy(graph) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::driver::Work;

    fn list(len: usize, from: u64) -> List {
        let mut list = List::default();
        (0..len).for_each(|_| list.push(Work::Copy { from, to: 0, bytes: 1 }));
        list
    }

    #[test]
    fn a_list_is_wanted_when_it_comes_again() {
        let mut graphs = Graphs::default();
        let (short, long, other) = (list(SHORTEST - 1, 1), list(SHORTEST, 1), list(SHORTEST, 2));
        assert!(!graphs.wants(&short) && !graphs.wants(&short));
        assert!(!graphs.wants(&long) && !graphs.wants(&other) && graphs.wants(&long));
        for from in 3..3 + SEEN as u64 {
            assert!(!graphs.wants(&list(SHORTEST, from)));
        }
        assert!(!graphs.wants(&long), "it was too long ago");
    }

    #[test]
    fn graphs_are_found_by_their_lists() {
        let mut graphs = Graphs::default();
        let (long, other) = (list(SHORTEST, 1), list(SHORTEST, 2));
        let graph = std::ptr::without_provenance_mut(8);
        assert_eq!(graphs.find(&long), None);
        graphs.keep(&long, graph);
        assert!(graphs.wants(&long));
        assert_eq!((graphs.find(&long), graphs.find(&other)), (Some(graph), None));
        // No driver made it, so none has to destroy it.
        graphs.kept.clear();
    }
}
