//! Prefixes, marks and questions on the engine.

mod crowd;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernels::{Cpu, CpuOptions, Device, KvDtype, Reference};
use messages::{Answer, AnswerPiece, AskError, Caption, FrameChoice, Question};
use mobilevlmd::camera::{Frame, Latest, PixelFormat, Wake};
use mobilevlmd::config::Config;
use mobilevlmd::engine::{self, Ask, CameraInput, EngineHandle, EngineOptions, EngineParts, Event};
use mobilevlmd::model::files::{LoadOptions, ModelFiles, ModelPaths};
use mobilevlmd::model::kv_cache::Sequence;
use mobilevlmd::model::preprocess::Preprocessor;
use mobilevlmd::model::tokenizer::Tokenizer;
use mobilevlmd::model::{Input, KvOptions, MobileVlm};
use tokio::sync::mpsc;

const CONTEXT: usize = 512;

/// Oldest frame that is described.
const MAX_AGE: Duration = Duration::from_secs(60);

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(path)
}

fn files(model: &str) -> ModelFiles {
    let paths = ModelPaths { model: data(model), ..ModelPaths::default() };
    ModelFiles::open(&paths).unwrap()
}

fn load<D: Device>(files: &ModelFiles, device: D, options: LoadOptions) -> MobileVlm<D> {
    let dtype = if options.exact { KvDtype::F32 } else { KvDtype::F16 };
    MobileVlm::load(files, device, &options, KvOptions { context: CONTEXT, pages: 80, dtype }).unwrap()
}

fn cpu(threads: usize) -> Cpu {
    Cpu::new(CpuOptions { threads, ..CpuOptions::default() })
}

/// The options of `run`.
const DEFAULT: LoadOptions = LoadOptions { dtype: None, vision_dtype: kernels::DType::Q8_0, exact: false };

const MODELS: [&str; 3] =
    ["gguf/v1-tiny/model-q4_0.gguf", "gguf/v2-gqa/model-q8_0.gguf", "gguf/v2-k256/model-q4_k_m.gguf"];

/// A picture of its own for every seed.
fn pixels(files: &ModelFiles, seed: u32) -> Vec<f32> {
    let picture = image::RgbImage::from_fn(96, 96, |x, y| {
        let wave = |k: u32| ((x * k + y * (seed + 1) + seed * 37) % 256) as u8;
        image::Rgb([wave(3), wave(5), wave(7)])
    });
    let mut preprocessor = Preprocessor::new(files.vision.image, files.image_mean, files.image_std);
    preprocessor.pixels(&picture).to_vec()
}

/// Ids that make a prompt of `count` tokens.
fn ids(count: usize, seed: usize) -> Vec<u32> {
    (0..count).map(|i| (3 + (i * 131 + seed * 17) % 1900) as u32).collect()
}

/// Greedy continuation and its logits, bit for bit.
fn continuation<D: Device>(model: &mut MobileVlm<D>, sequence: &mut Sequence, last: u32) -> Vec<u32> {
    let mut pass = model.pass().unwrap();
    let mut bits = Vec::new();
    let mut next = last;
    for _ in 0..6 {
        model.forward(&mut pass, sequence, Input::Tokens(&[next])).unwrap();
        let logits = model.logits(&pass);
        bits.extend(logits.iter().map(|logit| logit.to_bits()));
        next = mobilevlmd::model::sampler::greedy(logits);
    }
    bits
}

/// System prompt, picture and question from nothing, in chunks of `chunk`.
fn from_nothing<D: Device>(
    model: &mut MobileVlm<D>,
    pixels: &[f32],
    system: &[u32],
    question: &[u32],
    chunk: usize,
) -> Vec<u32> {
    let mut pass = model.pass().unwrap();
    let mut sequence = Sequence::default();
    model.encode(pixels);
    let visual = model.visual_tokens();
    for part in system.chunks(chunk) {
        model.forward(&mut pass, &mut sequence, Input::Tokens(part)).unwrap();
    }
    for start in (0..visual).step_by(chunk) {
        let part = start..visual.min(start + chunk);
        model.forward(&mut pass, &mut sequence, Input::Visual(part)).unwrap();
    }
    for part in question.chunks(chunk) {
        model.forward(&mut pass, &mut sequence, Input::Tokens(part)).unwrap();
    }
    let bits = continuation(model, &mut sequence, 7);
    model.release(&mut sequence);
    bits
}

