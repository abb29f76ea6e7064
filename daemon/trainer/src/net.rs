//! MobileVLM as it is trained: the same formulas as the daemon's, on candle tensors with derivatives.
//!
//! Parameters have the names of GGUF files, so that writing one is copying.

pub mod vision;
pub mod projector;
pub mod language;

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use kernels::Pairing;
use mobilevlmd::model::language::LanguageConfig;
use mobilevlmd::model::vision::VisionConfig;

use crate::ops::{HEAD_DIM, add_bias, layer_norm};
use language::Language;
use projector::Projector;
use vision::Vision;

/// The numbers of the model.
#[derive(Clone, Debug)]
pub struct Dims {
    /// The vision tower.
    pub vision: VisionConfig,
    /// The language model.
    pub language: LanguageConfig,
}

impl Dims {
    /// The built-in model: 96 x 96 pixels, 36 visual tokens, three million parameters on either side.
    pub fn world() -> Self {
        Self {
            vision: VisionConfig {
                hidden: 192,
                blocks: 6,
                heads: 6,
                mlp: 768,
                image: 96,
                patch: 8,
                eps: 1e-5,
            },
            language: LanguageConfig {
                vocabulary: 1024,
                hidden: 192,
                layers: 6,
                heads: 6,
                kv_heads: 6,
                head_dim: HEAD_DIM,
                ffn: 512,
                eps: 1e-5,
                rope_base: 10_000.0,
                pairing: Pairing::Neighbours,
                context: 2048,
            },
        }
    }
}

/// The whole model.
pub struct Net {
    /// Patches to features.
    pub vision: Vision,
    /// Features to visual tokens.
    pub projector: Projector,
    /// Tokens and visual tokens to logits.
    pub language: Language,
}

impl Net {
    /// Takes or makes all parameters.
    pub fn new(dims: &Dims, parameters: &VarBuilder) -> Result<Self> {
        Ok(Self {
            vision: Vision::new(&dims.vision, parameters)?,
            projector: Projector::new(&dims.vision, dims.language.hidden, parameters)?,
            language: Language::new(&dims.language, parameters)?,
        })
    }
}

/// A matrix `(outputs, inputs)` whose products keep the spread of their inputs; `gain` scales it.
fn matrix(parameters: &VarBuilder, name: &str, outputs: usize, inputs: usize, gain: f64) -> Result<Tensor> {
    let init = Init::Randn { mean: 0.0, stdev: gain / (inputs as f64).sqrt() };
    parameters.get_with_hints((outputs, inputs), name, init)
}

/// `x w^T`: rows times a matrix `(outputs, inputs)`.
fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.matmul(&weight.t()?)
}

/// A linear layer with bias.
struct Linear {
    weight: Tensor, // (outputs, inputs)
    bias: Tensor,   // (outputs)
}

impl Linear {
    fn new(parameters: &VarBuilder, name: &str, outputs: usize, inputs: usize, gain: f64) -> Result<Self> {
        Ok(Self {
            weight: matrix(parameters, &format!("{name}.weight"), outputs, inputs, gain)?,
            bias: parameters.get_with_hints(outputs, &format!("{name}.bias"), Init::Const(0.0))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        add_bias(&product(x, &self.weight)?, &self.bias)
    }
}

/// Weight and bias of a LayerNorm.
struct Norm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl Norm {
    fn new(parameters: &VarBuilder, name: &str, width: usize, eps: f32) -> Result<Self> {
        Ok(Self {
            weight: parameters.get_with_hints(width, &format!("{name}.weight"), Init::Const(1.0))?,
            bias: parameters.get_with_hints(width, &format!("{name}.bias"), Init::Const(0.0))?,
            eps,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}
