//! CLIP vision transformer: a picture becomes patch features.

use kernels::Device;

/// Numbers of a CLIP vision tower, as its file has them.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Width of a patch feature.
    pub hidden: usize,
    /// Blocks to run: all but the last of the published tower (`mm_vision_select_layer` -2).
    pub blocks: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the MLP.
    pub mlp: usize,
    /// Side of the square input picture in pixels.
    pub image: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Epsilon of every LayerNorm.
    pub eps: f32,
}

impl VisionConfig {
    /// Patches along one side.
    pub fn side(&self) -> usize {
        self.image / self.patch
    }

    /// Patches of the picture.
    pub fn patches(&self) -> usize {
        self.side() * self.side()
    }
}

/// A linear layer with bias.
pub struct Linear<D: Device> {
    /// `(outputs, inputs)`.
    pub weight: D::Matrix,
    /// `(1, outputs)`.
    pub bias: D::Tensor,
}

/// Weight and bias of a LayerNorm, each `(1, width)`.
pub struct Norm<D: Device> {
    /// Scale.
    pub weight: D::Tensor,
    /// Shift.
    pub bias: D::Tensor,
}

/// One pre-norm transformer block.
pub struct VisionBlock<D: Device> {
    /// Before attention.
    pub norm1: Norm<D>,
    /// Queries.
    pub q: Linear<D>,
    /// Keys.
    pub k: Linear<D>,
    /// Values.
    pub v: Linear<D>,
    /// Joins the heads.
    pub out: Linear<D>,
    /// Before the MLP.
    pub norm2: Norm<D>,
    /// `hidden -> mlp`.
    pub fc1: Linear<D>,
    /// `mlp -> hidden`.
    pub fc2: Linear<D>,
}

/// The tower. Only the blocks that run are held.
pub struct VisionWeights<D: Device> {
    /// Patch embedding `(hidden, 3 * patch * patch)`, no bias.
    pub patch: D::Matrix,
    /// Class vector `(1, hidden)`.
    pub class: D::Tensor,
    /// Position table `(1 + patches, hidden)`.
    pub positions: D::Tensor,
    /// `pre_layrnorm`.
    pub pre_norm: Norm<D>,
    /// The blocks in order.
    pub blocks: Vec<VisionBlock<D>>,
}
