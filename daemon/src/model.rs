//! MobileVLM: a picture and a question become words.
//!
//! [`MobileVlm`] joins the parts and owns device, weights, scratch and KV cache. Its methods are
//! small units of work, so that whoever drives it can stop or do something else between them.

pub mod preprocess;
pub mod vision;
pub mod projector;
pub mod tokenizer;
pub mod prompt;
pub mod kv_cache;
mod kept;
mod prefix_file;
pub mod pass;
pub mod language;
pub mod sampler;
pub mod constraint;
pub mod speech;
pub mod viewer;
pub mod yes_no;

pub mod builtin;
mod cursor;
pub mod files;
pub mod gguf;
pub mod gguf_writer;
pub mod hf;
pub mod weights;

use std::ops::Range;
use std::path::PathBuf;

use kernels::{Device, DeviceError, Grid, KvDtype, KvShape, PAGE};

use files::{LoadOptions, ModelError, ModelFiles};
use kv_cache::prefix_tree::PrefixTree;
use kv_cache::{KvCache, Mark, OutOfPages, Sequence};
use language::{Language, LanguageConfig};
use pass::Pass;
use projector::Projector;
use vision::Vision;
use weights::kept::Kept;

pub use prefix_file::PrefixError;

/// Size and precision of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvOptions {
    /// Positions of one sequence at most.
    pub context: usize,
    /// Pages of the arena.
    pub pages: usize,
    /// Storage of keys and values.
    pub dtype: KvDtype,
}

impl KvOptions {
    /// As many pages as `bytes` hold, at least one sequence of `context` positions.
    pub fn with_budget(config: &LanguageConfig, context: usize, bytes: usize, dtype: KvDtype) -> Self {
        let page = kv_shape(config).page_bytes(dtype);
        Self { context, pages: (bytes / page).max(context.div_ceil(PAGE)), dtype }
    }
}

fn kv_shape(config: &LanguageConfig) -> KvShape {
    KvShape { layers: config.layers, kv_heads: config.kv_heads, head_dim: config.head_dim }
}

/// What a pass through the language model is given.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// Token ids.
    Tokens(&'a [u32]),
    /// Some of the visual tokens of the picture encoded last.
    Visual(Range<usize>),
}

