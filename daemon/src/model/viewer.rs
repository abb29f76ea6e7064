//! One picture at a time and what is said about it, without an engine: for one-shot commands and checks.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use image::RgbImage;
use kernels::{Device, DeviceError, KvDtype};

use super::files::{LoadOptions, ModelError, ModelFiles};
use super::kv_cache::Sequence;
use super::pass::Pass;
use super::preprocess::Preprocessor;
use super::prompt::{Turn, after_image, system_prefix};
use super::sampler::Sampler;
use super::speech::{Heard, Speech};
use super::tokenizer::{Tokenizer, TokenizerError};
use super::{Input, KvOptions, MobileVlm, PassError};

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The model cannot be loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Its vocabulary cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// There is no memory for a pass.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The question does not fit.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// Whoever is shown the text does not take it.
    #[error(transparent)]
    Show(#[from] io::Error),
}

/// A loaded model. The system prompt is computed once, a picture once for all questions about it.
pub struct Viewer<D: Device> {
    model: MobileVlm<D>,
    tokenizer: Arc<Tokenizer>,
    preprocessor: Preprocessor,
    pass: Pass<D>,
    system: Sequence,
    /// The system prompt and the picture.
    scene: Sequence,
    /// The scene, the question and the answer.
    talk: Sequence,
}

/// What a look at a picture took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Padding, resizing and normalizing.
    pub preprocess: Duration,
    /// Vision tower and projector.
    pub encode: Duration,
    /// The visual tokens' keys and values.
    pub prefill: Duration,
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Its text.
    pub text: String,
    /// Its tokens, the end token included.
    pub ids: Vec<u32>,
    /// Whether the token limit or the context cut it short.
    pub truncated: bool,
}

impl<D: Device> Viewer<D> {
    /// Loads the model and computes the system prompt.
    pub fn load(
        files: &ModelFiles,
        device: D,
        options: &LoadOptions,
        kv: KvDtype,
    ) -> Result<Self, ViewError> {
        let tokenizer = Arc::new(Tokenizer::of_model(files)?);
        let kv = KvOptions::with_budget(&files.language, files.language.context, 0, kv);
        // The scene's pages are shared by the talk; the last one of each is its own.
        let kv = KvOptions { pages: kv.pages + 2, ..kv };
        let mut model = MobileVlm::load(files, device, options, kv)?;
        let mut pass = model.pass()?;
        let mut system = Sequence::default();
        model.forward(&mut pass, &mut system, Input::Tokens(&system_prefix(&tokenizer)))?;
        Ok(Self {
            preprocessor: Preprocessor::new(files.vision.image, files.image_mean, files.image_std),
            model,
            tokenizer,
            pass,
            system,
            scene: Sequence::default(),
            talk: Sequence::default(),
        })
    }

    /// The model.
    pub fn model(&self) -> &MobileVlm<D> {
        &self.model
    }

    /// Text to tokens and back.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Takes in a picture, which replaces the one before.
    pub fn look(&mut self, picture: &RgbImage) -> Result<Look, ViewError> {
        let start = Instant::now();
        let pixels = self.preprocessor.pixels(picture);
        let preprocess = start.elapsed();
        self.model.encode(pixels);
        let encode = start.elapsed() - preprocess;
        self.model.release(&mut self.talk);
        self.model.fork(&self.system, &mut self.scene);
        let visual = Input::Visual(0..self.model.visual_tokens());
        self.model.forward(&mut self.pass, &mut self.scene, visual)?;
        Ok(Look { preprocess, encode, prefill: start.elapsed() - encode - preprocess })
    }

    /// Reads a question about the picture, which replaces the one before.
    pub fn ask(&mut self, question: &str) -> Result<(), ViewError> {
        let tokens = after_image(&self.tokenizer, &[Turn::ask(question)]);
        self.model.fork(&self.scene, &mut self.talk);
        self.read(&tokens)
    }

    /// Reads tokens behind what was asked and answered so far.
    pub fn read(&mut self, tokens: &[u32]) -> Result<(), ViewError> {
        self.model.forward(&mut self.pass, &mut self.talk, Input::Tokens(tokens))?;
        Ok(())
    }

    /// Logits of the token that comes next.
    pub fn logits(&mut self) -> &[f32] {
        self.model.logits(&self.pass)
    }

    /// Answers the question; pieces of text go to `show` as they come.
    pub fn answer(
        &mut self,
        sampler: &mut Sampler,
        max_tokens: usize,
        show: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> Result<Said, ViewError> {
        let mut speech = Speech::new(&self.tokenizer, &[]);
        let mut ids = Vec::new();
        let mut truncated = true;
        while ids.len() < max_tokens {
            let id = sampler.sample(self.model.logits(&self.pass));
            ids.push(id);
            let heard = speech.hear(id);
            if let Some(piece) = speech.take_piece() {
                show(&piece)?;
            }
            if heard == Heard::End {
                truncated = false;
                break;
            }
            if ids.len() == max_tokens || self.talk.len() == self.model.context() {
                break;
            }
            self.read(&[id])?;
        }
        speech.finish();
        if let Some(piece) = speech.take_piece() {
            show(&piece)?;
        }
        Ok(Said { text: speech.text().to_owned(), ids, truncated })
    }
}
