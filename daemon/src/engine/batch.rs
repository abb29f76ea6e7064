//! Sequences that share a pass on its way through the layers.
//!
//! First they board it, then it goes through the layers, then they hear what follows, a few at a time.
//! Between any two of these pieces it can wait.

use std::collections::VecDeque;
use std::collections::vec_deque::Drain;
use std::ops::Range;
use std::time::Duration;

use kernels::{Device, DeviceError};

use super::job::Job;
use super::kind::Kind;
use super::scheduler::{Lane, Room, Share};
use super::unit::{Clock, Pace, STEP, UNIT};
use crate::model::pass::{MAX_PARTS, MAX_ROWS, Pass};
use crate::model::{Logits, MobileVlm, PassError};

/// Rows whose logits are computed together, unless one member has more: they take little longer than
/// those of one row.
const HEARD_TOGETHER: usize = 8;

/// A pass and whom it carries.
pub(super) struct Batch<D: Device> {
    pass: Pass<D>,
    /// Who has not boarded yet.
    invited: VecDeque<(u64, Share)>,
    /// Who has boarded and not heard what follows.
    members: VecDeque<Member>,
    /// The next layer.
    layer: usize,
    /// Units done.
    units: usize,
    /// Units of the longest pass so far, finished or not.
    longest: usize,
    /// Whether it carries a part of a prompt or of a draft, so that it takes long.
    is_long: bool,
    /// Time spent on all units so far.
    spent: Duration,
    /// Rows whose logits are wanted.
    sampled: Vec<usize>,
}

/// One sequence in a pass.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// The job.
    pub(super) job: u64,
    /// What it brought.
    pub(super) share: Share,
    /// The first of its rows of logits.
    pub(super) first: usize,
    /// Its rows of the pass.
    rows: Range<usize>,
    /// Whether its prompt is complete, so that something is made of its logits.
    pub(super) is_sampled: bool,
}

/// A job that cannot board.
pub(super) struct Refusal {
    /// Its number.
    pub(super) job: u64,
    /// Why.
    pub(super) error: PassError,
}

/// How far a pass came in a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// Not through all layers; the unit was of this kind.
    Midway(Kind),
    /// Its members can hear what follows. Whether the unit did layers.
    End {
        /// Whether the unit did layers.
        after_layers: bool,
    },
}

impl<D: Device> Batch<D> {
    /// What a pass can hold, so that none of its layers takes too long, its rows being as much work as
    /// `work` that see no other positions.
    pub(super) fn room(pace: Pace, work: f64) -> Room {
        let rows = pace.rows(work, MAX_ROWS);
        Room { rows, sampled: MobileVlm::<D>::MAX_SAMPLED, sequences: MAX_PARTS }
    }

    /// A batch of nobody.
    pub(super) fn new(model: &MobileVlm<D>) -> Result<Self, DeviceError> {
        Ok(Self {
            pass: model.pass()?,
            invited: VecDeque::with_capacity(MAX_PARTS),
            members: VecDeque::with_capacity(MAX_PARTS),
            layer: 0,
            units: 0,
            longest: 0,
            is_long: false,
            spent: Duration::ZERO,
            sampled: Vec::with_capacity(MobileVlm::<D>::MAX_SAMPLED),
        })
    }

    /// Rows of the pass.
    pub(super) fn rows(&self) -> usize {
        self.pass.rows()
    }

    /// Whether it carries a part of a prompt or of a draft.
    pub(super) fn is_long(&self) -> bool {
        self.is_long
    }

    /// Units of the longest pass so far, finished or not.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// Whether everybody has heard what follows.
    pub(super) fn is_over(&self) -> bool {
        self.invited.is_empty() && self.members.is_empty()
    }

    /// How long a unit of it may be.
    pub(super) fn limit(&self) -> Duration {
        if self.is_long { UNIT } else { STEP }
    }

    /// Adds the time of a unit; returns that of all so far.
    pub(super) fn spend(&mut self, time: Duration) -> Duration {
        self.spent += time;
        self.units += 1;
        self.longest = self.longest.max(self.units);
        self.spent
    }

