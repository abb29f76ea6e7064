//! YUYV and UYVY: two pixels in four bytes share one U and one V.

use super::yuv::{BLOCK, Block, YuvColor};
use super::{PixelsError, Plane, PlaneMut, Size};

/// R, G, B from Y0 U Y1 V. A line of odd width ends with a whole group of four bytes.
pub fn rgb_from_yuyv(
    size: Size,
    yuyv: Plane<'_>,
    color: YuvColor,
    rgb: PlaneMut<'_>,
) -> Result<(), PixelsError> {
    convert(size, yuyv, color, rgb, |[y0, u, y1, v]| [y0, y1, u, v])
}

/// R, G, B from U Y0 V Y1. A line of odd width ends with a whole group of four bytes.
pub fn rgb_from_uyvy(
    size: Size,
    uyvy: Plane<'_>,
    color: YuvColor,
    rgb: PlaneMut<'_>,
) -> Result<(), PixelsError> {
    convert(size, uyvy, color, rgb, |[u, y0, v, y1]| [y0, y1, u, v])
}

/// Converts groups of two pixels; `order` brings a group into the order Y0 Y1 U V.
#[inline(always)]
fn convert(
    size: Size,
    packed: Plane<'_>,
    color: YuvColor,
    rgb: PlaneMut<'_>,
    order: impl Fn([u8; 4]) -> [u8; 4],
) -> Result<(), PixelsError> {
    let factors = color.factors();
    let sources = packed.lines("yuv", size.height, size.width.div_ceil(2).saturating_mul(4))?;
    let targets = rgb.lines("rgb", size.height, size.width.saturating_mul(3))?;
    let mut block = Block::new();
    for (source, target) in sources.zip(targets) {
        for (groups, pixels) in source.chunks(2 * BLOCK).zip(target.chunks_mut(3 * BLOCK)) {
            for (i, group) in groups.as_chunks::<4>().0.iter().enumerate() {
                let [y0, y1, u, v] = order(*group);
                (block.y[2 * i], block.y[2 * i + 1]) = (y0, y1);
                (block.u[2 * i], block.u[2 * i + 1]) = (u, u);
                (block.v[2 * i], block.v[2 * i + 1]) = (v, v);
            }
            block.write_rgb(factors, pixels);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::yuv::{COLORS, exact_rgb};
    use super::*;

    type Convert = fn(Size, Plane<'_>, YuvColor, PlaneMut<'_>) -> Result<(), PixelsError>;

    /// Converts a patterned picture with padded lines and compares it with the formula.
    fn check(convert: Convert, width: usize, height: usize, at: [usize; 4]) {
        let [y0_at, y1_at, u_at, v_at] = at;
        let (stride, out_stride) = (width.div_ceil(2) * 4 + 6, width * 3 + 5);
        let source: Vec<u8> = (0..stride * height).map(|i| (i * 37 + i / 7) as u8).collect();
        for color in COLORS {
            let mut out = vec![9; out_stride * height];
            let rgb = PlaneMut { bytes: &mut out, stride: out_stride };
            convert(Size { width, height }, Plane { bytes: &source, stride }, color, rgb).unwrap();
            for (line, got) in out.chunks(out_stride).enumerate() {
                let groups = &source[line * stride..];
                for x in 0..width {
                    let group = &groups[x / 2 * 4..][..4];
                    let y = group[if x % 2 == 0 { y0_at } else { y1_at }];
                    let want = exact_rgb(color, y, group[u_at], group[v_at]);
                    let near = got[3 * x..][..3].iter().zip(want).all(|(g, w)| g.abs_diff(w) <= 1);
                    assert!(
                        near,
                        "{width}x{height}, pixel {x},{line}: {:?}, not {want:?}",
                        &got[3 * x..][..3]
                    );
                }
                assert_eq!(got[3 * width..], [9; 5], "the padding is left alone");
            }
        }
    }

    #[test]
    fn both_orders_follow_the_formula_at_any_width() {
        for (width, height) in [(1, 1), (2, 2), (3, 5), (31, 2), (32, 1), (33, 3), (64, 2), (97, 4)] {
            check(rgb_from_yuyv, width, height, [0, 2, 1, 3]);
            check(rgb_from_uyvy, width, height, [1, 3, 0, 2]);
        }
    }

    #[test]
    fn a_short_picture_is_refused() {
        let mut out = [0; 3 * 4];
        let result = rgb_from_yuyv(
            Size { width: 4, height: 1 },
            Plane { bytes: &[0; 7], stride: 8 },
            YuvColor::default(),
            PlaneMut { bytes: &mut out, stride: 12 },
        );
        assert_eq!(result, Err(PixelsError::Short { plane: "yuv", got: 7, needed: 8 }));
    }
}