#[test]
fn chunks_and_threads_change_no_bit() {
    for name in MODELS {
        let files = files(name);
        let pixels = pixels(&files, 1);
        let (system, question) = (ids(37, 1), ids(23, 2));
        let want = from_nothing(&mut load(&files, cpu(1), DEFAULT), &pixels, &system, &question, 192);
        for (threads, chunk) in [(1, 1), (1, 5), (2, 32), (3, 33), (2, 144)] {
            let model = &mut load(&files, cpu(threads), DEFAULT);
            let got = from_nothing(model, &pixels, &system, &question, chunk);
            assert!(got == want, "{name}: {threads} threads, chunks of {chunk}");
        }
    }
}

#[test]
fn a_shared_prefix_gives_the_same_bits_as_starting_anew() {
    for name in MODELS {
        let files = files(name);
        let model = &mut load(&files, cpu(2), DEFAULT);
        let system = ids(35, 3);
        let mut pass = model.pass().unwrap();
        let mut prefix = Sequence::default();
        model.forward(&mut pass, &mut prefix, Input::Tokens(&system)).unwrap();
        for seed in 0..3 {
            let pixels = pixels(&files, seed);
            let mut scene = Sequence::default();
            model.fork(&prefix, &mut scene);
            model.encode(&pixels);
            let visual = model.visual_tokens();
            model.forward(&mut pass, &mut scene, Input::Visual(0..visual)).unwrap();
            for length in [1, 9, 40] {
                let question = ids(length, seed as usize);
                let mut branch = Sequence::default();
                model.fork(&scene, &mut branch);
                model.forward(&mut pass, &mut branch, Input::Tokens(&question)).unwrap();
                let got = continuation(model, &mut branch, 7);
                model.release(&mut branch);
                let want = from_nothing(model, &pixels, &system, &question, 192);
                assert!(got == want, "{name}: picture {seed}, question of {length}");
                // The fresh run encoded the same picture, so its visual tokens are still in place.
            }
            model.release(&mut scene);
        }
        model.release(&mut prefix);
        assert_eq!(model.cache().pages_used(), 0, "{name}");
    }
}

#[test]
fn rewinding_forgets_exactly_what_came_after_the_mark() {
    let files = files(MODELS[0]);
    let model = &mut load(&files, cpu(2), DEFAULT);
    let mut pass = model.pass().unwrap();
    let mut sequence = Sequence::default();
    model.forward(&mut pass, &mut sequence, Input::Tokens(&ids(50, 1))).unwrap();
    let mark = sequence.mark();
    let want = continuation(model, &mut sequence, 9);
    for length in [1, 14, 15, 70] {
        model.rewind(&mut sequence, mark);
        assert_eq!(sequence.len(), 50);
        model.forward(&mut pass, &mut sequence, Input::Tokens(&ids(length, 5))).unwrap();
        model.rewind(&mut sequence, mark);
        assert!(continuation(model, &mut sequence, 9) == want, "after {length} positions");
    }
}

#[test]
fn two_passes_interleave_between_layers() {
    let files = files(MODELS[1]);
    let model = &mut load(&files, cpu(2), DEFAULT);
    let (first, second) = (ids(40, 1), ids(25, 2));
    let alone = |model: &mut MobileVlm<Cpu>, ids: &[u32]| {
        let (mut pass, mut sequence) = (model.pass().unwrap(), Sequence::default());
        model.forward(&mut pass, &mut sequence, Input::Tokens(ids)).unwrap();
        let logits = model.logits(&pass).to_vec();
        model.release(&mut sequence);
        logits
    };
    let want = [alone(model, &first), alone(model, &second)];
    let (mut a, mut b) = (model.pass().unwrap(), model.pass().unwrap());
    let (mut one, mut two) = (Sequence::default(), Sequence::default());
    model.begin_pass(&mut a, &mut one, Input::Tokens(&first)).unwrap();
    model.begin_pass(&mut b, &mut two, Input::Tokens(&second)).unwrap();
    for layer in 0..model.layers() {
        model.pass_layer(&mut a, layer);
        model.pass_layer(&mut b, layer);
    }
    assert!(model.logits(&a) == want[0] && model.logits(&b) == want[1]);
}

