//! Layouts that already hold R, G, B or luminance: bytes change places only.

use super::{PixelsError, Plane, PlaneMut, Size};

/// R, G, B from R G B: lines are copied without their padding.
pub fn rgb_from_rgb24(size: Size, rgb24: Plane<'_>, rgb: PlaneMut<'_>) -> Result<(), PixelsError> {
    let line_bytes = size.width.saturating_mul(3);
    let sources = rgb24.lines("rgb24", size.height, line_bytes)?;
    for (source, target) in sources.zip(rgb.lines("rgb", size.height, line_bytes)?) {
        target.copy_from_slice(source);
    }
    Ok(())
}

/// R, G, B from B G R.
pub fn rgb_from_bgr24(size: Size, bgr24: Plane<'_>, rgb: PlaneMut<'_>) -> Result<(), PixelsError> {
    convert(size, ("bgr24", bgr24), rgb, |[b, g, r]| [r, g, b])
}

/// R, G, B from R G B and an unused byte.
pub fn rgb_from_rgbx32(size: Size, rgbx32: Plane<'_>, rgb: PlaneMut<'_>) -> Result<(), PixelsError> {
    convert(size, ("rgbx32", rgbx32), rgb, |[r, g, b, _]| [r, g, b])
}

/// R, G, B from B G R and an unused byte.
pub fn rgb_from_bgrx32(size: Size, bgrx32: Plane<'_>, rgb: PlaneMut<'_>) -> Result<(), PixelsError> {
    convert(size, ("bgrx32", bgrx32), rgb, |[b, g, r, _]| [r, g, b])
}

/// R, G, B from 8-bit luminance, 0 black and 255 white.
pub fn rgb_from_grey(size: Size, grey: Plane<'_>, rgb: PlaneMut<'_>) -> Result<(), PixelsError> {
    convert(size, ("grey", grey), rgb, |[y]| [y, y, y])
}

/// Converts pixel by pixel from `N` bytes each.
#[inline(always)]
fn convert<const N: usize>(
    size: Size,
    (name, plane): (&'static str, Plane<'_>),
    rgb: PlaneMut<'_>,
    pixel: impl Fn([u8; N]) -> [u8; 3],
) -> Result<(), PixelsError> {
    let sources = plane.lines(name, size.height, size.width.saturating_mul(N))?;
    let targets = rgb.lines("rgb", size.height, size.width.saturating_mul(3))?;
    for (source, target) in sources.zip(targets) {
        for (from, to) in source.as_chunks::<N>().0.iter().zip(target.as_chunks_mut::<3>().0) {
            *to = pixel(*from);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Convert = fn(Size, Plane<'_>, PlaneMut<'_>) -> Result<(), PixelsError>;

    /// Converts two lines of two pixels with one byte of padding after each line but the last.
    fn check(convert: Convert, pixels: [&[u8]; 4], want: [[u8; 3]; 4]) {
        let bytes = [pixels[0], pixels[1], &[77], pixels[2], pixels[3]].concat();
        let plane = Plane { bytes: &bytes, stride: 2 * pixels[0].len() + 1 };
        let mut out = [9; 13];
        let size = Size { width: 2, height: 2 };
        convert(size, plane, PlaneMut { bytes: &mut out, stride: 7 }).unwrap();
        let [a, b, c, d] = want;
        assert_eq!(out[..], [&a[..], &b, &[9], &c, &d].concat()[..]);
    }

    #[test]
    fn bytes_change_places() {
        let want = [[1, 2, 3], [4, 5, 6], [7, 8, 9], [250, 251, 252]];
        check(rgb_from_rgb24, [&[1, 2, 3], &[4, 5, 6], &[7, 8, 9], &[250, 251, 252]], want);
        check(rgb_from_bgr24, [&[3, 2, 1], &[6, 5, 4], &[9, 8, 7], &[252, 251, 250]], want);
        check(rgb_from_rgbx32, [&[1, 2, 3, 0], &[4, 5, 6, 1], &[7, 8, 9, 2], &[250, 251, 252, 3]], want);
        check(rgb_from_bgrx32, [&[3, 2, 1, 0], &[6, 5, 4, 1], &[9, 8, 7, 2], &[252, 251, 250, 3]], want);
        check(rgb_from_grey, [&[0], &[1], &[254], &[255]], [[0; 3], [1; 3], [254; 3], [255; 3]]);
    }

    #[test]
    fn a_small_target_is_refused() {
        let mut out = [0; 5];
        let size = Size { width: 1, height: 2 };
        let rgb = PlaneMut { bytes: &mut out, stride: 3 };
        let result = rgb_from_grey(size, Plane { bytes: &[0; 2], stride: 1 }, rgb);
        assert_eq!(result, Err(PixelsError::Short { plane: "rgb", got: 5, needed: 6 }));
    }
}
