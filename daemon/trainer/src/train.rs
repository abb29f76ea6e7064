//! The run: examples, loss, steps, and what is printed on the way.

mod loss;
mod schedule;
mod words;
mod worker;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use candle_core::{Error, Result, Tensor};
use candle_nn::VarMap;
use mobilevlmd::camera::world::UNSEEN;
use mobilevlmd::model::files::{TokenizerSource, Vocabulary};
use mobilevlmd::model::prompt::system_prefix;
use mobilevlmd::model::tokenizer::Tokenizer;

use crate::checkpoint::{self, Progress};
use crate::example::texts;
use crate::export::export;
use crate::net::{Dims, Net};
use crate::optimizer::AdamW;
use crate::start::{alike, parameters, waves};
use crate::vocabulary::vocabulary;
use loss::Auxiliary;
use schedule::Schedule;
use words::Words;
use worker::{Gradients, Scores, Share, Worker};

/// Scenes whose texts the vocabulary is made from.
const VOCABULARY_SCENES: u64 = 2000;

/// Unseen scenes of a line of the log.
const HELD_OUT: usize = 64;

/// What a run is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where checkpoint, log and weights go.
    pub folder: PathBuf,
    /// Steps of the whole run.
    pub steps: u32,
    /// Steps after which this piece of it stops.
    pub stop: u32,
    /// Scenes of a step.
    pub batch: usize,
    /// Captions of a scene, each in another style.
    pub captions: usize,
    /// Questions about a scene at most.
    pub questions: usize,
    /// Learning rate at its highest.
    pub rate: f32,
    /// Threads, each with its share of the batch.
    pub threads: usize,
    /// Steps between two looks at unseen scenes.
    pub every: u32,
    /// First scene.
    pub seed: u64,
}

/// The vocabulary of the world.
pub fn world_vocabulary(dims: &Dims) -> Vocabulary {
    let texts = texts(VOCABULARY_SCENES);
    vocabulary(texts.iter().map(String::as_str), dims.language.vocabulary)
}

/// Trains, from nothing or from the checkpoint in the folder, and writes checkpoint and weights.
pub fn train(dims: &Dims, options: &Options) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| Error::Msg(error.to_string());
    fs::create_dir_all(&options.folder)?;
    let vocabulary = world_vocabulary(dims);
    let tokenizer = Tokenizer::from_source(&TokenizerSource::Vocabulary(vocabulary.clone()))
        .map_err(|error| failed(&error))?;
    let mut run = Run::new(dims, options, &tokenizer)?;
    let begun = run.resume()?;
    let clock = Clock::start(begun);
    run.say(&format!(
        "{} parameters, {} unused pieces, step {} of {}",
        run.parameters(),
        vocabulary.pieces.iter().filter(|piece| piece.starts_with("<unused")).count(),
        begun.steps,
        options.steps
    ))?;
    while run.optimizer.steps() < options.stop.min(options.steps) {
        run.step()?;
        let steps = run.optimizer.steps();
        if steps % options.every == 0 || steps == options.stop.min(options.steps) {
            let progress = clock.progress(steps);
            run.report(progress)?;
            checkpoint::save(
                &options.folder.join("checkpoint.safetensors"),
                &run.vars,
                &run.optimizer,
                progress,
            )?;
            export(&options.folder, dims, &vocabulary, &run.tensors()?).map_err(|error| failed(&error))?;
        }
    }
    Ok(())
}

/// What learns, and what helps it to.
struct Learner<'a> {
    dims: &'a Dims,
    /// Tokens before every picture.
    system: Vec<u32>,
    net: Net,
    auxiliary: Auxiliary,
    words: Words,
}

impl Learner<'_> {
    /// For one step or one look: `weight` of what helps, and which part of the pictures is told.
    fn share<'s>(&'s self, vars: &'s [Tensor], weight: f64, told: f32) -> Share<'s> {
        let Self { dims, system, net, auxiliary, words } = self;
        Share { dims, system, net, auxiliary, weight, words, told, vars }
    }
}

/// Everything of a run.
struct Run<'a> {
    options: &'a Options,
    vars: VarMap,
    learner: Learner<'a>,
    optimizer: AdamW,
    workers: Vec<Worker<'a>>,
    schedule: Schedule,
    recent: Recent,
    log: File,
}

impl<'a> Run<'a> {
    fn new(dims: &'a Dims, options: &'a Options, tokenizer: &'a Tokenizer) -> Result<Self> {
        let mut vars = VarMap::new();
        let parameters = parameters(&vars, options.seed);
        let net = Net::new(dims, &parameters)?;
        let auxiliary = Auxiliary::new(dims.vision.hidden, &parameters.pp("aux"))?;
        let words = Words::new(tokenizer, dims.vision.side(), dims.language.hidden, &parameters.pp("aux"))?;
        alike(&vars)?;
        vars.set_one("v.position_embd.weight", waves(dims.vision.side(), dims.vision.hidden)?)?;
        let named: Vec<_> = vars
            .data()
            .lock()
            .map_err(|_| Error::Msg("a thread died".into()))?
            .iter()
            .map(|(name, var)| (name.clone(), var.clone()))
            .collect();
        let learner = Learner { dims, system: system_prefix(tokenizer), net, auxiliary, words };
        let workers = (0..options.threads)
            .map(|_| Worker::new(dims, tokenizer, (options.captions, options.questions)))
            .collect();
        Ok(Self {
            optimizer: AdamW::new(named, 0.05),
            schedule: Schedule { rate: options.rate, steps: options.steps },
            recent: Recent::default(),
            log: OpenOptions::new().create(true).append(true).open(options.folder.join("training.log"))?,
            options,
            vars,
            learner,
            workers,
        })
    }

