//! Passes and the jobs they carry, from the first share to the result.

use std::time::{Duration, Instant};

use kernels::Device;

use super::Engine;
use super::batch::{Reached, Refusal};
use super::job::{Job, Outcome, Plan, Purpose};
use super::kind::Kind;
use super::progress::Waits;
use super::question::{ask_error, constraint_error};
use super::rules::Answer;
use super::scheduler::{Lane, patience};
use super::unit::Clock;
use crate::model::PassError;
use crate::model::kv_cache::Sequence;

impl<D: Device> Engine<D> {
    /// Begins a pass with those whom the scheduler named, and does its first unit.
    pub(super) fn begin_batch(&mut self, lane: Lane) -> Kind {
        let batch = &mut self.batches[lane as usize];
        batch.clear(&self.model);
        let units = self.progress.ticks();
        let mut waited = None;
        for share in &self.views.shares {
            let job = &mut self.jobs[share.job];
            batch.invite(job, lane, share);
            waited = waited.max(job.waits_since.take().map(|since| units - since));
        }
        if let Some(waited) = waited {
            let promised = patience(batch.longest()) as u64;
            self.progress.update(|report| {
                report.waits = Waits { most: report.waits.most.max(waited), promised };
            });
        }
        self.step_batch(lane)
    }

    /// Does one unit of a pass. Those whose turn it is to hear what follows get their next tokens.
    pub(super) fn step_batch(&mut self, lane: Lane) -> Kind {
        let mut clock = Clock::start();
        let batch = &mut self.batches[lane as usize];
        let reached = match batch.step(&mut self.model, &mut self.jobs, &mut self.pace, &mut clock) {
            Ok(reached) => reached,
            Err(Refusal { job, error }) => {
                // Pages were set aside, so this is the exception; whoever is left goes on next round.
                self.fail_job(job, error);
                return Kind::Board;
            }
        };
        if matches!(reached, Reached::End { .. }) {
            self.hear_batch(lane, &mut clock);
        }
        let (spent, batch) = (clock.spent(), &mut self.batches[lane as usize]);
        let all = batch.spend(spent);
        self.jobs.iter_mut().filter(|job| job.lane == Some(lane)).for_each(|job| job.spend(spent));
        if batch.is_over() {
            self.end_pass(lane, all);
        }
        match reached {
            Reached::Midway(kind) => kind,
            Reached::End { after_layers } => {
                self.speak();
                self.conclude_ended();
                if after_layers { Kind::Layers } else { Kind::Logits }
            }
        }
    }

    /// Lets members of a pass that is through hear what follows, and leave: a few at a time until the
    /// unit is full.
    fn hear_batch(&mut self, lane: Lane, clock: &mut Clock) {
        let limit = self.batches[lane as usize].limit();
        while !self.batches[lane as usize].is_over() && clock.allows(self.pace.finish(), limit) {
            self.hear_few(lane, clock);
        }
    }

    fn hear_few(&mut self, lane: Lane, clock: &mut Clock) {
        self.heard.clear();
        let (members, mut logits) = self.batches[lane as usize].hear(&mut self.model);
        for member in members {
            let Some(index) = self.jobs.iter().position(|job| job.id == member.job) else { continue };
            let job = &mut self.jobs[index];
            match &mut logits {
                Some(logits) if member.is_sampled => {
                    let outcome = job.hear(&member.share, logits, member.first);
                    self.ended.extend(outcome.map(|outcome| (job.id, outcome)));
                }
                _ => job.advance(member.share.rows),
            }
            self.heard.push(index);
        }
        self.pace.see_finish(clock.piece());
        for index in self.heard.drain(..) {
            let job = &mut self.jobs[index];
            job.spend(clock.spent());
            job.leave(&mut self.model, clock.now());
        }
    }

    /// Counts a finished pass, which took `time`.
    fn end_pass(&mut self, lane: Lane, time: Duration) {
        let batch = &mut self.batches[lane as usize];
        let (rows, is_long) = (batch.rows() as u64, batch.is_long());
        batch.clear(&self.model);
        self.progress.update(|report| {
            report.engine.passes += 1;
            report.engine.rows += rows;
        });
        self.progress.time(|stages| {
            if is_long { &mut stages.prefill } else { &mut stages.decode }.add(time);
        });
    }

    /// Hands out new text.
    fn speak(&mut self) {
        for index in 0..self.jobs.len() {
            match self.jobs[index].purpose {
                Purpose::Question(number) => self.send_answer_piece(index, number),
                Purpose::Caption { .. } => self.send_caption_piece(index),
                Purpose::Rule { .. } => {}
            }
        }
    }

