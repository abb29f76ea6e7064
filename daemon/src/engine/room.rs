//! Pages for what runs. Pictures that nobody needs at the moment make room, the one that was of use
//! longest ago first.

use std::time::{Duration, Instant};

use kernels::{Device, PAGE};

use super::Engine;
use super::job::Purpose;
use crate::model::PassError;
use crate::model::kv_cache::{OutOfPages, Sequence};

/// How long pages keep their memory without being of use. A burst of questions takes many; giving their memory back
/// and taking it again costs about what writing it once does.
const COLD: Duration = Duration::from_secs(5);

impl<D: Device> Engine<D> {
    /// Gives the memory of pages back to the system that a burst has left.
    pub(super) fn forget_cold_pages(&mut self, now: Instant) {
        if now.duration_since(self.cold_since) < COLD {
            return;
        }
        self.cold_since = now;
        let pages = self.model.forget_cold_pages();
        if pages > 0 {
            tracing::debug!(pages, "pages of the KV cache went back to the system");
        }
    }

    /// Forks `from` and sets pages aside for a prompt and what follows it, so that a job that was
    /// begun never runs out of them. Returns how many tokens can follow, at most `max_tokens`.
    pub(super) fn fork(
        &mut self,
        from: &Sequence,
        prompt: usize,
        max_tokens: u32,
    ) -> Result<(Sequence, u32), PassError> {
        let (held, context) = (from.len() + prompt, self.model.context());
        if held >= context {
            return Err(PassError::ContextFull { wanted: held + 1, context });
        }
        let max_tokens = max_tokens.min((context - held) as u32).max(1);
        let mut sequence = Sequence::default();
        self.model.fork(from, &mut sequence);
        match self.set_aside(&mut sequence, prompt + max_tokens as usize) {
            Ok(()) => Ok((sequence, max_tokens)),
            Err(error) => {
                self.model.release(&mut sequence);
                Err(error.into())
            }
        }
    }

    /// Sets pages aside for `rows` more positions. Pictures that nobody needs make room.
    pub(super) fn set_aside(&mut self, sequence: &mut Sequence, rows: usize) -> Result<(), OutOfPages> {
        loop {
            match self.model.reserve(sequence, rows) {
                Err(_) if self.evict_scene() => {}
                result => return result,
            }
        }
    }

    /// Whether a picture can be taken into the cache, or waiting would not help. What sessions keep and
    /// pictures that nobody needs make room for it.
    pub(super) fn has_room_for_picture(&mut self) -> bool {
        let pages = self.model.visual_tokens().div_ceil(PAGE) + 1;
        loop {
            if self.model.make_room(pages).is_ok() || !self.will_free_pages() {
                return true;
            }
            if !self.evict_scene() {
                return false;
            }
        }
    }

    /// Whether something runs whose pages will come back.
    pub(super) fn will_free_pages(&self) -> bool {
        !self.jobs.is_empty() || self.encoding.is_some()
    }

    /// Gives the picture of a camera up. Returns whether there was one that nobody needs.
    fn evict_scene(&mut self) -> bool {
        let unused = (0..self.cameras.len()).filter_map(|index| Some((self.last_use(index)?, index)));
        let Some((_, index)) = unused.min() else { return false };
        if let Some(mut scene) = self.cameras[index].scene.take() {
            self.model.release(&mut scene.sequence);
        }
        // What was described is no longer there to be asked about: the next frame is.
        self.cameras[index].sight.forget();
        self.scenes_evicted += 1;
        true
    }

    /// When the picture of a camera was of use last, if nobody needs it now.
    fn last_use(&self, camera: usize) -> Option<Instant> {
        let scene = self.cameras[camera].scene.as_ref().filter(|scene| scene.is_captioned)?;
        let is_needed = self.jobs.iter().any(|job| match job.purpose {
            Purpose::Caption { camera: other } | Purpose::Rule { camera: other, .. } => other == camera,
            Purpose::Question(_) => false,
        });
        (!is_needed).then_some(scene.used)
    }
}
