//! Pictures in the KV cache: one being encoded, one kept per camera.

use std::sync::Arc;
use std::time::Instant;

use kernels::Device;
use messages::{FrameStamp, Timings};

use super::Engine;
use super::progress::millis;
use super::unit::{RowTime, UNIT};
use crate::camera::Frame;
use crate::model::kv_cache::Sequence;
use crate::model::pass::Pass;
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
    /// This block of the tower is next.
    Block(usize),
    /// Visual tokens from `done` are next.
    Visual { done: usize },
    /// `layer` is next for visual tokens up to `end`.
    Layer { end: usize, layer: usize },
}

impl Encoding {
    /// Begins with `pixels`; `scene` holds the system prompt.
    pub(super) fn begin<D: Device>(
        model: &mut MobileVlm<D>,
        target: Target,
        mut scene: Scene,
        pixels: &[f32],
    ) -> Self {
        let start = Instant::now();
        model.begin_image(pixels);
        scene.timings.encode_ms += millis(start.elapsed());
        Self { target, scene, stage: Stage::Block(0) }
    }

    /// Does one unit of work. Returns whether the picture is in the cache.
    pub(super) fn step<D: Device>(
        &mut self,
        model: &mut MobileVlm<D>,
        pass: &mut Pass<D>,
        row_time: &mut RowTime,
    ) -> Result<bool, PassError> {
        let start = Instant::now();
        let is_vision = matches!(self.stage, Stage::Block(_));
        let mut done = false;
        while !done && start.elapsed() < UNIT && is_vision == matches!(self.stage, Stage::Block(_)) {
            done = self.advance(model, pass, row_time)?;
        }
        let timings = &mut self.scene.timings;
        let spent = if is_vision { &mut timings.encode_ms } else { &mut timings.prefill_ms };
        *spent += millis(start.elapsed());
        Ok(done)
    }

    fn advance<D: Device>(
        &mut self,
        model: &mut MobileVlm<D>,
        pass: &mut Pass<D>,
        row_time: &mut RowTime,
    ) -> Result<bool, PassError> {
        match self.stage {
            Stage::Block(index) if index < model.vision_blocks() => {
                model.image_block(index);
                self.stage = Stage::Block(index + 1);
            }
            Stage::Block(_) => {
                model.finish_image();
                self.stage = Stage::Visual { done: 0 };
            }
            Stage::Visual { done } if done < model.visual_tokens() => {
                let end = model.visual_tokens().min(done + row_time.rows(MobileVlm::<D>::MAX_ROWS));
                model.begin_pass(pass, &mut self.scene.sequence, Input::Visual(done..end))?;
                self.stage = Stage::Layer { end, layer: 0 };
            }
            Stage::Visual { .. } => return Ok(true),
            Stage::Layer { end, layer } if layer < model.layers() => {
                let start = Instant::now();
                model.pass_layer(pass, layer);
                row_time.see(pass.rows(), start.elapsed());
                self.stage = Stage::Layer { end, layer: layer + 1 };
            }
            Stage::Layer { end, .. } => self.stage = Stage::Visual { done: end },
        }
        Ok(false)
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
    /// Begins to encode what is in `self.rgb`.
    pub(super) fn begin_encoding(&mut self, target: Target, mut scene: Scene, start: Instant) {
        self.model.fork(&self.system, &mut scene.sequence);
        let visual = self.model.visual_tokens();
        if let Err(error) = self.set_aside(&mut scene.sequence, visual) {
            self.model.release(&mut scene.sequence);
            return self.fail_encoding(target, error.into());
        }
        let pixels = self.preprocessor.pixels(&self.rgb);
        scene.timings.preprocess_ms = millis(start.elapsed());
        self.encoding = Some(Encoding::begin(&mut self.model, target, scene, pixels));
    }

    /// Does one unit of the picture. When it is complete, it goes to whom it was encoded for.
    pub(super) fn step_encoding(&mut self) {
        let Some(encoding) = &mut self.encoding else { return };
        let step = encoding.step(&mut self.model, &mut self.encode_pass, &mut self.row_time);
        if matches!(step, Ok(false)) {
            return;
        }
        let Some(encoding) = self.encoding.take() else { return };
        let target = encoding.target;
        let mut scene = encoding.into_scene();
        if let Err(error) = step {
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
