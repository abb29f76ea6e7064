//! Weights in the layout that all matmul kernels share.
//!
//! Outputs are taken 16 at a time: a panel, the lanes of one AVX-512 vector. The last panel is
//! filled up with zeros.
//!
//! * **Floats** (F32, F16, BF16): for each input, the 16 weights side by side.
//! * **Blocks**: for each block its parameters, then its unsigned codes, so that a kernel reads a
//!   panel from start to end and a panel follows the other.
//!   Codes come in units of 32 inputs. Four inputs in a row are a group: the four code bytes of
//!   output 0, then of output 1 and so on, 64 bytes, so that an instruction that adds four products
//!   of bytes to an i32 serves all outputs. A unit of eight groups holds
//!   * 8 bits: the groups one after another;
//!   * less: four times 64 bytes whose low nibbles are groups 0 to 3 and whose high nibbles are
//!     groups 4 to 7. A fifth bit is in 64 bytes more: bit `g` of a byte belongs to group `g`. Two
//!     more bits are in 128 bytes more: the first 64 serve groups 0 to 3, bits `2 g` and up each.
//!
//!   Parameters of a block of 32 are 16 f16 scales, then 16 f16 minimums if the type has them.
//!   Those of a block of 256 are 16 f16 scales, 16 f16 scales of minimums if the type has them, for
//!   each sub-block 16 signed bytes of scales, and for each two sub-blocks 16 pairs of bytes of
//!   minimums.
//!
//! The second half of the panels begins so that panels of both halves that are read together never lie at
//! the same place of a page of 4 KiB, where they would be in each other's way in a cache.
//!
//! Q8_0 is kept as code + 128 on x86-64, whose products of bytes take one unsigned factor, and as it is
//! elsewhere. Q2_K and Q3_K take 4 bits a code; nothing else grows much, and nothing loses anything.

mod panel;

use std::ops::Range;
use std::sync::Arc;

use super::buffer::Buffer;
use super::threads::Pool;
use crate::device::{Arithmetic, DeviceError, MatrixView};
use crate::dtype::DType;
use crate::shared::{SharedBytes, SharedMatrix};

/// The layout in words. All instruction sets share it; a change of it changes the words.
pub(crate) const LAYOUT: &str =
    if BYTE_ZERO == 0 { "cpu panels of 16, third, signed" } else { "cpu panels of 16, third" };

/// The code of zero for codes of 8 bits; signed bytes where it is 0.
pub(crate) const BYTE_ZERO: u8 = if cfg!(target_arch = "x86_64") { 128 } else { 0 };

/// Outputs of a panel.
pub(crate) const PANEL: usize = 16;

/// Bytes after which caches look for a line at the same place.
const PLACES: usize = 4096;

/// How far apart in [`PLACES`] both halves begin: half of it and a line more.
const APART: usize = 2112;

/// Inputs of a unit of codes.
pub(crate) const UNIT: usize = 32;

/// Bytes of 16 f16 numbers.
const F16S: usize = 2 * PANEL;

/// What the codes of a block type mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Coding {
    /// Bits a code takes: 4, 5, 6 or 8.
    pub(crate) bits: usize,
    /// Inputs that share an f16 scale: 32 or 256.
    pub(crate) block: usize,
    /// Inputs that share a scale of any kind.
    pub(crate) sub: usize,
    /// The code of zero; 0 where there are minimums.
    pub(crate) zero: u8,
    /// Whether (sub-)blocks have a minimum.
    pub(crate) minimum: bool,
}

impl Coding {
    /// The coding of a block type; `None` for floats.
    pub(crate) const fn of(dtype: DType) -> Option<Self> {
        let (bits, block, sub, zero, minimum) = match dtype {
            DType::F32 | DType::F16 | DType::BF16 => return None,
            DType::Q4_0 => (4, 32, 32, 8, false),
            DType::Q4_1 => (4, 32, 32, 0, true),
            DType::Q5_0 => (5, 32, 32, 16, false),
            DType::Q5_1 => (5, 32, 32, 0, true),
            DType::Q8_0 => (8, 32, 32, BYTE_ZERO, false),
            DType::Q2K => (4, 256, 16, 0, true),
            DType::Q3K => (4, 256, 16, 4, false),
            DType::Q4K => (4, 256, 32, 0, true),
            DType::Q5K => (5, 256, 32, 0, true),
            DType::Q6K => (6, 256, 16, 32, false),
        };
        Some(Self { bits, block, sub, zero, minimum })
    }