    /// Takes what ended where it belongs.
    fn conclude_ended(&mut self) {
        let mut ended = std::mem::take(&mut self.ended);
        for (job, outcome) in ended.drain(..) {
            self.conclude(job, outcome);
        }
        self.ended = ended;
    }

    /// A job came to its end: its pages go back, then its result goes where it belongs.
    fn conclude(&mut self, job: u64, outcome: Outcome) {
        let Some(mut job) = self.take_job(job) else { return };
        match (job.purpose, outcome) {
            (Purpose::Question(number), Outcome::Text { truncated }) => {
                self.learn_answer(number, &job);
                self.keep_turn(number, &mut job);
                let answer = self.answer(number, &job, truncated);
                self.close(job);
                self.end_question(number, Ok(answer));
            }
            (Purpose::Question(number), Outcome::Formless(error)) => {
                self.close(job);
                self.end_question(number, Err(constraint_error(&error)));
            }
            (Purpose::Caption { camera }, Outcome::Text { truncated }) => {
                self.learn_caption(camera, &job);
                let (caption, captured) = (self.caption(camera, &job, truncated), job.captured);
                self.close(job);
                self.publish_caption(camera, caption, captured);
            }
            (Purpose::Rule { camera, rule }, Outcome::Verdict(verdict)) => {
                let answer = Answer::new(verdict, &job);
                self.close(job);
                self.judge(camera, rule, answer);
            }
            (purpose, outcome) => {
                tracing::debug!(?purpose, ?outcome, "nobody waits for this");
                self.close(job);
            }
        }
    }

    /// A job cannot go on.
    fn fail_job(&mut self, job: u64, error: PassError) {
        let Some(job) = self.take_job(job) else { return };
        let purpose = job.purpose;
        self.close(job);
        match purpose {
            Purpose::Question(number) => {
                self.end_question(number, Err(ask_error(error, self.progress.admission())))
            }
            Purpose::Caption { camera } => self.fail_caption(camera, error),
            Purpose::Rule { .. } => self.fail_rule(purpose, error),
        }
    }

    /// Takes a job out of the list and out of its pass.
    pub(super) fn take_job(&mut self, id: u64) -> Option<Job> {
        let index = self.jobs.iter().position(|job| job.id == id)?;
        let mut job = self.jobs.remove(index);
        if let Some(lane) = job.lane {
            self.batches[lane as usize].withdraw(&mut self.model, id);
            job.leave(&mut self.model, Instant::now());
        }
        Some(job)
    }

    /// Begins a job on a sequence that [`Engine::fork`] gave.
    pub(super) fn start(&mut self, sequence: Sequence, plan: Plan) -> u64 {
        self.jobs_seen += 1;
        let mut job = Job::new(self.jobs_seen, sequence, plan);
        job.waits_since = matches!(job.purpose, Purpose::Question(_)).then(|| self.progress.ticks());
        self.jobs.push(job);
        let jobs = self.jobs.len() as u32;
        self.progress.update(|report| report.engine.jobs = jobs);
        self.jobs_seen
    }

    /// Counts a finished job and gives its pages back.
    pub(super) fn close(&mut self, job: Job) {
        let (tokens, timings, drafts) = (job.tokens, job.timings, job.drafts);
        let jobs = self.jobs.len() as u32;
        job.release(&mut self.model);
        let pages_used = self.model.cache().pages_used() as u32;
        let evicted = self.scenes_evicted + self.model.prefixes().evictions();
        let per_second = |tokens: u32, ms: f32| if ms > 0.0 { tokens as f32 * 1000.0 / ms } else { 0.0 };
        self.progress.update(|report| {
            let computed = tokens.prompt - tokens.cached;
            report.engine.jobs = jobs;
            report.cache.pages_used = pages_used;
            report.cache.evicted = evicted;
            report.cache.positions_reused += u64::from(tokens.cached);
            report.cache.positions_computed += u64::from(computed + tokens.generated);
            report.engine.drafts.proposed += drafts.proposed;
            report.engine.drafts.accepted += drafts.accepted;
            report.engine.drafts.passes += drafts.passes;
            report.engine.drafts.tokens += u64::from(tokens.generated);
            report.engine.prefill_tokens_per_second = per_second(computed, timings.prefill_ms);
            report.engine.decode_tokens_per_second = per_second(tokens.generated, timings.decode_ms);
        });
    }
}
