//! The two colours that each pixel of a mosaic lacks.
//!
//! H. S. Malvar, L. He, R. Cutler: High-quality linear interpolation for demosaicing of
//! Bayer-patterned color images (ICASSP 2004). A missing colour is the mean of its neighbours,
//! corrected by how much the colour that is there differs from its own neighbours. The filters are
//! 5 x 5 with weights in sixteenths; sums of samples of 10 bits fit 16. The picture is mirrored at its
//! edges, which keeps the mosaic.

use super::samples::{FULL, unpack};
use super::store::{BLOCK, put_words};
use super::{BayerOrder, PixelsError, Plane, PlaneMut, Samples, SensorColor, Size, tones};

/// Pixels of a line that are worked on before the next line: five lines of them stay in the
/// first-level cache.
const STRIP: usize = 8 * BLOCK;
/// Samples of a strip and two more on both sides.
const WIDE: usize = STRIP + 4;

/// A mosaic whose bytes were checked.
struct Mosaic<'a> {
    size: Size,
    order: BayerOrder,
    samples: Samples,
    plane: Plane<'a>,
}

#[inline(always)]
pub(super) fn convert(
    size: Size,
    (order, samples): (BayerOrder, Samples),
    plane: Plane<'_>,
    color: SensorColor,
    rgb: PlaneMut<'_>,
) -> Result<(), PixelsError> {
    plane.check("bayer", size.height, samples.line_bytes(size.width))?;
    rgb.check("out", size.height, size.width.saturating_mul(3))?;
    let mosaic = Mosaic { size, order, samples, plane };
    let tones = tones(size, (order, samples), plane, color);
    for first in (0..size.width).step_by(STRIP) {
        mosaic.convert_strip(first, &tones, (&mut *rgb.bytes, rgb.stride));
    }
    Ok(())
}

impl Mosaic<'_> {
    /// Converts the pixels of all lines from `first` on, as many as a strip holds.
    #[inline(always)]
    fn convert_strip(&self, first: usize, tones: &[[u8; 1024]; 3], (rgb, stride): (&mut [u8], usize)) {
        let count = STRIP.min(self.size.width - first);
        // Line `y` of the mosaic, mirrored, is at place `(y + 2) % 5`.
        let mut ring = [[0i16; WIDE]; 5];
        for y in 0..self.size.height + 4 {
            self.unpack_line(mirrored(y, self.size.height), first, &mut ring[y % 5]);
            let Some(line) = y.checked_sub(4) else { continue };
            let rows = [0, 1, 2, 3, 4].map(|i| &ring[(line + i) % 5]);
            let target = &mut rgb[line * stride + 3 * first..][..3 * count];
            for (block, target) in target.chunks_mut(3 * BLOCK).enumerate() {
                let parts = rows.map(|row| {
                    let part = row[block * BLOCK..].first_chunk::<{ BLOCK + 4 }>();
                    part.expect("a strip is whole blocks")
                });
                self.convert_block(line, parts, tones, target);
            }
        }
    }

    /// The samples of line `y` from two before `first` on.
    #[inline(always)]
    fn unpack_line(&self, y: usize, first: usize, out: &mut [i16; WIDE]) {
        let width = self.size.width;
        let line = &self.plane.bytes[y * self.plane.stride..][..self.samples.line_bytes(width)];
        let start = first.saturating_sub(2);
        let end = (first + STRIP + 2).min(width);
        let offset = start + 2 - first;
        unpack(self.samples, line, start, &mut out[offset..][..end - start]);
        // What lies beyond the picture; only two samples on each side are ever looked at.
        if first == 0 {
            (out[0], out[1]) = (out[2 + mirrored(0, width)], out[2 + mirrored(1, width)]);
        }
        for beyond in end..(first + STRIP + 2).min(width + 2) {
            // Of a narrow strip at the right edge the mirror lies in it or two before it.
            out[beyond + 2 - first] = out[mirrored(beyond + 2, width) + 2 - first];
        }
    }

    /// Converts a block of line `y` from the samples of five lines around it.
    #[inline(always)]
    fn convert_block(
        &self,
        y: usize,
        rows: [&[i16; BLOCK + 4]; 5],
        tones: &[[u8; 1024]; 3],
        target: &mut [u8],
    ) {
        let (red_x, red_y) = self.order.red_at();
        let is_red_line = y % 2 == red_y;
        // On lines of red the columns of red are coloured, on lines of blue the others.
        let colored = if is_red_line { red_x } else { 1 - red_x };
        let (mut own, mut green, mut other) = ([0i16; BLOCK], [0i16; BLOCK], [0i16; BLOCK]);
        for i in 0..BLOCK {
            let [up2, up, here, down, down2] = rows;
            let center = here[i + 2];
            let (across, across2) = (here[i + 1] + here[i + 3], here[i] + here[i + 4]);
            let (along, along2) = (up[i + 2] + down[i + 2], up2[i + 2] + down2[i + 2]);
            let corners = up[i + 1] + up[i + 3] + down[i + 1] + down[i + 3];
            let cross = rounded(8 * center + 4 * (across + along) - 2 * (across2 + along2));
            let diagonal = rounded(12 * center + 4 * corners - 3 * (across2 + along2));
            let horizontal = rounded(10 * center + 8 * across - 2 * (corners + across2) + along2);
            let vertical = rounded(10 * center + 8 * along - 2 * (corners + along2) + across2);
            let is_colored = i % 2 == colored;
            own[i] = if is_colored { center } else { horizontal };
            green[i] = if is_colored { cross } else { center };
            other[i] = if is_colored { diagonal } else { vertical };
        }
        let (red, blue) = if is_red_line { (own, other) } else { (other, own) };
        let mut words = [0; BLOCK];
        for (i, word) in words.iter_mut().enumerate() {
            let tone = |channel: usize, value: i16| u32::from(tones[channel][(value & FULL) as usize]);
            *word = tone(0, red[i]) | tone(1, green[i]) << 8 | tone(2, blue[i]) << 16;
        }
        put_words(&words, target);
    }
}

/// A sum of sixteenths as a sample.
#[inline(always)]
fn rounded(sum: i16) -> i16 {
    ((sum + 8) >> 4).clamp(0, FULL)
}

/// Of `length` places, the one that stands for place `beyond - 2`.
pub(crate) fn mirrored(beyond: usize, length: usize) -> usize {
    if length == 1 {
        return 0;
    }
    let period = 2 * (length - 1);
    let place = (beyond + period - 2 % period) % period;
    place.min(period - place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_beyond_the_edges_are_mirrored() {
        for (length, want) in [
            (1, &[0, 0, 0, 0, 0][..]),
            (2, &[0, 1, 0, 1, 0, 1]),
            (3, &[2, 1, 0, 1, 2, 1, 0]),
            (4, &[2, 1, 0, 1, 2, 3, 2, 1]),
        ] {
            let got: Vec<_> = (0..length + 4).map(|beyond| mirrored(beyond, length)).collect();
            assert_eq!(got, want, "{length}");
        }
    }
}
