//! The conversion of pictures on every instruction set against the reference.

use kernels::pixels::{Color, Converter, Picture, PixelsError, PlaneMut, Size};
use kernels::reference;

use crate::levels;
use crate::pictures::{Bytes, Layout, colors, layouts};

/// Odd and even, around the width of a block of 64 pixels and of a strip of 512, and less than a filter
/// needs.
#[rustfmt::skip]
const SIZES: [(usize, usize); 14] = [
    (1, 1), (2, 1), (1, 2), (2, 2), (3, 3), (5, 4), (63, 3), (64, 6), (65, 5), (130, 2), (511, 3), (513, 3),
    (514, 2), (1027, 3),
];

fn noise(n: usize) -> u8 {
    ((n as u32).wrapping_mul(2_654_435_761) >> 23) as u8
}

/// Bytes that overflow what should not.
const KINDS: [fn(usize) -> u8; 4] = [noise, |_| 0, |_| 255, |n| if n % 7 < 3 { 255 } else { 0 }];

/// The picture in lines padded by 5 bytes, which stay as they are.
fn converted(convert: impl Fn(PlaneMut<'_>) -> Result<(), PixelsError>, size: Size) -> Vec<u8> {
    let stride = 3 * size.width + 5;
    let mut out = vec![170; stride * size.height];
    convert(PlaneMut { bytes: &mut out, stride }).unwrap();
    for (y, line) in out.chunks(stride).enumerate() {
        assert_eq!(line[3 * size.width..], [170; 5], "padding of line {y} of {size:?}");
    }
    out
}

fn check(layout: Layout, bytes: &Bytes, size: Size, color: Color, converters: &[Converter]) {
    let picture = bytes.picture(color);
    let want = converted(|out| reference::pixels::rgb(&picture, out), size);
    for converter in converters {
        let got = converted(|out| converter.rgb(&picture, out), size);
        if let Some(at) = (0..want.len()).find(|&i| got[i] != want[i]) {
            let stride = 3 * size.width + 5;
            let (x, y) = (at % stride / 3, at / stride);
            let (got, want) = (&got[at / 3 * 3..][..3], &want[at / 3 * 3..][..3]);
            let isa = converter.isa();
            panic!("{isa}: {layout:?} {size:?} {color:?}: pixel {x}, {y} near {got:?}, not {want:?}");
        }
    }
}

#[test]
fn every_layout_has_the_pixels_of_the_reference() {
    let converters: Vec<_> = levels().into_iter().map(|level| Converter::new(Some(level))).collect();
    for layout in layouts() {
        for (width, height) in SIZES {
            let size = Size { width, height };
            for kind in KINDS {
                let bytes = Bytes::new(layout, size, 3, kind);
                for color in colors(layout) {
                    check(layout, &bytes, size, color, &converters);
                }
            }
        }
    }
}

#[test]
fn a_plane_without_its_last_byte_is_refused_and_nothing_written() {
    type Convert = fn(&Picture<'_>, PlaneMut<'_>) -> Result<(), PixelsError>;
    let best: Convert = |picture, out| Converter::default().rgb(picture, out);
    let size = Size { width: 5, height: 3 };
    for layout in layouts() {
        for plane in 0..3 {
            let mut bytes = Bytes::new(layout, size, 0, noise);
            if !bytes.cut(plane) {
                continue;
            }
            let picture = bytes.picture(Color::default());
            let mut out = [0; 45];
            for rgb in [best, reference::pixels::rgb as Convert] {
                let refused = rgb(&picture, PlaneMut { bytes: &mut out, stride: 15 });
                assert!(matches!(refused, Err(PixelsError::Short { .. })), "{layout:?}: {refused:?}");
            }
            assert_eq!(out, [0; 45], "{layout:?}");
        }
        let bytes = Bytes::new(layout, size, 0, noise);
        let refused = Converter::default()
            .rgb(&bytes.picture(Color::default()), PlaneMut { bytes: &mut [0; 44], stride: 15 });
        assert_eq!(refused, Err(PixelsError::Short { plane: "out", got: 44, needed: 45 }), "{layout:?}");
    }
}