    /// Takes everybody out.
    pub(super) fn clear(&mut self, model: &MobileVlm<D>) {
        self.invited.clear();
        self.members.clear();
        self.layer = 0;
        self.units = 0;
        self.is_long = false;
        self.spent = Duration::ZERO;
        model.begin(&mut self.pass);
    }

    /// Lets a job board before the layers begin.
    pub(super) fn invite(&mut self, job: &mut Job, lane: Lane, share: &Share) {
        self.is_long |= job.is_prompt() || share.draft > 0;
        job.join(lane);
        self.invited.push_back((job.id, *share));
    }

    /// Takes a job out before the pass is over.
    pub(super) fn withdraw(&mut self, model: &mut MobileVlm<D>, job: u64) {
        self.invited.retain(|(invited, _)| *invited != job);
        let member = self.members.iter().position(|member| member.job == job);
        let rows = member.and_then(|index| {
            let Member { rows, .. } = self.members.remove(index)?;
            for later in self.members.range_mut(index..) {
                later.rows = later.rows.start - rows.len()..later.rows.end - rows.len();
            }
            Some(rows)
        });
        if self.is_over() {
            self.clear(model);
        } else if let Some(rows) = rows {
            model.withdraw(&mut self.pass, rows);
        }
    }

    /// Lets members board and takes them through the layers, as far as they get in a unit.
    pub(super) fn step(
        &mut self,
        model: &mut MobileVlm<D>,
        jobs: &mut [Job],
        pace: &mut Pace,
        clock: &mut Clock,
    ) -> Result<Reached, Refusal> {
        let mut piece = Duration::ZERO;
        while let Some((job, share)) = self.invited.pop_front() {
            if !clock.allows(piece, UNIT) {
                self.invited.push_front((job, share));
                return Ok(Reached::Midway(Kind::Board));
            }
            if let Some(job) = jobs.iter_mut().find(|other| other.id == job) {
                self.board(model, job, share)?;
            }
            piece = clock.piece();
        }
        let work = model.pass_work(&self.pass);
        let (first, mut piece) = (self.layer, pace.layer(work));
        while self.layer < model.layers() {
            if !clock.allows(piece, self.limit()) {
                let kind = if self.layer > first { Kind::Layers } else { Kind::Board };
                return Ok(Reached::Midway(kind));
            }
            model.pass_layer(&mut self.pass, self.layer);
            self.layer += 1;
            // The next layer will take as long as this one.
            piece = clock.piece();
            pace.see_layer(self.pass.rows(), work, piece);
        }
        Ok(Reached::End { after_layers: self.layer > first })
    }

    fn board(&mut self, model: &mut MobileVlm<D>, job: &mut Job, share: Share) -> Result<(), Refusal> {
        let is_sampled = share.rows == job.view().rows;
        let rows =
            job.place(model, &mut self.pass, &share).map_err(|error| Refusal { job: job.id, error })?;
        self.members.push_back(Member { job: job.id, share, first: 0, rows, is_sampled });
        Ok(())
    }

    /// The next members of a pass that went through all layers, and the logits after their rows, each
    /// member's from its `first` on; none if all of them are in the middle of their prompts.
    pub(super) fn hear<'a>(
        &'a mut self,
        model: &'a mut MobileVlm<D>,
    ) -> (Drain<'a, Member>, Option<Logits<'a, D>>) {
        self.sampled.clear();
        let mut count = 0;
        for member in &mut self.members {
            let rows = if member.is_sampled { 1 + member.share.draft } else { 0 };
            if count > 0 && self.sampled.len() + rows > HEARD_TOGETHER {
                break;
            }
            member.first = self.sampled.len();
            self.sampled.extend(member.rows.end - rows..member.rows.end);
            count += 1;
        }
        let logits = (!self.sampled.is_empty()).then(|| model.logits_of(&self.pass, &self.sampled));
        (self.members.drain(..count), logits)
    }
}
