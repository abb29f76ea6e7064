//! One text in the making: a prompt behind a picture, then tokens until the end.

use std::time::{Duration, Instant};

use kernels::Device;
use messages::{FrameStamp, Timings, TokenCounts};

use super::progress::millis;
use crate::model::kv_cache::Sequence;
use crate::model::pass::Pass;
use crate::model::sampler::Sampler;
use crate::model::speech::{Heard, Speech};
use crate::model::{Input, MobileVlm, PassError};

/// Layers are added to a unit of work until it has lasted this long: one layer at 1.7B on two
/// cores, the whole model where it is small.
pub(super) const UNIT: Duration = Duration::from_millis(8);

/// A text in the making.
pub(super) struct Job {
    /// The frame it is about.
    pub(super) stamp: FrameStamp,
    /// When that was captured.
    pub(super) captured: Instant,
    /// Tokens in and out.
    pub(super) tokens: TokenCounts,
    /// Where the time went.
    pub(super) timings: Timings,
    sequence: Sequence,
    tail: Vec<u32>,
    stage: Stage,
    sampler: Sampler,
    speech: Speech,
    max_tokens: u32,
}

/// How far a job is.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The prompt from position `done` is next.
    Prompt { done: usize },
    /// `layer` is next for prompt positions up to `end`.
    Layer { end: usize, layer: usize },
    /// This token is next.
    Token(u32),
}

/// What a unit led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More units are needed.
    More,
    /// The text is complete.
    Finished {
        /// Whether the token limit cut it short.
        truncated: bool,
    },
}

/// What a job is made of.
pub(super) struct Plan {
    /// The frame it is about.
    pub(super) stamp: FrameStamp,
    /// When that was captured.
    pub(super) captured: Instant,
    /// Time spent before the prompt.
    pub(super) timings: Timings,
    /// A fork of the frame's positions.
    pub(super) sequence: Sequence,
    /// The prompt behind the picture.
    pub(super) tail: Vec<u32>,
    /// How tokens are chosen.
    pub(super) sampler: Sampler,
    /// How tokens become text.
    pub(super) speech: Speech,
    /// Tokens at most.
    pub(super) max_tokens: u32,
}

impl Job {
    pub(super) fn new(plan: Plan) -> Self {
        let Plan { stamp, captured, timings, sequence, tail, sampler, speech, max_tokens } = plan;
        let cached = sequence.len() as u32;
        let tokens = TokenCounts { prompt: cached + tail.len() as u32, cached, generated: 0 };
        let stage = Stage::Prompt { done: 0 };
        Self { stamp, captured, tokens, timings, sequence, tail, stage, sampler, speech, max_tokens }
    }

    /// Whether its pass is between two layers.
    pub(super) fn is_between_layers(&self) -> bool {
        matches!(self.stage, Stage::Layer { .. })
    }

    /// The text so far.
    pub(super) fn text(&self) -> &str {
        self.speech.text()
    }

    /// Text that was not taken yet.
    pub(super) fn take_piece(&mut self) -> Option<String> {
        self.speech.take_piece()
    }

    /// Gives the pages back.
    pub(super) fn release<D: Device>(mut self, model: &mut MobileVlm<D>) {
        model.release(&mut self.sequence);
    }

    /// Does one unit of work. On error the job must be released.
    pub(super) fn step<D: Device>(
        &mut self,
        model: &mut MobileVlm<D>,
        pass: &mut Pass<D>,
    ) -> Result<Step, PassError> {
        let start = Instant::now();
        match self.stage {
            Stage::Prompt { done } => {
                let end = self.tail.len().min(done + MobileVlm::<D>::MAX_ROWS);
                model.begin_pass(pass, &mut self.sequence, Input::Tokens(&self.tail[done..end]))?;
                self.stage = Stage::Layer { end, layer: 0 };
                let step = self.layers(model, pass, start);
                self.timings.prefill_ms += millis(start.elapsed());
                Ok(step)
            }
            Stage::Layer { .. } => {
                let step = self.layers(model, pass, start);
                self.timings.prefill_ms += millis(start.elapsed());
                Ok(step)
            }
            Stage::Token(id) => {
                model.forward(pass, &mut self.sequence, Input::Tokens(&[id]))?;
                let step = self.choose(model, pass);
                self.timings.decode_ms += millis(start.elapsed());
                Ok(step)
            }
        }
    }

    /// Runs layers of the prompt until the unit is full.
    fn layers<D: Device>(&mut self, model: &mut MobileVlm<D>, pass: &mut Pass<D>, start: Instant) -> Step {
        let Stage::Layer { end, ref mut layer } = self.stage else { return Step::More };
        while *layer < model.layers() {
            model.pass_layer(pass, *layer);
            *layer += 1;
            if *layer < model.layers() && start.elapsed() >= UNIT {
                return Step::More;
            }
        }
        if end < self.tail.len() {
            self.stage = Stage::Prompt { done: end };
            return Step::More;
        }
        self.choose(model, pass)
    }

    /// Chooses the next token from the logits of the finished pass.
    fn choose<D: Device>(&mut self, model: &mut MobileVlm<D>, pass: &Pass<D>) -> Step {
        let id = self.sampler.sample(model.logits(pass));
        if self.speech.hear(id) == Heard::End {
            return Step::Finished { truncated: false };
        }
        self.tokens.generated += 1;
        if self.tokens.generated >= self.max_tokens {
            self.speech.finish();
            return Step::Finished { truncated: true };
        }
        self.stage = Stage::Token(id);
        Step::More
    }
}
