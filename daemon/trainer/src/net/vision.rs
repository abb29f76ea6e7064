//! The CLIP vision tower.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use mobilevlmd::model::vision::VisionConfig;

use super::{Linear, Norm, product};
use crate::ops::{Span, attention, quick_gelu};

/// One pre-norm block.
struct Block {
    norm1: Norm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    norm2: Norm,
    fc1: Linear,
    fc2: Linear,
}

/// The tower.
pub struct Vision {
    patches: usize,
    hidden: usize,
    patch: Tensor,     // (hidden, 3, patch, patch)
    class: Tensor,     // (hidden)
    positions: Tensor, // (1 + patches, hidden)
    pre_norm: Norm,
    blocks: Vec<Block>,
}

impl Vision {
    /// Takes or makes its parameters.
    pub fn new(config: &VisionConfig, parameters: &VarBuilder) -> Result<Self> {
        let VisionConfig { hidden, blocks, mlp, patch, eps, .. } = *config;
        let inputs = (3 * patch * patch) as f64;
        let random = |stdev| Init::Randn { mean: 0.0, stdev };
        let block = |index: usize| {
            let name = |part: &str| format!("v.blk.{index}.{part}");
            // The last matrix of each branch starts small, so that a deep sum stays near one.
            let small = 1.0 / (2.0 * blocks as f64).sqrt();
            Ok(Block {
                norm1: Norm::new(parameters, &name("ln1"), hidden, eps)?,
                q: Linear::new(parameters, &name("attn_q"), hidden, hidden, 1.0)?,
                k: Linear::new(parameters, &name("attn_k"), hidden, hidden, 1.0)?,
                v: Linear::new(parameters, &name("attn_v"), hidden, hidden, 1.0)?,
                out: Linear::new(parameters, &name("attn_out"), hidden, hidden, small)?,
                norm2: Norm::new(parameters, &name("ln2"), hidden, eps)?,
                // Files of a tower without its last block call the first layer of the MLP `ffn_down`.
                fc1: Linear::new(parameters, &name("ffn_down"), mlp, hidden, 1.0)?,
                fc2: Linear::new(parameters, &name("ffn_up"), hidden, mlp, small)?,
            })
        };
        let patch_shape = (hidden, 3, patch, patch);
        Ok(Self {
            patches: config.patches(),
            hidden,
            patch: parameters.get_with_hints(
                patch_shape,
                "v.patch_embd.weight",
                random(1.0 / inputs.sqrt()),
            )?,
            class: parameters.get_with_hints(hidden, "v.class_embd", random(0.5))?,
            positions: parameters.get_with_hints(
                (1 + config.patches(), hidden),
                "v.position_embd.weight",
                random(0.3),
            )?,
            pre_norm: Norm::new(parameters, "v.pre_ln", hidden, eps)?,
            blocks: (0..blocks).map(block).collect::<Result<_>>()?,
        })
    }

    /// Flattened patches `(pictures * patches, 3 * patch * patch)` to features `(pictures * patches, hidden)`.
    pub fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let pictures = pixels.dim(0)? / self.patches;
        let (rows, hidden) = (1 + self.patches, self.hidden);
        let embedded = product(pixels, &self.patch.flatten_from(1)?)?; // (pictures * patches, hidden)
        let embedded = embedded.reshape((pictures, self.patches, hidden))?;
        let class = self.class.reshape((1, 1, hidden))?.broadcast_as((pictures, 1, hidden))?;
        let x = Tensor::cat(&[&class, &embedded], 1)?.broadcast_add(&self.positions)?;
        let mut x = self.pre_norm.forward(&x.reshape((pictures * rows, hidden))?)?;
        let span = |i: usize| Span { shared: 0..0, own: i * rows..(i + 1) * rows, causal: false };
        let spans = Arc::new((0..pictures).map(span).collect());
        for block in &self.blocks {
            x = block.forward(&x, &spans)?; // (pictures * rows, hidden)
        }
        let features = x.reshape((pictures, rows, hidden))?.narrow(1, 1, self.patches)?;
        features.contiguous()?.reshape((pictures * self.patches, hidden))
    }
}

impl Block {
    fn forward(&self, x: &Tensor, spans: &Arc<Vec<Span>>) -> Result<Tensor> {
        let normed = self.norm1.forward(x)?;
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|linear| linear.forward(&normed));
        let x = (x + self.out.forward(&attention(&q?, &k?, &v?, spans)?)?)?;
        let wide = quick_gelu(&self.fc1.forward(&self.norm2.forward(&x)?)?)?;
        &x + self.fc2.forward(&wide)?
    }
}
