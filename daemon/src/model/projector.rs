//! Lightweight downsample projectors: patch features become visual tokens.

use kernels::{Activation, Device, DeviceError, Grid};

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

impl<D: Device> ProjectorWeights<D> {
    /// Bytes of all matrices.
    pub fn bytes(&self, device: &D) -> usize {
        let linear = |layer: &Linear<D>| device.matrix_bytes(&layer.weight);
        let bottleneck = |block: &BottleneckBlock<D>| {
            linear(&block.squeeze) + linear(&block.excite) + device.matrix_bytes(&block.pointwise)
        };
        let downsample = match &self.downsample {
            Downsample::Ldp(blocks) => blocks.iter().map(bottleneck).sum(),
            Downsample::LdpV2 { .. } => 0,
        };
        linear(&self.mlp1) + linear(&self.mlp2) + downsample
    }
}

/// Epsilon of the LayerNorms of LDP.
const EPS: f32 = 1e-5;

/// The projector with its scratch.
pub struct Projector<D: Device> {
    weights: ProjectorWeights<D>,
    grid: Grid,
    a: D::Tensor,        // (patches, hidden)
    b: D::Tensor,        // (patches, hidden)
    c: D::Tensor,        // (patches, hidden)
    mean: D::Tensor,     // (1, hidden)
    squeezed: D::Tensor, // (1, squeeze)
    excited: D::Tensor,  // (1, hidden)
    tokens: D::Tensor,   // (patches / 4, hidden)
}

impl<D: Device> Projector<D> {
    /// Joins weights and scratch; `grid` is the patches of the picture, `hidden` the width of a
    /// token.
    pub fn new(
        device: &D,
        grid: Grid,
        hidden: usize,
        weights: ProjectorWeights<D>,
    ) -> Result<Self, DeviceError> {
        let squeeze = match &weights.downsample {
            Downsample::Ldp(blocks) => {
                blocks.iter().map(|block| device.shape(&block.squeeze.bias).1).max().unwrap_or(1)
            }
            Downsample::LdpV2 { .. } => 1,
        };
        Ok(Self {
            a: device.tensor(grid.len(), hidden)?,
            b: device.tensor(grid.len(), hidden)?,
            c: device.tensor(grid.len(), hidden)?,
            mean: device.tensor(1, hidden)?,
            squeezed: device.tensor(1, squeeze)?,
            excited: device.tensor(1, hidden)?,
            tokens: device.tensor(grid.len() / 4, hidden)?,
            weights,
            grid,
        })
    }

    /// Visual tokens of a picture.
    pub fn tokens(&self) -> usize {
        self.grid.len() / 4
    }

    /// Bytes of the matrices that a picture reads.
    pub fn weight_bytes(&self, device: &D) -> usize {
        let ProjectorWeights { mlp1, mlp2, downsample } = &self.weights;
        let of_block = |block: &BottleneckBlock<D>| -> usize {
            let BottleneckBlock { squeeze, excite, pointwise, .. } = block;
            [&squeeze.weight, &excite.weight, pointwise]
                .map(|matrix| device.matrix_bytes(matrix))
                .iter()
                .sum()
        };
        let blocks = match downsample {
            Downsample::Ldp(blocks) => blocks.iter().map(of_block).sum(),
            Downsample::LdpV2 { .. } => 0,
        };
        blocks + device.matrix_bytes(&mlp1.weight) + device.matrix_bytes(&mlp2.weight)
    }

    /// What [`Projector::project`] made last.
    pub fn visual_tokens(&self) -> &D::Tensor {
        &self.tokens
    }

    /// Patch features `(patches, vision hidden)` to visual tokens `(patches / 4, hidden)`.
    pub fn project(&mut self, device: &D, features: &D::Tensor) -> &D::Tensor {
        let Self { weights, grid, a, b, c, mean, squeezed, excited, tokens } = self;
        device.matmul(features, &weights.mlp1.weight, Some(&weights.mlp1.bias), a); // (patches, hidden)
        device.activate(Activation::Gelu, a);
        device.matmul(a, &weights.mlp2.weight, Some(&weights.mlp2.bias), b); // (patches, hidden)
        match &weights.downsample {
            Downsample::Ldp(blocks) => {
                let excite = &mut Excite { mean, squeezed, excited };
                bottleneck(device, &blocks[0], *grid, 1, b, [a, c], excite);
                device.add(b, c); // (patches, hidden)
                bottleneck(device, &blocks[1], *grid, 2, b, [a, c], excite); // (patches / 4, hidden)
                device.copy_rows(c, 0..grid.len() / 4, tokens, 0);
            }
            Downsample::LdpV2 { depthwise, bias } => {
                device.average_pool2x2(b, *grid, tokens); // (patches / 4, hidden)
                let pooled = Grid { width: grid.width / 2, height: grid.height / 2 };
                device.depthwise3x3(tokens, pooled, depthwise, Some(bias), 1, a);
                device.add(tokens, a);
            }
        }
        &self.tokens
    }
}

/// Scratch of squeeze-excite.
struct Excite<'a, D: Device> {
    mean: &'a mut D::Tensor,
    squeezed: &'a mut D::Tensor,
    excited: &'a mut D::Tensor,
}

/// One bottleneck block from `x` into `out`; `normed` is scratch.
fn bottleneck<D: Device>(
    device: &D,
    block: &BottleneckBlock<D>,
    grid: Grid,
    stride: usize,
    x: &D::Tensor,
    [normed, out]: [&mut D::Tensor; 2],
    excite: &mut Excite<'_, D>,
) {
    device.depthwise3x3(x, grid, &block.depthwise, None, stride, out); // (positions, hidden)
    device.layer_norm(out, &block.norm1.weight, &block.norm1.bias, EPS, normed);
    device.activate(Activation::HardSwish, normed);

    device.column_mean(normed, excite.mean); // (1, hidden)
    device.matmul(excite.mean, &block.squeeze.weight, Some(&block.squeeze.bias), excite.squeezed);
    device.activate(Activation::Relu, excite.squeezed); // (1, squeeze)
    device.matmul(excite.squeezed, &block.excite.weight, Some(&block.excite.bias), excite.excited);
    device.activate(Activation::HardSigmoid, excite.excited); // (1, hidden)
    device.scale_columns(normed, excite.excited);

    device.matmul(normed, &block.pointwise, None, out); // (positions, hidden)
    std::mem::swap(normed, out);
    device.layer_norm(normed, &block.norm2.weight, &block.norm2.bias, EPS, out);
}