#[test]
fn frames_and_tokens_need_no_new_memory() {
    for name in MODELS {
        let files = files(name);
        // With one thread everything runs on the one whose allocations are counted.
        let model = &mut load(&files, cpu(1), DEFAULT);
        let mut preprocessor = Preprocessor::new(files.vision.image, files.image_mean, files.image_std);
        let picture = image::RgbImage::from_fn(320, 200, |x, y| image::Rgb([x as u8, y as u8, 7]));
        let (mut pass, mut scene, mut branch) =
            (model.pass().unwrap(), Sequence::default(), Sequence::default());
        let mut frame = || {
            model.encode(preprocessor.pixels(&picture));
            model.release(&mut scene);
            let visual = 0..model.visual_tokens();
            model.forward(&mut pass, &mut scene, Input::Visual(visual)).unwrap();
            model.fork(&scene, &mut branch);
            model.forward(&mut pass, &mut branch, Input::Tokens(&[5, 6, 7, 8, 9])).unwrap();
            for id in 10..30 {
                model.forward(&mut pass, &mut branch, Input::Tokens(&[id])).unwrap();
                assert!(model.logits(&pass)[0].is_finite());
            }
        };
        frame();
        let ((), tally) = crate::allocation::during(frame);
        assert_eq!(tally.calls, 0, "{name}: {tally:?}");
    }
}

#[test]
fn the_scalar_reference_and_the_cpu_agree() {
    let files = files(MODELS[2]);
    let options = LoadOptions { exact: true, ..DEFAULT };
    let (pixels, prompt) = (pixels(&files, 2), ids(20, 1));
    let run = |bits: Vec<u32>| bits.into_iter().map(f32::from_bits).collect::<Vec<_>>();
    let want = run(from_nothing(&mut load(&files, Reference, options), &pixels, &prompt, &prompt, 192));
    let got = run(from_nothing(&mut load(&files, cpu(2), options), &pixels, &prompt, &prompt, 192));
    let top = want.iter().fold(0f32, |top, logit| top.max(logit.abs()));
    let worst = want.iter().zip(&got).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
    assert!(worst <= 5e-5 * top, "error {} of {top}", worst / top);
}

/// A running engine on hand-made frames.
pub(crate) struct Rig {
    pub(crate) engine: EngineHandle,
    pub(crate) events: mpsc::Receiver<Event>,
    latest: Arc<Latest<Frame>>,
    frames: u64,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// An engine whose options `change` has changed.
    pub(crate) fn with(change: impl FnOnce(&mut EngineOptions)) -> Self {
        let files = files(MODELS[0]);
        let (wake, config) = (Wake::default(), Config::default());
        let latest = Arc::new(Latest::new(wake.clone()));
        let camera =
            |name: &str, latest| CameraInput { name: name.into(), latest, max_age: MAX_AGE, describe: true };
        let empty = Arc::new(Latest::new(wake.clone()));
        let mut options = EngineOptions {
            model_id: "tiny".into(),
            caption: mobilevlmd::config::CaptionConfig {
                max_tokens: 12,
                // These frames are there to be described, however alike they are.
                change_threshold: 0.0,
                ..config.caption
            },
            question: config.question,
            rules: Vec::new(),
            changes: Default::default(),
            foretold: None,
        };
        change(&mut options);
        let parts = EngineParts {
            model: load(&files, cpu(1), DEFAULT),
            tokenizer: Arc::new(Tokenizer::from_source(&files.tokenizer).unwrap()),
            preprocessor: Preprocessor::new(files.vision.image, files.image_mean, files.image_std),
            cameras: vec![camera("front", latest.clone()), camera("dark", empty)],
            wake,
            options,
        };
        let (engine, events) = engine::spawn(parts).unwrap();
        Self { engine, events, latest, frames: 0 }
    }

    /// Puts a frame in front of the camera.
    pub(crate) fn show(&mut self, colour: u8) -> u64 {
        self.show_captured(colour, Instant::now())
    }

