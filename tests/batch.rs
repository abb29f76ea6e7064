//! Passes over several sequences: a row is the same whatever is beside it.

use std::ops::Range;
use std::path::Path;

use kernels::{Cpu, CpuOptions, DType, KvDtype};
use mobilevlmd::model::files::{LoadOptions, ModelFiles, ModelPaths};
use mobilevlmd::model::kv_cache::Sequence;
use mobilevlmd::model::pass::Pass;
use mobilevlmd::model::{Input, KvOptions, MobileVlm};

const MODELS: [&str; 3] =
    ["gguf/v1-tiny/model-q4_0.gguf", "gguf/v2-gqa/model-q8_0.gguf", "gguf/v2-k256/model-q4_k_m.gguf"];

fn load(model: &str, threads: usize, dtype: KvDtype) -> MobileVlm<Cpu> {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(model);
    let files = ModelFiles::open(&ModelPaths { model, ..ModelPaths::default() }).unwrap();
    let options = LoadOptions { dtype: None, vision_dtype: DType::Q8_0, exact: false };
    let kv = KvOptions { context: 512, pages: 80, dtype };
    let device = Cpu::new(CpuOptions { threads, ..CpuOptions::default() });
    let mut model = MobileVlm::load(&files, device, &options, kv).unwrap();
    let side = files.vision.image;
    let pixels: Vec<f32> = (0..3 * side * side).map(|i| (i % 251) as f32 / 125.0 - 1.0).collect();
    model.encode(&pixels);
    model
}

/// Numbers that look random (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end
    }
}

/// A conversation: tokens, maybe a picture, tokens. The first part is the same for all.
#[derive(Clone)]
struct Script {
    before: Vec<u32>,
    visual: usize,
    after: Vec<u32>,
}

impl Script {
    fn new(visual: usize, after: usize, seed: usize) -> Self {
        let ids = |count: usize, seed: usize| -> Vec<u32> {
            (0..count).map(|i| (3 + (i * 131 + seed * 17) % 1900) as u32).collect()
        };
        Self { before: ids(37, 0), visual, after: ids(after, seed) }
    }

    fn len(&self) -> usize {
        self.before.len() + self.visual + self.after.len()
    }

    /// The longest input of up to `count` positions from `position` on.
    fn input(&self, position: usize, count: usize) -> Input<'_> {
        let picture = self.before.len()..self.before.len() + self.visual;
        let cut = |start: usize, len: usize| start..len.min(start + count);
        if position < picture.start {
            Input::Tokens(&self.before[cut(position, self.before.len())])
        } else if position < picture.end {
            Input::Visual(cut(position - picture.start, self.visual))
        } else {
            Input::Tokens(&self.after[cut(position - picture.end, self.after.len())])
        }
    }
}

/// A sum over the bits of the logits after each of `rows`.
fn sums(model: &mut MobileVlm<Cpu>, pass: &Pass<Cpu>, rows: Range<usize>) -> Vec<u64> {
    let rows: Vec<usize> = rows.collect();
    let mut sums = Vec::new();
    for rows in rows.chunks(MobileVlm::<Cpu>::MAX_SAMPLED) {
        let mut logits = model.logits_of(pass, rows);
        for index in 0..rows.len() {
            let step =
                |sum: u64, logit: &f32| (sum ^ u64::from(logit.to_bits())).wrapping_mul(0x100_0000_01b3);
            sums.push(logits.row(index).iter().fold(0xcbf2_9ce4_8422_2325, step));
        }
    }
    sums
}

fn finish(model: &mut MobileVlm<Cpu>, pass: &mut Pass<Cpu>, layers: Range<usize>) {
    for layer in layers {
        model.pass_layer(pass, layer);
    }
}

