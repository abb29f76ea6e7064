//! The choice of layout and instruction set.

use super::{Picture, PixelsError, PlaneMut, Planes, bayer, grey, rgb, yuv};
use crate::cpu::IsaLevel;
use crate::cpu::isa::Isa;

/// Converts pictures with one instruction set. The result does not depend on which.
#[derive(Clone, Copy, Debug)]
pub struct Converter {
    isa: Isa,
}

impl Converter {
    /// The best instruction set of this processor that is not above `cap`.
    pub fn new(cap: Option<IsaLevel>) -> Self {
        Self { isa: Isa::best(cap) }
    }

    /// The instruction set in use.
    pub fn isa(self) -> IsaLevel {
        self.isa.level()
    }

    /// Writes R, G, B bytes of every pixel. Nothing is written if a plane is too short.
    pub fn rgb(self, picture: &Picture<'_>, rgb: PlaneMut<'_>) -> Result<(), PixelsError> {
        match self.isa {
            // SAFETY: either token proves the features.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) | Isa::AvxVnni(_) => unsafe { convert_avx2(picture, rgb) },
            // SAFETY: the token proves the features.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(_) => unsafe { convert_avx512(picture, rgb) },
            _ => convert(picture, rgb),
        }
    }
}

impl Default for Converter {
    fn default() -> Self {
        Self::new(None)
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn convert_avx2(picture: &Picture<'_>, rgb: PlaneMut<'_>) -> Result<(), PixelsError> {
    convert(picture, rgb)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn convert_avx512(picture: &Picture<'_>, rgb: PlaneMut<'_>) -> Result<(), PixelsError> {
    convert(picture, rgb)
}

#[inline(always)]
fn convert(picture: &Picture<'_>, out: PlaneMut<'_>) -> Result<(), PixelsError> {
    let (size, color) = (picture.size, picture.color);
    match picture.planes {
        Planes::Rgb { order, rgb } => rgb::convert(size, order, rgb, out),
        Planes::Grey { samples, grey } => grey::convert(size, samples, grey, out),
        Planes::Packed { order, yuv } => yuv::packed(size, order, yuv, color.yuv, out),
        Planes::Pairs { order, lines, y, uv } => yuv::pairs(size, (order, lines), (y, uv), color.yuv, out),
        Planes::Planar { lines, y, u, v } => yuv::planar(size, lines, (y, u, v), color.yuv, out),
        Planes::Bayer { order, samples, mosaic } => {
            bayer::convert(size, (order, samples), mosaic, color.sensor, out)
        }
    }
}
