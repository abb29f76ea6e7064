//! The camera's pictures, cut into transfers.

use std::collections::VecDeque;

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, RgbImage};

use crate::descriptors::{Format, HEIGHT, PAYLOAD, WIDTH};

/// The colour of every picture, as R, G, B and as Y, U, V of the limited range.
const RGB: [u8; 3] = [200, 60, 40];
const YUV: [u8; 3] = [99, 99, 191];

/// Bytes of a transfer before its content, and their flags.
const HEADER: u8 = 2;
const END_OF_HEADER: u8 = 0x80;
const DAMAGED: u8 = 0x40;
const LAST: u8 = 2;

/// What is wrong with the camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No more frames.
    Stall,
    /// Frames are marked as damaged.
    Damage,
    /// A third of each frame.
    Short,
}

/// The frame being sent.
#[derive(Default)]
pub(crate) struct Frames {
    pub(crate) fault: Option<Fault>,
    parts: VecDeque<Vec<u8>>,
    /// Changes from frame to frame.
    parity: u8,
    jpeg: Vec<u8>,
}

impl Frames {
    /// Begins another frame unless one is under way.
    pub(crate) fn next(&mut self, format: Format) {
        if !self.parts.is_empty() || self.fault == Some(Fault::Stall) {
            return;
        }
        self.parity ^= 1;
        let picture = match format {
            Format::Mjpeg => self.jpeg(),
            Format::Yuyv => {
                let [y, u, v] = YUV;
                [y, u, y, v].repeat(usize::from(WIDTH) * usize::from(HEIGHT) / 2)
            }
        };
        let shown = if self.fault == Some(Fault::Short) { picture.len() / 3 } else { picture.len() };
        let chunks = picture[..shown].chunks(PAYLOAD - usize::from(HEADER));
        let last = chunks.len() - 1;
        for (i, chunk) in chunks.enumerate() {
            let damaged = if self.fault == Some(Fault::Damage) { DAMAGED } else { 0 };
            let end = if i == last { LAST } else { 0 };
            let flags = END_OF_HEADER | self.parity | damaged | end;
            self.parts.push_back([&[HEADER, flags], chunk].concat());
        }
    }

    /// The next transfer.
    pub(crate) fn take(&mut self) -> Option<Vec<u8>> {
        self.parts.pop_front()
    }

    /// Gives up the frame under way.
    pub(crate) fn restart(&mut self) {
        self.parts.clear();
    }

    /// A picture as real cameras send it: the Huffman tables, which are the standard's, are left out.
    fn jpeg(&mut self) -> Vec<u8> {
        if self.jpeg.is_empty() {
            let picture = RgbImage::from_pixel(WIDTH.into(), HEIGHT.into(), image::Rgb(RGB));
            let mut file = Vec::new();
            JpegEncoder::new_with_quality(&mut file, 90)
                .encode(&picture, WIDTH.into(), HEIGHT.into(), ExtendedColorType::Rgb8)
                .expect("a small picture can be encoded");
            self.jpeg = without_tables(&file);
        }
        self.jpeg.clone()
    }
}

/// A JPEG file without its segments of Huffman tables.
fn without_tables(file: &[u8]) -> Vec<u8> {
    const TABLES: u8 = 0xc4;
    const SCAN: u8 = 0xda;
    let (mut kept, mut at) = (file[..2].to_vec(), 2);
    while file[at + 1] != SCAN {
        let end = at + 2 + usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
        if file[at + 1] != TABLES {
            kept.extend(&file[at..end]);
        }
        at = end;
    }
    kept.extend(&file[at..]);
    kept
}
