//! From parameters to a pair of GGUF files.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use half::f16;
use kernels::DType;
use kernels::quant::quantize_row;
use mobilevlmd::model::files::{
    CLIP_MEAN, CLIP_STD, Description, ModelError, ProjectorKind, RawTensor, TensorStore, TokenizerSource,
    Vocabulary,
};
use mobilevlmd::model::gguf_writer::{WriteError, write_mmproj, write_text};

use crate::net::Dims;

/// Code of GGUF files whose matrices are Q8_0.
const MOSTLY_Q8_0: u32 = 7;

/// Tensors of one file, already in its types.
struct Packed {
    place: &'static str,
    tensors: BTreeMap<String, (DType, Vec<usize>, Vec<u8>)>,
}

impl Packed {
    /// The tensors whose names `belongs` accepts; matrices as `dtype`, single rows as F32.
    fn new(
        place: &'static str,
        parameters: &BTreeMap<String, Tensor>,
        dtype: DType,
        belongs: impl Fn(&str) -> bool,
    ) -> candle_core::Result<Self> {
        let mut tensors = BTreeMap::new();
        for (name, tensor) in parameters.iter().filter(|(name, _)| belongs(name)) {
            let mut shape = tensor.dims().to_vec();
            // Readers expect the depthwise kernel without its extent of one.
            shape.retain(|&extent| extent != 1);
            let dtype = if shape.len() == 1 { DType::F32 } else { dtype };
            let numbers = tensor.flatten_all()?.to_vec1::<f32>()?;
            let bytes = encode(dtype, &numbers, shape[shape.len() - 1]);
            tensors.insert(name.clone(), (dtype, shape, bytes));
        }
        Ok(Self { place, tensors })
    }
}

/// Rows of `width` numbers as `dtype`: F32, F16 or Q8_0.
fn encode(dtype: DType, numbers: &[f32], width: usize) -> Vec<u8> {
    match dtype {
        DType::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F16 => numbers.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        _ => {
            let row_bytes = dtype.row_bytes(width).expect("widths are whole blocks");
            let mut bytes = vec![0; numbers.len() / width * row_bytes];
            for (row, out) in numbers.chunks_exact(width).zip(bytes.chunks_exact_mut(row_bytes)) {
                quantize_row(dtype, row, out).expect("a type with an encoder");
            }
            bytes
        }
    }
}

impl TensorStore for Packed {
    fn place(&self) -> String {
        self.place.into()
    }

    fn info(&self, name: &str) -> Option<(DType, Vec<usize>)> {
        self.tensors.get(name).map(|(dtype, shape, _)| (*dtype, shape.clone()))
    }

    fn tensor(&self, name: &str) -> Result<RawTensor<'_>, ModelError> {
        let Some((dtype, shape, bytes)) = self.tensors.get(name) else {
            return Err(ModelError::MissingTensor { place: self.place(), tensor: name.into() });
        };
        Ok(RawTensor { dtype: *dtype, shape: shape.clone(), bytes: Cow::Borrowed(bytes) })
    }

    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }
}

/// Why the pair was not written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The parameters cannot be read.
    #[error(transparent)]
    Parameters(#[from] candle_core::Error),
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Writes `world-q8_0.gguf` and `world-mmproj-f16.gguf` into `folder`.
pub fn export(
    folder: &Path,
    dims: &Dims,
    vocabulary: &Vocabulary,
    parameters: &BTreeMap<String, Tensor>,
) -> Result<(), ExportError> {
    let model = Description {
        id: "mobilevlm-world".into(),
        vision: dims.vision.clone(),
        language: dims.language.clone(),
        projector: ProjectorKind::LdpV2,
        image_mean: CLIP_MEAN,
        image_std: CLIP_STD,
        tokenizer: TokenizerSource::Vocabulary(vocabulary.clone()),
        tokenizer_legacy: true,
    };
    let is_image = |name: &str| name.starts_with("v.") || name.starts_with("mm.");
    let is_text = |name: &str| !is_image(name) && !name.starts_with("aux.");
    let text = Packed::new("the trained language model", parameters, DType::Q8_0, is_text)?;
    let mmproj = Packed::new("the trained vision tower", parameters, DType::F16, is_image)?;
    write_text(&folder.join("world-q8_0.gguf"), &model, MOSTLY_Q8_0, &text)?;
    let remark = "trained on the synthetic world of mobilevlmd";
    write_mmproj(&folder.join("world-mmproj-f16.gguf"), &model, remark, &mmproj)?;
    Ok(())
}
