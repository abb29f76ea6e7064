//! One text in the making: a prompt behind a picture, then tokens until the end.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernels::Device;
use messages::{DraftStatus, FrameStamp, Timings, TokenCounts};

use super::draft::Drafter;
use super::progress::millis;
use super::scheduler::{Class, JobView, Lane, Share};
use crate::model::constraint::{ConstraintError, Guided, Next};
use crate::model::kv_cache::{Mark, Sequence};
use crate::model::pass::Pass;
use crate::model::sampler::Sampler;
use crate::model::speech::{Heard, Speech};
use crate::model::yes_no::{Verdict, YesNo};
use crate::model::{Input, Logits, MobileVlm, PassError};

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The answer to the question of this number.
    Question(u64),
    /// A verdict on a camera's picture.
    Rule {
        /// Index of the camera.
        camera: usize,
        /// Number of the rule.
        rule: u64,
    },
    /// The description of a camera's picture.
    Caption {
        /// Index of the camera.
        camera: usize,
    },
}

impl Purpose {
    /// Its place in the order of turns.
    pub(super) fn class(self) -> Class {
        match self {
            Self::Question(_) => Class::Question,
            Self::Rule { .. } => Class::Rule,
            Self::Caption { .. } => Class::Caption,
        }
    }
}

/// What is made of the logits after the prompt.
pub(super) enum Ear {
    /// Text, token after token.
    Text(Box<Writer>),
    /// Yes or no, from the distribution of the first token; nothing is generated.
    Verdict(Arc<YesNo>),
}

/// Chooses tokens and turns them into text.
pub(super) struct Writer {
    /// How tokens are chosen.
    pub(super) sampler: Sampler,
    /// How tokens become text.
    pub(super) speech: Speech,
    /// Tokens at most.
    pub(super) max_tokens: u32,
    /// The form of the text, if it must have one.
    pub(super) guided: Option<Guided>,
    /// What foretells the text, if anything does.
    pub(super) drafter: Option<Drafter>,
}

/// What came of the logits of one row.
enum Written {
    /// A token, and more to follow.
    More(u32),
    /// The last token.
    Last(u32, Outcome),
    /// The text had ended before.
    Over(Outcome),
    /// What may follow is not known yet.
    Unknown,
}

impl Writer {
    /// Chooses the next token after `generated` others.
    fn write(&mut self, logits: &[f32], generated: &mut u32) -> Written {
        let id = match &mut self.guided {
            Some(guided) => match choose_guided(&mut self.sampler, guided, logits) {
                Ok(Some(id)) => id,
                Ok(None) => return Written::Unknown,
                Err(outcome) => {
                    self.speech.finish();
                    return Written::Over(outcome);
                }
            },
            None => self.sampler.sample(logits),
        };
        let heard = self.speech.hear(id);
        if id == self.speech.eos() {
            return Written::Over(Outcome::Text { truncated: false });
        }
        *generated += 1;
        if heard == Heard::End {
            // A stop text may come before the text has its form.
            return Written::Last(id, Outcome::Text { truncated: self.guided.is_some() });
        }
        if let Some(guided) = &mut self.guided {
            guided.advance(id);
            if guided.is_complete() {
                self.speech.finish();
                return Written::Last(id, Outcome::Text { truncated: false });
            }
        }
        if *generated >= self.max_tokens {
            self.speech.finish();
            return Written::Last(id, Outcome::Text { truncated: true });
        }
        Written::More(id)
    }
}

/// Chooses among what may follow, if that is known.
fn choose_guided(sampler: &mut Sampler, guided: &mut Guided, logits: &[f32]) -> Result<Option<u32>, Outcome> {
    match guided.following().map_err(Outcome::Formless)? {
        None => Ok(None),
        Some(Next::Tokens(mask)) => match sampler.sample_masked(logits, mask) {
            Some(id) => Ok(Some(id)),
            None => Err(Outcome::Text { truncated: true }),
        },
        Some(Next::Nothing) => Err(Outcome::Text { truncated: false }),
    }
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// The text is complete.
    Text {
        /// Whether the token limit cut it short.
        truncated: bool,
    },
    /// What the logits after the prompt say.
    Verdict(Verdict),
    /// The form of the text cannot be followed any further.
    Formless(ConstraintError),
}

