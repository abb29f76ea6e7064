//! Planes of bytes with a stride, checked before they are walked.

/// Pixels across and down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
}

/// A plane to read.
#[derive(Clone, Copy, Debug)]
pub struct Plane<'a> {
    /// Lines, `stride` bytes apart. The last one may be cut after its pixels.
    pub bytes: &'a [u8],
    /// Bytes from one line to the next.
    pub stride: usize,
}

/// A plane to write.
#[derive(Debug)]
pub struct PlaneMut<'a> {
    /// Lines, `stride` bytes apart. The last one may be cut after its pixels.
    pub bytes: &'a mut [u8],
    /// Bytes from one line to the next.
    pub stride: usize,
}

/// Why a picture cannot be converted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PixelsError {
    /// A line does not hold its pixels.
    #[error("plane {plane}: a stride of {stride} bytes is less than the {needed} bytes of a line")]
    Stride {
        /// Name of the plane.
        plane: &'static str,
        /// Bytes from line to line.
        stride: usize,
        /// Bytes of the pixels of a line.
        needed: usize,
    },
    /// The plane ends before the picture does.
    #[error("plane {plane}: {got} bytes, but the picture needs {needed}")]
    Short {
        /// Name of the plane.
        plane: &'static str,
        /// Bytes there are.
        got: usize,
        /// Bytes that are needed.
        needed: usize,
    },
}

impl<'a> Plane<'a> {
    /// Whether `lines` lines of `line_bytes` bytes are there.
    pub(crate) fn check(
        &self,
        plane: &'static str,
        lines: usize,
        line_bytes: usize,
    ) -> Result<(), PixelsError> {
        check(plane, self.bytes.len(), self.stride, lines, line_bytes)
    }

    /// Checks that `lines` lines of `line_bytes` bytes are there and walks them.
    pub(super) fn lines(
        self,
        plane: &'static str,
        lines: usize,
        line_bytes: usize,
    ) -> Result<impl Iterator<Item = &'a [u8]>, PixelsError> {
        check(plane, self.bytes.len(), self.stride, lines, line_bytes)?;
        Ok(self.bytes.chunks(self.stride.max(1)).take(lines).map(move |line| &line[..line_bytes]))
    }
}

impl<'a> PlaneMut<'a> {
    /// Whether `lines` lines of `line_bytes` bytes are there.
    pub(crate) fn check(
        &self,
        plane: &'static str,
        lines: usize,
        line_bytes: usize,
    ) -> Result<(), PixelsError> {
        check(plane, self.bytes.len(), self.stride, lines, line_bytes)
    }

    /// Checks that `lines` lines of `line_bytes` bytes are there and walks them.
    pub(super) fn lines(
        self,
        plane: &'static str,
        lines: usize,
        line_bytes: usize,
    ) -> Result<impl Iterator<Item = &'a mut [u8]>, PixelsError> {
        check(plane, self.bytes.len(), self.stride, lines, line_bytes)?;
        Ok(self.bytes.chunks_mut(self.stride.max(1)).take(lines).map(move |line| &mut line[..line_bytes]))
    }
}

/// Whether a plane of `got` bytes holds `lines` lines of `line_bytes` bytes, `stride` apart.
fn check(
    plane: &'static str,
    got: usize,
    stride: usize,
    lines: usize,
    line_bytes: usize,
) -> Result<(), PixelsError> {
    if stride < line_bytes {
        return Err(PixelsError::Stride { plane, stride, needed: line_bytes });
    }
    let needed = match lines {
        0 => 0,
        _ => (lines - 1).saturating_mul(stride).saturating_add(line_bytes),
    };
    if got < needed {
        return Err(PixelsError::Short { plane, got, needed });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_needs_no_padding() {
        let plane = Plane { bytes: &[1, 2, 0, 3, 4], stride: 3 };
        let lines: Vec<_> = plane.lines("y", 2, 2).unwrap().collect();
        assert_eq!(lines, [[1, 2], [3, 4]]);
    }

    #[test]
    fn short_planes_and_narrow_strides_are_refused() {
        let plane = Plane { bytes: &[0; 5], stride: 3 };
        let short = plane.lines("y", 2, 3).err();
        assert_eq!(short, Some(PixelsError::Short { plane: "y", got: 5, needed: 6 }));
        let narrow = plane.lines("y", 1, 4).err();
        assert_eq!(narrow, Some(PixelsError::Stride { plane: "y", stride: 3, needed: 4 }));
    }

    #[test]
    fn huge_sizes_do_not_overflow() {
        let plane = Plane { bytes: &[0; 5], stride: usize::MAX };
        assert!(matches!(plane.lines("y", usize::MAX, 3), Err(PixelsError::Short { .. })));
    }

    #[test]
    fn an_empty_picture_has_no_lines() {
        let plane = Plane { bytes: &[], stride: 0 };
        assert_eq!(plane.lines("y", 0, 0).unwrap().count(), 0);
        assert_eq!(plane.lines("y", 7, 0).unwrap().count(), 0);
    }
}
