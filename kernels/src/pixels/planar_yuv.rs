//! NV12 and YU12: four pixels in a square share one U and one V.

use super::yuv::{BLOCK, Block, YuvColor};
use super::{PixelsError, Plane, PlaneMut, Size};

/// R, G, B from a plane of Y and a plane of U V pairs at half the size, rounded up.
pub fn rgb_from_nv12(
    size: Size,
    y: Plane<'_>,
    uv: Plane<'_>,
    color: YuvColor,
    rgb: PlaneMut<'_>,
) -> Result<(), PixelsError> {
    let half = Size { width: size.width.div_ceil(2), height: size.height.div_ceil(2) };
    let chroma = uv.lines("uv", half.height, half.width.saturating_mul(2))?;
    convert(size, y, chroma, color, rgb, |line: &[u8], at, block| {
        let pairs = line[2 * at..].as_chunks::<2>().0;
        spread(pairs.iter().map(|&[u, _]| u), &mut block.u);
        spread(pairs.iter().map(|&[_, v]| v), &mut block.v);
    })
}

/// R, G, B from planes of Y, U and V, the latter two at half the size, rounded up.
pub fn rgb_from_yu12(
    size: Size,
    y: Plane<'_>,
    u: Plane<'_>,
    v: Plane<'_>,
    color: YuvColor,
    rgb: PlaneMut<'_>,
) -> Result<(), PixelsError> {
    let half = Size { width: size.width.div_ceil(2), height: size.height.div_ceil(2) };
    let chroma = u.lines("u", half.height, half.width)?.zip(v.lines("v", half.height, half.width)?);
    convert(size, y, chroma, color, rgb, |(u, v): (&[u8], &[u8]), at, block| {
        spread(u[at..].iter().copied(), &mut block.u);
        spread(v[at..].iter().copied(), &mut block.v);
    })
}

/// Converts block by block; `fill(line, at, block)` spreads the chroma of a line over the pixels of a
/// block, from chroma sample `at` on.
#[inline(always)]
fn convert<Line: Copy>(
    size: Size,
    y: Plane<'_>,
    chroma: impl Iterator<Item = Line>,
    color: YuvColor,
    rgb: PlaneMut<'_>,
    fill: impl Fn(Line, usize, &mut Block),
) -> Result<(), PixelsError> {
    let factors = color.factors();
    let sources = y.lines("y", size.height, size.width)?;
    let targets = rgb.lines("rgb", size.height, size.width.saturating_mul(3))?;
    let chroma = chroma.flat_map(|line| [line, line]);
    let mut block = Block::new();
    for ((source, target), line) in sources.zip(targets).zip(chroma) {
        let blocks = source.chunks(BLOCK).zip(target.chunks_mut(3 * BLOCK));
        for (i, (luma, pixels)) in blocks.enumerate() {
            block.y[..luma.len()].copy_from_slice(luma);
            fill(line, i * BLOCK / 2, &mut block);
            block.write_rgb(factors, pixels);
        }
    }
    Ok(())
}

/// Gives every sample to two pixels.
#[inline(always)]
fn spread(samples: impl Iterator<Item = u8>, pixels: &mut [u8; BLOCK]) {
    for (pair, sample) in pixels.as_chunks_mut::<2>().0.iter_mut().zip(samples) {
        *pair = [sample; 2];
    }
}

#[cfg(test)]
mod tests {
    use super::super::yuv::{COLORS, exact_rgb};
    use super::*;

    const SIZES: [(usize, usize); 8] = [(1, 1), (2, 2), (3, 5), (31, 2), (32, 1), (33, 3), (64, 2), (97, 4)];

    /// A picture with planes whose lines are padded by different amounts.
    struct Picture {
        size: Size,
        y: (Vec<u8>, usize),
        u: (Vec<u8>, usize),
        v: (Vec<u8>, usize),
    }

    impl Picture {
        fn new(width: usize, height: usize) -> Self {
            let plane = |stride: usize, lines: usize, seed: usize| {
                let bytes = (0..stride * lines).map(|i| (i * 41 + i / 5 + seed) as u8).collect();
                (bytes, stride)
            };
            let (across, down) = (width.div_ceil(2), height.div_ceil(2));
            Self {
                size: Size { width, height },
                y: plane(width + 3, height, 0),
                u: plane(across + 2, down, 90),
                v: plane(across + 1, down, 180),
            }
        }

        /// U and V as one plane of pairs.
        fn uv(&self) -> (Vec<u8>, usize) {
            let across = self.size.width.div_ceil(2);
            let mut pairs = Vec::new();
            for (u, v) in self.u.0.chunks(self.u.1).zip(self.v.0.chunks(self.v.1)) {
                pairs.extend(u.iter().zip(v).take(across).flat_map(|(&u, &v)| [u, v]));
            }
            (pairs, 2 * across)
        }

        fn check(&self, color: YuvColor, rgb: &[u8]) {
            let Size { width, height } = self.size;
            for (x, line) in (0..height).flat_map(|line| (0..width).map(move |x| (x, line))) {
                let y = self.y.0[line * self.y.1 + x];
                let u = self.u.0[line / 2 * self.u.1 + x / 2];
                let v = self.v.0[line / 2 * self.v.1 + x / 2];
                let want = exact_rgb(color, y, u, v);
                let got = &rgb[3 * (line * width + x)..][..3];
                let near = got.iter().zip(want).all(|(g, w)| g.abs_diff(w) <= 1);
                assert!(near, "{width}x{height}, pixel {x},{line}: {got:?}, not {want:?}");
            }
        }
    }

    fn plane((bytes, stride): &(Vec<u8>, usize)) -> Plane<'_> {
        Plane { bytes, stride: *stride }
    }

    #[test]
    fn both_layouts_follow_the_formula_at_odd_sizes() {
        for (width, height) in SIZES {
            let picture = Picture::new(width, height);
            let mut out = vec![0; width * height * 3];
            for color in COLORS {
                let rgb = PlaneMut { bytes: &mut out, stride: 3 * width };
                let (y, u, v) = (plane(&picture.y), plane(&picture.u), plane(&picture.v));
                rgb_from_yu12(picture.size, y, u, v, color, rgb).unwrap();
                picture.check(color, &out);

                out.fill(0);
                let rgb = PlaneMut { bytes: &mut out, stride: 3 * width };
                rgb_from_nv12(picture.size, y, plane(&picture.uv()), color, rgb).unwrap();
                picture.check(color, &out);
            }
        }
    }

    #[test]
    fn a_short_chroma_plane_is_refused() {
        let mut out = [0; 3 * 9];
        let result = rgb_from_nv12(
            Size { width: 3, height: 3 },
            Plane { bytes: &[0; 9], stride: 3 },
            Plane { bytes: &[0; 7], stride: 4 },
            YuvColor::default(),
            PlaneMut { bytes: &mut out, stride: 9 },
        );
        assert_eq!(result, Err(PixelsError::Short { plane: "uv", got: 7, needed: 8 }));
    }
}