/// What a job is made of.
pub(super) struct Plan {
    /// What it is for.
    pub(super) purpose: Purpose,
    /// The frame it is about.
    pub(super) stamp: FrameStamp,
    /// When that was captured.
    pub(super) captured: Instant,
    /// Time spent before the prompt.
    pub(super) timings: Timings,
    /// From this time on it takes turns with questions.
    pub(super) owed_at: Option<Instant>,
    /// Its first place among its class.
    pub(super) turn: Instant,
    /// The prompt behind the positions it begins with.
    pub(super) prompt: Vec<u32>,
    /// What is made of the logits.
    pub(super) ear: Ear,
}

/// A text in the making.
pub(super) struct Job {
    /// Names it for as long as it runs.
    pub(super) id: u64,
    /// What it is for.
    pub(super) purpose: Purpose,
    /// The frame it is about.
    pub(super) stamp: FrameStamp,
    /// When that was captured.
    pub(super) captured: Instant,
    /// Tokens in and out.
    pub(super) tokens: TokenCounts,
    /// Where the time went.
    pub(super) timings: Timings,
    /// The pass that carries it.
    pub(super) lane: Option<Lane>,
    /// Pieces of text handed out.
    pub(super) pieces: u32,
    /// Units that the engine had done when it was begun, until its first pass.
    pub(super) waits_since: Option<u64>,
    /// How its drafts went; its tokens are counted in [`Job::tokens`].
    pub(super) drafts: DraftStatus,
    /// Positions so far, those of the pass under way included.
    sequence: Sequence,
    /// Positions it began with.
    begun: usize,
    /// Prompt, tokens chosen, and behind them the draft: a guess at what follows.
    ids: Vec<u32>,
    /// Of these, the prompt.
    prompt: usize,
    /// Of these, all but the draft.
    known: usize,
    /// Of these, those whose positions are complete.
    placed: usize,
    /// Whether the pass that carries it has rows of the prompt.
    is_reading: bool,
    owed_at: Option<Instant>,
    turn: Instant,
    ear: Ear,
}

impl Job {
    /// A job on `sequence`, which holds what comes before the prompt.
    pub(super) fn new(id: u64, sequence: Sequence, plan: Plan) -> Self {
        let Plan { purpose, stamp, captured, timings, owed_at, turn, prompt: mut ids, ear } = plan;
        let (begun, prompt) = (sequence.len(), ids.len());
        if let Ear::Text(writer) = &ear {
            // Room for all that will be chosen, so that decoding does not allocate.
            ids.reserve(writer.max_tokens as usize);
        }
        let tokens = TokenCounts { prompt: (begun + prompt) as u32, cached: begun as u32, generated: 0 };
        let mut job = Self {
            id,
            purpose,
            stamp,
            captured,
            tokens,
            timings,
            lane: None,
            pieces: 0,
            waits_since: None,
            drafts: DraftStatus::default(),
            sequence,
            begun,
            known: prompt,
            placed: 0,
            ids,
            prompt,
            is_reading: false,
            owed_at,
            turn,
            ear,
        };
        job.draft();
        job
    }

    /// What the scheduler needs to know.
    pub(super) fn view(&self) -> JobView {
        JobView {
            class: self.purpose.class(),
            turn: self.turn,
            owed_at: self.owed_at,
            rows: self.known - self.placed,
            is_prompt: self.is_prompt(),
            draft: self.ids.len() - self.known,
            lane: self.lane,
        }
    }

    /// Whether its prompt is not complete.
    pub(super) fn is_prompt(&self) -> bool {
        self.placed < self.prompt
    }

    /// Positions it has when all that is known of it is computed.
    pub(super) fn positions(&self) -> usize {
        self.begun + self.known
    }

    /// The prompt, and the tokens chosen so far.
    pub(super) fn ids(&self) -> (&[u32], &[u32]) {
        self.ids[..self.known].split_at(self.prompt)
    }

    /// The text so far.
    pub(super) fn text(&self) -> &str {
        match &self.ear {
            Ear::Text(writer) => writer.speech.text(),
            Ear::Verdict(_) => "",
        }
    }

    /// Text that was not taken yet.
    pub(super) fn take_piece(&mut self) -> Option<String> {
        match &mut self.ear {
            Ear::Text(writer) => writer.speech.take_piece(),
            Ear::Verdict(_) => None,
        }
    }

    /// Takes note that it shares the next pass in `lane`.
    pub(super) fn join(&mut self, lane: Lane) {
        self.lane = Some(lane);
        self.is_reading = self.is_prompt();
    }

    /// Places its share of a pass. Returns the rows of the pass it takes. On error nothing has
    /// changed.
    pub(super) fn place<D: Device>(
        &mut self,
        model: &mut MobileVlm<D>,
        pass: &mut Pass<D>,
        share: &Share,
    ) -> Result<Range<usize>, PassError> {
        let ids = &self.ids[self.placed..self.placed + share.rows + share.draft];
        model.push(pass, &mut self.sequence, Input::Tokens(ids))
    }

