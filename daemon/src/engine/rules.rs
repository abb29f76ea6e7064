//! Rules: put to every new picture behind its positions in the cache, judged by the first token.
//!
//! A rule costs the tokens of its own question, computed once for each picture; nothing is generated.
//! A frame that shows no change has the answer of the frame it equals, so that time goes on for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use kernels::Device;
use messages::{Alert, AlertEnd, AlertEvent, AskError, Rule, RuleChange, RuleStatus, Timings, TokenCounts};
use tokio::sync::mpsc;

use super::Engine;
use super::camera::stamp_of;
use super::job::{Ear, Job, Plan, Purpose};
use super::progress::millis;
use super::request::Event;
use super::rule::{Alarm, Seen, Turn};
use super::scene::Scene;
use crate::camera::Frame;
use crate::model::PassError;
use crate::model::prompt::{Turn as Exchange, after_image, system_prefix};
use crate::model::yes_no::{Verdict, YesNo};

/// Alerts that may wait for a bus that does not keep up.
const MOST_UNSENT: usize = 1024;

/// The rules and what is known of them.
pub(super) struct Rules {
    entries: Vec<Entry>,
    /// Rules set so far, which numbers them.
    count: u64,
    judge: Option<Arc<YesNo>>,
    /// Changes so far.
    pub(super) revision: u64,
    /// Alerts that the bus had no room for.
    unsent: VecDeque<Event>,
}

/// A rule.
struct Entry {
    number: u64,
    rule: Rule,
    /// The prompt behind the picture.
    prompt: Vec<u32>,
    watches: Vec<Watch>,
}

/// A rule on one camera.
struct Watch {
    camera: usize,
    alarm: Alarm,
    /// The frame that was asked about last.
    asked: Option<u64>,
    answer: Option<Answer>,
}

/// What was answered last.
pub(super) struct Answer {
    verdict: Verdict,
    /// Sequence number of the frame that was asked about.
    about: u64,
    /// That frame, or a newer one that equals it.
    seen: Seen,
    tokens: TokenCounts,
    timings: Timings,
}

impl Rules {
    /// No rules yet; `judge` reads the answers, if the vocabulary has any.
    pub(super) fn new(judge: Option<YesNo>) -> Self {
        let (entries, unsent) = (Vec::new(), VecDeque::new());
        Self { entries, count: 0, judge: judge.map(Arc::new), revision: 0, unsent }
    }

    /// The rules in order.
    pub(super) fn list(&self) -> Vec<Rule> {
        self.entries.iter().map(|entry| entry.rule.clone()).collect()
    }
}

impl Watch {
    fn new(camera: usize, rule: &Rule) -> Self {
        Self { camera, alarm: Alarm::new(rule), asked: None, answer: None }
    }
}

impl Answer {
    /// The verdict that a job came to.
    pub(super) fn new(verdict: Verdict, job: &Job) -> Self {
        let seen = Seen { stamp: job.stamp.clone(), captured: job.captured };
        Self { verdict, about: job.stamp.sequence, seen, tokens: job.tokens, timings: job.timings }
    }
}

impl Entry {
    fn alert(&self, watch: &Watch, turn: &Turn, end: AlertEnd, model_id: &str) -> Option<(Alert, Instant)> {
        let answer = watch.answer.as_ref()?;
        let (event, span) = match turn {
            Turn::Began(span) => (AlertEvent::Began, span),
            Turn::Ended(span) => (AlertEvent::Ended(end), span),
        };
        let alert = Alert {
            rule: self.rule.name.clone(),
            question: self.rule.question.clone(),
            event,
            p_yes: answer.verdict.p_yes as f32,
            p_either: answer.verdict.p_either as f32,
            frame: answer.seen.stamp.clone(),
            began: span.began.clone(),
            first: span.first.clone(),
            age_ms: millis(answer.seen.captured.elapsed()),
            model_id: model_id.to_owned(),
            tokens: answer.tokens,
            timings: answer.timings,
        };
        Some((alert, answer.seen.captured))
    }
}

