//! Tensors of the reference, and distances to them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use safetensors::{Dtype, SafeTensors};

/// A tensor file, read whole.
pub(super) struct Golden {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Golden {
    /// Reads a tensor file.
    pub(super) fn read(path: PathBuf) -> Result<Self, String> {
        let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        SafeTensors::deserialize(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path, bytes })
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).expect("checked when it was read")
    }

    fn raw(&self, name: &str, dtype: Dtype) -> Result<(Vec<usize>, &[u8]), String> {
        let view =
            self.tensors().tensor(name).map_err(|_| format!("{}: no tensor {name}", self.path.display()))?;
        if view.dtype() != dtype {
            return Err(format!("{}: {name} is {:?}, expected {dtype:?}", self.path.display(), view.dtype()));
        }
        Ok((view.shape().to_vec(), view.data()))
    }

    /// Shape and values of an f32 tensor.
    pub(super) fn floats(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>), String> {
        let (shape, bytes) = self.raw(name, Dtype::F32)?;
        Ok((shape, bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect()))
    }

    /// Values of an i64 tensor.
    pub(super) fn ids(&self, name: &str) -> Result<Vec<i64>, String> {
        let (_, bytes) = self.raw(name, Dtype::I64)?;
        Ok(bytes.as_chunks().0.iter().map(|value| i64::from_le_bytes(*value)).collect())
    }

    /// Shape and values of a byte tensor.
    pub(super) fn bytes(&self, name: &str) -> Result<(Vec<usize>, Vec<u8>), String> {
        let (shape, bytes) = self.raw(name, Dtype::U8)?;
        Ok((shape, bytes.to_vec()))
    }

    /// Whether there is such a tensor.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors().tensor(name).is_ok()
    }

    /// Names of the tensors.
    pub(super) fn names(&self) -> Vec<String> {
        self.tensors().names().into_iter().map(ToString::to_string).collect()
    }

    /// What differs from the types and shapes an index declares.
    pub(super) fn check_declared(
        &self,
        declared: &BTreeMap<String, (String, Vec<usize>)>,
    ) -> Result<(), String> {
        let tensors = self.tensors();
        for (name, (dtype, shape)) in declared {
            let view =
                tensors.tensor(name).map_err(|_| format!("{}: no tensor {name}", self.path.display()))?;
            let found = match view.dtype() {
                Dtype::F32 => "float32",
                Dtype::I64 => "int64",
                Dtype::U8 => "uint8",
                _ => "another type",
            };
            if found != dtype || view.shape() != shape {
                return Err(format!(
                    "{name} is {found} {:?}, the index says {dtype} {shape:?}",
                    view.shape()
                ));
            }
        }
        Ok(())
    }
}

/// `max |got - want| / max |want|`; NaN if the lengths differ or any number is NaN.
pub(super) fn error(got: &[f32], want: &[f32]) -> f64 {
    let scale = want.iter().fold(0f64, |scale, &want| scale.max(f64::from(want).abs()));
    let largest = largest_difference(got, want);
    if largest == 0.0 { 0.0 } else { largest / scale }
}

/// `max |got - want|`; NaN if the lengths differ or any number is NaN.
pub(super) fn largest_difference(got: &[f32], want: &[f32]) -> f64 {
    if got.len() != want.len() {
        return f64::NAN;
    }
    let differences = got.iter().zip(want).map(|(&got, &want)| (f64::from(got) - f64::from(want)).abs());
    differences.fold(
        0.0,
        |largest, difference| if difference > largest || difference.is_nan() { difference } else { largest },
    )
}

/// Largest number of channels left out in [`patch_cosine`], those with the largest variance.
const LOUD_CHANNELS: usize = 10;

/// The smallest cosine between rows of `got` and `want` after the mean of every channel was taken
/// off, once with all channels and once without the loudest ones, which may hide the others.
pub(super) fn patch_cosine(got: &[f32], want: &[f32], channels: usize) -> f64 {
    if got.len() != want.len() || channels == 0 || want.is_empty() {
        return f64::NAN;
    }
    let (got, want) = (centred(got, channels), centred(want, channels));
    let mut power: Vec<(f64, usize)> = (0..channels)
        .map(|channel| {
            (want.iter().skip(channel).step_by(channels).map(|value| value * value).sum(), channel)
        })
        .collect();
    power.sort_by(|a, b| b.0.total_cmp(&a.0));
    let loud: Vec<usize> =
        power.iter().take(LOUD_CHANNELS.min(channels / 4)).map(|&(_, channel)| channel).collect();
    let smallest = |skipped: &[usize]| {
        let rows = got.chunks_exact(channels).zip(want.chunks_exact(channels));
        rows.map(|(got, want)| cosine(got, want, skipped))
            .fold(1.0, |least: f64, cosine| if cosine < least || cosine.is_nan() { cosine } else { least })
    };
    let (all, quiet) = (smallest(&[]), smallest(&loud));
    if all.is_nan() || quiet.is_nan() { f64::NAN } else { all.min(quiet) }
}

/// Cosine of two vectors after the mean of each was taken off; NaN if the lengths differ.
pub(super) fn vector_cosine(got: &[f32], want: &[f32]) -> f64 {
    if got.len() != want.len() {
        return f64::NAN;
    }
    cosine(&centred(got, 1), &centred(want, 1), &[])
}

/// Values without the mean of their channel.
fn centred(values: &[f32], channels: usize) -> Vec<f64> {
    let rows = values.len() / channels;
    let mut means = vec![0.0; channels];
    for row in values.chunks_exact(channels) {
        for (mean, &value) in means.iter_mut().zip(row) {
            *mean += f64::from(value) / rows as f64;
        }
    }
    values.iter().zip(means.iter().cycle()).map(|(&value, mean)| f64::from(value) - mean).collect()
}

fn cosine(got: &[f64], want: &[f64], skipped: &[usize]) -> f64 {
    let (mut dot, mut left, mut right) = (0.0, 0.0, 0.0);
    for (channel, (got, want)) in got.iter().zip(want).enumerate() {
        if !skipped.contains(&channel) {
            dot += got * want;
            left += got * got;
            right += want * want;
        }
    }
    dot / (left * right).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_relative_to_the_largest_wanted_number() {
        assert_eq!(error(&[1.0, 2.0], &[1.0, 4.0]), 0.5);
        assert_eq!(error(&[0.0], &[0.0]), 0.0);
        assert!(error(&[1.0], &[1.0, 2.0]).is_nan());
        assert!(error(&[f32::NAN, 1.0], &[1.0, 1.0]).is_nan());
        assert!(error(&[1.0, f32::NAN], &[5.0, 1.0]).is_nan());
    }

    #[test]
    fn a_large_channel_does_not_hide_the_others() {
        // Eight channels; channel 0 has a hundred times the others' size, channel 1 is noise in `got`.
        let want: Vec<f32> =
            (0..64).map(|i| ((i * 37 % 11) as f32 - 5.0) * if i % 8 == 0 { 100.0 } else { 1.0 }).collect();
        let mut got = want.clone();
        assert!((patch_cosine(&got, &want, 8) - 1.0).abs() < 1e-12);
        got.iter_mut()
            .skip(1)
            .step_by(8)
            .enumerate()
            .for_each(|(i, value)| *value = if i % 2 == 0 { 9.0 } else { -9.0 });
        assert!(patch_cosine(&got, &want, 8) < 0.9);
    }
}
