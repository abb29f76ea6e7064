//! Pictures of MJPEG streams: checked for a beginning and an end, completed with the standard
//! Huffman tables that USB cameras leave out, decoded.

use std::borrow::Cow;
use std::io::{self, BufRead};

use image::RgbImage;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::frame::{FrameError, check_size, resize};

mod scan;

const START: u8 = 0xd8;
const END: u8 = 0xd9;
const SCAN: u8 = 0xda;
const HUFFMAN: u8 = 0xc4;

/// Most bytes of one picture in a stream.
const MAX_BYTES: usize = 32 << 20;

/// What the segments before the first scan say.
#[derive(Debug)]
struct Headers {
    width: u32,
    height: u32,
    has_huffman_tables: bool,
    /// Offset of the marker of the first scan.
    scan_at: usize,
}

/// Whether `bytes` begin and end as a JPEG picture of an acceptable size.
pub(super) fn check(bytes: &[u8]) -> Result<(), FrameError> {
    complete_headers(bytes).map(|_| ())
}

/// Pixels across and down.
pub(super) fn dimensions(bytes: &[u8]) -> Result<(u32, u32), FrameError> {
    complete_headers(bytes).map(|headers| (headers.width, headers.height))
}

/// A picture that any decoder reads: `bytes` themselves, or with Huffman tables inserted.
pub(super) fn complete(bytes: &[u8]) -> Result<Cow<'_, [u8]>, FrameError> {
    let headers = complete_headers(bytes)?;
    if headers.has_huffman_tables {
        return Ok(Cow::Borrowed(bytes));
    }
    let (before, scan) = bytes.split_at(headers.scan_at);
    let mut whole = Vec::with_capacity(bytes.len() + 512);
    whole.extend_from_slice(before);
    append_standard_tables(&mut whole);
    whole.extend_from_slice(scan);
    Ok(Cow::Owned(whole))
}

/// Decodes into `picture`, reusing its memory.
pub(super) fn decode_into(bytes: &[u8], picture: &mut RgbImage) -> Result<(), FrameError> {
    let bytes = complete(bytes)?;
    scan::check(&bytes)?;
    // Damage inside the scan is an error rather than a half-grey picture.
    let options = DecoderOptions::default().set_strict_mode(true).jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&bytes[..]), options);
    let damaged = |error: zune_jpeg::errors::DecodeErrors| FrameError::Decode(error.to_string());
    decoder.decode_headers().map_err(damaged)?;
    let (width, height) = decoder.dimensions().ok_or(FrameError::NotJpeg("no size"))?;
    let (width, height) = (width as u32, height as u32);
    check_size(width, height)?;
    if decoder.output_colorspace() != Some(ColorSpace::RGB) {
        return Err(FrameError::Decode("its colours cannot be turned into RGB".into()));
    }
    resize(picture, width, height);
    decoder.decode_into(picture).map_err(damaged)
}

/// Reads the next picture of a stream of concatenated pictures into `picture`, skipping bytes in
/// between. `false`: the stream has ended. A picture that the end of the stream cuts off is
/// delivered without its end.
pub(super) fn read_next(stream: &mut impl BufRead, picture: &mut Vec<u8>) -> io::Result<bool> {
    picture.clear();
    if !skip_to_start(stream)? {
        return Ok(false);
    }
    picture.extend_from_slice(&[0xff, START]);
    while picture.len() < MAX_BYTES {
        // Between segments and inside scans alike, the next thing of interest follows an 0xff.
        let limit = (MAX_BYTES - picture.len()) as u64;
        let read = io::Read::take(&mut *stream, limit).read_until(0xff, picture)?;
        let Some(marker) = next_marker(stream, picture)?.filter(|_| read > 0) else {
            return Ok(true);
        };
        match marker {
            END => return Ok(true),
            // Stuffed bytes and restarts have no length.
            0x00 | 0x01 | 0xd0..=0xd8 => {}
            _ => copy_segment(stream, picture)?,
        }
    }
    Ok(true)
}

