//! The default arithmetic of the vision part against the exact one, on made-up towers at real dimensions.
//!
//! Trained CLIP towers carry a few channels a hundred times the median of the others; random weights do
//! not. So there are two kinds of tower: a plain one, and one with such channels planted.

use kernels::{DType, Device, KvDtype};

use super::golden::patch_cosine;
use super::row::Row;
use super::target::{OnDevice, Target};
use super::{Sink, Summary, VISION_COSINE};
use crate::bench::SEED;
use crate::bench::dims::Dims;
use crate::bench::synthetic::{FileType, Recipe, Tower};
use crate::model::files::{LoadOptions, ModelError, ModelFiles, ProjectorKind};
use crate::model::language::LanguageConfig;
use crate::model::vision::VisionConfig;
use crate::model::{KvOptions, MobileVlm};

/// Types that are held against the exact path.
const TYPES: [DType; 2] = [DType::Q8_0, DType::BF16];

/// The size of a tower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// A few blocks of a few channels, for tests.
    Small,
    /// CLIP ViT-L/14-336 and the projectors of the 1.7B models.
    Real,
}

impl Size {
    fn vision(self) -> VisionConfig {
        match self {
            Self::Small => {
                VisionConfig { hidden: 256, blocks: 6, heads: 4, mlp: 1024, ..Dims::Tiny.vision() }
            }
            Self::Real => Dims::B1_7.vision(),
        }
    }

    /// A language model that has next to nothing but the width.
    fn language(self) -> LanguageConfig {
        let small = Dims::Tiny.language();
        match self {
            Self::Small => LanguageConfig { layers: 1, ..small },
            Self::Real => {
                let LanguageConfig { vocabulary, ffn, .. } = small;
                LanguageConfig { vocabulary, ffn, layers: 1, ..Dims::B1_7.language() }
            }
        }
    }
}

/// Encodes a picture on towers of each kind with each projector, in every arithmetic, and shows the
/// smallest cosines.
pub fn towers(size: Size, target: Target, show: &mut dyn FnMut(&Row)) -> Summary {
    let mut sink = Sink { show, summary: Summary::default() };
    for tower in [Tower::Plain, Tower::Loud] {
        for projector in [ProjectorKind::LdpV2, ProjectorKind::Ldp] {
            if let Err(problem) = compare(size, (tower, projector), target, &mut sink) {
                sink.push(Row::failed("tower", format!("{tower} {projector}"), problem));
            }
        }
    }
    sink.summary
}

fn compare(
    size: Size,
    (tower, projector): (Tower, ProjectorKind),
    target: Target,
    sink: &mut Sink<'_>,
) -> Result<(), ModelError> {
    let recipe = Recipe {
        vision: size.vision(),
        language: size.language(),
        projector,
        tower,
        file_type: FileType::Q8_0,
        seed: SEED,
    };
    let files = recipe.files()?;
    let pixels = pixels(files.vision.image);
    let encode = |dtype: DType, exact: bool| {
        let options = LoadOptions { dtype: None, vision_dtype: dtype, exact };
        target.with(Encode { files: &files, options, pixels: &pixels })
    };
    let (features, tokens) = encode(DType::F32, true)?;
    let (width, hidden) = (files.vision.hidden, files.language.hidden);
    for dtype in TYPES {
        let case = format!("{tower} tower, {projector}, {dtype}, {target}");
        let (got_features, got_tokens) = encode(dtype, false)?;
        let cosine = patch_cosine(&got_features, &features, width);
        sink.push(Row::measured("features", case.clone(), cosine, VISION_COSINE));
        let cosine = patch_cosine(&got_tokens, &tokens, hidden);
        sink.push(Row::measured("projected", case, cosine, VISION_COSINE));
    }
    Ok(())
}

/// A picture through a tower: features and visual tokens.
struct Encode<'a> {
    files: &'a ModelFiles,
    options: LoadOptions,
    pixels: &'a [f32],
}

impl OnDevice for Encode<'_> {
    type Output = Result<(Vec<f32>, Vec<f32>), ModelError>;

    fn run<D: Device>(self, device: D) -> Self::Output {
        let kv = KvOptions { context: 32, pages: 1, dtype: KvDtype::F32 };
        let mut model = MobileVlm::load(self.files, device, &self.options, kv)?;
        let encoded = model.encode(self.pixels);
        Ok((encoded.features(), encoded.tokens()))
    }
}

/// A picture `(3, side, side)` as the tower expects it: large shapes, edges and some noise.
fn pixels(side: usize) -> Vec<f32> {
    let pixel = |index: usize| {
        let (x, y) = ((index % side) as f32, (index / side % side) as f32);
        let channel = (index / (side * side)) as f32;
        let edge = if (x * 0.7 + y) % 90.0 < 40.0 { 0.8 } else { -0.8 };
        let noise = (index as u32).wrapping_mul(2_654_435_761) >> 24;
        (x * 0.03 + channel).sin() + edge * (y * 0.011).cos() + noise as f32 / 1280.0
    };
    (0..3 * side * side).map(pixel).collect()
}