    /// Puts a frame in front of the camera that it captured earlier.
    fn show_captured(&mut self, colour: u8, captured: Instant) -> u64 {
        let sequence = self.frames;
        self.frames += 1;
        let bytes = (0..64 * 48).flat_map(|i| [colour, (i % 64) as u8 * 4, 255 - colour]).collect();
        self.latest.put(Frame {
            sequence,
            captured_at: 1_000 + sequence,
            captured,
            width: 64,
            height: 48,
            stride: 64 * 3,
            format: PixelFormat::Rgb24,
            color: Default::default(),
            bytes,
        });
        sequence
    }

    pub(crate) fn caption(&mut self) -> Caption {
        loop {
            match self.events.blocking_recv().expect("the engine runs") {
                Event::Caption(caption, _) => return *caption,
                Event::Piece(_) | Event::Alert(..) | Event::CameraRemoved(_) => {}
            }
        }
    }

    pub(crate) fn ask(&self, camera: &str, question: Question) -> mpsc::Receiver<AnswerPiece> {
        let (reply, pieces) = mpsc::channel(64);
        let ask = Ask { camera: camera.into(), question, arrived: Instant::now(), reply };
        self.engine.asks().send(ask).unwrap();
        pieces
    }
}

#[test]
fn a_frame_older_than_its_camera_allows_is_counted_and_not_described() {
    let mut rig = Rig::new();
    let progress = rig.engine.progress();
    let start = Instant::now();
    for too_old in 1..=3 {
        let captured = Instant::now().checked_sub(MAX_AGE + Duration::from_secs(1)).unwrap();
        rig.show_captured(10, captured);
        while progress.report().cameras[0].too_old < too_old {
            assert!(start.elapsed() < Duration::from_secs(60), "{:?}", progress.report().cameras[0]);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let fresh = rig.show(20);
    assert_eq!(rig.caption().frame.sequence, fresh);
    let report = progress.report();
    assert_eq!((report.cameras[0].too_old, report.cameras[0].captions), (3, 1));
    assert_eq!(report.engine.images, 1, "nothing was encoded in vain");
}

/// What a caller has heard: pieces in order, exactly one end, and nothing after it.
#[derive(Default)]
pub(crate) struct Heard {
    joined: String,
    next: u32,
    end: Option<Result<Answer, AskError>>,
}

impl Heard {
    pub(crate) fn hear(&mut self, piece: AnswerPiece) {
        assert!(self.end.is_none(), "a piece after the end: {piece:?}");
        match piece {
            AnswerPiece::Text { index, text } => {
                assert_eq!(index, self.next);
                self.next += 1;
                self.joined.push_str(&text);
            }
            AnswerPiece::Final(answer) => self.end = Some(Ok(answer)),
            AnswerPiece::Error(error) => self.end = Some(Err(error)),
        }
    }

    /// The end, now that nothing more comes.
    pub(crate) fn end(self) -> Result<Answer, AskError> {
        let Self { joined, end, .. } = self;
        let end = end.expect("a question ends with an answer or an error");
        if let Ok(answer) = &end {
            assert!(answer.text.starts_with(&joined), "{:?} does not begin {:?}", joined, answer.text);
        }
        end
    }
}

/// All that is said to a caller.
pub(crate) fn collect(mut pieces: mpsc::Receiver<AnswerPiece>) -> Result<Answer, AskError> {
    let mut heard = Heard::default();
    while let Some(piece) = pieces.blocking_recv() {
        heard.hear(piece);
    }
    heard.end()
}

pub(crate) fn question(text: &str) -> Question {
    Question { text: text.into(), max_tokens: 6, ..Question::default() }
}

#[test]
fn every_frame_shown_alone_is_captioned_once() {
    let mut rig = Rig::new();
    for colour in [10, 120, 250] {
        let shown = rig.show(colour);
        let caption = rig.caption();
        assert_eq!((caption.frame.sequence, caption.frame.captured_at), (shown, 1_000 + shown));
        assert_eq!((caption.frame.camera.as_str(), caption.model_id.as_str()), ("front", "tiny"));
        assert!(caption.tokens.generated > 0 && caption.tokens.cached >= 144);
        assert!(caption.timings.encode_ms > 0.0 && caption.timings.decode_ms > 0.0);
    }
    rig.engine.stop().unwrap();
    while let Ok(event) = rig.events.try_recv() {
        assert!(matches!(event, Event::Piece(_)), "a caption without a frame: {event:?}");
    }
}

#[test]
fn questions_on_a_described_frame_use_its_positions() {
    let mut rig = Rig::new();
    let shown = rig.show(60);
    rig.caption();
    let images = rig.engine.progress().report().engine.images;
    let first = collect(rig.ask("front", question("What is there?"))).unwrap();
    let second = collect(rig.ask("front", question("What is there?"))).unwrap();
    assert_eq!((first.frame.sequence, &first.text), (shown, &second.text));
    assert!(first.tokens.cached >= 144 && first.timings.encode_ms == 0.0);
    assert_eq!(rig.engine.progress().report().engine.images, images, "the picture was encoded again");
    let fresh = Question { frame: FrameChoice::Sequence(shown), ..question("What is there?") };
    assert_eq!(collect(rig.ask("front", fresh)).unwrap().text, first.text);
}

#[test]
fn an_answer_equals_that_of_a_new_engine() {
    let ask = |captions: u8| {
        let mut rig = Rig::new();
        for other in 0..captions {
            rig.show(other);
            rig.caption();
        }
        rig.show(99);
        let fresh = Question { frame: FrameChoice::Fresh, ..question("Is a door open?") };
        collect(rig.ask("front", fresh)).unwrap().text
    };
    assert_eq!(ask(0), ask(3));
}

#[test]
fn a_picture_brought_along_is_answered_and_forgotten() {
    let mut rig = Rig::new();
    rig.show(20);
    rig.caption();
    let before = rig.engine.progress().report().cache.pages_used;
    let picture = std::fs::read(data("images/gradient.png")).unwrap();
    let brought = Question { frame: FrameChoice::Picture(picture), ..question("What is it?") };
    let answer = collect(rig.ask("front", brought)).unwrap();
    assert_eq!(answer.frame.sequence, 0);
    assert!(answer.timings.encode_ms > 0.0);
    collect(rig.ask("front", question("And now?"))).unwrap();
    assert!(rig.engine.progress().report().cache.pages_used <= before);
}

#[test]
fn bad_questions_get_typed_errors() {
    let mut rig = Rig::new();
    rig.show(1);
    rig.caption();
    let picture =
        |bytes: &[u8]| Question { frame: FrameChoice::Picture(bytes.to_vec()), ..question("What?") };
    let unknown = collect(rig.ask("rear", question("What?")));
    assert!(matches!(unknown, Err(AskError::UnknownCamera { known, .. }) if known == ["front", "dark"]));
    type Expected = fn(&AskError) -> bool;
    let checks: [(&str, Question, Expected); 6] = [
        ("front", question("  "), |e| matches!(e, AskError::BadRequest { .. })),
        ("front", picture(b"no picture"), |e| matches!(e, AskError::BadRequest { .. })),
        ("front", question(&"why ".repeat(4000)), |e| matches!(e, AskError::TooLong { .. })),
        ("dark", question("What?"), |e| matches!(e, AskError::NoFrame { .. })),
        ("front", Question { frame: FrameChoice::Sequence(77), ..question("What?") }, |e| {
            matches!(e, AskError::NoFrame { .. })
        }),
        ("front", Question { deadline_ms: 1, max_tokens: 400, ..question("What?") }, |e| {
            matches!(e, AskError::Deadline { deadline_ms: 1 })
        }),
    ];
    for (camera, asked, is_expected) in checks {
        let text = asked.text.chars().take(20).collect::<String>();
        let error = collect(rig.ask(camera, asked)).unwrap_err();
        assert!(is_expected(&error), "{camera} \"{text}\": {error:?}");
    }
    rig.show(2);
    assert!(!rig.caption().text.is_empty() || rig.frames == 2, "captions go on");
}

#[test]
fn stopping_cancels_open_questions_and_callers_who_left_cost_nothing() {
    let mut rig = Rig::new();
    rig.show(1);
    rig.caption();
    drop(rig.ask("front", Question { max_tokens: 4000, ..question("Gone?") }));
    let long: Vec<_> =
        (0..3).map(|_| rig.ask("front", Question { max_tokens: 4000, ..question("Still there?") })).collect();
    rig.engine.stop().unwrap();
    for pieces in long {
        // A greedy answer may end by itself before the stop arrives.
        let end = collect(pieces);
        assert!(matches!(&end, Err(AskError::Cancelled { .. }) | Ok(_)), "{end:?}");
    }
}
