//! Frames that are used again once nobody looks at them, so that capturing does not allocate.

use std::sync::Arc;

use super::frame::Frame;

/// Frames kept for reuse: one being filled, one in the slot, those that are held for the pictures of
/// captions, and a few that the engine and the snapshots hold.
const KEPT: usize = 10;

/// Recently published frames.
#[derive(Debug)]
pub(super) struct Pool {
    frames: Vec<Arc<Frame>>,
}

impl Pool {
    pub(super) fn new() -> Self {
        Self { frames: Vec::with_capacity(KEPT + 1) }
    }

    /// A frame that nobody else holds: one that was let go, or a new one.
    pub(super) fn take(&mut self) -> Arc<Frame> {
        match self.frames.iter_mut().position(|frame| Arc::get_mut(frame).is_some()) {
            Some(free) => self.frames.remove(free),
            None => Arc::new(Frame::empty()),
        }
    }

    /// Takes back a frame, whoever else still holds it. The oldest is forgotten when there are
    /// too many.
    pub(super) fn give(&mut self, frame: Arc<Frame>) {
        if self.frames.len() == KEPT {
            self.frames.remove(0);
        }
        self.frames.push(frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_reused_only_after_everyone_let_go() {
        let mut pool = Pool::new();
        let first = pool.take();
        let held = first.clone();
        pool.give(first);
        let second = pool.take();
        assert!(!Arc::ptr_eq(&held, &second));
        pool.give(second);
        let address = Arc::as_ptr(&held);
        drop(held);
        assert_eq!(Arc::as_ptr(&pool.take()), address);
    }

    #[test]
    fn readers_who_never_let_go_do_not_make_it_grow() {
        let mut pool = Pool::new();
        let held: Vec<_> = (0..100)
            .map(|_| {
                let frame = pool.take();
                pool.give(frame.clone());
                frame
            })
            .collect();
        assert_eq!(pool.frames.len(), KEPT);
        assert!(held.iter().all(|frame| Arc::strong_count(frame) <= 2));
    }
}