/// Copies fill bytes and what follows them, which is returned.
fn next_marker(stream: &mut impl BufRead, picture: &mut Vec<u8>) -> io::Result<Option<u8>> {
    while let Some(byte) = next_byte(stream)? {
        picture.push(byte);
        if byte != 0xff || picture.len() >= MAX_BYTES {
            return Ok(Some(byte));
        }
    }
    Ok(None)
}

/// Skips to just behind the next start marker.
fn skip_to_start(stream: &mut impl BufRead) -> io::Result<bool> {
    let mut last = 0;
    while let Some(byte) = next_byte(stream)? {
        if (last, byte) == (0xff, START) {
            return Ok(true);
        }
        last = byte;
    }
    Ok(false)
}

/// Copies a length of two bytes and as many bytes as it says.
fn copy_segment(stream: &mut impl BufRead, picture: &mut Vec<u8>) -> io::Result<()> {
    let (Some(high), Some(low)) = (next_byte(stream)?, next_byte(stream)?) else {
        return Ok(());
    };
    picture.extend_from_slice(&[high, low]);
    let left = u64::from(u16::from_be_bytes([high, low])).saturating_sub(2);
    io::Read::read_to_end(&mut io::Read::take(stream, left), picture).map(|_| ())
}

fn next_byte(stream: &mut impl BufRead) -> io::Result<Option<u8>> {
    let byte = stream.fill_buf()?.first().copied();
    stream.consume(usize::from(byte.is_some()));
    Ok(byte)
}

/// Headers of a picture that also has an end.
fn complete_headers(bytes: &[u8]) -> Result<Headers, FrameError> {
    let headers = headers(bytes)?;
    check_size(headers.width, headers.height)?;
    // Drivers may pad after the end; inside a scan every 0xff is followed by something else.
    let scan = &bytes[headers.scan_at..];
    if !scan.windows(2).rev().any(|pair| pair == [0xff, END]) {
        return Err(FrameError::Truncated { got: bytes.len() });
    }
    Ok(headers)
}

/// Walks the segments up to the first scan.
fn headers(bytes: &[u8]) -> Result<Headers, FrameError> {
    if !bytes.starts_with(&[0xff, START]) {
        return Err(FrameError::NotJpeg("no start marker"));
    }
    let truncated = || FrameError::Truncated { got: bytes.len() };
    let mut headers = Headers { width: 0, height: 0, has_huffman_tables: false, scan_at: 0 };
    let mut at = 2;
    loop {
        match bytes.get(at).ok_or_else(truncated)? {
            0xff => {}
            _ => return Err(FrameError::NotJpeg("no marker where a segment should begin")),
        }
        let marker = *bytes.get(at + 1).ok_or_else(truncated)?;
        if marker == 0xff {
            at += 1;
            continue;
        }
        let [high, low] = *bytes[at + 2..].first_chunk().ok_or_else(truncated)?;
        let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
        let content = bytes.get(at + 4..end).ok_or_else(truncated)?;
        match marker {
            SCAN => {
                headers.scan_at = at;
                return Ok(headers);
            }
            START | END => return Err(FrameError::NotJpeg("no picture between start and end")),
            HUFFMAN => headers.has_huffman_tables = true,
            0xc0..=0xcf if !matches!(marker, 0xc8 | 0xcc) => {
                let [_, h1, h0, w1, w0] = *content.first_chunk().ok_or_else(truncated)?;
                headers.height = u16::from_be_bytes([h1, h0]).into();
                headers.width = u16::from_be_bytes([w1, w0]).into();
            }
            _ => {}
        }
        at = end;
    }
}

