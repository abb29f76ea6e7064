//! Pictures before and after normalization.

use std::collections::BTreeMap;
use std::path::Path;

use super::golden::{Golden, largest_difference};
use super::index::Picture;
use super::row::{Bound, Row};
use super::{PictureNumbers, Sink};
use crate::model::preprocess::{Preprocessor, decode_picture};

const STAGE: &str = "pixels";
/// Given an equal picture before normalization.
const NORMALIZED: Bound = Bound::AtMost(1e-5);
/// Mean difference in levels: JPEG decoders differ.
const JPEG_MEAN: Bound = Bound::AtMost(1.0);

/// Two rows for every picture, one if the index has no normalized tensor for it.
pub(super) fn check(
    dir: &Path,
    pictures: &BTreeMap<String, Picture>,
    numbers: PictureNumbers,
    sink: &mut Sink<'_>,
) {
    for (name, picture) in pictures {
        match compare(dir, picture, numbers) {
            Ok((resized, normalized)) => {
                let bound = if picture.file.ends_with(".png") { Bound::AtMost(0.0) } else { JPEG_MEAN };
                sink.push(Row::measured(STAGE, format!("{name} resized"), resized, bound));
                if let Some(error) = normalized {
                    sink.push(Row::measured(STAGE, format!("{name} normalized"), error, NORMALIZED));
                }
            }
            Err(problem) => sink.push(Row::failed(STAGE, name, problem)),
        }
    }
}

/// Distance of the resized picture (PNG: largest, JPEG: mean, in levels) and of the normalized one.
fn compare(dir: &Path, picture: &Picture, numbers: PictureNumbers) -> Result<(f64, Option<f64>), String> {
    let open = |name: &str| {
        let path = dir.join(name);
        let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        decode_picture(&bytes).map_err(|error| format!("{}: {error}", path.display()))
    };
    let (input, want) = (open(&picture.file)?, open(&picture.resized_u8)?);
    if want.width() != want.height() {
        return Err(format!("{} is no square", picture.resized_u8));
    }
    let mut preprocessor = Preprocessor::new(want.width() as usize, numbers.mean, numbers.deviation);
    let pixels = preprocessor.pixels(&input).to_vec();
    let levels =
        preprocessor.picture().iter().zip(want.as_raw()).map(|(&got, &want)| f64::from(got.abs_diff(want)));
    let resized = if picture.file.ends_with(".png") {
        levels.fold(0.0, f64::max)
    } else {
        levels.sum::<f64>() / want.as_raw().len() as f64
    };
    let normalized = match &picture.pixel_values {
        Some(file) => {
            let (_, want) = Golden::read(dir.join(file))?.floats("pixel_values")?;
            Some(largest_difference(&pixels, &want))
        }
        None => None,
    };
    Ok((resized, normalized))
}
