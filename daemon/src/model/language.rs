//! LLaMA: tokens and visual tokens become logits.

use kernels::{Device, Pairing};

/// Numbers of a LLaMA model, as its file has them.
#[derive(Clone, Debug, PartialEq)]
pub struct LanguageConfig {
    /// Entries of the vocabulary.
    pub vocabulary: usize,
    /// Width of a token.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// Width of the feed-forward network.
    pub ffn: usize,
    /// Epsilon of every RMSNorm.
    pub eps: f32,
    /// Base of the rotary embedding.
    pub rope_base: f32,
    /// Which entries rotate together: depends on the file format's row order.
    pub pairing: Pairing,
    /// Positions as trained.
    pub context: usize,
}

/// One layer.
pub struct LanguageLayer<D: Device> {
    /// RMSNorm before attention `(1, hidden)`.
    pub attention_norm: D::Tensor,
    /// Queries `(heads * head_dim, hidden)`.
    pub q: D::Matrix,
    /// Keys `(kv_heads * head_dim, hidden)`.
    pub k: D::Matrix,
    /// Values `(kv_heads * head_dim, hidden)`.
    pub v: D::Matrix,
    /// Joins the heads `(hidden, heads * head_dim)`.
    pub out: D::Matrix,
    /// RMSNorm before the feed-forward network `(1, hidden)`.
    pub ffn_norm: D::Tensor,
    /// `(ffn, hidden)`.
    pub gate: D::Matrix,
    /// `(ffn, hidden)`.
    pub up: D::Matrix,
    /// `(hidden, ffn)`.
    pub down: D::Matrix,
}

/// The language model.
pub struct LanguageWeights<D: Device> {
    /// Token embedding `(vocabulary, hidden)`.
    pub embedding: D::Matrix,
    /// The layers in order.
    pub layers: Vec<LanguageLayer<D>>,
    /// Last RMSNorm `(1, hidden)`.
    pub norm: D::Tensor,
    /// Logits `(vocabulary, hidden)`.
    pub head: D::Matrix,
}