impl<D: Device> Engine<D> {
    /// Changes the list of rules.
    pub(super) fn change_rules(&mut self, change: RuleChange) -> Result<messages::Rules, AskError> {
        if change != RuleChange::Get {
            let known: Vec<_> = self.cameras.iter().map(|camera| camera.input.name.clone()).collect();
            let changed = change.apply(&self.rules.list(), &self.options.rules, &known)?;
            self.set_rules(changed)?;
            self.rules.revision += 1;
        }
        Ok(messages::Rules { rules: self.rules.list(), revision: self.rules.revision })
    }

    /// Replaces the rules, which are checked. Those that do not change keep their state, the alerts of
    /// others end.
    ///
    /// Errors: the model cannot answer, or a question does not fit its context. Nothing is changed.
    pub(super) fn set_rules(&mut self, rules: Vec<Rule>) -> Result<(), AskError> {
        let prompts = self.prompts_of(&rules)?;
        let mut old = std::mem::take(&mut self.rules.entries);
        for (rule, prompt) in rules.into_iter().zip(prompts) {
            let entry = match old.iter().position(|entry| entry.rule == rule) {
                Some(index) => old.remove(index),
                None => self.new_entry(rule, prompt),
            };
            self.rules.entries.push(entry);
        }
        for mut entry in old {
            self.drop_rule_jobs(entry.number);
            self.end_entry(&mut entry, AlertEnd::RuleChanged, |_| true);
        }
        self.report_rules();
        Ok(())
    }

    /// What is put to pictures for each rule.
    ///
    /// Errors: the model cannot answer, or a question does not fit its context.
    pub(super) fn prompts_of(&self, rules: &[Rule]) -> Result<Vec<Vec<u32>>, AskError> {
        if !rules.is_empty() && self.rules.judge.is_none() {
            let reason = "this model's vocabulary begins \"yes\" and \"no\" with the same token, so it cannot \
                          judge rules; use another model";
            return Err(AskError::BadRequest { reason: reason.into() });
        }
        rules.iter().map(|rule| self.rule_prompt(rule)).collect()
    }

    /// The tokens of a rule behind a picture, which must fit with everything before them.
    fn rule_prompt(&self, rule: &Rule) -> Result<Vec<u32>, AskError> {
        let prompt = after_image(&self.tokenizer, &[Exchange::ask(&rule.question)]);
        let before = system_prefix(&self.tokenizer).len() + self.model.visual_tokens();
        let limit = self.model.context().saturating_sub(before + 1);
        if prompt.len() > limit {
            let what = format!("question of rule \"{}\" in tokens", rule.name);
            return Err(AskError::TooLong { what, got: prompt.len() as u64, limit: limit as u64 });
        }
        Ok(prompt)
    }

    fn new_entry(&mut self, rule: Rule, prompt: Vec<u32>) -> Entry {
        self.rules.count += 1;
        let watched = self.cameras.iter().enumerate().filter(|(_, camera)| rule.watches(&camera.input.name));
        let watches = watched.map(|(index, _)| Watch::new(index, &rule)).collect();
        Entry { number: self.rules.count, rule, prompt, watches }
    }

    /// The cameras are others: each has its place in the list from now on or is gone, and its alerts have
    /// ended. Rules watch the new ones too.
    pub(super) fn move_watches(&mut self, places: &[Option<usize>]) {
        for Entry { rule, watches, .. } in &mut self.rules.entries {
            watches.retain_mut(|watch| places[watch.camera].inspect(|place| watch.camera = *place).is_some());
            for (index, camera) in self.cameras.iter().enumerate() {
                if rule.watches(&camera.input.name) && !watches.iter().any(|watch| watch.camera == index) {
                    watches.push(Watch::new(index, rule));
                }
            }
            watches.sort_unstable_by_key(|watch| watch.camera);
        }
        self.report_rules();
    }

    fn drop_rule_jobs(&mut self, number: u64) {
        let is_its = |job: &Job| matches!(job.purpose, Purpose::Rule { rule, .. } if rule == number);
        while let Some(id) = self.jobs.iter().find(|job| is_its(job)).map(|job| job.id) {
            if let Some(job) = self.take_job(id) {
                self.close(job);
            }
        }
    }

