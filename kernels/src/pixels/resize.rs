//! Padding to a square and bicubic resizing, bit for bit as Pillow does it.
//!
//! Two passes, horizontal and then vertical, each rounded to 8 bits. A weight is an integer with
//! 22 fractional bits; sums are exact, so the result does not depend on the instruction set.

/// Fractional bits of a weight.
const FRACTION: u32 = 22;
const HALF: i32 = 1 << (FRACTION - 1);

/// Pads RGB pictures to squares and resizes them to one side. Tables are computed once per input
/// size, buffers grow to the largest picture.
#[derive(Debug)]
pub struct SquareResizer {
    side: usize,
    fill: [u8; 3],
    taps: Taps,
    /// Two rows of the square, pixel by pixel: R G B 0 of the upper, R G B 0 of the lower.
    pair: Vec<[u8; 8]>,
    /// Rows of the square after the horizontal pass.
    narrow: Vec<u8>,
    /// Sums of one row of the result.
    sums: Vec<i32>,
}

/// Weights of every output position over its input positions.
#[derive(Debug, Default)]
struct Taps {
    input: usize,
    spans: Vec<Span>,
    weights: Vec<i32>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    /// First input position.
    first: usize,
    /// Where the weights begin.
    offset: usize,
    /// Number of weights.
    count: usize,
}

impl SquareResizer {
    /// A resizer to `side` x `side`. What is added to make a square has the colour `fill`.
    pub fn new(side: usize, fill: [u8; 3]) -> Self {
        assert!(side > 0, "a picture of no pixels");
        Self {
            side,
            fill,
            taps: Taps::default(),
            pair: Vec::new(),
            narrow: Vec::new(),
            sums: vec![0; side * 3],
        }
    }

    /// Pads and resizes `rgb`, `width * height` pixels in row order, into `out`, `side * side`
    /// pixels. The picture is centred; an odd border is one pixel narrower at the left or top.
    /// A picture without pixels gives the fill colour.
    pub fn resize(&mut self, rgb: &[u8], width: usize, height: usize, out: &mut [u8]) {
        assert_eq!(rgb.len(), width * height * 3, "bytes of a {width} x {height} picture");
        assert_eq!(out.len(), self.side * self.side * 3, "bytes of the result");
        let input = width.max(height);
        if width == 0 || height == 0 {
            out.as_chunks_mut::<3>().0.fill(self.fill);
            return;
        }
        if self.taps.input != input {
            self.taps = Taps::new(input, self.side);
        }
        if input == self.side {
            self.pad(rgb, width, height, out);
            return;
        }
        self.horizontal_pass(rgb, width, height);
        let (narrow, sums) = (&self.narrow, &mut self.sums);
        vertical_pass(narrow, &self.taps, sums, out);
    }

    /// The padded square itself.
    fn pad(&self, rgb: &[u8], width: usize, height: usize, out: &mut [u8]) {
        let (left, top) = ((self.side - width) / 2, (self.side - height) / 2);
        out.as_chunks_mut::<3>().0.fill(self.fill);
        for (row, line) in rgb.chunks_exact(width * 3).enumerate() {
            let start = ((top + row) * self.side + left) * 3;
            out[start..][..width * 3].copy_from_slice(line);
        }
    }

