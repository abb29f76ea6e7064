//! Luminance without colour.

use super::samples::unpack;
use super::store::{BLOCK, join, put_words};
use super::{PixelsError, Plane, PlaneMut, Samples, Size};

#[inline(always)]
pub(super) fn convert(
    size: Size,
    samples: Samples,
    plane: Plane<'_>,
    rgb: PlaneMut<'_>,
) -> Result<(), PixelsError> {
    let sources = plane.lines("grey", size.height, samples.line_bytes(size.width))?;
    let targets = rgb.lines("out", size.height, size.width.saturating_mul(3))?;
    let (mut values, mut grey) = ([0; BLOCK], [0; BLOCK]);
    for (source, target) in sources.zip(targets) {
        for (block, target) in target.chunks_mut(3 * BLOCK).enumerate() {
            let count = target.len() / 3;
            unpack(samples, source, block * BLOCK, &mut values[..count]);
            for (grey, value) in grey.iter_mut().zip(&values) {
                *grey = (*value >> 2) as u8;
            }
            put_words(&join(&grey, &grey, &grey), target);
        }
    }
    Ok(())
}