    /// Bytes of a unit of codes of a panel.
    pub(crate) const fn unit_bytes(self) -> usize {
        self.bits * UNIT * PANEL / 8
    }

    /// Bytes of the parameters of a block of a panel.
    pub(crate) const fn parameter_bytes(self) -> usize {
        let integers = if self.block == UNIT { 0 } else { self.block / self.sub * PANEL };
        (F16S + integers) * (1 + self.minimum as usize)
    }

    /// Bytes of a block of a panel.
    pub(crate) const fn block_bytes(self) -> usize {
        self.parameter_bytes() + self.block / UNIT * self.unit_bytes()
    }
}

/// A weight matrix as the kernels want it.
#[derive(Debug)]
pub struct PackedMatrix {
    rows: usize,
    cols: usize,
    dtype: DType,
    /// How activations meet it.
    arithmetic: Arithmetic,
    panels: Panels,
    bytes: SharedBytes,
}

/// Where panels are.
#[derive(Clone, Copy, Debug)]
struct Panels {
    count: usize,
    /// Bytes of one, a multiple of 64.
    size: usize,
}

impl Panels {
    fn of(dtype: DType, rows: usize, cols: usize) -> Option<Self> {
        let size = match Coding::of(dtype) {
            None => cols.checked_mul(dtype.block_bytes() * PANEL),
            Some(coding) => (cols / coding.block).checked_mul(coding.block_bytes()),
        };
        Some(Self { count: rows.div_ceil(PANEL), size: size?.checked_next_multiple_of(64)? })
    }

    /// Panels of the first half, the longer one.
    fn half(self) -> usize {
        self.count.div_ceil(2)
    }

    /// Bytes between both halves.
    fn gap(self) -> usize {
        if self.count < 2 { 0 } else { (APART + PLACES - self.half() * self.size % PLACES) % PLACES }
    }

    /// Bytes of all, if there can be so many.
    fn total(self) -> Option<usize> {
        self.count.checked_mul(self.size)?.checked_add(self.gap())
    }

    /// Bytes of some panels of one half.
    fn bytes(self, panels: Range<usize>) -> Range<usize> {
        let gap = if panels.start < self.half() { 0 } else { self.gap() };
        debug_assert!(gap > 0 || panels.end <= self.half().max(1), "{panels:?} lie in both halves");
        panels.start * self.size + gap..panels.end * self.size + gap
    }
}

impl PackedMatrix {
    /// Packs `view`: block types as they are for [`Arithmetic::Int8`], as f32 for
    /// [`Arithmetic::F32`].
    pub(crate) fn pack(
        view: MatrixView<'_>,
        arithmetic: Arithmetic,
        pool: &Pool,
    ) -> Result<Self, DeviceError> {
        let MatrixView { rows, cols, dtype, bytes } = view;
        let want = dtype.row_bytes(cols).and_then(|row| row.checked_mul(rows));
        if want != Some(bytes.len()) {
            let (got, want) = (bytes.len(), want.unwrap_or(0));
            return Err(DeviceError::MatrixBytes { dtype, rows, cols, got, want });
        }
        let stored = match arithmetic {
            Arithmetic::F32 if !dtype.is_float() => DType::F32,
            Arithmetic::F32 => dtype,
            _ if dtype.is_float() => return Err(DeviceError::NoIntegerArithmetic(dtype)),
            Arithmetic::Int8 | Arithmetic::Int8Split => dtype,
        };
        let panels = Panels::of(stored, rows, cols);
        let Some((panels, total)) = panels.and_then(|panels| Some((panels, panels.total()?))) else {
            return Err(DeviceError::OutOfMemory { what: "a packed matrix", bytes: usize::MAX });
        };
        let mut packed = Buffer::zeroed(total, "a packed matrix")?;
        for run in [0..panels.half(), panels.half()..panels.count] {
            let (start, bytes) = (run.start, &mut packed[panels.bytes(run)]);
            pool.rows(bytes, panels.size.max(1), 1, &|first, chunk| {
                for (i, panel) in chunk.chunks_exact_mut(panels.size).enumerate() {
                    panel::fill(view, stored, start + first + i, panel);
                }
            });
        }
        let bytes = SharedBytes::all(Arc::new(packed));
        Ok(Self { rows, cols, dtype: stored, arithmetic, panels, bytes })
    }

