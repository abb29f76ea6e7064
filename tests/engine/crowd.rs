//! Many callers at once: everybody gets the answer that he would get alone.

use image::RgbImage;
use messages::Sampling;
use mobilevlmd::model::sampler::Sampler;
use mobilevlmd::model::viewer::Viewer;

use super::*;
use crate::random::Random;

const CAMERAS: [&str; 3] = ["left", "middle", "right"];

const TEXTS: [&str; 5] = [
    "What is there?",
    "Is a door open?",
    "How many persons are in the picture, and what are they doing?",
    "Why?",
    "Describe everything that you can see from the left to the right, one thing after the other.",
];

/// What a camera sees: a picture of its own for every camera and frame.
fn picture(camera: usize, sequence: u64) -> RgbImage {
    let seed = 7 + 31 * camera as u32 + 101 * sequence as u32;
    RgbImage::from_fn(64, 48, |x, y| {
        image::Rgb([x * seed, y * seed + x, (x / 8 + y / 8) * seed].map(|value| (value % 256) as u8))
    })
}

/// An engine with three cameras.
struct Hall {
    engine: EngineHandle,
    events: mpsc::Receiver<Event>,
    latest: Vec<Arc<Latest<Frame>>>,
    frames: [u64; 3],
}

impl Hall {
    fn new(files: &ModelFiles, pages: usize, queue: usize) -> Self {
        let (parts, latest) = parts(files, pages, queue);
        let (engine, events) = engine::spawn(parts).unwrap();
        Self { engine, events, latest, frames: [0; 3] }
    }

    fn show(&mut self, camera: usize) {
        let sequence = self.frames[camera];
        self.frames[camera] += 1;
        self.latest[camera].put(Frame {
            sequence,
            captured_at: 1_000 + sequence,
            captured: Instant::now(),
            width: 64,
            height: 48,
            stride: 64 * 3,
            format: PixelFormat::Rgb24,
            color: Default::default(),
            bytes: picture(camera, sequence).into_raw(),
        });
    }

    /// Shows every camera a last frame and waits until all are described. Returns all captions.
    fn settle(&mut self) -> Vec<Caption> {
        (0..CAMERAS.len()).for_each(|camera| self.show(camera));
        let mut captions: Vec<Caption> = Vec::new();
        let is_last = |caption: &Caption, camera: usize| {
            caption.frame.camera == CAMERAS[camera] && caption.frame.sequence + 1 == self.frames[camera]
        };
        while !(0..3).all(|camera| captions.iter().any(|caption| is_last(caption, camera))) {
            if let Event::Caption(caption, _) = self.events.blocking_recv().expect("the engine runs") {
                captions.push(*caption);
            }
        }
        captions
    }

    fn ask(&self, camera: usize, question: Question) -> Result<mpsc::Receiver<AnswerPiece>, AskError> {
        let (reply, pieces) = mpsc::channel(256);
        let arrived = Instant::now();
        self.engine.asks().send(Ask { camera: CAMERAS[camera].into(), question, arrived, reply })?;
        Ok(pieces)
    }

    fn pages_used(&self) -> u32 {
        self.engine.progress().report().cache.pages_used
    }
}

/// What an engine with three cameras is made of, and where frames are shown.
fn parts(files: &ModelFiles, pages: usize, queue: usize) -> (EngineParts<Cpu>, Vec<Arc<Latest<Frame>>>) {
    let (wake, config) = (Wake::default(), Config::default());
    let latest: Vec<_> = CAMERAS.iter().map(|_| Arc::new(Latest::new(wake.clone()))).collect();
    let input = |(name, latest): (&&str, &Arc<Latest<Frame>>)| CameraInput {
        name: (*name).into(),
        latest: latest.clone(),
        max_age: Duration::from_secs(60),
        describe: true,
    };
    let kv = KvOptions { context: CONTEXT, pages, dtype: KvDtype::F16 };
    let parts = EngineParts {
        model: MobileVlm::load(files, cpu(2), &DEFAULT, kv).unwrap(),
        tokenizer: Arc::new(Tokenizer::of_model(files).unwrap()),
        preprocessor: Preprocessor::new(files.vision.image, files.image_mean, files.image_std),
        cameras: CAMERAS.iter().zip(&latest).map(input).collect(),
        wake,
        options: EngineOptions {
            model_id: "tiny".into(),
            caption: mobilevlmd::config::CaptionConfig {
                max_tokens: 12,
                change_threshold: 0.0,
                ..config.caption
            },
            question: mobilevlmd::config::QuestionConfig { queue, ..config.question },
            rules: Vec::new(),
            changes: Default::default(),
            foretold: None,
        },
    };
    (parts, latest)
}

