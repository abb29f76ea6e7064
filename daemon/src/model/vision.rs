//! CLIP vision transformer: a picture becomes patch features.

use kernels::{Activation, Device, DeviceError, Product};

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

impl<D: Device> VisionWeights<D> {
    /// Bytes of all matrices.
    pub fn bytes(&self, device: &D) -> usize {
        let linear = |layer: &Linear<D>| device.matrix_bytes(&layer.weight);
        let block = |block: &VisionBlock<D>| {
            let VisionBlock { q, k, v, out, fc1, fc2, .. } = block;
            [q, k, v, out, fc1, fc2].map(linear).iter().sum::<usize>()
        };
        device.matrix_bytes(&self.patch) + self.blocks.iter().map(block).sum::<usize>()
    }
}

/// The tower with its scratch.
pub struct Vision<D: Device> {
    config: VisionConfig,
    weights: VisionWeights<D>,
    image: D::Tensor,    // (3 * image, image)
    patches: D::Tensor,  // (patches, 3 * patch * patch)
    embedded: D::Tensor, // (patches, hidden)
    x: D::Tensor,        // (1 + patches, hidden)
    normed: D::Tensor,   // (1 + patches, hidden)
    q: D::Tensor,        // (1 + patches, hidden)
    k: D::Tensor,        // (1 + patches, hidden)
    v: D::Tensor,        // (1 + patches, hidden)
    mixed: D::Tensor,    // (1 + patches, hidden)
    wide: D::Tensor,     // (1 + patches, mlp)
    features: D::Tensor, // (patches, hidden)
}

impl<D: Device> Vision<D> {
    /// Joins weights and scratch.
    pub fn new(device: &D, config: VisionConfig, weights: VisionWeights<D>) -> Result<Self, DeviceError> {
        let (patches, hidden) = (config.patches(), config.hidden);
        let rows = 1 + patches;
        Ok(Self {
            image: device.tensor(3 * config.image, config.image)?,
            patches: device.tensor(patches, 3 * config.patch * config.patch)?,
            embedded: device.tensor(patches, hidden)?,
            x: device.tensor(rows, hidden)?,
            normed: device.tensor(rows, hidden)?,
            q: device.tensor(rows, hidden)?,
            k: device.tensor(rows, hidden)?,
            v: device.tensor(rows, hidden)?,
            mixed: device.tensor(rows, hidden)?,
            wide: device.tensor(rows, config.mlp)?,
            features: device.tensor(patches, hidden)?,
            config,
            weights,
        })
    }

    /// Numbers of the tower.
    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// Bytes of the matrices that a picture reads.
    pub fn weight_bytes(&self, device: &D) -> usize {
        let of_block = |block: &VisionBlock<D>| -> usize {
            let VisionBlock { q, k, v, out, fc1, fc2, .. } = block;
            [q, k, v, out, fc1, fc2].map(|linear| device.matrix_bytes(&linear.weight)).iter().sum()
        };
        self.weights.blocks.iter().map(of_block).sum::<usize>() + device.matrix_bytes(&self.weights.patch)
    }

    /// Patch embedding, class vector, positions and the first norm. `pixels` is
    /// `(3, image, image)`, normalized.
    pub fn embed(&mut self, device: &D, pixels: &[f32]) {
        let weights = &self.weights;
        device.write(pixels, &mut self.image, 0);
        device.patches(&self.image, self.config.patch, &mut self.patches); // (patches, 3 * patch * patch)
        device.matmul(&self.patches, &weights.patch, None, &mut self.embedded); // (patches, hidden)
        device.copy_rows(&weights.class, 0..1, &mut self.x, 0);
        device.copy_rows(&self.embedded, 0..self.config.patches(), &mut self.x, 1); // (1 + patches, hidden)
        device.add(&mut self.x, &weights.positions);
        let norm = &weights.pre_norm;
        device.layer_norm(&self.x, &norm.weight, &norm.bias, self.config.eps, &mut self.normed);
        std::mem::swap(&mut self.x, &mut self.normed);
    }

    /// The first half of block `index`: attention, with a norm before and a residual around.
    pub fn attention(&mut self, device: &D, index: usize) {
        let eps = self.config.eps;
        let block = &self.weights.blocks[index];
        let (x, normed) = (&mut self.x, &mut self.normed);

        device.layer_norm(x, &block.norm1.weight, &block.norm1.bias, eps, normed);
        device.matmul_each(
            normed,
            &mut [
                Product { w: &block.q.weight, bias: Some(&block.q.bias), out: &mut self.q },
                Product { w: &block.k.weight, bias: Some(&block.k.bias), out: &mut self.k },
                Product { w: &block.v.weight, bias: Some(&block.v.bias), out: &mut self.v },
            ],
        ); // each (1 + patches, hidden)
        device.attention(&self.q, &self.k, &self.v, self.config.heads, &mut self.mixed);
        device.matmul(&self.mixed, &block.out.weight, Some(&block.out.bias), normed);
        device.add(x, normed);
    }

    /// The second half of block `index`: the MLP, with a norm before and a residual around.
    pub fn mlp(&mut self, device: &D, index: usize) {
        let eps = self.config.eps;
        let block = &self.weights.blocks[index];
        let (x, normed) = (&mut self.x, &mut self.normed);

        device.layer_norm(x, &block.norm2.weight, &block.norm2.bias, eps, normed);
        device.matmul(normed, &block.fc1.weight, Some(&block.fc1.bias), &mut self.wide); // (1 + patches, mlp)
        device.activate(Activation::QuickGelu, &mut self.wide);
        device.matmul(&self.wide, &block.fc2.weight, Some(&block.fc2.bias), normed);
        device.add(x, normed);
    }

    /// The patch features `(patches, hidden)`: the class row is dropped, no final norm.
    pub fn features(&mut self, device: &D) -> &D::Tensor {
        device.copy_rows(&self.x, 1..1 + self.config.patches(), &mut self.features, 0);
        &self.features
    }
}