    /// Goes on where the checkpoint in the folder is, if there is one.
    fn resume(&mut self) -> Result<Progress> {
        let path = self.options.folder.join("checkpoint.safetensors");
        if path.is_file() {
            return checkpoint::load(&path, &self.vars, &mut self.optimizer);
        }
        Ok(Progress::default())
    }

    fn parameters(&self) -> usize {
        self.optimizer.vars().map(|var| var.elem_count()).sum()
    }

    fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let data = self.vars.data().lock().map_err(|_| Error::Msg("a thread died".into()))?;
        Ok(data.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect())
    }

    /// One step on the next scenes.
    fn step(&mut self) -> Result<()> {
        let step = u64::from(self.optimizer.steps());
        let share = self.options.batch / self.workers.len();
        let first = self.options.seed + step * (share * self.workers.len()) as u64;
        let vars: Vec<Tensor> = self.optimizer.vars().map(|var| var.as_tensor().clone()).collect();
        let (weight, told) = (self.schedule.auxiliary(step as u32), self.schedule.told(step as u32));
        let shared = self.learner.share(&vars, weight, told);
        let parts: Vec<Result<Gradients>> = thread::scope(|scope| {
            let workers = self.workers.iter_mut().enumerate();
            let threads = workers.map(|(index, worker)| {
                let seeds = (0..share).map(move |i| (first + (index * share + i) as u64) % UNSEEN);
                let shared = &shared;
                scope.spawn(move || worker.gradients(shared, seeds))
            });
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|thread| thread.join().expect("a worker ends")).collect()
        });
        let mut sum = Gradients::default();
        for part in parts {
            sum.add(part?);
        }
        sum.scale(1.0 / self.workers.len() as f32);
        let norm = self.optimizer.step(&sum.grads, self.schedule.rate(step as u32), 1.0)?;
        self.recent.add([sum.loss, sum.auxiliary, sum.naming, norm]);
        Ok(())
    }

    /// Looks at unseen scenes and prints a line.
    fn report(&mut self, progress: Progress) -> Result<()> {
        let seen = self.scores(0.0)?;
        let mut scores = format!("unseen: {seen}");
        if self.schedule.told(progress.steps) > 0.0 {
            scores = format!("{scores}  told: {}", self.scores(1.0)?);
        }
        let line = format!(
            "step {:5}  {:6.0} s  {:6.0} cpu s  rate {:.1e}  {}  {scores}",
            progress.steps,
            progress.seconds,
            progress.cpu_seconds,
            self.schedule.rate(progress.steps),
            self.recent.take(),
        );
        self.say(&line)
    }

    /// Scores on unseen scenes of which a share is told in words.
    fn scores(&mut self, told: f32) -> Result<Scores> {
        let mut scores = Scores::default();
        for start in (0..HELD_OUT).step_by(16) {
            let seeds = (start..start + 16).map(|i| UNSEEN + i as u64);
            self.workers[0].score(&self.learner.share(&[], 0.0, told), seeds, &mut scores)?;
        }
        Ok(scores)
    }

    fn say(&mut self, line: &str) -> Result<()> {
        println!("{line}");
        writeln!(self.log, "{line}")?;
        Ok(())
    }
}

/// Sums since the last line.
#[derive(Default)]
struct Recent {
    sums: [f64; 4],
    count: u32,
}

impl Recent {
    fn add(&mut self, numbers: [f32; 4]) {
        self.sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += f64::from(number));
        self.count += 1;
    }

    /// Means in words; begins anew.
    fn take(&mut self) -> String {
        let Self { sums, count } = std::mem::take(self);
        let [loss, patches, words, norm] = sums.map(|sum| sum / f64::from(count.max(1)));
        format!("loss {loss:.4}  patches {patches:.4}  words {words:.3}  norm {norm:.2}")
    }
}

/// Wall and processor time of the whole run, over all its pieces.
struct Clock {
    before: Progress,
    start: Instant,
}

impl Clock {
    fn start(before: Progress) -> Self {
        Self { before, start: Instant::now() }
    }

    fn progress(&self, steps: u32) -> Progress {
        Progress {
            steps,
            cpu_seconds: self.before.cpu_seconds + cpu_seconds(),
            seconds: self.before.seconds + self.start.elapsed().as_secs_f64(),
        }
    }
}

/// Processor time of this process so far.
fn cpu_seconds() -> f64 {
    /// Clock ticks per second, the same on every Linux.
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string(Path::new("/proc/self/stat")).unwrap_or_default();
    // Fields are counted after the name, which may hold spaces: user and system time are 12th and 13th.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}