    /// Puts every rule to every picture that it was not put to yet.
    pub(super) fn begin_rules(&mut self) {
        for camera in 0..self.cameras.len() {
            if self.is_paused(camera) {
                continue;
            }
            if let Some(scene) = self.cameras[camera].scene.take() {
                self.put_rules(camera, &scene);
                self.cameras[camera].scene = Some(scene);
            }
        }
    }

    fn put_rules(&mut self, camera: usize, scene: &Scene) {
        for index in 0..self.rules.entries.len() {
            let entry = &self.rules.entries[index];
            let purpose = Purpose::Rule { camera, rule: entry.number };
            let is_new = |watch: &Watch| watch.camera == camera && watch.asked != Some(scene.stamp.sequence);
            let Some(place) = entry.watches.iter().position(is_new) else { continue };
            if self.jobs.iter().any(|job| job.purpose == purpose) {
                continue;
            }
            match self.put_rule(index, scene, purpose) {
                // Without pages it waits for those of others.
                Err(PassError::OutOfPages(_)) if self.will_free_pages() => return,
                Err(error) => self.fail_rule(purpose, error),
                Ok(()) => {}
            }
            self.rules.entries[index].watches[place].asked = Some(scene.stamp.sequence);
        }
    }

    fn put_rule(&mut self, index: usize, scene: &Scene, purpose: Purpose) -> Result<(), PassError> {
        let Some(judge) = self.rules.judge.clone() else { return Ok(()) };
        let prompt = self.rules.entries[index].prompt.clone();
        let (sequence, _) = self.fork(&scene.sequence, prompt.len(), 1)?;
        let plan = Plan {
            purpose,
            stamp: scene.stamp.clone(),
            captured: scene.captured,
            timings: Timings::default(),
            owed_at: scene.owed_at,
            turn: Instant::now(),
            prompt,
            ear: Ear::Verdict(judge),
        };
        self.start(sequence, plan);
        Ok(())
    }

    /// Tells that a rule has no answer on a picture.
    pub(super) fn fail_rule(&self, purpose: Purpose, error: PassError) {
        let Purpose::Rule { camera, rule } = purpose else { return };
        let entry = self.rules.entries.iter().find(|entry| entry.number == rule);
        let name = entry.map_or("", |entry| entry.rule.name.as_str());
        tracing::warn!(rule = name, camera = self.cameras[camera].input.name, %error, "rule not evaluated");
    }

    /// Takes in the answer of a rule on a camera's picture.
    pub(super) fn judge(&mut self, camera: usize, number: u64, answer: Answer) {
        let took = answer.timings.prefill_ms;
        if let Some(entry) = self.rules.entries.iter().position(|entry| entry.number == number)
            && let Some(place) = self.rules.entries[entry].watches.iter().position(|w| w.camera == camera)
        {
            self.rules.entries[entry].watches[place].answer = Some(answer);
            self.see((entry, place), |status| {
                status.evaluations += 1;
                status.evaluation_ms = took;
            });
        }
    }

    /// A camera's frame shows no change: what was answered holds for it too.
    pub(super) fn see_same(&mut self, camera: usize, frame: &Frame) {
        let Some(scene) = &self.cameras[camera].scene else { return };
        let described = scene.stamp.sequence;
        let stamp = stamp_of(&self.cameras[camera].input.name, frame);
        for entry in 0..self.rules.entries.len() {
            let watches = &mut self.rules.entries[entry].watches;
            let Some(place) = watches.iter().position(|watch| watch.camera == camera) else { continue };
            let answer = watches[place].answer.as_mut().filter(|answer| answer.about == described);
            let Some(answer) = answer else { continue };
            answer.seen = Seen { stamp: stamp.clone(), captured: frame.captured };
            self.see((entry, place), |_| {});
        }
    }

    /// Lets the alarm of a watch see its answer, and tells what came of it.
    fn see(&mut self, (entry, place): (usize, usize), change: impl FnOnce(&mut RuleStatus)) {
        let watch = &mut self.rules.entries[entry].watches[place];
        let Some(answer) = &watch.answer else { return };
        let verdict = answer.verdict;
        let turn = watch.alarm.see(verdict.p_yes, &answer.seen);
        let (entry, watch) = (&self.rules.entries[entry], &self.rules.entries[entry].watches[place]);
        let has_begun = matches!(turn, Some(Turn::Began(_)));
        self.report_rule(entry, watch, |status| {
            (status.p_yes, status.p_either) = (Some(verdict.p_yes as f32), Some(verdict.p_either as f32));
            status.alerts += u64::from(has_begun);
            change(status);
        });
        let alert = turn.and_then(|turn| entry.alert(watch, &turn, AlertEnd::Answer, &self.options.model_id));
        if let Some(alert) = alert {
            self.publish_alert(alert);
        }
    }

