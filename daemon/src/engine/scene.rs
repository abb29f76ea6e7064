//! Pictures in the KV cache: one being encoded, one kept per camera.

use std::sync::Arc;
use std::time::Instant;

use image::RgbImage;
use kernels::Device;
use messages::{FrameStamp, Timings};

use super::Engine;
use super::kind::Kind;
use super::progress::millis;
use super::unit::{Pace, UNIT};
use crate::camera::Frame;
use crate::model::kv_cache::Sequence;
use crate::model::pass::Pass;
use crate::model::preprocess::Preprocessor;
use crate::model::{Input, MobileVlm, PassError};

/// A picture whose positions are in the cache, behind the system prompt.
pub(super) struct Scene {
    /// The frame.
    pub(super) stamp: FrameStamp,
    /// When it was captured.
    pub(super) captured: Instant,
    /// The frame itself; a picture brought along has none.
    pub(super) frame: Option<Arc<Frame>>,
    /// What it took.
    pub(super) timings: Timings,
    /// System prompt and picture.
    pub(super) sequence: Sequence,
    /// When it was asked about last, at first when it was captured.
    pub(super) used: Instant,
    /// Whether a caption was begun for it.
    pub(super) is_captioned: bool,
    /// Where it shows nothing new: the capture time of the first frame that looked like this.
    pub(super) unchanged_since: Option<u64>,
    /// From this time on what is to be said of it takes turns with questions.
    pub(super) owed_at: Option<Instant>,
}

/// Who a picture is encoded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A camera, by index.
    Camera(usize),
    /// A question that brought a picture, by its number.
    Question(u64),
}

/// A picture on its way into the cache.
pub(super) struct Encoding {
    /// Who it is for.
    pub(super) target: Target,
    scene: Scene,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The picture is resized and its patches are embedded.
    Patches,
    /// This half of a block of the tower is next.
    Block(usize),
    /// The projector is next.
    Projector,
    /// Visual tokens from `done` are next.
    Visual { done: usize },
    /// `layer` is next for visual tokens up to `end`.
    Layer { end: usize, layer: usize },
    /// All is done.
    Done,
}

impl Stage {
    fn kind(self) -> Kind {
        match self {
            Self::Patches => Kind::Patches,
            Self::Block(_) => Kind::Block,
            Self::Projector => Kind::Projector,
            Self::Visual { .. } => Kind::Board,
            Self::Layer { .. } | Self::Done => Kind::Layers,
        }
    }
}

/// What a picture goes through.
struct Works<'a, D: Device> {
    model: &'a mut MobileVlm<D>,
    /// Takes visual tokens into the cache.
    pass: &'a mut Pass<D>,
    preprocessor: &'a mut Preprocessor,
    rgb: &'a RgbImage,
    pace: &'a mut Pace,
}

impl Encoding {
    /// A picture that is to be encoded; `scene` holds the system prompt.
    fn new(target: Target, scene: Scene) -> Self {
        Self { target, scene, stage: Stage::Patches }
    }

    /// Does one unit of work, all of one kind. Returns whether the picture is in the cache.
    fn step<D: Device>(&mut self, mut works: Works<'_, D>) -> Result<bool, PassError> {
        let (start, kind) = (Instant::now(), self.stage.kind());
        let preprocessed = self.scene.timings.preprocess_ms;
        loop {
            self.stage = self.advance(&mut works)?;
            if start.elapsed() >= UNIT || self.stage.kind() != kind || matches!(self.stage, Stage::Done) {
                break;
            }
        }
        let timings = &mut self.scene.timings;
        let spent = millis(start.elapsed()) - (timings.preprocess_ms - preprocessed);
        *match kind {
            Kind::Board | Kind::Layers => &mut timings.prefill_ms,
            _ => &mut timings.encode_ms,
        } += spent;
        Ok(matches!(self.stage, Stage::Done))
    }