    /// Itself, outside of the device.
    pub(crate) fn share(&self) -> SharedMatrix {
        SharedMatrix { rows: self.rows, cols: self.cols, dtype: self.dtype, bytes: self.bytes.clone() }
    }

    /// What [`PackedMatrix::share`] gave.
    pub(crate) fn adopt(shared: SharedMatrix, arithmetic: Arithmetic) -> Result<Self, DeviceError> {
        let (rows, cols, dtype) = (shared.rows, shared.cols, shared.dtype);
        let is_ours = dtype.row_bytes(cols).is_some() && dtype.is_float() == (arithmetic == Arithmetic::F32);
        let panels = Panels::of(dtype, rows, cols).filter(|_| is_ours);
        match panels.filter(|panels| panels.total() == Some(shared.bytes.len())) {
            Some(panels) => Ok(Self { rows, cols, dtype, arithmetic, panels, bytes: shared.bytes }),
            None => Err(shared.foreign()),
        }
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// What the panels hold.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// How activations meet it.
    pub(crate) fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Number of panels.
    pub(crate) fn panels(&self) -> usize {
        self.panels.count
    }

    /// Panels of the first half, at most one more than of the second.
    pub(crate) fn half(&self) -> usize {
        self.panels.half()
    }

    /// Bytes of one panel.
    pub(crate) fn panel_bytes(&self) -> usize {
        self.panels.size
    }

    /// Outputs `16 * index ..`: floats, or blocks. What fills it up to whole cache lines may follow.
    pub(crate) fn panel(&self, index: usize) -> &[u8] {
        self.run(index..index + 1)
    }

    /// Panels of one half that follow each other.
    pub(crate) fn run(&self, panels: Range<usize>) -> &[u8] {
        &self.bytes[self.panels.bytes(panels)]
    }

    /// Writes the weights of one output, exactly as [`dequantize_row`](crate::quant::dequantize_row) gives them.
    pub(crate) fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols, "row {row} of {} x {}", self.rows, self.cols);
        panel::read(self.dtype, self.panel(row / PANEL), row % PANEL, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::dequantize_row;

    /// Every bit pattern of the codes.
    fn bytes(dtype: DType, rows: usize, cols: usize) -> Vec<u8> {
        let len = rows * dtype.row_bytes(cols).unwrap();
        let mut state = 7_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn packed_rows_read_as_they_were_stored() {
        for dtype in DType::ALL {
            for (rows, blocks) in [(1, 1), (16, 2), (35, 3)] {
                let cols = blocks * dtype.block_len();
                let bytes = bytes(dtype, rows, cols);
                let view = MatrixView { rows, cols, dtype, bytes: &bytes };
                for arithmetic in [Arithmetic::F32, Arithmetic::Int8] {
                    let Ok(packed) = PackedMatrix::pack(view, arithmetic, &Pool::new(2)) else {
                        assert!(dtype.is_float() && arithmetic == Arithmetic::Int8);
                        continue;
                    };
                    let (mut got, mut want) = (vec![0.0; cols], vec![0.0; cols]);
                    for (row, bytes) in bytes.chunks_exact(bytes.len() / rows).enumerate() {
                        dequantize_row(dtype, bytes, &mut want).unwrap();
                        packed.dequantize_row(row, &mut got);
                        let same =
                            |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                        assert!(got.iter().zip(&want).all(same), "{dtype} {arithmetic:?} row {row}");
                    }
                }
            }
        }
    }

    #[test]
    fn panels_read_together_lie_apart() {
        for (rows, cols) in [(17, 32), (512, 2048), (5632, 2048), (2048, 5632)] {
            let bytes = bytes(DType::Q4_0, rows, cols);
            let view = MatrixView { rows, cols, dtype: DType::Q4_0, bytes: &bytes };
            let packed = PackedMatrix::pack(view, Arithmetic::Int8, &Pool::new(2)).unwrap();
            for pair in [0, packed.panels() - packed.half() - 1] {
                let place = |panel| packed.panel(panel).as_ptr().addr();
                assert_eq!((place(packed.half() + pair) - place(pair)) % PLACES, APART, "{rows} x {cols}");
            }
        }
    }

    #[test]
    fn a_shared_matrix_is_adopted_whole_or_not_at_all() {
        for dtype in DType::ALL {
            let (rows, cols) = (35, 2 * dtype.block_len());
            let bytes = bytes(dtype, rows, cols);
            let arithmetic = if dtype.is_float() { Arithmetic::F32 } else { Arithmetic::Int8 };
            let view = MatrixView { rows, cols, dtype, bytes: &bytes };
            let packed = PackedMatrix::pack(view, arithmetic, &Pool::new(1)).unwrap();
            let shared = packed.share();
            let adopted = PackedMatrix::adopt(shared.clone(), arithmetic).unwrap();
            assert_eq!(adopted.bytes[..], packed.bytes[..]);
            assert_eq!(adopted.panel(2), packed.panel(2));
            let foreign = [
                SharedMatrix { rows: rows + PANEL, ..shared.clone() },
                SharedMatrix { cols: cols + 1, ..shared.clone() },
                SharedMatrix { cols: 2 * cols, ..shared.clone() },
                SharedMatrix { rows: usize::MAX, cols: usize::MAX, ..shared },
            ];
            for shared in foreign {
                let error = PackedMatrix::adopt(shared, arithmetic).unwrap_err();
                assert!(matches!(error, DeviceError::ForeignMatrix { .. }), "{dtype}: {error}");
            }
        }
    }

    #[test]
    fn panels_take_little_more_than_the_file() {
        for dtype in DType::ALL {
            let panel = Panels::of(dtype, 16, 2048).unwrap().size;
            let stored = 16 * dtype.row_bytes(2048).unwrap();
            let limit = match dtype {
                DType::Q2K => stored * 2,
                DType::Q3K => stored * 4 / 3,
                _ => stored * 103 / 100,
            };
            assert!(panel <= limit, "{dtype}: {panel} bytes for {stored}");
        }
    }

    #[test]
    fn matrices_must_fit_their_bytes() {
        let pool = Pool::new(1);
        let pack = |rows, cols, dtype, bytes: &[u8], arithmetic| {
            PackedMatrix::pack(MatrixView { rows, cols, dtype, bytes }, arithmetic, &pool).unwrap_err()
        };
        let error = pack(2, 32, DType::Q4_0, &[0; 35], Arithmetic::Int8);
        assert_eq!(error.to_string(), "a q4_0 matrix of 2 x 32 has 35 bytes, expected 36");
        let error = pack(2, 31, DType::Q4_0, &[0; 36], Arithmetic::Int8);
        assert!(matches!(error, DeviceError::MatrixBytes { want: 0, .. }), "{error}");
        let error = pack(usize::MAX, 1 << 20, DType::F32, &[], Arithmetic::F32);
        assert!(matches!(error, DeviceError::MatrixBytes { want: 0, .. }), "{error}");
        let error = pack(1, 1, DType::F16, &[0; 2], Arithmetic::Int8);
        assert_eq!(error, DeviceError::NoIntegerArithmetic(DType::F16));
    }
}