/// What stands after every position of a script that has the model for itself.
fn alone(model: &mut MobileVlm<Cpu>, script: &Script) -> Vec<u64> {
    let (mut pass, mut sequence) = (model.pass().unwrap(), Sequence::default());
    let mut found = Vec::new();
    while sequence.len() < script.len() {
        let input = script.input(sequence.len(), usize::MAX >> 1);
        model.begin_pass(&mut pass, &mut sequence, input).unwrap();
        let layers = model.layers();
        finish(model, &mut pass, 0..layers);
        let rows = 0..pass.rows();
        found.extend(sums(model, &pass, rows));
    }
    model.release(&mut sequence);
    found
}

/// A sequence under way, and what must stand after each of its positions.
struct Runner<'a> {
    script: &'a Script,
    want: &'a [u64],
    sequence: Sequence,
}

impl Runner<'_> {
    fn is_done(&self) -> bool {
        self.sequence.len() == self.script.len()
    }
}

/// One pass over some of the runners. Some are withdrawn between two layers and stay where they were.
fn mixed_pass(
    model: &mut MobileVlm<Cpu>,
    pass: &mut Pass<Cpu>,
    runners: &mut [Runner<'_>],
    random: &mut Random,
) {
    let mut parts: Vec<(usize, Range<usize>, _)> = Vec::new();
    model.begin(pass);
    let first = random.below(runners.len());
    for index in (first..runners.len()).chain(0..first) {
        let runner = &mut runners[index];
        let most = [1, 1, 3, 8, 40, 100][random.below(6)].min(pass.room());
        if runner.is_done() || most == 0 || random.below(4) == 0 {
            continue;
        }
        let (start, mark) = (runner.sequence.len(), runner.sequence.mark());
        let input = runner.script.input(start, 1 + random.below(most));
        let rows = model.push(pass, &mut runner.sequence, input).unwrap();
        assert_eq!(rows.len(), runner.sequence.len() - start);
        parts.push((index, rows, mark));
    }
    if parts.is_empty() {
        return;
    }
    let layers = model.layers();
    let pause = random.below(layers + 1);
    finish(model, pass, 0..pause);
    if parts.len() > 1 && random.below(2) == 0 {
        let (index, rows, mark) = parts.remove(random.below(parts.len()));
        model.withdraw(pass, rows.clone());
        model.rewind(&mut runners[index].sequence, mark);
        for (_, other, _) in parts.iter_mut().filter(|(_, other, _)| other.start >= rows.end) {
            *other = other.start - rows.len()..other.end - rows.len();
        }
    }
    finish(model, pass, pause..layers);
    for (index, rows, _) in parts {
        let runner = &runners[index];
        let end = runner.sequence.len();
        let want = &runner.want[end - rows.len()..end];
        let got = sums(model, pass, rows.clone());
        assert!(got == want, "rows {rows:?} of script {index}, which ends at {end}");
    }
}

#[test]
fn rows_are_the_same_in_any_mixture() {
    for (seed, name) in MODELS.into_iter().enumerate() {
        let model = &mut load(name, 2, KvDtype::F16);
        let visual = model.visual_tokens();
        let scripts: Vec<Script> = [(0, 1), (visual, 30), (0, 70), (visual, 3), (visual, 12), (0, 20)]
            .into_iter()
            .enumerate()
            .map(|(seed, (visual, after))| Script::new(visual, after, seed))
            .collect();
        let wants: Vec<Vec<u64>> = scripts.iter().map(|script| alone(model, script)).collect();
        let mut random = Random(77 + seed as u64);
        let mut pass = model.pass().unwrap();
        // Half of them start behind a shared beginning.
        let mut beginning = Sequence::default();
        model.forward(&mut pass, &mut beginning, scripts[0].input(0, 33)).unwrap();
        let mut runners = Vec::new();
        for (index, (script, want)) in scripts.iter().zip(&wants).enumerate() {
            let mut sequence = Sequence::default();
            if index % 2 == 0 {
                model.fork(&beginning, &mut sequence);
            }
            runners.push(Runner { script, want, sequence });
        }
        while !runners.iter().all(Runner::is_done) {
            mixed_pass(model, &mut pass, &mut runners, &mut random);
        }
        runners.iter_mut().for_each(|runner| model.release(&mut runner.sequence));
        model.release(&mut beginning);
        assert_eq!(model.cache().pages_used(), 0, "{name}");
    }
}

#[test]
fn a_prompt_with_a_picture_fits_one_pass() {
    let model = &mut load(MODELS[1], 1, KvDtype::F16);
    let script = Script::new(model.visual_tokens(), 6, 3);
    let want = alone(model, &script);
    let (mut pass, mut sequence) = (model.pass().unwrap(), Sequence::default());
    model.begin(&mut pass);
    while sequence.len() < script.len() {
        let input = script.input(sequence.len(), pass.room());
        model.push(&mut pass, &mut sequence, input).unwrap();
    }
    assert_eq!(pass.rows(), script.len());
    let layers = model.layers();
    finish(model, &mut pass, 0..layers);
    let rows = 0..pass.rows();
    assert!(sums(model, &pass, rows) == want);
}

#[test]
fn a_push_that_fails_leaves_the_pass_and_the_sequence_as_they_were() {
    let model = &mut load(MODELS[0], 1, KvDtype::F16);
    let (mut pass, mut held) = (model.pass().unwrap(), Sequence::default());
    let pages = model.cache().pages();
    model.reserve(&mut held, kernels::PAGE * (pages - 1)).unwrap();
    let (mut small, mut large) = (Sequence::default(), Sequence::default());
    model.begin(&mut pass);
    let rows = model.push(&mut pass, &mut small, Input::Tokens(&[5, 6, 7])).unwrap();
    let error = model.push(&mut pass, &mut large, Input::Tokens(&[9])).unwrap_err();
    let text = format!("the KV cache is full: 1 pages are wanted, 0 of {pages} are free");
    assert!(error.to_string().starts_with(&text), "{error}");
    assert_eq!((rows, pass.rows(), large.len()), (0..3, 3, 0));
    let layers = model.layers();
    finish(model, &mut pass, 0..layers);
    let together = model.logits(&pass).to_vec();
    model.release(&mut small);
    model.forward(&mut pass, &mut large, Input::Tokens(&[5, 6, 7])).unwrap();
    assert!(model.logits(&pass) == together);
}

#[test]
fn kept_prefixes_make_room_and_are_computed_again_to_the_same_bits() {
    let model = &mut load(MODELS[2], 1, KvDtype::F16);
    let script = Script::new(0, 40, 1);
    let want = alone(model, &script);
    let (mut pass, mut system) = (model.pass().unwrap(), Sequence::default());
    model.forward(&mut pass, &mut system, script.input(0, usize::MAX >> 1)).unwrap();
    let system = model.keep(None, system);
    let mut talk = Sequence::default();
    assert!(model.fork_kept(system, &mut talk));
    model.forward(&mut pass, &mut talk, script.input(37, usize::MAX >> 1)).unwrap();
    assert!(sums(model, &pass, 0..40) == want[37..]);
    let turn = model.keep(Some(system), talk);
    assert!(model.pin(system));
    let (pages, mut large) = (model.cache().pages(), Sequence::default());
    let most = (pages - 2) * kernels::PAGE;
    assert!(model.reserve(&mut large, most + 1).is_err() && model.prefixes().len() == 2);
    model.reserve(&mut large, most).unwrap();
    assert!(model.prefixes().sequence(turn).is_none() && model.prefixes().sequence(system).is_some());
    let mut talk = Sequence::default();
    assert!(!model.fork_kept(turn, &mut talk) && model.fork_kept(system, &mut talk));
    assert!(model.forward(&mut pass, &mut talk, Input::Tokens(&[1])).is_err(), "a copied page is wanted");
    model.release(&mut large);
    model.forward(&mut pass, &mut talk, script.input(37, usize::MAX >> 1)).unwrap();
    assert!(sums(model, &pass, 0..40) == want[37..]);
    model.release(&mut talk);
    model.forget(system);
    assert_eq!(model.cache().pages_used(), 0);
}
