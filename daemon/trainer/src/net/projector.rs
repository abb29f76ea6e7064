//! The LDPv2 projector.

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use mobilevlmd::model::vision::VisionConfig;

use super::Linear;

/// Patch features to a quarter as many visual tokens.
pub struct Projector {
    side: usize,
    hidden: usize,
    mlp1: Linear,
    mlp2: Linear,
    depthwise: Tensor, // (hidden, 1, 3, 3)
    bias: Tensor,      // (hidden)
}

impl Projector {
    /// Takes or makes its parameters.
    pub fn new(vision: &VisionConfig, hidden: usize, parameters: &VarBuilder) -> Result<Self> {
        let third = Init::Randn { mean: 0.0, stdev: 0.1 };
        Ok(Self {
            side: vision.side(),
            hidden,
            mlp1: Linear::new(parameters, "mm.model.mlp.0", hidden, vision.hidden, 1.0)?,
            mlp2: Linear::new(parameters, "mm.model.mlp.2", hidden, hidden, 1.0)?,
            depthwise: parameters.get_with_hints((hidden, 1, 3, 3), "mm.model.peg.0.weight", third)?,
            bias: parameters.get_with_hints(hidden, "mm.model.peg.0.bias", Init::Const(0.0))?,
        })
    }

    /// Features `(pictures * patches, vision hidden)` to tokens `(pictures * patches / 4, hidden)`.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let x = self.mlp2.forward(&self.mlp1.forward(features)?.gelu_erf()?)?; // (pictures * patches, hidden)
        let (half, hidden) = (self.side / 2, self.hidden);
        let pictures = features.dim(0)? / (self.side * self.side);
        let rows = x.reshape((pictures * half, 2, self.side * hidden))?;
        let rows = (rows.narrow(1, 0, 1)? + rows.narrow(1, 1, 1)?)?;
        let pairs = rows.reshape((pictures * half * half, 2, hidden))?;
        let pooled = ((pairs.narrow(1, 0, 1)? + pairs.narrow(1, 1, 1)?)? * 0.25)?;
        let grid = pooled.reshape((pictures, half, half, hidden))?;
        let x = (&grid + self.convolve(&grid)?)?;
        x.reshape((pictures * half * half, hidden))
    }

    /// Depthwise 3x3 with a border of zeros; `grid` `(pictures, height, width, hidden)`.
    fn convolve(&self, grid: &Tensor) -> Result<Tensor> {
        let (_, height, width, hidden) = grid.dims4()?;
        let padded = grid.pad_with_zeros(1, 1, 1)?.pad_with_zeros(2, 1, 1)?;
        let kernel = self.depthwise.reshape((hidden, 9))?.t()?.contiguous()?; // (9, hidden)
        let mut sum = self.bias.broadcast_as(grid.shape())?.contiguous()?;
        for place in 0..9 {
            let shifted = padded.narrow(1, place / 3, height)?.narrow(2, place % 3, width)?;
            sum = (sum + shifted.broadcast_mul(&kernel.get(place)?)?)?;
        }
        Ok(sum)
    }
}
