//! Sequences that share a pass on its way through the layers.

use std::ops::Range;
use std::time::{Duration, Instant};

use kernels::{Device, DeviceError};

use super::job::Job;
use super::scheduler::{Room, Share};
use super::unit::{RowTime, STEP, UNIT};
use crate::model::pass::{MAX_PARTS, MAX_ROWS, Pass};
use crate::model::{Logits, MobileVlm, PassError};

/// A pass and whom it carries.
pub(super) struct Batch<D: Device> {
    pass: Pass<D>,
    members: Vec<Member>,
    /// The next layer.
    layer: usize,
    /// Units done.
    units: usize,
    /// Units of the longest pass so far, finished or not.
    longest: usize,
    /// Whether it carries a part of a prompt or of a draft, so that it takes long.
    is_long: bool,
    /// Time spent on all units but the last.
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

impl<D: Device> Batch<D> {
    /// What a pass can hold, so that none of its layers takes too long.
    pub(super) fn room(row_time: RowTime) -> Room {
        let rows = row_time.rows(MAX_ROWS);
        Room { rows, sampled: MobileVlm::<D>::MAX_SAMPLED, sequences: MAX_PARTS }
    }

    /// A batch of nobody.
    pub(super) fn new(model: &MobileVlm<D>) -> Result<Self, DeviceError> {
        Ok(Self {
            pass: model.pass()?,
            members: Vec::with_capacity(MAX_PARTS),
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

    /// Time spent on all units but the last.
    pub(super) fn spent(&self) -> Duration {
        self.spent
    }

    /// Takes everybody out.
    pub(super) fn clear(&mut self, model: &MobileVlm<D>) {
        self.members.clear();
        self.layer = 0;
        self.units = 0;
        self.is_long = false;
        self.spent = Duration::ZERO;
        model.begin(&mut self.pass);
    }

    /// Lets a job bring its share. On error it is not a member.
    pub(super) fn board(
        &mut self,
        model: &mut MobileVlm<D>,
        job: &mut Job,
        share: &Share,
    ) -> Result<(), PassError> {
        let view = job.view();
        let rows = job.place(model, &mut self.pass, share)?;
        self.is_long |= view.is_prompt || share.draft > 0;
        let is_sampled = share.rows == view.rows;
        self.members.push(Member { job: job.id, share: *share, first: 0, rows, is_sampled });
        Ok(())
    }

    /// Takes a job out before the pass is over.
    pub(super) fn withdraw(&mut self, model: &mut MobileVlm<D>, job: u64) {
        let Some(index) = self.members.iter().position(|member| member.job == job) else { return };
        let Member { rows, .. } = self.members.remove(index);
        for later in &mut self.members[index..] {
            later.rows = later.rows.start - rows.len()..later.rows.end - rows.len();
        }
        if self.members.is_empty() {
            self.clear(model);
        } else {
            model.withdraw(&mut self.pass, rows);
        }
    }

    /// Does one unit of work. Returns whether all layers are done.
    pub(super) fn step(&mut self, model: &mut MobileVlm<D>, row_time: &mut RowTime) -> bool {
        let limit = if self.is_long { UNIT } else { STEP };
        self.units += 1;
        self.longest = self.longest.max(self.units);
        let start = Instant::now();
        let mut last = start;
        while self.layer < model.layers() {
            model.pass_layer(&mut self.pass, self.layer);
            self.layer += 1;
            let now = Instant::now();
            row_time.see(self.pass.rows(), now - last);
            // The next layer will take as long as this one.
            if now + (now - last) > start + limit && self.layer < model.layers() {
                self.spent += now - start;
                return false;
            }
            last = now;
        }
        true
    }

    /// The members of the finished pass and the logits after their rows, each member's from its
    /// `first` on; none if all of them are in the middle of their prompts.
    pub(super) fn finish<'a>(
        &'a mut self,
        model: &'a mut MobileVlm<D>,
    ) -> (&'a [Member], Option<Logits<'a, D>>) {
        self.sampled.clear();
        for member in self.members.iter_mut().filter(|member| member.is_sampled) {
            member.first = self.sampled.len();
            self.sampled.extend(member.rows.end - 1 - member.share.draft..member.rows.end);
        }
        let logits = (!self.sampled.is_empty()).then(|| model.logits_of(&self.pass, &self.sampled));
        (&self.members, logits)
    }
}
