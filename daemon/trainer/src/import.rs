//! From a pair of GGUF files back to parameters, as f32.

use candle_core::{DType, Device, Error, Result, Tensor};
use candle_nn::{VarBuilder, VarMap};
use kernels::quant::dequantize_row;
use mobilevlmd::model::files::ModelFiles;

use crate::net::{Dims, Net};

/// The networks with the numbers that the files of an LDPv2 model hold.
pub fn import(files: &ModelFiles) -> Result<(Dims, Net)> {
    let dims = Dims { vision: files.vision.clone(), language: files.language.clone() };
    let vars = VarMap::new();
    let net = Net::new(&dims, &VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu))?;
    for (name, var) in vars.data().lock().map_err(|_| Error::Msg("a thread died".into()))?.iter() {
        let stored = files.tensor(name).map_err(Error::wrap)?;
        let mut numbers = vec![0.0; var.elem_count()];
        let width = stored.shape.last().copied().unwrap_or(1);
        let row_bytes = stored.bytes.len() / (numbers.len() / width).max(1);
        for (row, bytes) in numbers.chunks_exact_mut(width).zip(stored.bytes.chunks_exact(row_bytes)) {
            dequantize_row(stored.dtype, bytes, row).map_err(Error::wrap)?;
        }
        var.set(&Tensor::from_vec(numbers, var.shape(), &Device::Cpu)?)?;
    }
    Ok((dims, net))
}
