//! Tensors of a `.safetensors` file.

use std::path::Path;

use kernels::DType;
use safetensors::tensor::TensorInfo;
use safetensors::{Dtype, SafeTensors};

use crate::model::files::stored::{Directory, Entry, StoredTensors};
use crate::model::files::{ModelError, stored_len};
use crate::model::mapped::Mapped;

/// Maps and checks a file.
pub fn open(path: &Path) -> Result<StoredTensors, ModelError> {
    let map = Mapped::open(path)?;
    // The library compares the header with the length of the file and every tensor with its own
    // shape and with its neighbours.
    let (header, metadata) = SafeTensors::read_metadata(map.bytes())
        .map_err(|error| ModelError::damaged(map.place(), format!("its header: {}", one_line(&error))))?;
    let data = header + size_of::<u64>();
    let tensors = metadata.tensors().into_iter();
    let directory: Directory = tensors.map(|(name, info)| (name, entry(info, data))).collect();
    Ok(StoredTensors::new(map, directory))
}

/// The library's words, which may quote the file.
fn one_line(error: &dyn std::error::Error) -> String {
    error.to_string().chars().take(200).flat_map(char::escape_debug).collect()
}

fn entry(info: &TensorInfo, data: usize) -> Entry {
    let (start, end) = info.data_offsets;
    match element_type(info.dtype) {
        Some(dtype) if stored_len(dtype, &info.shape) == Some(end - start) => {
            Entry::Known { dtype, shape: info.shape.clone(), strides: None, bytes: data + start..data + end }
        }
        Some(_) => Entry::Foreign("empty".into()),
        None => Entry::Foreign(format!("{:?}", info.dtype).to_lowercase()),
    }
}

fn element_type(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        _ => None,
    }
}
