//! Shapes with soft edges on a picture in R, G, B.

use super::backdrop::Rgb;
use super::things::WIDTH;

/// Brightness of the rim of a shape.
const RIM: f32 = 0.72;

/// Where places of the world lie on a picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// Pixels of one unit across, down, and of sizes.
    across: f32,
    down: f32,
    unit: f32,
    /// How far the picture is moved, in pixels.
    shift: (f32, f32),
}

impl View {
    pub(super) fn new(width: usize, height: usize, shake: (f32, f32)) -> Self {
        let (across, down) = (width as f32 / WIDTH, height as f32);
        let unit = across.min(down);
        Self { across, down, unit, shift: (shake.0 * unit, shake.1 * unit) }
    }

    /// Pixels of a size.
    pub(super) fn pixels(&self, size: f32) -> f32 {
        self.unit * size
    }

    /// The pixel of a place.
    pub(super) fn place(&self, x: f32, y: f32) -> (f32, f32) {
        (x * self.across + self.shift.0, y * self.down + self.shift.1)
    }

    /// The line of a height.
    pub(super) fn line(&self, y: f32) -> f32 {
        y * self.down + self.shift.1
    }
}

/// Colour of a shape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    pub(super) color: Rgb,
    /// Darker from top to bottom by this part.
    pub(super) shade: f32,
    /// Width of a darker rim, in the unit of the shape's distances.
    pub(super) rim: f32,
}

impl Paint {
    /// One colour all over.
    pub(super) fn flat(color: Rgb) -> Self {
        Self { color, shade: 0.0, rim: 0.0 }
    }
}

/// A picture that is drawn on.
pub(super) struct Canvas<'a> {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) rgb: &'a mut [u8],
    pub(super) view: View,
}

impl Canvas<'_> {
    /// Fills what lies at a negative `distance` within a rectangle around a place. `distance` takes
    /// coordinates from that place; all lengths are in heights of the frame.
    pub(super) fn fill(
        &mut self,
        (x, y): (f32, f32),
        (half_width, half_height): (f32, f32),
        paint: Paint,
        distance: impl Fn(f32, f32) -> f32,
    ) {
        let unit = self.view.unit;
        let (center_x, center_y) = self.view.place(x, y);
        let columns = span(center_x, half_width * unit, self.width);
        for line in span(center_y, half_height * unit, self.height) {
            let dy = (line as f32 + 0.5 - center_y) / unit;
            let color = shaded(paint, dy / half_height);
            let (solid, rim) = (bytes(color), bytes(color.map(|channel| RIM * channel)));
            let start = 3 * line * self.width;
            let pixels = self.rgb[start + 3 * columns.start..start + 3 * columns.end].as_chunks_mut::<3>().0;
            for (column, pixel) in columns.clone().zip(pixels) {
                let distance = distance((column as f32 + 0.5 - center_x) / unit, dy);
                let edge = distance * unit;
                if edge < 0.5 {
                    let color = if distance > -paint.rim { rim } else { solid };
                    *pixel = if edge <= -0.5 { color } else { blend(*pixel, color, 0.5 - edge) };
                }
            }
        }
    }

    /// Fills an upright rectangle around a place.
    pub(super) fn fill_box(&mut self, (x, y): (f32, f32), (half_x, half_y): (f32, f32), paint: Paint) {
        let (half_width, half_height) = (half_x * self.view.unit, half_y * self.view.unit);
        let (center_x, center_y) = self.view.place(x, y);
        // How much of a pixel lies within, across and down.
        let cover = |at: usize, center: f32, half: f32| {
            (half + 0.5 - (at as f32 + 0.5 - center).abs()).clamp(0.0, 1.0)
        };
        let columns = span(center_x, half_width, self.width);
        for line in span(center_y, half_height, self.height) {
            let down = cover(line, center_y, half_height);
            let color = bytes(shaded(paint, (line as f32 + 0.5 - center_y) / half_height));
            let start = 3 * line * self.width;
            let pixels = self.rgb[start + 3 * columns.start..start + 3 * columns.end].as_chunks_mut::<3>().0;
            for (column, pixel) in columns.clone().zip(pixels) {
                let cover = down * cover(column, center_x, half_width);
                *pixel = if cover == 1.0 { color } else { blend(*pixel, color, cover) };
            }
        }
    }

    /// Adds light that fades away from a place until `radius`.
    pub(super) fn add_glow(&mut self, (x, y): (f32, f32), radius: f32, color: Rgb) {
        let (center_x, center_y) = self.view.place(x, y);
        let radius = radius * self.view.unit;
        let columns = span(center_x, radius, self.width);
        for line in span(center_y, radius, self.height) {
            let dy = (line as f32 + 0.5 - center_y) / radius;
            let start = 3 * line * self.width;
            let pixels = self.rgb[start + 3 * columns.start..start + 3 * columns.end].as_chunks_mut::<3>().0;
            for (column, pixel) in columns.clone().zip(pixels) {
                let dx = (column as f32 + 0.5 - center_x) / radius;
                let fade = (1.0 - dx * dx - dy * dy).max(0.0);
                for (byte, channel) in pixel.iter_mut().zip(color) {
                    *byte = (f32::from(*byte) + fade * fade * channel) as u8;
                }
            }
        }
    }
}

/// The pixels that lie within `half` of `center`, and one more on each side.
fn span(center: f32, half: f32, end: usize) -> std::ops::Range<usize> {
    let from = (center - half - 1.0).clamp(0.0, end as f32) as usize;
    let to = (center + half + 2.0).clamp(0.0, end as f32) as usize;
    from..to.max(from)
}

/// The colour of a paint at a height from -1 to 1.
fn shaded(paint: Paint, y: f32) -> Rgb {
    paint.color.map(|channel| channel * (1.0 - paint.shade * y))
}

fn bytes(color: Rgb) -> [u8; 3] {
    color.map(|channel| (channel + 0.5) as u8)
}

/// A pixel of which a part is covered.
fn blend(pixel: [u8; 3], color: [u8; 3], cover: f32) -> [u8; 3] {
    std::array::from_fn(|channel| {
        let (old, new) = (f32::from(pixel[channel]), f32::from(color[channel]));
        (old + (new - old) * cover + 0.5) as u8
    })
}