    /// Does one stage and returns the next.
    fn advance<D: Device>(&mut self, works: &mut Works<'_, D>) -> Result<Stage, PassError> {
        let Works { model, pass, preprocessor, rgb, pace } = works;
        let tokens = model.visual_tokens();
        Ok(match self.stage {
            Stage::Patches => {
                let start = Instant::now();
                let pixels = preprocessor.pixels(rgb);
                self.scene.timings.preprocess_ms += millis(start.elapsed());
                model.begin_image(pixels);
                Stage::Block(0)
            }
            Stage::Block(half) => {
                model.image_half(half);
                if half + 1 < model.image_halves() { Stage::Block(half + 1) } else { Stage::Projector }
            }
            Stage::Projector => {
                model.finish_image();
                Stage::Visual { done: 0 }
            }
            Stage::Visual { done } => {
                let sequence = &mut self.scene.sequence;
                let work = model.row_work(sequence.len() + tokens - done);
                let most = pace.rows(work, MobileVlm::<D>::MAX_ROWS);
                // Parts of about the same size, since a small one takes as long as a larger one.
                let parts = (tokens - done).div_ceil(most);
                let end = done + (tokens - done).div_ceil(parts);
                model.begin_pass(pass, sequence, Input::Visual(done..end))?;
                Stage::Layer { end, layer: 0 }
            }
            Stage::Layer { end, layer } => {
                let start = Instant::now();
                model.pass_layer(pass, layer);
                pace.see_layer(pass.rows(), model.pass_work(pass), start.elapsed());
                match (layer + 1 < model.layers(), end < tokens) {
                    (true, _) => Stage::Layer { end, layer: layer + 1 },
                    (false, true) => Stage::Visual { done: end },
                    (false, false) => Stage::Done,
                }
            }
            Stage::Done => Stage::Done,
        })
    }

    /// From this time on it takes turns with questions.
    pub(super) fn owed_at(&self) -> Option<Instant> {
        self.scene.owed_at
    }

    /// The finished picture, or one to be released.
    pub(super) fn into_scene(self) -> Scene {
        self.scene
    }
}

impl<D: Device> Engine<D> {
    /// Begins to encode what is in `self.rgb`, which stays until the picture is encoded.
    pub(super) fn begin_encoding(&mut self, target: Target, mut scene: Scene, start: Instant) {
        self.model.fork(&self.system, &mut scene.sequence);
        let visual = self.model.visual_tokens();
        if let Err(error) = self.set_aside(&mut scene.sequence, visual) {
            self.model.release(&mut scene.sequence);
            return self.fail_encoding(target, error.into());
        }
        scene.timings.preprocess_ms = millis(start.elapsed());
        self.encoding = Some(Encoding::new(target, scene));
    }

    /// Does one unit of the picture. When it is complete, it goes to whom it was encoded for.
    pub(super) fn step_encoding(&mut self) -> Kind {
        let Some(encoding) = &mut self.encoding else { return Kind::Picture };
        let kind = encoding.stage.kind();
        let step = encoding.step(Works {
            model: &mut self.model,
            pass: &mut self.encode_pass,
            preprocessor: &mut self.preprocessor,
            rgb: &self.rgb,
            pace: &mut self.pace,
        });
        if !matches!(step, Ok(false)) {
            self.end_encoding(step.err());
        }
        kind
    }

    /// Hands the picture on, or tells that the cache has no room for it.
    fn end_encoding(&mut self, error: Option<PassError>) {
        let Some(encoding) = self.encoding.take() else { return };
        let target = encoding.target;
        let mut scene = encoding.into_scene();
        if let Some(error) = error {
            self.model.release(&mut scene.sequence);
            self.fail_encoding(target, error);
            return;
        }
        let computed = self.model.visual_tokens() as u64;
        self.progress.update(|report| {
            report.engine.images += 1;
            report.engine.encode_ms = scene.timings.encode_ms;
            report.cache.positions_computed += computed;
        });
        self.progress.time(|stages| {
            stages.preprocess.add_ms(scene.timings.preprocess_ms);
            stages.encode.add_ms(scene.timings.encode_ms);
            stages.picture.add_ms(scene.timings.prefill_ms);
        });
        match target {
            Target::Camera(camera) => self.keep_scene(camera, scene),
            Target::Question(number) => self.give_picture(number, scene),
        }
    }
}
