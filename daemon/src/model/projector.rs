//! Lightweight downsample projectors: patch features become visual tokens.

use kernels::Device;

use super::vision::{Linear, Norm};

/// A bottleneck block of LDP: depthwise 3x3, squeeze-excite, pointwise.
pub struct BottleneckBlock<D: Device> {
    /// Depthwise kernel `(9, hidden)`.
    pub depthwise: D::Tensor,
    /// LayerNorm over channels after it, eps 1e-5.
    pub norm1: Norm<D>,
    /// Squeeze `hidden -> squeeze`.
    pub squeeze: Linear<D>,
    /// Excite `squeeze -> hidden`.
    pub excite: Linear<D>,
    /// Pointwise `(hidden, hidden)`, no bias.
    pub pointwise: D::Matrix,
    /// LayerNorm over channels after it, eps 1e-5.
    pub norm2: Norm<D>,
}

/// What follows the MLP.
pub enum Downsample<D: Device> {
    /// LDP: a block of stride 1 with residual, a block of stride 2 without.
    Ldp(Box<[BottleneckBlock<D>; 2]>),
    /// LDPv2: 2x2 average pooling, then a depthwise 3x3 `(9, hidden)` with bias `(1, hidden)` whose
    /// output is added to its input.
    LdpV2 {
        /// Depthwise kernel.
        depthwise: D::Tensor,
        /// Its bias.
        bias: D::Tensor,
    },
}

/// The projector.
pub struct ProjectorWeights<D: Device> {
    /// `vision hidden -> language hidden`, then GELU (erf).
    pub mlp1: Linear<D>,
    /// `language hidden -> language hidden`.
    pub mlp2: Linear<D>,
    /// From all patches to a quarter of them.
    pub downsample: Downsample<D>,
}