    /// Fills `narrow` with all rows of the square.
    fn horizontal_pass(&mut self, rgb: &[u8], width: usize, height: usize) {
        let (input, row_bytes) = (self.taps.input, self.side * 3);
        let (left, top) = ((input - width) / 2, (input - height) / 2);
        let [r, g, b] = self.fill;
        self.pair.clear();
        self.pair.resize(input, [r, g, b, 0, r, g, b, 0]);
        self.narrow.resize(input * row_bytes, 0);

        let (above, rest) = self.narrow.split_at_mut(top * row_bytes);
        let (picture, below) = rest.split_at_mut(height * row_bytes);
        if height < input {
            // Rows of padding are all equal, and there is one below whenever there is any.
            let (model, others) = below.split_at_mut(row_bytes);
            narrow_rows(&self.pair, &self.taps, model, None);
            for row in above.chunks_exact_mut(row_bytes).chain(others.chunks_exact_mut(row_bytes)) {
                row.copy_from_slice(model);
            }
        }
        let pair = &mut self.pair;
        for (lines, rows) in rgb.chunks(2 * width * 3).zip(picture.chunks_mut(2 * row_bytes)) {
            let (upper, lower) = lines.split_at(width * 3);
            let lower = if lower.is_empty() { upper } else { lower };
            let colours = upper.as_chunks::<3>().0.iter().zip(lower.as_chunks::<3>().0);
            for (pixels, (a, b)) in pair[left..left + width].iter_mut().zip(colours) {
                *pixels = [a[0], a[1], a[2], 0, b[0], b[1], b[2], 0];
            }
            let (upper, lower) = rows.split_at_mut(row_bytes);
            narrow_rows(pair, &self.taps, upper, (!lower.is_empty()).then_some(lower));
        }
    }
}

impl Taps {
    fn new(input: usize, output: usize) -> Self {
        let scale = input as f64 / output as f64;
        let stretch = scale.max(1.0);
        let support = 2.0 * stretch;
        let mut taps = Self { input, spans: Vec::with_capacity(output), weights: Vec::new() };
        let mut exact = Vec::new();
        for index in 0..output {
            let centre = (index as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(input);
            exact.clear();
            exact.extend((first..end).map(|tap| bicubic((tap as f64 - centre + 0.5) / stretch)));
            let sum: f64 = exact.iter().sum();
            taps.spans.push(Span { first, offset: taps.weights.len(), count: exact.len() });
            // `round` takes halves away from zero.
            taps.weights
                .extend(exact.iter().map(|weight| (weight / sum * f64::from(1 << FRACTION)).round() as i32));
        }
        taps
    }

    fn weights(&self, span: Span) -> &[i32] {
        &self.weights[span.offset..][..span.count]
    }
}

/// The cubic of Keys with a = -0.5.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn rounded(sum: i32) -> u8 {
    (sum >> FRACTION).clamp(0, 255) as u8
}

/// Resizes a pair of rows.
fn narrow_rows(pair: &[[u8; 8]], taps: &Taps, upper: &mut [u8], lower: Option<&mut [u8]>) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { narrow_rows_avx2(pair, taps, upper, lower) };
    }
    narrow_rows_plain(pair, taps, upper, lower);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn narrow_rows_avx2(pair: &[[u8; 8]], taps: &Taps, upper: &mut [u8], lower: Option<&mut [u8]>) {
    narrow_rows_plain(pair, taps, upper, lower);
}

#[inline(always)]
fn narrow_rows_plain(pair: &[[u8; 8]], taps: &Taps, upper: &mut [u8], mut lower: Option<&mut [u8]>) {
    for (index, &span) in taps.spans.iter().enumerate() {
        let mut sums = [HALF; 8];
        for (pixels, &weight) in pair[span.first..][..span.count].iter().zip(taps.weights(span)) {
            for (sum, &value) in sums.iter_mut().zip(pixels) {
                *sum += i32::from(value) * weight;
            }
        }
        let values = sums.map(rounded);
        upper[index * 3..][..3].copy_from_slice(&values[..3]);
        if let Some(lower) = lower.as_deref_mut() {
            lower[index * 3..][..3].copy_from_slice(&values[4..7]);
        }
    }
}