/// A question as it comes, and whose picture it brings if it brings one.
fn random_question(random: &mut Random, newest: u64) -> Question {
    let sampling = match random.below(3) {
        0 => Sampling { temperature: 0.9, top_p: 0.9, seed: random.below(1000) },
        _ => Sampling::default(),
    };
    let frame = match random.below(6) {
        0 => FrameChoice::Fresh,
        1 => FrameChoice::Sequence(newest),
        2 => FrameChoice::Picture(std::fs::read(data("images/gradient.png")).unwrap()),
        _ => FrameChoice::Latest,
    };
    let text = TEXTS[random.below(TEXTS.len() as u64) as usize];
    Question { frame, sampling, max_tokens: 1 + random.below(20) as u32, ..Question::new(text) }
}

/// What a viewer says who has the model for himself.
fn alone(viewer: &mut Viewer<Cpu>, picture: &RgbImage, asked: &Question) -> (String, bool) {
    viewer.look(picture).unwrap();
    viewer.ask(&asked.text).unwrap();
    let mut sampler = Sampler::new(asked.sampling);
    let said = viewer.answer(&mut sampler, asked.max_tokens as usize, &mut |_| Ok(())).unwrap();
    (said.text, said.truncated)
}

fn crowd(model: &str, seed: u64) {
    let files = files(model);
    let viewer = &mut Viewer::load(&files, cpu(1), &DEFAULT, KvDtype::F16).unwrap();
    let random = &mut Random(0x5eed_0000 + seed);
    let mut hall = Hall::new(&files, 120, 64);
    let mut captions = hall.settle();
    let before = hall.pages_used();
    let mut open = Vec::new();
    for _ in 0..24 {
        let camera = random.below(3) as usize;
        if random.below(4) == 0 {
            hall.show(camera);
        }
        let question = random_question(random, hall.frames[camera] - 1);
        match hall.ask(camera, question.clone()).unwrap() {
            pieces if random.below(8) == 0 => drop(pieces),
            pieces => open.push((camera, question, pieces)),
        }
        if random.below(3) == 0 {
            std::thread::sleep(Duration::from_micros(random.below(4000)));
        }
    }
    for (camera, asked, pieces) in open {
        let answer = match collect(pieces) {
            Ok(answer) => answer,
            // A newer frame came before the engine saw the question.
            Err(AskError::NoFrame { .. }) if matches!(asked.frame, FrameChoice::Sequence(_)) => continue,
            Err(error) => panic!("{asked:?}: {error}"),
        };
        let seen = match &asked.frame {
            FrameChoice::Picture(bytes) => image::load_from_memory(bytes).unwrap().to_rgb8(),
            _ => picture(camera, answer.frame.sequence),
        };
        let want = alone(viewer, &seen, &asked);
        assert_eq!((answer.text, answer.truncated), want, "{model}, seed {seed}: {asked:?}");
    }
    captions.extend(hall.settle());
    assert_eq!(hall.pages_used(), before, "{model}, seed {seed}: pages were lost");
    let prompt = Question { max_tokens: 12, ..Question::new(Config::default().caption.prompt) };
    for caption in captions {
        let camera = CAMERAS.iter().position(|name| *name == caption.frame.camera).unwrap();
        let want = alone(viewer, &picture(camera, caption.frame.sequence), &prompt);
        assert_eq!((caption.text, caption.truncated), want, "{model}, seed {seed}: {:?}", caption.frame);
    }
    hall.engine.stop().unwrap();
}

#[test]
fn everybody_in_a_crowd_gets_the_answer_he_would_get_alone() {
    for (model, seed) in [(MODELS[0], 1), (MODELS[0], 2), (MODELS[1], 3), (MODELS[2], 4)] {
        crowd(model, seed);
    }
}

#[test]
fn questions_that_find_no_pages_wait_for_those_of_others() {
    let files = files(MODELS[0]);
    // Room for the pictures and for two or three answers at a time.
    let mut hall = Hall::new(&files, 34, 64);
    hall.settle();
    let before = hall.pages_used();
    let asked = Question { max_tokens: 40, ..Question::new(TEXTS[2]) };
    let open: Vec<_> = (0..12).map(|index| hall.ask(index % 3, asked.clone()).unwrap()).collect();
    let texts: Vec<_> = open.into_iter().map(|pieces| collect(pieces).unwrap().text).collect();
    for (index, text) in texts.iter().enumerate() {
        assert_eq!(*text, texts[index % 3], "question {index}");
    }
    // The last answer is out a moment before its pages are back.
    hall.settle();
    let after = hall.pages_used();
    assert!(after <= before, "pages were lost: {after} in use, {before} before");
}

