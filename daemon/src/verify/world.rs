//! How well a model sees the world of the test camera: scenes it was never trained on, a caption and
//! some questions for each, judged by what is really there.
//!
//! Pictures take the way of every frame: preprocessor, vision tower, projector, KV cache. A picture is
//! encoded once; its caption and all questions fork its positions. Tokens are chosen greedily.

use std::time::{Duration, Instant};

use kernels::{Device, KvDtype};
use messages::Sampling;
use rand::SeedableRng;
use rand::rngs::ChaCha12Rng;
use rand::seq::SliceRandom;

use super::target::{OnDevice, Target};
use crate::camera::world::{
    self, Category, Exchange, Judgement, Scene, Style, UNSEEN, exchanges, judge_answer, judge_caption,
};
use crate::config::Config;
use crate::model::files::{LoadOptions, ModelFiles};
use crate::model::sampler::Sampler;
use crate::model::speech::one_line;
use crate::model::viewer::{Said, ViewError, Viewer};
use crate::model::yes_no::YesNo;

mod condition;
mod report;
mod tally;

pub use condition::Condition;
pub use report::{Kind, Miss, Report, Row, Run};
pub use tally::Score;
use tally::Tally;

/// Questions for each scene at most.
const QUESTIONS: usize = 8;

/// Tokens of an answer at most; the longest right one has fewer words than that.
const ANSWER_TOKENS: usize = 32;

/// What is scored and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Scenes.
    pub scenes: u32,
    /// Number of the first of them among the unseen ones.
    pub seed: u32,
    /// One run for each.
    pub conditions: Vec<Condition>,
    /// What computes.
    pub target: Target,
    /// Wrong answers to keep of each run.
    pub misses: usize,
}

/// Scores a model. `watch` is told of every finished scene: the condition and how many there were.
pub fn score(
    files: &ModelFiles,
    config: &Config,
    options: &Options,
    watch: &mut dyn FnMut(Condition, u32),
) -> Result<Report, ViewError> {
    let mut report = Report {
        model: files.id.clone(),
        device: String::new(),
        scenes: options.scenes,
        seed: options.seed,
        runs: Vec::new(),
    };
    // Conditions that hold the model alike share it.
    for conditions in options.conditions.chunk_by(|a, b| a.is_exact() == b.is_exact()) {
        let (load, kv) = conditions[0].precision(&config.model);
        let work = Work { files, load, kv, config, options, conditions, watch };
        let (device, runs) = options.target.with(work)?;
        report.device = device;
        report.runs.extend(runs);
    }
    Ok(report)
}

/// Runs that share a loaded model.
struct Work<'a> {
    files: &'a ModelFiles,
    load: LoadOptions,
    kv: KvDtype,
    config: &'a Config,
    options: &'a Options,
    conditions: &'a [Condition],
    watch: &'a mut dyn FnMut(Condition, u32),
}

impl OnDevice for Work<'_> {
    type Output = Result<(String, Vec<Run>), ViewError>;

    fn run<D: Device>(self, device: D) -> Self::Output {
        let name = device.name();
        let mut viewer = Viewer::load(self.files, device, &self.load, self.kv)?;
        let yes_no = YesNo::new(viewer.tokenizer());
        let mut runs = Vec::new();
        for &condition in self.conditions {
            let mut examiner = Examiner::new(&mut viewer, yes_no.as_ref(), self.config, self.options);
            for number in 0..self.options.scenes {
                examiner.examine(condition, UNSEEN + u64::from(self.options.seed) + u64::from(number))?;
                (self.watch)(condition, number + 1);
            }
            runs.push(examiner.finish(condition));
        }
        Ok((name, runs))
    }
}

/// Asks and counts.
struct Examiner<'a, D: Device> {
    viewer: &'a mut Viewer<D>,
    yes_no: Option<&'a YesNo>,
    config: &'a Config,
    style: Style,
    captions: Tally,
    tallies: Vec<(Kind, &'static str, Tally)>,
    /// From frame to last token.
    times: Vec<Duration>,
    tokens: usize,
    misses: Vec<Miss>,
    most_misses: usize,
}

impl<'a, D: Device> Examiner<'a, D> {
    fn new(
        viewer: &'a mut Viewer<D>,
        yes_no: Option<&'a YesNo>,
        config: &'a Config,
        options: &Options,
    ) -> Self {
        Self {
            viewer,
            yes_no,
            config,
            style: Style::of_prompt(&config.caption.prompt).unwrap_or(Style::Sentence),
            captions: Tally::default(),
            tallies: rows().map(|(kind, category)| (kind, category, Tally::default())).collect(),
            times: Vec::new(),
            tokens: 0,
            misses: Vec::new(),
            most_misses: options.misses,
        }
    }

