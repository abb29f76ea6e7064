//! A picture becomes the tensor the vision tower was trained on.

use image::RgbImage;
use kernels::pixels::SquareResizer;

mod picture;

pub use picture::{MAX_PIXELS, MAX_SIDE, PictureError, decode_picture};

/// Pads a picture to a square, resizes and normalizes it. Buffers are reused: after the first
/// picture of a size nothing is allocated.
#[derive(Debug)]
pub struct Preprocessor {
    side: usize,
    resizer: SquareResizer,
    /// Normalized value of every level of every channel.
    levels: [[f32; 256]; 3],
    picture: Vec<u8>,
    pixels: Vec<f32>,
}

impl Preprocessor {
    /// For pictures of `side` x `side` pixels. `mean` and `deviation` of R, G and B are those of
    /// levels between 0 and 1; the mean, cut to whole levels, is also the colour of the padding.
    pub fn new(side: usize, mean: [f32; 3], deviation: [f32; 3]) -> Self {
        let normalized = |channel: usize, level: usize| {
            let value = (level as f64 * (1.0 / 255.0)) as f32;
            (value - mean[channel]) / deviation[channel]
        };
        Self {
            side,
            resizer: SquareResizer::new(side, mean.map(|mean| (f64::from(mean) * 255.0) as u8)),
            levels: std::array::from_fn(|channel| std::array::from_fn(|level| normalized(channel, level))),
            picture: vec![0; side * side * 3],
            pixels: vec![0.0; side * side * 3],
        }
    }

    /// The normalized picture: planes R, G, B of `side` x `side`, together `(3 * side, side)`.
    pub fn pixels(&mut self, picture: &RgbImage) -> &[f32] {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        self.resizer.resize(picture.as_raw(), width, height, &mut self.picture);
        let planes = self.pixels.chunks_exact_mut(self.side * self.side);
        for (channel, (plane, levels)) in planes.zip(&self.levels).enumerate() {
            for (value, pixel) in plane.iter_mut().zip(self.picture.as_chunks::<3>().0) {
                *value = levels[usize::from(pixel[channel])];
            }
        }
        &self.pixels
    }

    /// The padded and resized picture before normalization, RGB in row order.
    pub fn picture(&self) -> &[u8] {
        &self.picture
    }

    /// Side of the square in pixels.
    pub fn side(&self) -> usize {
        self.side
    }
}

#[cfg(test)]
mod tests;
