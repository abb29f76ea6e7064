//! Layouts that already hold R, G and B: bytes change places only.

use super::store::{BLOCK, put_words};
use super::{PixelsError, Plane, PlaneMut, RgbOrder, Size};

#[inline(always)]
pub(super) fn convert(
    size: Size,
    order: RgbOrder,
    plane: Plane<'_>,
    rgb: PlaneMut<'_>,
) -> Result<(), PixelsError> {
    let line_bytes = size.width.saturating_mul(order.pixel_bytes());
    let sources = plane.lines("rgb", size.height, line_bytes)?;
    let lines = sources.zip(rgb.lines("out", size.height, size.width.saturating_mul(3))?);
    match order {
        RgbOrder::Rgb => lines.for_each(|(source, target)| target.copy_from_slice(source)),
        RgbOrder::Bgr => lines.for_each(|(source, target)| {
            for (from, to) in source.as_chunks::<3>().0.iter().zip(target.as_chunks_mut::<3>().0) {
                *to = [from[2], from[1], from[0]];
            }
        }),
        RgbOrder::Rgbx => lines.for_each(|(source, target)| words(source, target, |word| word)),
        RgbOrder::Bgrx => {
            lines.for_each(|(source, target)| words(source, target, |word| word.swap_bytes() >> 8))
        }
        RgbOrder::Xrgb => lines.for_each(|(source, target)| words(source, target, |word| word >> 8)),
        RgbOrder::Xbgr => lines.for_each(|(source, target)| words(source, target, u32::swap_bytes)),
    }
    Ok(())
}

/// Converts a line of pixels of four bytes; `turn` brings red into the low byte of a word, then
/// green, then blue.
#[inline(always)]
fn words(source: &[u8], target: &mut [u8], turn: impl Fn(u32) -> u32) {
    let mut words = [0; BLOCK];
    for (source, target) in source.chunks(4 * BLOCK).zip(target.chunks_mut(3 * BLOCK)) {
        for (word, pixel) in words.iter_mut().zip(source.as_chunks::<4>().0) {
            *word = turn(u32::from_le_bytes(*pixel)) & 0xff_ffff;
        }
        put_words(&words, target);
    }
}