    /// Adds the time of a unit of its pass.
    pub(super) fn spend(&mut self, time: Duration) {
        let Timings { prefill_ms, decode_ms, .. } = &mut self.timings;
        *(if self.is_reading { prefill_ms } else { decode_ms }) += millis(time);
    }

    /// Takes note that the first `rows` of its share are complete.
    pub(super) fn advance(&mut self, rows: usize) {
        self.placed += rows;
    }

    /// Takes note that its `share` is complete and chooses tokens from the `logits` from row `first`
    /// on: one, and one more for each token of the draft that was right. Returns how the job ended,
    /// if it did.
    pub(super) fn hear<D: Device>(
        &mut self,
        share: &Share,
        logits: &mut Logits<'_, D>,
        first: usize,
    ) -> Option<Outcome> {
        self.placed += share.rows;
        let mut right = 0;
        let outcome = loop {
            let row = logits.row(first + right);
            let written = match &mut self.ear {
                Ear::Verdict(judge) => return Some(Outcome::Verdict(judge.read(row))),
                Ear::Text(writer) => writer.write(row, &mut self.tokens.generated),
            };
            let (id, outcome) = match written {
                Written::More(id) => (id, None),
                Written::Last(id, outcome) => (id, Some(outcome)),
                Written::Over(outcome) => break Some(outcome),
                Written::Unknown => {
                    // The last row is computed again, in the next pass: it waits, and nobody else does.
                    self.placed -= 1;
                    return None;
                }
            };
            let was_guessed = self.hold(id);
            if outcome.is_some() || !was_guessed || right == share.draft {
                break outcome;
            }
            right += 1;
            self.placed += 1;
        };
        self.note_pass(share.draft, right);
        outcome
    }

    /// Adds a chosen token. Returns whether the draft had it; if not, the draft is gone.
    fn hold(&mut self, id: u32) -> bool {
        let was_guessed = self.ids.get(self.known) == Some(&id);
        if !was_guessed {
            self.ids.truncate(self.known);
            self.ids.push(id);
        }
        self.known += 1;
        if let Ear::Text(writer) = &mut self.ear
            && let Some(drafter) = &mut writer.drafter
        {
            drafter.follow(id);
        }
        was_guessed
    }

    /// Takes note of a pass that checked `proposed` tokens of the draft, `right` of them right, and
    /// drafts on.
    fn note_pass(&mut self, proposed: usize, right: usize) {
        self.drafts.proposed += proposed as u64;
        self.drafts.accepted += right as u64;
        self.drafts.passes += 1;
        if let Ear::Text(writer) = &mut self.ear
            && let Some(drafter) = &mut writer.drafter
        {
            drafter.note(proposed, right);
            self.draft();
        }
    }

    /// Takes the draft from what foretells the text.
    fn draft(&mut self) {
        if let Ear::Text(writer) = &self.ear
            && let Some(drafter) = &writer.drafter
        {
            self.ids.truncate(self.known);
            // The last token is chosen, but never computed.
            let left = writer.max_tokens.saturating_sub(self.tokens.generated + 1);
            drafter.propose(left as usize, &mut self.ids);
        }
    }

    /// What foretold the text.
    pub(super) fn drafter(&self) -> Option<&Drafter> {
        match &self.ear {
            Ear::Text(writer) => writer.drafter.as_ref(),
            Ear::Verdict(_) => None,
        }
    }

    /// Whether the same logits always give the same text.
    pub(super) fn is_plain(&self) -> bool {
        matches!(&self.ear, Ear::Text(writer) if writer.guided.is_none() && writer.sampler.is_greedy())
    }

    /// Forgets the positions of a pass that were not completed or not right, and leaves the pass.
    pub(super) fn leave<D: Device>(&mut self, model: &mut MobileVlm<D>, now: Instant) {
        model.rewind(&mut self.sequence, Mark::at(self.begun + self.placed));
        self.lane = None;
        // A question keeps its place: its deadline.
        if self.purpose.class() != Class::Question {
            self.turn = now;
        }
    }

    /// Its complete positions; it must not be in a pass and is of no use afterwards.
    pub(super) fn take_sequence(&mut self) -> Sequence {
        std::mem::take(&mut self.sequence)
    }

    /// Gives the pages back. It must not be in a pass.
    pub(super) fn release<D: Device>(mut self, model: &mut MobileVlm<D>) {
        model.release(&mut self.sequence);
    }
}
