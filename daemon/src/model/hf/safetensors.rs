//! Tensors of a `.safetensors` file.

use std::path::Path;

use kernels::DType;
use safetensors::tensor::TensorInfo;
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use crate::model::files::map::Mapped;
use crate::model::files::stored::{Directory, Entry, StoredTensors};
use crate::model::files::{ModelError, stored_len};

/// Maps and checks a file.
pub fn open(path: &Path) -> Result<StoredTensors, ModelError> {
    let map = Mapped::open(path)?;
    let directory = directory(map.bytes())
        .map_err(|error| ModelError::damaged(map.place(), format!("its header: {}", one_line(&error))))?;
    Ok(StoredTensors::new(map, directory))
}

/// Where the tensors of a whole file are. The library compares the header with the length of the file
/// and every tensor with its own shape and with its neighbours.
pub fn directory(file: &[u8]) -> Result<Directory, SafeTensorError> {
    let (header, metadata) = SafeTensors::read_metadata(file)?;
    let data = header + size_of::<u64>();
    let tensors = metadata.tensors().into_iter();
    Ok(tensors.map(|(name, info)| (name, entry(info, data))).collect())
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