/// Appends one segment with the four tables of ITU-T T.81, annex K.3.
fn append_standard_tables(bytes: &mut Vec<u8>) {
    let tables: [(u8, &[u8; 16], &[u8]); 4] = [
        (0x00, &DC_LUMA_COUNTS, &DC_VALUES),
        (0x01, &DC_CHROMA_COUNTS, &DC_VALUES),
        (0x10, &AC_LUMA_COUNTS, &AC_LUMA_VALUES),
        (0x11, &AC_CHROMA_COUNTS, &AC_CHROMA_VALUES),
    ];
    let length: usize =
        2 + tables.iter().map(|(_, counts, values)| 1 + counts.len() + values.len()).sum::<usize>();
    bytes.extend_from_slice(&[0xff, HUFFMAN]);
    bytes.extend_from_slice(&(length as u16).to_be_bytes());
    for (class_and_id, counts, values) in tables {
        bytes.push(class_and_id);
        bytes.extend_from_slice(counts);
        bytes.extend_from_slice(values);
    }
}

/// Codes of each length from 1 to 16 bits, then what they stand for.
const DC_LUMA_COUNTS: [u8; 16] = [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0];
const DC_CHROMA_COUNTS: [u8; 16] = [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0];
const DC_VALUES: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
const AC_LUMA_COUNTS: [u8; 16] = [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125];
const AC_CHROMA_COUNTS: [u8; 16] = [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119];
#[rustfmt::skip]
const AC_LUMA_VALUES: [u8; 162] = [
    0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71,
    0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33, 0x62, 0x72,
    0x82, 0x09, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x34, 0x35, 0x36, 0x37,
    0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59,
    0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83,
    0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3,
    0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3,
    0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2,
    0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
];
#[rustfmt::skip]
const AC_CHROMA_VALUES: [u8; 162] = [
    0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13, 0x22,
    0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0, 0x15, 0x62, 0x72, 0xd1,
    0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x35, 0x36,
    0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58,
    0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a,
    0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a,
    0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba,
    0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda,
    0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
];

#[cfg(test)]
mod tests {
    use image::ExtendedColorType;
    use image::codecs::jpeg::JpegEncoder;

    use super::*;

    /// A noisy picture, so that many codes of every table are used.
    fn picture() -> Vec<u8> {
        let noise: Vec<u8> =
            (0..48 * 40 * 3u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, 95)
            .encode(&noise, 48, 40, ExtendedColorType::Rgb8)
            .unwrap();
        bytes
    }

    /// Leaves out every segment with Huffman tables.
    fn without_tables(bytes: &[u8]) -> Vec<u8> {
        let scan_at = headers(bytes).unwrap().scan_at;
        let mut kept = bytes[..2].to_vec();
        let mut at = 2;
        while at < scan_at {
            let end = at + 2 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
            if bytes[at + 1] != HUFFMAN {
                kept.extend_from_slice(&bytes[at..end]);
            }
            at = end;
        }
        kept.extend_from_slice(&bytes[scan_at..]);
        kept
    }

    fn decode(bytes: &[u8]) -> Result<RgbImage, FrameError> {
        let mut picture = RgbImage::default();
        decode_into(bytes, &mut picture).map(|()| picture)
    }

    #[test]
    fn missing_huffman_tables_are_put_back() {
        let whole = picture();
        let bare = without_tables(&whole);
        assert!(bare.len() < whole.len() - 400);
        assert_eq!(decode(&bare).unwrap(), decode(&whole).unwrap());
        assert_eq!(complete(&whole).unwrap(), whole);
        assert_eq!(dimensions(&bare).unwrap(), (48, 40));
        // An independent decoder reads the completed picture too.
        let shown = image::load_from_memory(&complete(&bare).unwrap()).unwrap().into_rgb8();
        assert_eq!(shown.dimensions(), (48, 40));
    }

    #[test]
    fn every_truncation_is_refused() {
        let whole = picture();
        for length in 0..whole.len() - 1 {
            assert!(check(&whole[..length]).is_err(), "{length} bytes");
        }
        let cut = &whole[..whole.len() - 300];
        assert_eq!(decode(cut), Err(FrameError::Truncated { got: cut.len() }));
    }