    /// Ends the alerts of cameras that deliver nothing any more.
    pub(super) fn end_alerts_of_gone_cameras(&mut self, now: Instant) {
        if self.rules.entries.is_empty() {
            return;
        }
        for camera in 0..self.cameras.len() {
            if self.cameras[camera].is_gone(now) {
                self.end_alerts(AlertEnd::CameraGone, |watch| watch == camera);
            }
        }
    }

    /// Ends the alerts on some cameras.
    pub(super) fn end_alerts(&mut self, end: AlertEnd, is_ended: impl Fn(usize) -> bool) {
        let mut entries = std::mem::take(&mut self.rules.entries);
        for entry in &mut entries {
            self.end_entry(entry, end, &is_ended);
        }
        self.rules.entries = entries;
    }

    fn end_entry(&mut self, entry: &mut Entry, end: AlertEnd, is_ended: impl Fn(usize) -> bool) {
        for place in 0..entry.watches.len() {
            let watch = &mut entry.watches[place];
            if !is_ended(watch.camera) {
                continue;
            }
            let (before, turn) = (watch.alarm.phase(), watch.alarm.end());
            let watch = &entry.watches[place];
            if watch.alarm.phase() != before {
                self.report_rule(entry, watch, |_| {});
            }
            let alert = turn.and_then(|turn| entry.alert(watch, &turn, end, &self.options.model_id));
            if let Some(alert) = alert {
                self.publish_alert(alert);
            }
        }
    }

    /// Brings the status of a rule on a camera up to date.
    fn report_rule(&self, entry: &Entry, watch: &Watch, change: impl FnOnce(&mut RuleStatus)) {
        let camera = &self.cameras[watch.camera].input.name;
        self.progress.update(|report| {
            let mut rules = report.rules.iter_mut();
            if let Some(status) = rules.find(|rule| rule.rule == entry.rule.name && rule.camera == *camera) {
                (status.phase, status.since) = watch.alarm.phase();
                change(status);
            }
        });
    }

    /// Begins the status of the rules anew; those that were there keep theirs.
    fn report_rules(&self) {
        self.progress.update(|report| {
            let mut old = std::mem::take(&mut report.rules);
            for entry in &self.rules.entries {
                for watch in &entry.watches {
                    let camera = &self.cameras[watch.camera].input.name;
                    let of = |status: &RuleStatus| status.rule == entry.rule.name && status.camera == *camera;
                    let kept = old.iter().position(of).filter(|_| watch.asked.is_some());
                    let (rule, camera) = (entry.rule.name.clone(), camera.clone());
                    let new = || RuleStatus { rule, camera, ..RuleStatus::default() };
                    report.rules.push(kept.map_or_else(new, |index| old.swap_remove(index)));
                }
            }
        });
    }

    fn publish_alert(&mut self, (alert, captured): (Alert, Instant)) {
        tracing::info!(
            rule = alert.rule,
            camera = alert.frame.camera,
            event = ?alert.event,
            p_yes = alert.p_yes,
            "alert"
        );
        if self.rules.unsent.len() == MOST_UNSENT {
            tracing::error!(rule = alert.rule, "alert dropped: the bus does not keep up");
            return;
        }
        self.rules.unsent.push_back(Event::Alert(Box::new(alert), captured));
        self.send_alerts();
    }

    /// Tells the bus, behind all alerts, that a camera is there no more.
    pub(super) fn tell_removed(&mut self, camera: String) {
        self.rules.unsent.push_back(Event::CameraRemoved(camera));
        self.send_alerts();
    }

    /// Hands alerts to the bus as far as it has room, in order.
    pub(super) fn send_alerts(&mut self) {
        while let Some(event) = self.rules.unsent.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(event) {
                self.rules.unsent.push_front(event);
                return;
            }
        }
    }
}
