//! From the samples of a bare sensor to code values: black level, white balance, tone curve.

use std::sync::LazyLock;

use super::samples::{FULL, sample_at};
use super::{BayerOrder, Plane, Samples, SensorColor, Size, ToneCurve, WhiteBalance};

/// One as a gain.
const ONE: u64 = 256;
/// Largest and smallest ratio of the mean of green to that of another colour that a light of this
/// world explains; beyond, the scene itself is coloured.
const RATIOS: (u64, u64) = (ONE / 3, 3 * ONE);
/// Cells of the mosaic that are looked at, about.
const CELLS: usize = 1 << 14;
/// Samples from here on may be cut off and say nothing about the light.
const BRIGHT: i16 = 1000;
/// A mean below this is noise.
const DARK: u64 = 8;

/// Code values of red, green and blue for each sample of 10 bits. The plane holds the picture.
pub(crate) fn tones(
    size: Size,
    (order, samples): (BayerOrder, Samples),
    plane: Plane<'_>,
    color: SensorColor,
) -> [[u8; 1024]; 3] {
    let black = color.black.min(FULL.cast_unsigned() - 1);
    let gains = match color.balance {
        WhiteBalance::Gains(gains) => gains.map(u64::from),
        WhiteBalance::GreyWorld => grey_world(size, (order, samples), plane, black.cast_signed()),
    };
    let black = u64::from(black);
    gains.map(|gain| {
        std::array::from_fn(|sample| {
            let light = (sample as u64).saturating_sub(black) * gain * 1023 / (ONE * (1023 - black));
            let light = light.min(1023) as usize;
            match color.curve {
                ToneCurve::None => (light / 4) as u8,
                ToneCurve::Srgb => SRGB[light],
            }
        })
    })
}

/// The curve of IEC 61966-2-1 for light from 0 to 1023.
static SRGB: LazyLock<[u8; 1024]> = LazyLock::new(|| {
    std::array::from_fn(|light| {
        let light = light as f64 / 1023.0;
        let code = if light <= 0.003_130_8 { 12.92 * light } else { 1.055 * light.powf(1.0 / 2.4) - 0.055 };
        (code * 255.0).round() as u8
    })
});

/// Gains that make the mean of the picture grey. The smallest is one, so that what is cut off in all
/// colours stays white.
fn grey_world(size: Size, (order, samples): (BayerOrder, Samples), plane: Plane<'_>, black: i16) -> [u64; 3] {
    let (across, down) = (size.width / 2, size.height / 2);
    let step = (across * down / CELLS).isqrt().max(1);
    let (mut sums, mut count) = ([0u64; 3], 0);
    for cell_y in (0..down).step_by(step) {
        let lines = [2 * cell_y, 2 * cell_y + 1].map(|y| (y, &plane.bytes[y * plane.stride..]));
        for cell_x in (0..across).step_by(step) {
            let mut cell = [0; 3];
            let mut largest = 0;
            for (y, line) in lines {
                for x in [2 * cell_x, 2 * cell_x + 1] {
                    let sample = sample_at(samples, line, x);
                    largest = largest.max(sample);
                    cell[order.color_at(x, y)] += u64::from((sample - black).max(0).cast_unsigned());
                }
            }
            if largest < BRIGHT {
                count += 1;
                for (sum, value) in sums.iter_mut().zip(cell) {
                    *sum += value;
                }
            }
        }
    }
    // There are two green pixels in a cell.
    let sums = [2 * sums[0], sums[1], 2 * sums[2]];
    if sums.iter().any(|sum| *sum < 2 * count * DARK) || count == 0 {
        return [ONE; 3];
    }
    let gains = sums.map(|sum| (sums[1] * ONE / sum).clamp(RATIOS.0, RATIOS.1));
    let least = gains.into_iter().min().unwrap_or(ONE);
    gains.map(|gain| gain * ONE / least)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { width: 64, height: 48 };

    /// The mosaic of a picture of one colour.
    fn flat(color: [u8; 3]) -> Vec<u8> {
        let at = |i: usize| color[BayerOrder::Grbg.color_at(i % SIZE.width, i / SIZE.width)];
        (0..SIZE.width * SIZE.height).map(at).collect()
    }

    /// Code values of a sample of 8 bits in each colour.
    fn shown(bytes: &[u8], color: SensorColor) -> [u8; 3] {
        let plane = Plane { bytes, stride: SIZE.width };
        let tones = tones(SIZE, (BayerOrder::Grbg, Samples::Bits8), plane, color);
        [0, 1, 2].map(|c| {
            let at = (0..4).map(|i| (i % 2, i / 2)).find(|&(x, y)| BayerOrder::Grbg.color_at(x, y) == c);
            let (x, y) = at.unwrap();
            tones[c][sample_at(Samples::Bits8, &bytes[y * SIZE.width..], x) as usize]
        })
    }

    #[test]
    fn a_plausible_light_is_taken_out_and_no_more() {
        let auto = SensorColor::default();
        for (color, want) in [
            ([100, 100, 100], [100, 100, 100]),
            ([60, 120, 80], [119, 120, 119]),
            // A red wall stays red, and darkness and what is cut off stay as they are.
            ([200, 20, 20], [199, 60, 60]),
            ([3, 1, 1], [3, 1, 1]),
            ([255, 255, 90], [255, 255, 90]),
        ] {
            let got = shown(&flat(color), auto);
            assert!(
                got.iter().zip(want).all(|(g, w)| g.abs_diff(w) <= 1),
                "{color:?}: {got:?}, not {want:?}"
            );
        }
    }

    #[test]
    fn given_gains_black_and_the_curve_are_applied() {
        let given = |black, gains, curve| SensorColor { black, balance: WhiteBalance::Gains(gains), curve };
        let picture = flat([40, 100, 240]);
        assert_eq!(shown(&picture, given(0, [256; 3], ToneCurve::None)), [40, 100, 240]);
        assert_eq!(shown(&picture, given(0, [512, 256, 384], ToneCurve::None)), [80, 100, 255]);
        let [r, g, b] = shown(&picture, given(64, [256; 3], ToneCurve::None));
        assert!(r.abs_diff(26) <= 1 && g.abs_diff(90) <= 1 && b.abs_diff(239) <= 1, "{r} {g} {b}");
        // Linear 40, 100 and 240 of 255 as sRGB.
        let [r, g, b] = shown(&picture, given(0, [256; 3], ToneCurve::Srgb));
        assert!(r.abs_diff(111) <= 1 && g.abs_diff(168) <= 1 && b.abs_diff(248) <= 1, "{r} {g} {b}");
        // No level, however wrong, divides by zero.
        shown(&picture, given(u16::MAX, [u16::MAX; 3], ToneCurve::Srgb));
    }
}
