//! Tensor names to packed device weights: the only file that knows names.

use kernels::Device;

use super::files::{LoadOptions, ModelError, ModelFiles};
use super::language::LanguageWeights;
use super::projector::ProjectorWeights;
use super::vision::VisionWeights;

/// Loads the vision tower onto `device`.
pub fn vision<D: Device>(
    files: &ModelFiles,
    _device: &D,
    _options: &LoadOptions,
) -> Result<VisionWeights<D>, ModelError> {
    Err(ModelError::unsupported(files.id.clone(), "no loader for vision yet"))
}

/// Loads the projector onto `device`.
pub fn projector<D: Device>(
    files: &ModelFiles,
    _device: &D,
    _options: &LoadOptions,
) -> Result<ProjectorWeights<D>, ModelError> {
    Err(ModelError::unsupported(files.id.clone(), "no loader for the projector yet"))
}

/// Loads the language model onto `device`.
pub fn language<D: Device>(
    files: &ModelFiles,
    _device: &D,
    _options: &LoadOptions,
) -> Result<LanguageWeights<D>, ModelError> {
    Err(ModelError::unsupported(files.id.clone(), "no loader for the language model yet"))
}
