//! The engine itself under load: what callers wait for, and what more of them, rules and cameras cost.
//!
//! Frames come from memory and results are taken from the engine's channel, so that nothing but the
//! engine is measured. Made-up weights repeat no caption: the draft is then the caption that the
//! model is going to write, with none or one of its tokens replaced.

mod report;
mod stand;

use std::time::Instant;

use kernels::Device;
use messages::Rule;

use crate::model::files::ModelFiles;

use super::dims::Dims;
use super::synthetic::{FileType, Recipe, Tower};
use super::{BenchError, Options, SEED};

pub use report::{Cameras, EngineReport, Restart, Together, Units, Wait};
use stand::{Floor, Setup, Stand};

/// Tokens of a caption.
const CAPTION_TOKENS: u32 = 30;

/// Tokens of an answer where more than the first one counts.
const ANSWER_TOKENS: u32 = 32;

/// Questions asked together.
const TOGETHER: [usize; 4] = [1, 2, 4, 8];

/// Cameras described together.
const CAMERAS: [usize; 3] = [1, 2, 4];

/// Rules while questions come.
const RULES: usize = 5;

/// Questions for each round where the 99th percentile counts.
const CALLERS: usize = 12;

/// A pause between questions that is no multiple of anything, in units of how long one takes on an
/// idle engine; doubled for every third.
const PAUSE: f64 = 1.37;

/// Measures the engine on a made-up model of size `dims` with matrices of Q4_K_M.
pub fn synthetic_engine<D: Device + 'static>(
    dims: Dims,
    device: D,
    options: &Options,
) -> Result<EngineReport, BenchError> {
    let recipe = Recipe {
        vision: dims.vision(),
        language: dims.language(),
        projector: crate::model::files::ProjectorKind::LdpV2,
        tower: Tower::Plain,
        file_type: FileType::Q4_K_M,
        seed: SEED,
    };
    engine(&recipe.files()?, device, options)
}

/// Measures the engine on a model.
pub fn engine<D: Device + 'static>(
    files: &ModelFiles,
    device: D,
    options: &Options,
) -> Result<EngineReport, BenchError> {
    let rounds = options.rounds.max(1);
    let name = device.name();
    let mut stand = Stand::load(files, device, &options.load, CAPTION_TOKENS)?;
    let mut report = EngineReport::new(&name, &files.id, stand.positions());
    report.restart = restart(&mut stand, rounds)?;
    report.idle = stand.run(&Setup::default(), |floor| idle(floor, rounds))?;
    report.together = stand.run(&Setup::default(), |floor| together(floor, rounds))?;
    report.busy = stand.run(&busy_setup(), |floor| busy(floor, rounds))?;
    for rules in [0, 1, RULES] {
        let setup = Setup { rules: watch_for(rules), ..Setup::default() };
        report.rules.push((rules, stand.run(&setup, |floor| per_frame(floor, rounds))?));
    }
    for cameras in CAMERAS {
        let setup = Setup { cameras, ..Setup::default() };
        report.cameras.push(stand.run(&setup, |floor| described(floor, cameras, rounds))?);
    }
    let said = stand.caption()?;
    for (name, foretold) in drafts(&said, stand.vocabulary()) {
        let setup = Setup { foretold, ..Setup::default() };
        report.captions.push((name.into(), stand.run(&setup, |floor| captions(floor, rounds))?));
    }
    report.caption_tokens = said.len();
    report.set_units(stand.units());
    Ok(report)
}

/// From a loaded model to its first caption, the system prompt computed or read from disk.
fn restart<D: Device + 'static>(stand: &mut Stand<D>, rounds: usize) -> Result<Restart, BenchError> {
    let first_caption = |stand: &mut Stand<D>| {
        let start = Instant::now();
        stand.run(&Setup::default(), |floor| {
            floor.show(0);
            floor.caption();
            start.elapsed()
        })
    };
    let mut computed = Vec::new();
    let mut from_disk = Vec::new();
    for _ in 0..rounds {
        stand.keep_prefix(false);
        computed.push(first_caption(stand)?);
        stand.keep_prefix(true);
        first_caption(stand)?;
        from_disk.push(first_caption(stand)?);
    }
    stand.keep_prefix(false);
    Ok(Restart { computed: Wait::of(&computed), from_disk: Wait::of(&from_disk) })
}

/// First tokens on a described frame while nothing else is done.
fn idle(floor: &mut Floor, rounds: usize) -> Wait {
    floor.describe(0);
    let times: Vec<_> = (0..rounds * CALLERS).map(|_| floor.first_token()).collect();
    Wait::of(&times)
}

fn busy_setup() -> Setup {
    Setup { cameras: 2, rules: watch_for(RULES), ..Setup::default() }
}

/// First tokens while two cameras are described and watched all the time.
fn busy(floor: &mut Floor, rounds: usize) -> Wait {
    floor.describe(0);
    floor.describe(1);
    let pause = floor.first_token().mul_f64(PAUSE);
    let times = floor.while_fed(|floor| {
        let caller = |index: usize| {
            std::thread::sleep(if index.is_multiple_of(3) { 2 * pause } else { pause });
            floor.first_token()
        };
        (0..rounds * CALLERS).map(caller).collect::<Vec<_>>()
    });
    Wait::of(&times)
}

/// Questions that come at once, on one frame.
fn together(floor: &mut Floor, rounds: usize) -> Vec<Together> {
    floor.describe(0);
    let measure = |questions: usize| {
        let mut last = Vec::new();
        let mut rates = Vec::new();
        for _ in 0..rounds {
            last.push(floor.ask_together(questions, 1).0);
            let (time, tokens) = floor.ask_together(questions, ANSWER_TOKENS);
            rates.push(f64::from(tokens) / time.as_secs_f64());
        }
        rates.sort_unstable_by(f64::total_cmp);
        Together { questions, last_first_token: Wait::of(&last), tokens_per_second: rates[rates.len() / 2] }
    };
    TOGETHER.into_iter().map(measure).collect()
}

/// From a frame to the end of all that is done about it.
fn per_frame(floor: &mut Floor, rounds: usize) -> Wait {
    floor.describe(0);
    let times: Vec<_> = (0..rounds).map(|_| floor.describe(0)).collect();
    Wait::of(&times)
}

/// Cameras that always have a new frame.
fn described(floor: &mut Floor, cameras: usize, rounds: usize) -> Cameras {
    for camera in 0..cameras {
        floor.describe(camera);
    }
    let wanted = cameras * rounds;
    let (time, ages) = floor.captions_while_fed(wanted);
    Cameras { cameras, captions_per_second: wanted as f64 / time.as_secs_f64(), age: Wait::of(&ages) }
}

/// From a frame to its caption.
fn captions(floor: &mut Floor, rounds: usize) -> Wait {
    floor.describe(0);
    let times: Vec<_> = (0..rounds).map(|_| floor.show_same(0)).collect();
    Wait::of(&times)
}

/// What a caption that will be `said` is foretold to be.
fn drafts(said: &[u32], vocabulary: usize) -> [(&'static str, Option<Vec<u32>>); 3] {
    let mut wrong = said.to_vec();
    if let Some(middle) = wrong.get_mut(said.len() / 2) {
        *middle = (*middle + 1) % vocabulary as u32;
    }
    [
        ("without drafts", None),
        ("draft right", Some(said.to_vec())),
        ("draft wrong in the middle", Some(wrong)),
    ]
}

/// Rules for all cameras that never make an alert of their own.
fn watch_for(count: usize) -> Vec<Rule> {
    (0..count).map(|index| Rule { name: format!("rule-{index}"), ..Rule::default() }).collect()
}