    #[test]
    fn padding_after_the_end_is_accepted() {
        let whole = picture();
        let padded = [&whole[..], &[0; 100]].concat();
        assert_eq!(decode(&padded).unwrap(), decode(&whole).unwrap());
    }

    #[test]
    fn impossible_codes_inside_a_scan_are_refused() {
        let mut damaged = picture();
        let middle = damaged.len() / 2;
        // Stuffed 0xff bytes: 64 one bits, which no table has as a code.
        damaged[middle..middle + 16].copy_from_slice(&[0xff, 0].repeat(8));
        assert!(matches!(decode(&damaged), Err(FrameError::Decode(_))));
    }

    #[test]
    fn a_scan_that_stops_early_is_refused_in_spite_of_its_end() {
        let whole = picture();
        let scan_at = headers(&whole).unwrap().scan_at;
        for part in 1..20 {
            let mut cut = whole[..scan_at + (whole.len() - scan_at) * part / 20].to_vec();
            if cut.last() == Some(&0xff) {
                cut.pop();
            }
            cut.extend_from_slice(&[0xff, END]);
            check(&cut).unwrap();
            assert!(
                matches!(decode(&cut), Err(FrameError::Decode(_) | FrameError::Truncated { .. })),
                "{part}"
            );
        }
    }

    #[test]
    fn damaged_pictures_do_not_panic() {
        let whole = picture();
        let bare = without_tables(&whole);
        let mut dice = 1u64;
        let mut roll = |sides: usize| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) as usize % sides
        };
        let mut refused = 0;
        for round in 0..3000 {
            let mut damaged = if round % 2 == 0 { whole.clone() } else { bare.clone() };
            // Headers are short, and they decide over memory and time.
            let reach = if round % 3 == 0 { damaged.len() } else { 640.min(damaged.len()) };
            for _ in 0..=roll(4) {
                let at = roll(reach);
                match roll(3) {
                    0 => damaged[at] ^= 1 << roll(8),
                    1 => damaged[at] = [0, 255, 127, 1][roll(4)],
                    _ => drop(damaged.drain(at..(at + roll(9)).min(damaged.len()))),
                }
                if damaged.len() < reach {
                    break;
                }
            }
            refused += usize::from(decode(&damaged).is_err());
        }
        assert!(refused > 300, "{refused} of 3000 were refused");
    }

    #[test]
    fn garbage_is_refused() {
        assert!(matches!(check(b"GIF89a"), Err(FrameError::NotJpeg(_))));
        assert!(matches!(check(&[0xff, START, 0xff, END, 0, 2]), Err(FrameError::NotJpeg(_))));
        assert!(matches!(check(&[0xff, START, 7, 7, 7]), Err(FrameError::NotJpeg(_))));
        assert!(matches!(check(&[0xff, START, 0xff, 0xdb, 0, 0]), Err(FrameError::Truncated { .. })));
    }

    #[test]
    fn a_huge_claim_is_refused_before_memory_is_spent() {
        let mut bytes = picture();
        let frame_header = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        bytes[frame_header + 5..frame_header + 9].fill(0xff);
        assert_eq!(decode(&bytes), Err(FrameError::Size { width: 65535, height: 65535 }));
    }

    #[test]
    fn a_stream_is_cut_into_pictures() {
        let (one, bare) = (picture(), without_tables(&picture()));
        let filled = [&one[..one.len() - 1], &[0xff, 0xff, END]].concat();
        let stream = [b"noise", &one[..], &bare, &[0xff, 0], &filled, &one[..50]].concat();
        let mut stream = &stream[..];
        let mut got = Vec::new();
        for want in [&one[..], &bare, &filled, &one[..50]] {
            assert!(read_next(&mut stream, &mut got).unwrap());
            assert_eq!(got, want);
        }
        assert!(check(&got).is_err());
        assert!(!read_next(&mut stream, &mut got).unwrap());
    }
}