/// Resizes columns: `narrow` has rows of `sums.len()` bytes.
fn vertical_pass(narrow: &[u8], taps: &Taps, sums: &mut [i32], out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { vertical_pass_avx2(narrow, taps, sums, out) };
    }
    vertical_pass_plain(narrow, taps, sums, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn vertical_pass_avx2(narrow: &[u8], taps: &Taps, sums: &mut [i32], out: &mut [u8]) {
    vertical_pass_plain(narrow, taps, sums, out);
}

#[inline(always)]
fn vertical_pass_plain(narrow: &[u8], taps: &Taps, sums: &mut [i32], out: &mut [u8]) {
    let row_bytes = sums.len();
    for (&span, result) in taps.spans.iter().zip(out.chunks_exact_mut(row_bytes)) {
        sums.fill(HALF);
        let rows = narrow[span.first * row_bytes..].chunks_exact(row_bytes);
        for (row, &weight) in rows.zip(taps.weights(span)) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += i32::from(value) * weight;
            }
        }
        for (value, &sum) in result.iter_mut().zip(sums.iter()) {
            *value = rounded(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..count).map(|_| next()).collect()
    }

    /// The two passes, pixel by pixel.
    fn slow(rgb: &[u8], width: usize, height: usize, side: usize, fill: [u8; 3]) -> Vec<u8> {
        let input = width.max(height);
        let (left, top) = ((input - width) / 2, (input - height) / 2);
        let taps = Taps::new(input, side);
        let square = |x: usize, y: usize, c: usize| {
            let inside = (left..left + width).contains(&x) && (top..top + height).contains(&y);
            if inside { rgb[((y - top) * width + x - left) * 3 + c] } else { fill[c] }
        };
        let sum = |index: usize, value: &dyn Fn(usize) -> u8| {
            let span = taps.spans[index];
            let terms = taps.weights(span).iter().enumerate();
            rounded(HALF + terms.map(|(i, weight)| i32::from(value(span.first + i)) * weight).sum::<i32>())
        };
        if input == side {
            return (0..side * side * 3).map(|i| square(i / 3 % side, i / 3 / side, i % 3)).collect();
        }
        let narrow: Vec<u8> =
            (0..input * side * 3).map(|i| sum(i / 3 % side, &|x| square(x, i / 3 / side, i % 3))).collect();
        (0..side * side * 3)
            .map(|i| sum(i / 3 / side, &|y| narrow[(y * side + i / 3 % side) * 3 + i % 3]))
            .collect()
    }

    #[test]
    fn fast_and_slow_passes_are_equal() {
        let fill = [122, 116, 104];
        let mut resizer = SquareResizer::new(14, fill);
        for (width, height) in
            [(1, 1), (14, 14), (14, 3), (5, 14), (40, 21), (21, 40), (13, 13), (15, 14), (1, 33), (33, 1)]
        {
            let rgb = noise(width * height * 3);
            let mut out = vec![0; 14 * 14 * 3];
            resizer.resize(&rgb, width, height, &mut out);
            assert!(out == slow(&rgb, width, height, 14, fill), "{width} x {height}");
        }
    }

    #[test]
    fn weights_sum_to_one() {
        for (input, output) in [(1280, 336), (23, 336), (335, 336), (16384, 336), (1, 336)] {
            let taps = Taps::new(input, output);
            for &span in &taps.spans {
                let sum: i32 = taps.weights(span).iter().sum();
                assert!((sum - (1 << FRACTION)).abs() <= span.count as i32, "{input} to {output}: {sum}");
                let largest: i64 =
                    taps.weights(span).iter().map(|weight| i64::from(weight.abs()) * 255).sum();
                assert!(largest + i64::from(HALF) <= i64::from(i32::MAX), "{input} to {output} overflows");
            }
        }
    }

    #[test]
    fn one_colour_stays_one_colour() {
        let mut resizer = SquareResizer::new(8, [9, 99, 199]);
        let mut out = vec![0; 8 * 8 * 3];
        resizer.resize(&[], 0, 5, &mut out);
        assert!(out.as_chunks::<3>().0.iter().all(|pixel| *pixel == [9, 99, 199]));
        resizer.resize(&[9, 99, 199].repeat(21), 7, 3, &mut out);
        assert!(out.as_chunks::<3>().0.iter().all(|pixel| *pixel == [9, 99, 199]));
    }
}
