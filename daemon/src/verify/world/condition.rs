//! What is changed about the pictures or the arithmetic of a run, and nothing else.

use std::fmt;
use std::str::FromStr;

use image::codecs::jpeg::JpegEncoder;
use image::{ImageEncoder, RgbImage};
use kernels::{DType, KvDtype};

use crate::camera::world::Scene;
use crate::config::ModelConfig;
use crate::model::files::LoadOptions;
use crate::model::preprocess::decode_picture;

/// Size of the test camera's frames.
const WIDTH: u32 = 640;
const HEIGHT: u32 = 480;

/// Every level of the picture that shows nothing.
const GREY: u8 = 128;

const JPEG_QUALITY: u8 = 30;

/// One way to look at the scenes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// As the daemon does by default.
    Plain,
    /// The reference path: weights as stored, f32 arithmetic and cache.
    Exact,
    /// A grey picture instead of each scene: whoever is right is guessing.
    Blank,
    /// Twice the noise of each scene.
    Noise,
    /// Frames that went through JPEG of quality 30.
    Jpeg,
    /// Frames of half the width and height.
    Half,
}

impl Condition {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Plain, Self::Exact, Self::Blank, Self::Noise, Self::Jpeg, Self::Half];

    /// The name in options and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Exact => "exact",
            Self::Blank => "blank",
            Self::Noise => "noise",
            Self::Jpeg => "jpeg",
            Self::Half => "half",
        }
    }

    /// What is shown of a scene.
    pub(super) fn picture(self, scene: &Scene) -> RgbImage {
        match self {
            Self::Plain | Self::Exact => scene.render(WIDTH, HEIGHT),
            Self::Blank => RgbImage::from_pixel(WIDTH, HEIGHT, image::Rgb([GREY; 3])),
            Self::Noise => scene.with_noise(2.0).render(WIDTH, HEIGHT),
            Self::Jpeg => through_jpeg(&scene.render(WIDTH, HEIGHT)),
            Self::Half => scene.render(WIDTH / 2, HEIGHT / 2),
        }
    }

    /// Whether it takes the reference path.
    pub(super) fn is_exact(self) -> bool {
        self == Self::Exact
    }

    /// How the model is held: as `config` says but on the reference path.
    pub(super) fn precision(self, config: &ModelConfig) -> (LoadOptions, KvDtype) {
        match self.is_exact() {
            true => (LoadOptions { dtype: None, vision_dtype: DType::F32, exact: true }, KvDtype::F32),
            false => (config.load_options(), config.kv_dtype()),
        }
    }
}

fn through_jpeg(picture: &RgbImage) -> RgbImage {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
        .write_image(picture, picture.width(), picture.height(), image::ExtendedColorType::Rgb8)
        .expect("a picture of this size has a JPEG form");
    decode_picture(&bytes).expect("what was encoded can be decoded")
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|condition| condition.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("unknown condition \"{text}\", expected some of {names}")
        })
    }
}