#[test]
fn one_too_many_is_refused_and_told_when_to_come_back() {
    let files = files(MODELS[0]);
    let mut hall = Hall::new(&files, 120, 2);
    hall.settle();
    let asked = Question { max_tokens: 60, ..Question::new(TEXTS[0]) };
    let mut waits = Vec::new();
    let mut open = Vec::new();
    for _ in 0..40 {
        match hall.ask(0, asked.clone()) {
            Ok(pieces) => open.push(pieces),
            Err(error) => waits.push(error),
        }
    }
    let ends: Vec<_> = open.into_iter().map(collect).collect();
    assert!(ends.iter().any(Result::is_ok), "{ends:?}");
    waits.extend(ends.into_iter().filter_map(Result::err));
    let refused = waits.len() as u64;
    assert!(
        waits.iter().all(|error| matches!(error, AskError::Overloaded { retry_after_ms: 1.. })),
        "{waits:?}"
    );
    assert!(refused > 0 && hall.engine.progress().report().engine.questions_refused == refused);
}

#[test]
fn pages_come_back_when_a_caller_leaves_or_time_is_up() {
    let files = files(MODELS[0]);
    let mut hall = Hall::new(&files, 120, 64);
    hall.settle();
    let before = hall.pages_used();
    let asked = Question { max_tokens: 200, ..Question::new(TEXTS[4]) };
    for deadline_ms in [0, 2, 5] {
        let asked = Question { deadline_ms, ..asked.clone() };
        let mut open: Vec<_> = (0..6).map(|index| hall.ask(index % 3, asked.clone()).unwrap()).collect();
        drop(open.split_off(3));
        if deadline_ms == 0 {
            drop(open);
        } else {
            for end in open.into_iter().map(collect) {
                assert!(matches!(end, Err(AskError::Deadline { .. }) | Ok(_)), "{end:?}");
            }
        }
        // What is asked next ends after the round in which the others were dropped.
        collect(hall.ask(0, Question { max_tokens: 2, ..Question::new(TEXTS[3]) }).unwrap()).unwrap();
        hall.settle();
        assert_eq!(hall.pages_used(), before, "deadline {deadline_ms}");
    }
}

#[test]
fn a_camera_that_disappears_costs_nothing_any_more() {
    let files = files(MODELS[0]);
    let mut hall = Hall::new(&files, 120, 64);
    hall.settle();
    let before = hall.pages_used();
    let asked = Question { max_tokens: 200, ..Question::new(TEXTS[4]) };
    let open = [0, 1, 1].map(|camera| hall.ask(camera, asked.clone()).unwrap());
    let brought = FrameChoice::Picture(std::fs::read(data("images/gradient.png")).unwrap());
    let own = hall.ask(1, Question { frame: brought, max_tokens: 3, ..asked.clone() }).unwrap();
    hall.latest[1].lose();
    let ends = open.map(collect);
    assert!(ends[0].is_ok(), "{ends:?}");
    assert!(matches!(&ends[1], Err(AskError::NoFrame { reason }) if reason.contains("middle")), "{ends:?}");
    assert!(matches!(&ends[2], Err(AskError::NoFrame { .. })), "{ends:?}");
    collect(own).unwrap();
    let late = collect(hall.ask(1, asked.clone()).unwrap());
    assert!(matches!(late, Err(AskError::NoFrame { .. })), "{late:?}");
    assert!(hall.pages_used() < before, "its picture is given up");
    // It comes back with its next frame.
    hall.settle();
    assert_eq!(hall.pages_used(), before);
    let short = Question { max_tokens: 2, ..asked };
    collect(hall.ask(1, short).unwrap()).unwrap();
}

#[test]
fn an_engine_gives_the_model_back_with_an_empty_cache() {
    let files = files(MODELS[0]);
    let (parts, latest) = parts(&files, 120, 64);
    let (ready, engine, events) = engine::prepare(parts).unwrap();
    let running = std::thread::spawn(move || ready.run());
    let mut hall = Hall { engine, events, latest, frames: [0; 3] };
    hall.settle();
    let asked = Question { max_tokens: 200, ..Question::new(TEXTS[4]) };
    let open: Vec<_> = (0..6).map(|index| hall.ask(index % 3, asked.clone()).unwrap()).collect();
    (0..3).for_each(|camera| hall.show(camera));
    hall.engine.ask_to_stop();
    for end in open.into_iter().map(collect) {
        assert!(matches!(end, Err(AskError::Cancelled { .. }) | Ok(_)), "{end:?}");
    }
    let (model, end) = running.join().unwrap();
    end.unwrap();
    assert_eq!(model.cache().pages_used(), 0);
}
