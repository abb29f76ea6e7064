//! Tensor names to packed device weights: the only file that knows names.

pub mod names;
pub mod kept;
mod pack;

use kernels::{Arithmetic, DType, Device};

use super::files::{LoadOptions, ModelError, ModelFiles};
use super::language::{LanguageLayer, LanguageWeights};
use super::projector::{BottleneckBlock, Downsample, ProjectorWeights};
use super::vision::{Linear, Norm, VisionBlock, VisionWeights};

use super::files::ProjectorKind;
use kept::Kept;
use names::{bias, weight};
use pack::Packer;

/// Loads the vision tower onto `device`.
///
/// Matrices stored as floats become `options.vision_dtype`; those whose rows do not fill its blocks
/// (the patch embedding: 588 inputs) stay as they are. Trained towers have channels a hundred times the
/// others, so integer products are those for loud channels.
pub fn vision<D: Device>(
    files: &ModelFiles,
    device: &D,
    options: &LoadOptions,
    kept: &Kept,
) -> Result<VisionWeights<D>, ModelError> {
    let part = &files.parts.vision;
    let names = &part.names;
    let packer = Packer::new(device, part, options.exact, Arithmetic::Int8Split, (kept, "vision"));
    let dtype = Some(options.vision_dtype);
    let block = |index: usize| -> Result<VisionBlock<D>, ModelError> {
        Ok(VisionBlock {
            norm1: norm(&packer, &names.block(index, |block| block.norm1))?,
            q: linear(&packer, &names.block(index, |block| block.q), dtype)?,
            k: linear(&packer, &names.block(index, |block| block.k), dtype)?,
            v: linear(&packer, &names.block(index, |block| block.v), dtype)?,
            out: linear(&packer, &names.block(index, |block| block.out), dtype)?,
            norm2: norm(&packer, &names.block(index, |block| block.norm2))?,
            fc1: linear(&packer, &names.block(index, |block| block.fc1), dtype)?,
            fc2: linear(&packer, &names.block(index, |block| block.fc2), dtype)?,
        })
    };
    Ok(VisionWeights {
        patch: packer.matrix(&names.patch(), dtype)?,
        class: packer.vector(&names.class())?,
        positions: packer.table(&names.positions())?,
        pre_norm: norm(&packer, &names.pre_norm())?,
        blocks: (0..files.vision.blocks).map(block).collect::<Result<_, _>>()?,
    })
}

/// Loads the projector onto `device`.
///
/// LDPv2's matrices stored as floats become `options.vision_dtype`. LDP's stay floats: its two blocks
/// multiply their own means onto the channels, and 8-bit activations all the way leave visual tokens
/// with a cosine below 0.999 to the exact ones, at 3 % of the work of an image.
pub fn projector<D: Device>(
    files: &ModelFiles,
    device: &D,
    options: &LoadOptions,
    kept: &Kept,
) -> Result<ProjectorWeights<D>, ModelError> {
    let part = &files.parts.projector;
    let names = &part.names;
    let packer = Packer::new(device, part, options.exact, Arithmetic::Int8Split, (kept, "projector"));
    let dtype = match files.projector {
        ProjectorKind::Ldp => None,
        ProjectorKind::LdpV2 => Some(options.vision_dtype),
    };
    let bottleneck = |index: usize| -> Result<BottleneckBlock<D>, ModelError> {
        let names = names.bottleneck(index);
        Ok(BottleneckBlock {
            depthwise: packer.depthwise(&names.depthwise())?,
            norm1: norm(&packer, &names.norm1())?,
            squeeze: linear(&packer, &names.squeeze(), None)?,
            excite: linear(&packer, &names.excite(), None)?,
            pointwise: packer.matrix(&names.pointwise(), dtype)?,
            norm2: norm(&packer, &names.norm2())?,
        })
    };
    let downsample = match files.projector {
        ProjectorKind::Ldp => Downsample::Ldp(Box::new([bottleneck(0)?, bottleneck(1)?])),
        ProjectorKind::LdpV2 => Downsample::LdpV2 {
            depthwise: packer.depthwise(&weight(&names.peg()))?,
            bias: packer.vector(&bias(&names.peg()))?,
        },
    };
    Ok(ProjectorWeights {
        mlp1: linear(&packer, &names.mlp1(), dtype)?,
        mlp2: linear(&packer, &names.mlp2(), dtype)?,
        downsample,
    })
}

