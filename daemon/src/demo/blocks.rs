//! A picture in a terminal: two pixels to a letter, one above the other.

use std::fmt::Write;

use image::RgbImage;
use image::imageops::{self, FilterType};

/// The upper half of a letter; its lower half shows the background.
const UPPER_HALF: char = '\u{2580}';

/// Ends all colours.
const PLAIN: &str = "\u{1b}[0m";

/// The picture `columns` letters wide, one text for each line of letters, in 24-bit colour.
pub(super) fn lines(picture: &RgbImage, columns: u32) -> Vec<String> {
    let (width, height) = (picture.width().max(1), picture.height().max(1));
    let columns = columns.max(1);
    let rows = (columns * height).div_ceil(2 * width).max(1);
    let small = imageops::resize(picture, columns, 2 * rows, FilterType::Triangle);
    (0..rows).map(|row| line(&small, 2 * row)).collect()
}

/// Pixel rows `top` and `top + 1` of a picture as one line. Colours are told where they change.
fn line(picture: &RgbImage, top: u32) -> String {
    let mut text = String::new();
    let mut last = None;
    for x in 0..picture.width() {
        let colors = [top, top + 1].map(|y| picture.get_pixel(x, y).0);
        if last != Some(colors) {
            let [[r, g, b], [low_r, low_g, low_b]] = colors;
            // Writing to a text cannot fail.
            let _ = write!(text, "\u{1b}[38;2;{r};{g};{b};48;2;{low_r};{low_g};{low_b}m");
            last = Some(colors);
        }
        text.push(UPPER_HALF);
    }
    text + PLAIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_keeps_its_shape_and_colours() {
        let picture =
            RgbImage::from_fn(64, 48, |_, y| image::Rgb(if y < 24 { [255, 0, 0] } else { [0, 0, 9] }));
        let lines = lines(&picture, 16);
        assert_eq!(lines.len(), 6);
        assert!(lines.iter().all(|line| line.matches(UPPER_HALF).count() == 16));
        assert!(lines[0].starts_with("\u{1b}[38;2;255;0;0;48;2;255;0;0m\u{2580}\u{2580}"), "{:?}", lines[0]);
        assert!(lines[5].starts_with("\u{1b}[38;2;0;0;9;48;2;0;0;9m"), "{:?}", lines[5]);
        assert!(super::lines(&RgbImage::new(1, 400), 3).len() == 600);
    }
}
