//! One scene as the model is to learn it: its picture, its caption, questions with answers, and what
//! each patch shows.

use image::RgbImage;
use mobilevlmd::camera::world::{Category, Label, Painter, Scene, Style, exchanges};
use mobilevlmd::model::files::{CLIP_MEAN, CLIP_STD};
use mobilevlmd::model::preprocess::Preprocessor;
use mobilevlmd::model::prompt::{SYSTEM, Turn, after_image};
use mobilevlmd::model::tokenizer::Tokenizer;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng, seq::SliceRandom};

use crate::thing::Thing;

/// Sizes in which scenes are drawn: a test camera's and smaller ones, since only what is left after
/// scaling to the model's picture counts.
const SIZES: [(u32, u32); 3] = [(320, 240), (240, 180), (160, 120)];

/// One exchange about a picture: everything after the visual tokens.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Question and answer.
    pub ids: Vec<u32>,
    /// Where the answer begins in `ids`.
    pub answer: usize,
    /// What is asked about; `caption` for descriptions.
    pub category: &'static str,
}

/// One scene.
pub struct Example {
    /// Patches `(patches, 3 * patch * patch)`, channels outermost, normalized.
    pub patches: Vec<f32>,
    /// Exchanges.
    pub segments: Vec<Segment>,
    /// What the patches show.
    pub things: Vec<Thing>,
    /// A number from 0 to 1 by which a run decides about this scene.
    pub chance: f32,
}

/// Draws scenes and puts them into tokens.
pub struct Examples<'a> {
    tokenizer: &'a Tokenizer,
    preprocessor: Preprocessor,
    painter: Painter,
    picture: RgbImage,
    patch: usize,
    captions: usize,
    questions: usize,
}

impl<'a> Examples<'a> {
    /// For pictures of `image` pixels a side in patches of `patch`, each with as many `captions` and
    /// `questions` at most.
    pub fn new(
        tokenizer: &'a Tokenizer,
        (image, patch): (usize, usize),
        (captions, questions): (usize, usize),
    ) -> Self {
        Self {
            tokenizer,
            preprocessor: Preprocessor::new(image, CLIP_MEAN, CLIP_STD),
            painter: Painter::default(),
            picture: RgbImage::new(0, 0),
            patch,
            captions,
            questions,
        }
    }

    /// The example of scene `seed`.
    pub fn draw(&mut self, seed: u64) -> Example {
        let scene = Scene::sample(seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (width, height) = SIZES[rng.random_range(0..SIZES.len())];
        self.painter.draw(&scene, width, height, &mut self.picture);
        let labels = self.labels(&scene, (width, height));
        let things = labels.into_iter().map(|label| Thing::new(&scene, label)).collect();
        let picture = std::mem::take(&mut self.picture);
        let patches = self.patches(&picture);
        self.picture = picture;
        let segments = self.segments(&scene, seed, &mut rng);
        Example { patches, segments, things, chance: rng.random() }
    }

    /// A picture of which nothing else is known.
    pub fn show(&mut self, picture: &RgbImage) -> Example {
        let patches = self.patches(picture);
        let count = (self.preprocessor.side() / self.patch).pow(2);
        Example { patches, segments: Vec::new(), things: vec![Thing::NOTHING; count], chance: 1.0 }
    }

    fn patches(&mut self, picture: &RgbImage) -> Vec<f32> {
        let (side, patch) = (self.preprocessor.side(), self.patch);
        let pixels = self.preprocessor.pixels(picture); // (3, side, side)
        let mut patches = Vec::with_capacity(pixels.len());
        for (row, column) in grid(side / patch, side / patch) {
            for plane in pixels.chunks_exact(side * side) {
                for line in plane.chunks_exact(side).skip(row * patch).take(patch) {
                    patches.extend_from_slice(&line[column * patch..(column + 1) * patch]);
                }
            }
        }
        patches
    }

    /// Labels of the patches of the padded picture, from a grid of half patches over the frame.
    fn labels(&self, scene: &Scene, (width, height): (u32, u32)) -> Vec<Label> {
        let side = self.preprocessor.side() / self.patch;
        let columns = 2 * side;
        let rows = columns * height as usize / width as usize;
        let above = (columns - rows) / 2;
        let halves = scene.labels(columns, rows);
        let half = |row: usize, column: usize| match row.checked_sub(above) {
            Some(row) if row < rows => halves[row * columns + column],
            _ => Label::Background,
        };
        let label = |(row, column): (usize, usize)| {
            let quarters = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(y, x)| half(2 * row + y, 2 * column + x));
            // A thing counts for more than what is behind it.
            let weight = |label: &Label| {
                let count = quarters.iter().filter(|other| *other == label).count();
                (*label != Label::Background, count)
            };
            quarters.into_iter().max_by_key(weight).unwrap_or(Label::Background)
        };
        grid(side, side).map(label).collect()
    }

    fn segments(&self, scene: &Scene, seed: u64, rng: &mut ChaCha8Rng) -> Vec<Segment> {
        let mut styles = Style::ALL;
        styles.shuffle(rng);
        let mut segments = Vec::with_capacity(self.captions + self.questions);
        for style in styles.into_iter().take(self.captions) {
            let prompts = style.prompts();
            let prompt = prompts[rng.random_range(0..prompts.len())];
            segments.push(self.segment("caption", prompt, &scene.caption(style)));
        }
        let ranked = exchanges(scene, seed).into_iter().map(|exchange| {
            // Weighted drawing without replacement.
            let rank = rng.random::<f32>().powf(1.0 / weight(exchange.category));
            (rank, exchange)
        });
        let mut ranked: Vec<_> = ranked.collect();
        ranked.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        ranked.truncate(self.questions);
        segments.extend(ranked.iter().map(|(_, exchange)| {
            self.segment(exchange.category.word(), &exchange.question, &exchange.answer)
        }));
        segments
    }

    fn segment(&self, category: &'static str, question: &str, answer: &str) -> Segment {
        let asked = after_image(self.tokenizer, &[Turn::ask(question)]);
        let ids = after_image(self.tokenizer, &[Turn::finished(question, answer)]);
        debug_assert!(ids.starts_with(&asked));
        Segment { answer: asked.len(), ids, category }
    }
}

/// How often a category is asked about, beside how often a scene allows it: what is hardest to learn most.
fn weight(category: Category) -> f32 {
    match category {
        Category::Relation | Category::Position => 2.0,
        Category::Size | Category::Color => 1.5,
        Category::Shape | Category::Count => 1.0,
        Category::Presence | Category::Door | Category::Person | Category::Lamp => 0.6,
    }
}

/// Texts that all words of the world occur in.
pub fn texts(scenes: u64) -> Vec<String> {
    let mut texts = vec![SYSTEM.to_owned(), "USER: ASSISTANT:".to_owned()];
    for seed in 0..scenes {
        let scene = Scene::sample(seed);
        for style in Style::ALL {
            texts.extend(style.prompts().iter().map(|prompt| (*prompt).to_owned()));
            texts.push(scene.caption(style));
        }
        texts.extend(exchanges(&scene, seed).into_iter().flat_map(|e| [e.question, e.answer]));
    }
    texts
}

/// Rows and columns of a grid, row by row.
fn grid(rows: usize, columns: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).flat_map(move |row| (0..columns).map(move |column| (row, column)))
}
