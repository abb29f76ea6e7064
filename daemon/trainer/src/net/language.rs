//! The LLaMA language model.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use mobilevlmd::model::language::LanguageConfig;

use super::{matrix, product};
use crate::ops::{Rotation, Span, attention, rms_norm, rope, swiglu};

/// One layer. Rows of queries and keys are ordered for rotation of neighbouring pairs.
struct Layer {
    attention_norm: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    ffn_norm: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

/// The language model.
pub struct Language {
    eps: f32,
    embedding: Tensor, // (vocabulary, hidden)
    layers: Vec<Layer>,
    norm: Tensor,
    head: Tensor, // (vocabulary, hidden)
}

/// Rows of a batch: where each stands and what it sees.
pub struct Rows {
    /// Rotation by position.
    pub rotation: Rotation,
    /// Who sees whom.
    pub spans: Arc<Vec<Span>>,
}

impl Language {
    /// Takes or makes its parameters.
    pub fn new(config: &LanguageConfig, parameters: &VarBuilder) -> Result<Self> {
        let LanguageConfig { vocabulary, hidden, layers, heads, head_dim, ffn, eps, .. } = *config;
        let width = heads * head_dim;
        let scale = |name: &str| parameters.get_with_hints(hidden, name, Init::Const(1.0));
        let small = 1.0 / (2.0 * layers as f64).sqrt();
        let layer = |index: usize| {
            let name = |part: &str| format!("blk.{index}.{part}.weight");
            Ok(Layer {
                attention_norm: scale(&name("attn_norm"))?,
                q: matrix(parameters, &name("attn_q"), width, hidden, 1.0)?,
                k: matrix(parameters, &name("attn_k"), width, hidden, 1.0)?,
                v: matrix(parameters, &name("attn_v"), width, hidden, 1.0)?,
                out: matrix(parameters, &name("attn_output"), hidden, width, small)?,
                ffn_norm: scale(&name("ffn_norm"))?,
                gate: matrix(parameters, &name("ffn_gate"), ffn, hidden, 1.0)?,
                up: matrix(parameters, &name("ffn_up"), ffn, hidden, 1.0)?,
                down: matrix(parameters, &name("ffn_down"), hidden, ffn, small)?,
            })
        };
        let spread = Init::Randn { mean: 0.0, stdev: 0.5 };
        Ok(Self {
            eps,
            embedding: parameters.get_with_hints((vocabulary, hidden), "token_embd.weight", spread)?,
            layers: (0..layers).map(layer).collect::<Result<_>>()?,
            norm: scale("output_norm.weight")?,
            head: matrix(parameters, "output.weight", vocabulary, hidden, 0.5)?,
        })
    }

    /// The embedding table `(vocabulary, hidden)`.
    pub fn embedding(&self) -> &Tensor {
        &self.embedding
    }

    /// Inputs of the layers: entry `ids[row]` of the embedding table, followed by `visual`
    /// `(visual tokens, hidden)`, whose entries have ids from the size of the vocabulary up.
    pub fn embed(&self, visual: &Tensor, ids: &Tensor) -> Result<Tensor> {
        Tensor::cat(&[&self.embedding, visual], 0)?.index_select(ids, 0) // (rows, hidden)
    }

    /// Runs all layers over `x` `(rows, hidden)`.
    pub fn forward(&self, x: &Tensor, rows: &Rows) -> Result<Tensor> {
        let mut x = x.clone();
        for layer in &self.layers {
            x = layer.forward(&x, rows, self.eps)?;
        }
        Ok(x)
    }

    /// Logits `(sampled, vocabulary)` of the rows `sampled` of `x`.
    pub fn logits(&self, x: &Tensor, sampled: &Tensor) -> Result<Tensor> {
        let last = x.index_select(sampled, 0)?;
        product(&rms_norm(&last, &self.norm, self.eps)?, &self.head)
    }
}

impl Layer {
    fn forward(&self, x: &Tensor, rows: &Rows, eps: f32) -> Result<Tensor> {
        let normed = rms_norm(x, &self.attention_norm, eps)?;
        let q = rope(&product(&normed, &self.q)?, &rows.rotation)?;
        let k = rope(&product(&normed, &self.k)?, &rows.rotation)?;
        let v = product(&normed, &self.v)?;
        let x = (x + product(&attention(&q, &k, &v, &rows.spans)?, &self.out)?)?;
        let normed = rms_norm(&x, &self.ffn_norm, eps)?;
        let wide = swiglu(&product(&normed, &self.gate)?, &product(&normed, &self.up)?)?;
        &x + product(&wide, &self.down)?
    }
}
