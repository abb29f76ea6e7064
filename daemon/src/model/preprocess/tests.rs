//! Against Pillow's pictures, and bytes that are refused.

use std::path::{Path, PathBuf};

use image::ImageFormat;
use serde_json::Value;

use super::*;

const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_72];
const DEVIATION: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

fn data(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data")).join(path)
}

fn read(path: &str) -> Vec<u8> {
    std::fs::read(data(path)).unwrap()
}

fn bytes_of(picture: &DynamicPicture, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

type DynamicPicture = image::DynamicImage;

#[test]
fn pictures_equal_those_of_pillow() {
    let index: Value = serde_json::from_slice(&read("goldens/index.json")).unwrap();
    let mut preprocessor = Preprocessor::new(336, MEAN, DEVIATION);
    let pictures = index["pixels"].as_object().unwrap();
    assert_eq!(pictures.len(), 12);
    for (name, entry) in pictures {
        let file = entry["file"].as_str().unwrap();
        let want = decode_picture(&read(entry["resized_u8"].as_str().unwrap())).unwrap();
        preprocessor.pixels(&decode_picture(&read(file)).unwrap());
        if file.ends_with(".png") {
            assert!(preprocessor.picture() == want.as_raw(), "{name} differs");
        } else {
            let off =
                preprocessor.picture().iter().zip(want.as_raw()).map(|(a, b)| f64::from(a.abs_diff(*b)));
            let mean = off.sum::<f64>() / want.as_raw().len() as f64;
            assert!(mean < 1.0, "{name}: mean difference {mean}");
        }
    }
}

#[test]
fn planes_equal_the_reference() {
    let bytes = read("goldens/pixels/astronaut.safetensors");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let want = tensors.tensor("pixel_values").unwrap();
    let mut preprocessor = Preprocessor::new(336, MEAN, DEVIATION);
    let got = preprocessor.pixels(&decode_picture(&read("images/astronaut.png")).unwrap());
    assert_eq!(want.data().len(), got.len() * 4);
    for (got, want) in got.iter().zip(want.data().as_chunks::<4>().0) {
        assert!((got - f32::from_le_bytes(*want)).abs() <= 1e-6);
    }
}

#[test]
fn deep_and_transparent_pictures_lose_only_what_they_must() {
    let deep =
        image::ImageBuffer::from_fn(3, 2, |x, y| image::Rgba([0x12ff_u16, 0xff00, x as u16, y as u16 * 300]));
    let gray = image::ImageBuffer::from_fn(3, 2, |x, _| image::LumaA([x as u8 * 100, 0]));
    let deep = decode_picture(&bytes_of(&deep.into(), ImageFormat::Png)).unwrap();
    assert!(deep.pixels().all(|pixel| pixel.0 == [0x12, 0xff, 0]));
    let gray = decode_picture(&bytes_of(&gray.into(), ImageFormat::Png)).unwrap();
    assert_eq!(gray.get_pixel(2, 1).0, [200, 200, 200]);
    let gray = DynamicPicture::ImageLuma8(image::GrayImage::from_pixel(20, 9, image::Luma([77])));
    let gray = decode_picture(&bytes_of(&gray, ImageFormat::Jpeg)).unwrap();
    assert_eq!((gray.width(), gray.height()), (20, 9));
    assert!(gray.pixels().all(|pixel| pixel.0 == [77, 77, 77]));
}

#[test]
fn truncated_pictures_are_refused() {
    for file in ["images/exif_rotated.jpg", "images/palette.png", "images/cat.png"] {
        let whole = read(file);
        assert!(decode_picture(&whole).is_ok());
        for part in 1..20 {
            let cut = whole.len() * part / 20;
            assert!(decode_picture(&whole[..cut]).is_err(), "{file} cut at {cut}");
        }
        assert!(decode_picture(&whole[..whole.len() - 16]).is_err(), "{file} without its end");
    }
}

#[test]
fn other_bytes_are_refused() {
    for bytes in
        [&b""[..], b"\xff\xd8", b"no picture", b"RIFF\0\0\0\0WEBP", &[0xff; 64], &[0xff, 0xd8, 0xff, 0xff]]
    {
        assert!(decode_picture(bytes).is_err(), "{bytes:?}");
    }
    assert_eq!(decode_picture(b"GIF89a"), Err(PictureError::UnknownFormat));
}

#[test]
fn huge_pictures_are_refused_before_memory_is_spent() {
    let mut png = read("images/tiny_up.png");
    png[16..20].copy_from_slice(&60_000u32.to_be_bytes());
    png[20..24].copy_from_slice(&60_000u32.to_be_bytes());
    let sum = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(decode_picture(&png), Err(PictureError::TooLarge { width: 60_000, height: 60_000 }));

    let mut jpeg = read("images/exif_rotated.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xff; 4]);
    assert!(decode_picture(&jpeg).is_err());
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0x3f, 0xff, 0x3f, 0xff]);
    assert_eq!(decode_picture(&jpeg), Err(PictureError::TooLarge { width: 16_383, height: 16_383 }));
}

#[test]
fn damaged_pictures_do_not_panic() {
    for file in ["images/exif_rotated.jpg", "images/palette.png", "images/gray.png"] {
        let whole = read(file);
        for place in (2..whole.len()).step_by(whole.len() / 150) {
            let mut damaged = whole.clone();
            damaged[place] ^= 1 << (place % 8);
            let _ = decode_picture(&damaged);
        }
    }
}

/// The checksum of PNG chunks.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}