    /// Shows a scene and asks about it.
    fn examine(&mut self, condition: Condition, seed: u64) -> Result<(), ViewError> {
        let scene = Scene::sample(seed);
        let picture = condition.picture(&scene);
        let config = self.config;
        let prompt = &config.caption.prompt;
        let start = Instant::now();
        self.viewer.look(&picture)?;
        self.viewer.ask(prompt)?;
        let said = self.answer(config.caption.max_tokens as usize)?;
        self.times.push(start.elapsed());
        self.tokens += said.ids.len();
        let judgement = judge_caption(&scene, &said.text);
        self.captions.add(judgement.exact);
        for (category, counted) in in_caption(&judgement) {
            self.tally(Kind::Caption, category).add_many(counted.right, counted.total);
        }
        if !judgement.exact {
            self.miss(seed, prompt, &scene.caption(self.style), &said.text);
        }
        self.interview(&scene, seed)
    }

    /// Asks some of the questions that there are about a scene.
    fn interview(&mut self, scene: &Scene, seed: u64) -> Result<(), ViewError> {
        let mut questions = exchanges(scene, seed);
        questions.shuffle(&mut ChaCha12Rng::seed_from_u64(seed));
        questions.truncate(QUESTIONS);
        for exchange in &questions {
            let Exchange { category, question, answer: truth, yes } = exchange;
            self.viewer.ask(question)?;
            let p_yes = yes.and(self.yes_no).map(|yes_no| yes_no.p_yes(self.viewer.logits()));
            let said = self.answer(ANSWER_TOKENS)?;
            let is_right = judge_answer(exchange, &said.text);
            let kind = if yes.is_some() { Kind::YesNo } else { Kind::Attribute };
            let tally = self.tally(kind, category.word());
            tally.add(is_right);
            tally.add_truth(category.word(), truth);
            if let (Some(p_yes), Some(is_yes)) = (p_yes, *yes) {
                tally.add_belief(p_yes, is_yes);
            }
            if !is_right {
                self.miss(seed, question, truth, &said.text);
            }
        }
        Ok(())
    }

    fn answer(&mut self, max_tokens: usize) -> Result<Said, ViewError> {
        self.viewer.answer(&mut Sampler::new(Sampling::default()), max_tokens, &mut |_| Ok(()))
    }

    fn tally(&mut self, kind: Kind, category: &str) -> &mut Tally {
        let tallies = &mut self.tallies;
        let known = tallies.iter_mut().find(|(known, name, _)| (*known, *name) == (kind, category));
        &mut known.expect("there is a tally for each kind and category").2
    }

    fn miss(&mut self, seed: u64, question: &str, truth: &str, said: &str) {
        if self.misses.len() < self.most_misses {
            let (question, truth, said) = (question.to_owned(), truth.to_owned(), one_line(said));
            self.misses.push(Miss { seed, question, truth, said });
        }
    }

    fn finish(mut self, condition: Condition) -> Run {
        let total = |kind: Kind| {
            let mut sum = Tally::default();
            self.tallies.iter().filter(|(of, ..)| *of == kind).for_each(|(.., tally)| sum.merge(tally));
            sum.score()
        };
        let (attributes, yes_no) = (total(Kind::Attribute), total(Kind::YesNo));
        let asked = self.tallies.iter().filter(|(.., tally)| tally.asked() > 0);
        self.times.sort_unstable();
        let median = self.times.get(self.times.len() / 2).copied().unwrap_or_default();
        Run {
            condition: condition.name(),
            caption: self.captions.score(),
            attributes,
            yes_no,
            categories: asked
                .map(|(kind, category, tally)| Row { kind: *kind, category, score: tally.score() })
                .collect(),
            caption_ms: median.as_secs_f64() * 1e3,
            caption_tokens: self.tokens as f64 / self.times.len().max(1) as f64,
            misses: self.misses,
        }
    }
}

/// What a judgement of a caption counts.
fn in_caption(judgement: &Judgement) -> [(&'static str, world::Tally); 7] {
    let Judgement { color, shape, count, relation, door, person, lamp, .. } = *judgement;
    [
        (Category::Color, color),
        (Category::Shape, shape),
        (Category::Count, count),
        (Category::Relation, relation),
        (Category::Door, door),
        (Category::Person, person),
        (Category::Lamp, lamp),
    ]
    .map(|(category, tally)| (category.word(), tally))
}

/// Every kind with every category, in the order in which they are reported.
fn rows() -> impl Iterator<Item = (Kind, &'static str)> {
    Kind::ALL.into_iter().flat_map(|kind| Category::ALL.map(move |category| (kind, category.word())))
}