impl<'a> Input<'a> {
    /// Positions `range` of it.
    pub fn part(&self, range: Range<usize>) -> Input<'a> {
        match self {
            Input::Tokens(ids) => Input::Tokens(&ids[range]),
            Input::Visual(rows) => Input::Visual(rows.start + range.start..rows.start + range.end),
        }
    }

    /// Positions it takes.
    pub fn len(&self) -> usize {
        match self {
            Input::Tokens(ids) => ids.len(),
            Input::Visual(rows) => rows.len(),
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why a sequence cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PassError {
    /// The cache is full.
    #[error(transparent)]
    OutOfPages(#[from] OutOfPages),
    /// The sequence is full.
    #[error("{wanted} positions do not fit the context of {context}; ask for less or raise model.context")]
    ContextFull {
        /// Positions it would have.
        wanted: usize,
        /// Positions it may have.
        context: usize,
    },
}

/// The whole model on one device.
pub struct MobileVlm<D: Device> {
    device: D,
    vision: Vision<D>,
    projector: Projector<D>,
    language: Language<D>,
    cache: KvCache<D>,
    prefixes: PrefixTree,
    kv_shape: KvShape,
    kv_dtype: KvDtype,
    context: usize,
    /// What the language weights are, and how they were loaded.
    fingerprint: String,
    options: LoadOptions,
    prefix_folder: Option<PathBuf>,
    weight_bytes: usize,
    logits: Vec<f32>,
}

impl<D: Device> MobileVlm<D> {
    /// Rows of one pass at most.
    pub const MAX_ROWS: usize = pass::MAX_ROWS;

    /// Rows whose logits are computed together at most.
    pub const MAX_SAMPLED: usize = Language::<D>::MAX_SAMPLED;

    /// Loads all weights of checked files onto `device`.
    pub fn load(
        files: &ModelFiles,
        device: D,
        options: &LoadOptions,
        kv: KvOptions,
    ) -> Result<Self, ModelError> {
        Self::load_kept(files, device, options, kv, &Kept::nowhere())
    }

    /// The same with what an earlier start has packed; what this one packs is noted there.
    pub fn load_kept(
        files: &ModelFiles,
        device: D,
        options: &LoadOptions,
        kv: KvOptions,
        kept: &Kept,
    ) -> Result<Self, ModelError> {
        let vision = weights::vision(files, &device, options, kept)?;
        let projector = weights::projector(files, &device, options, kept)?;
        let language = weights::language(files, &device, options, kept)?;
        let weight_bytes = vision.bytes(&device) + projector.bytes(&device) + language.bytes(&device);
        let config = &files.language;
        let (shape, fingerprint) = (kv_shape(config), files.language_fingerprint()?);
        let grid = Grid::square(files.vision.side());
        let build = |device: D| -> Result<Self, DeviceError> {
            Ok(Self {
                vision: Vision::new(&device, files.vision.clone(), vision)?,
                projector: Projector::new(&device, grid, config.hidden, projector)?,
                language: Language::new(&device, config.clone(), language, kv.context)?,
                cache: KvCache::new(&device, shape, kv.pages, kv.dtype)?,
                prefixes: PrefixTree::default(),
                kv_shape: shape,
                kv_dtype: kv.dtype,
                context: kv.context,
                fingerprint,
                options: *options,
                prefix_folder: None,
                weight_bytes,
                logits: vec![0.0; config.vocabulary],
                device,
            })
        };
        build(device).map_err(ModelError::Memory)
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The KV cache.
    pub fn cache(&self) -> &KvCache<D> {
        &self.cache
    }

    /// Bytes of the packed weights.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// Positions of one sequence at most.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Visual tokens of a picture.
    pub fn visual_tokens(&self) -> usize {
        self.projector.tokens()
    }

    /// Blocks of the vision tower.
    pub fn vision_blocks(&self) -> usize {
        self.vision.config().blocks
    }

    /// Bytes of the matrices that encoding a picture reads.
    pub fn vision_bytes(&self) -> usize {
        self.vision.weight_bytes(&self.device) + self.projector.weight_bytes(&self.device)
    }

    /// Bytes of the matrices that a pass with logits reads.
    pub fn language_bytes(&self) -> usize {
        self.language.weight_bytes(&self.device)
    }

    /// Layers of the language model.
    pub fn layers(&self) -> usize {
        self.language.config().layers
    }

    // A picture, in units: `begin_image`, every block, `finish_image`.

    /// Patch embedding of `pixels` `(3, image, image)`.
    pub fn begin_image(&mut self, pixels: &[f32]) {
        self.vision.embed(&self.device, pixels);
    }

    /// Halves of the blocks of the vision tower: attention and the MLP of each in turn.
    pub fn image_halves(&self) -> usize {
        2 * self.vision_blocks()
    }

    /// The half `index`, below [`MobileVlm::image_halves`].
    pub fn image_half(&mut self, index: usize) {
        if index.is_multiple_of(2) {
            self.vision.attention(&self.device, index / 2);
        } else {
            self.vision.mlp(&self.device, index / 2);
        }
    }

    /// Features and visual tokens, which stay until the next picture is finished.
    pub fn finish_image(&mut self) -> Encoded<'_, D> {
        let features = self.vision.features(&self.device);
        let tokens = self.projector.project(&self.device, features);
        Encoded { device: &self.device, features, tokens }
    }

    /// All units of a picture.
    pub fn encode(&mut self, pixels: &[f32]) -> Encoded<'_, D> {
        self.begin_image(pixels);
        for index in 0..self.image_halves() {
            self.image_half(index);
        }
        self.finish_image()
    }

    // Sequences.

    /// Makes `to` hold the positions of `from`, sharing its pages.
    pub fn fork(&mut self, from: &Sequence, to: &mut Sequence) {
        self.cache.fork(from, to);
    }

    /// Forgets everything after `mark`.
    pub fn rewind(&mut self, sequence: &mut Sequence, mark: Mark) {
        self.cache.rewind(sequence, mark);
    }

    /// Gives the pages of a sequence back.
    pub fn release(&mut self, sequence: &mut Sequence) {
        self.cache.release(sequence);
    }

    // A pass, in units: `begin` and a `push` for each sequence, every layer, and logits where they
    // are needed. What becomes of a row does not depend on the other rows of the pass.

    /// A pass without rows. Several can be under way, each between two of its layers.
    pub fn pass(&self) -> Result<Pass<D>, DeviceError> {
        self.language.pass(&self.device)
    }

    /// Takes all rows out of a pass.
    pub fn begin(&self, pass: &mut Pass<D>) {
        pass.clear(&self.device);
    }

    /// Places `input`, up to [`Pass::room`] positions, at the end of `sequence`. Returns the rows of
    /// the pass they take. Kept prefixes that nobody pinned make room. On error nothing has changed.
    ///
    /// Their keys and values are complete after the last layer. Until then the sequence must not be
    /// forked, and may be pushed again only in the same pass; one given up before that must be
    /// taken out with [`Self::withdraw`] and back with [`Self::rewind`].
    pub fn push(
        &mut self,
        pass: &mut Pass<D>,
        sequence: &mut Sequence,
        input: Input<'_>,
    ) -> Result<Range<usize>, PassError> {
        let wanted = sequence.len() + input.len();
        if wanted > self.context {
            return Err(PassError::ContextFull { wanted, context: self.context });
        }
        self.make_room(self.cache.pages_missing(sequence, input.len()))?;
        let Self { device, language, cache, projector, .. } = self;
        Ok(match input {
            Input::Tokens(ids) => language.push_tokens(device, cache, pass, sequence, ids)?,
            Input::Visual(rows) => {
                let visual = (projector.visual_tokens(), rows);
                language.push_visual(device, cache, pass, sequence, visual)?
            }
        })
    }

    /// [`Self::begin`] and [`Self::push`]: a pass of one sequence.
    pub fn begin_pass(
        &mut self,
        pass: &mut Pass<D>,
        sequence: &mut Sequence,
        input: Input<'_>,
    ) -> Result<(), PassError> {
        self.begin(pass);
        self.push(pass, sequence, input).map(|_| ())
    }

    /// Takes `rows`, as one [`Self::push`] returned them, out of an unfinished pass. The rows behind
    /// them move down by as many. A sequence pushed several times must be withdrawn as often.
    pub fn withdraw(&mut self, pass: &mut Pass<D>, rows: Range<usize>) {
        self.language.withdraw(&self.device, pass, rows);
    }

    /// What a layer of a row that sees `seen` positions takes, one that sees none taking 1.
    pub fn row_work(&self, seen: usize) -> f64 {
        1.0 + self.language.config().attention_work(seen)
    }

    /// The same for all rows of a pass together.
    pub fn pass_work(&self, pass: &Pass<D>) -> f64 {
        pass.rows() as f64 + self.language.config().attention_work(pass.seen())
    }

    /// Layer `index` of a pass with rows.
    pub fn pass_layer(&mut self, pass: &mut Pass<D>, index: usize) {
        self.language.layer(&self.device, &mut self.cache, pass, index);
    }

    /// Logits after the last row of the finished pass.
    pub fn logits(&mut self, pass: &Pass<D>) -> &[f32] {
        self.logits_of(pass, &[pass.rows() - 1]).into_row(0)
    }

    /// Logits after up to [`Self::MAX_SAMPLED`] rows of the finished pass, computed together.
    pub fn logits_of(&mut self, pass: &Pass<D>, rows: &[usize]) -> Logits<'_, D> {
        let computed = self.language.logits(&self.device, pass, rows);
        Logits { device: &self.device, computed, row: &mut self.logits }
    }

    /// All units of as many passes as `input` takes.
    pub fn forward(
        &mut self,
        pass: &mut Pass<D>,
        sequence: &mut Sequence,
        input: Input<'_>,
    ) -> Result<(), PassError> {
        for start in (0..input.len()).step_by(Self::MAX_ROWS) {
            let part = input.part(start..input.len().min(start + Self::MAX_ROWS));
            self.begin_pass(pass, sequence, part)?;
            for index in 0..self.layers() {
                self.pass_layer(pass, index);
            }
        }
        Ok(())
    }
}

/// Logits of some rows of a pass.
pub struct Logits<'a, D: Device> {
    device: &'a D,
    computed: &'a D::Tensor, // (rows, vocabulary)
    row: &'a mut [f32],
}

impl<'a, D: Device> Logits<'a, D> {
    /// One number for each entry of the vocabulary, after row `index` of those asked for.
    pub fn row(&mut self, index: usize) -> &[f32] {
        self.device.read(self.computed, index, self.row);
        self.row
    }

    fn into_row(self, index: usize) -> &'a [f32] {
        self.device.read(self.computed, index, self.row);
        self.row
    }
}

/// What the vision part made of a picture.
pub struct Encoded<'a, D: Device> {
    device: &'a D,
    features: &'a D::Tensor,
    tokens: &'a D::Tensor,
}

impl<D: Device> Encoded<'_, D> {
    /// Patch features `(patches, vision hidden)`, row order.
    pub fn features(&self) -> Vec<f32> {
        self.copy(self.features)
    }

    /// Visual tokens `(visual tokens, hidden)`, row order.
    pub fn tokens(&self) -> Vec<f32> {
        self.copy(self.tokens)
    }

    fn copy(&self, tensor: &D::Tensor) -> Vec<f32> {
        let (rows, cols) = self.device.shape(tensor);
        let mut values = vec![0.0; rows * cols];
        self.device.read(tensor, 0, &mut values);
        values
    }
}
