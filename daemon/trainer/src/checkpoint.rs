//! A run on disk: parameters, moments and the number of steps, in one safetensors file.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Error, Result, Tensor, safetensors};
use candle_nn::VarMap;

use crate::optimizer::AdamW;

/// Name of the tensor with the numbers of the run.
const PROGRESS: &str = "progress";

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Steps taken.
    pub steps: u32,
    /// Processor time spent, in seconds.
    pub cpu_seconds: f64,
    /// Wall time spent, in seconds.
    pub seconds: f64,
}

/// Writes a run beside `path` and renames it, so that a file with that name is whole.
pub fn save(path: &Path, vars: &VarMap, optimizer: &AdamW, progress: Progress) -> Result<()> {
    let mut tensors: HashMap<String, Tensor> = optimizer.state()?.into_iter().collect();
    for (name, var) in vars.data().lock().map_err(|_| poisoned())?.iter() {
        tensors.insert(name.clone(), var.as_tensor().clone());
    }
    let numbers = [f64::from(progress.steps), progress.cpu_seconds, progress.seconds];
    tensors.insert(PROGRESS.into(), Tensor::new(&numbers, &Device::Cpu)?);
    let part = path.with_extension("part");
    safetensors::save(&tensors, &part)?;
    Ok(std::fs::rename(&part, path)?)
}

/// Goes on with a saved run.
pub fn load(path: &Path, vars: &VarMap, optimizer: &mut AdamW) -> Result<Progress> {
    let tensors = safetensors::load(path, &Device::Cpu)?;
    let take = |name: &str| {
        let missing = || Error::Msg(format!("{}: no tensor {name}", path.display()));
        tensors.get(name).cloned().ok_or_else(missing)
    };
    for (name, var) in vars.data().lock().map_err(|_| poisoned())?.iter() {
        var.set(&take(name)?)?;
    }
    let numbers = take(PROGRESS)?.to_vec1::<f64>()?;
    let [steps, cpu_seconds, seconds] = numbers[..] else {
        return Err(Error::Msg(format!("{}: another version's checkpoint", path.display())));
    };
    let progress = Progress { steps: steps as u32, cpu_seconds, seconds };
    optimizer.restore(progress.steps, take)?;
    Ok(progress)
}

fn poisoned() -> Error {
    Error::Msg("a thread died while it held the parameters".into())
}