/// Loads the language model onto `device`.
///
/// Matrices stored as floats become `options.dtype` if one is given, the head at least Q6_K;
/// stored blocks are never requantized.
pub fn language<D: Device>(
    files: &ModelFiles,
    device: &D,
    options: &LoadOptions,
    kept: &Kept,
) -> Result<LanguageWeights<D>, ModelError> {
    let part = &files.parts.language;
    let names = &part.names;
    let packer = Packer::new(device, part, options.exact, Arithmetic::Int8, (kept, "language"));
    let dtype = options.dtype;
    let layer = |index: usize| -> Result<LanguageLayer<D>, ModelError> {
        Ok(LanguageLayer {
            attention_norm: packer.vector(&names.layer(index, |layer| layer.attention_norm))?,
            q: packer.matrix(&names.layer(index, |layer| layer.q), dtype)?,
            k: packer.matrix(&names.layer(index, |layer| layer.k), dtype)?,
            v: packer.matrix(&names.layer(index, |layer| layer.v), dtype)?,
            out: packer.matrix(&names.layer(index, |layer| layer.out), dtype)?,
            ffn_norm: packer.vector(&names.layer(index, |layer| layer.ffn_norm))?,
            gate: packer.matrix(&names.layer(index, |layer| layer.gate), dtype)?,
            up: packer.matrix(&names.layer(index, |layer| layer.up), dtype)?,
            down: packer.matrix(&names.layer(index, |layer| layer.down), dtype)?,
        })
    };
    Ok(LanguageWeights {
        embedding: packer.matrix(names.embedding, dtype)?,
        layers: (0..files.language.layers).map(layer).collect::<Result<_, _>>()?,
        norm: packer.vector(names.norm)?,
        head: packer.matrix(names.head, dtype.map(|dtype| head_dtype(dtype, files.language.hidden)))?,
    })
}

/// The type of the head in a model of type `dtype`: at least 6 bits, since its errors go straight into
/// the choice of words. Q6_K where rows fill its blocks, Q8_0 elsewhere.
fn head_dtype(dtype: DType, hidden: usize) -> DType {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 | DType::Q8_0 | DType::Q6K => dtype,
        _ if DType::Q6K.row_bytes(hidden).is_some() => DType::Q6K,
        _ => DType::Q8_0,
    }
}

fn linear<D: Device>(
    packer: &Packer<'_, D>,
    prefix: &str,
    dtype: Option<DType>,
) -> Result<Linear<D>, ModelError> {
    Ok(Linear { weight: packer.matrix(&weight(prefix), dtype)?, bias: packer.vector(&bias(prefix))? })
}

fn norm<D: Device>(packer: &Packer<'_, D>, prefix: &str) -> Result<Norm<D>, ModelError> {
    Ok(Norm { weight: packer.vector(&weight(prefix))?, bias: packer.vector(&bias(prefix))? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_keeps_six_bits() {
        assert_eq!(head_dtype(DType::Q4_0, 2048), DType::Q6K);
        assert_eq!(head_dtype(DType::Q4K, 2048), DType::Q6K);
        assert_eq!(head_dtype(DType::Q4_0, 64), DType::Q8_0);
        assert_eq!(head_dtype(DType::Q8_0, 2048), DType::Q8_0);
        assert_eq!(head_dtype(DType::F16, 2048), DType::F16);
    }
}
