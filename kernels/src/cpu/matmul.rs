//! Matrix products: activations are cut into tiles, weights lie in panels, and a kernel gives the
//! outputs of one panel for one tile.
//!
//! Every output is summed by one kernel call from the first input to the last, in a lane of its
//! own. What else is in the tile, how panels are shared out and how wide vectors are therefore
//! never changes it.

use std::ops::Range;

use super::isa::Isa;
use super::packed::{Coding, PANEL, PackedMatrix, Panel};
use super::scalar;
use super::threads::{Base, Pool};
use super::tiles::{MAX_HEIGHT, Tile, TileLayout};
#[cfg(target_arch = "x86_64")]
use super::x86_64::{avx2, avx512vnni};
use crate::dtype::DType;
use crate::tensor::HostTensor;

/// Outputs of one panel for the rows of a tile.
pub(crate) type Sums = [[f32; PANEL]; MAX_HEIGHT];

/// Bytes of weights that stay in the second-level cache while all tiles pass by.
const CACHED_BYTES: usize = 256 << 10;

/// Tasks per thread, so that one that lags has little to be waited for.
const TASKS_PER_THREAD: usize = 8;

impl Isa {
    /// Rows of a full tile: what the registers hold.
    fn tile_height(self, dtype: DType) -> usize {
        match self {
            Isa::Scalar => 4,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => 4,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(_) if dtype.is_float() => 16,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(_) => 8,
        }
    }

    /// Fills a tile, see [`TileLayout::fill`].
    fn fill(self, layout: TileLayout, x: &[f32], height: usize, numbers: &mut [i32]) {
        match self {
            Isa::Scalar => scalar::fill(layout, x, height, numbers),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(token) => avx2::fill(token, layout, x, height, numbers),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(token) => avx512vnni::fill(token, layout, x, height, numbers),
        }
    }

    /// The outputs of one panel for one tile.
    fn product(self, dtype: DType, panel: Panel<'_>, tile: Tile<'_>, out: &mut Sums) {
        match self {
            Isa::Scalar => scalar::product(dtype, panel, tile, out),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(token) => avx2::product(token, dtype, panel, tile, out),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(token) => avx512vnni::product(token, dtype, panel, tile, out),
        }
    }
}

/// Numbers of all tiles of an `x`, kept from call to call.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    numbers: Vec<i32>,
}

/// `out = x * w^T (+ bias)`.
pub(crate) fn matmul(
    (isa, pool): (Isa, &Pool),
    scratch: &mut Scratch,
    x: &HostTensor,
    w: &PackedMatrix,
    bias: Option<&HostTensor>,
    out: &mut HostTensor,
) {
    assert_eq!(x.cols(), w.cols(), "inputs of the matrix");
    assert_eq!(out.cols(), w.rows(), "outputs of the matrix");
    if let Some(bias) = bias {
        assert_eq!((bias.rows(), bias.cols()), (1, w.rows()), "shape of the bias");
    }
    out.set_rows(x.rows());
    if out.data().is_empty() {
        return;
    }
    let tiles = Tiles::fill((isa, pool), scratch, x, w);
    let group = panels_per_task(w, pool.threads());
    let target = Target { base: Base(out.data_mut().as_mut_ptr()), cols: w.rows() };
    pool.run(w.panels().div_ceil(group), &|task| {
        let mut sums = Sums::default();
        for index in 0..tiles.count() {
            let tile = tiles.get(index);
            let rows = index * tiles.height..x.rows().min((index + 1) * tiles.height);
            for panel in task * group..w.panels().min((task + 1) * group) {
                isa.product(w.dtype(), w.panel(panel), tile, &mut sums);
                // SAFETY: `out` is borrowed until `run` returns, and panels are taken by one task each.
                unsafe { target.write(rows.clone(), panel, &sums, bias) };
            }
        }
    });
}

/// Panels that are multiplied together: they fit the cache, and there are tasks for all threads.
fn panels_per_task(w: &PackedMatrix, threads: usize) -> usize {
    let cached = CACHED_BYTES / w.panel_bytes().max(1);
    cached.min(w.panels() / (threads * TASKS_PER_THREAD)).max(1)
}

/// The activations of a product, cut into tiles.
struct Tiles<'a> {
    layout: TileLayout,
    /// Rows of all tiles but the last.
    height: usize,
    rows: usize,
    numbers: &'a [i32],
}

impl<'a> Tiles<'a> {
    fn fill((isa, pool): (Isa, &Pool), scratch: &'a mut Scratch, x: &HostTensor, w: &PackedMatrix) -> Self {
        let layout = TileLayout::new(x.cols(), Coding::of(w.dtype()));
        let (height, rows) = (isa.tile_height(w.dtype()), x.rows());
        let stride = layout.row_len() * height;
        let len = stride * rows.div_ceil(height);
        if scratch.numbers.len() < len {
            scratch.numbers.resize(len, 0);
        }
        let numbers = &mut scratch.numbers[..len];
        pool.rows(numbers, stride.max(1), 1, &|first, chunk| {
            for (i, numbers) in chunk.chunks_exact_mut(stride).enumerate() {
                let row = (first + i) * height;
                let end = rows.min(row + height);
                let x = &x.data()[row * x.cols()..end * x.cols()];
                isa.fill(layout, x, tile_height(height, end - row), numbers);
            }
        });
        Self { layout, height, rows, numbers }
    }

    fn count(&self) -> usize {
        self.rows.div_ceil(self.height)
    }

    fn get(&self, index: usize) -> Tile<'_> {
        let height = tile_height(self.height, self.rows - index * self.height);
        let numbers = &self.numbers[index * self.height * self.layout.row_len()..];
        self.layout.tile(height, numbers)
    }
}

/// Height of the tile that begins with `rows` rows left.
fn tile_height(full: usize, rows: usize) -> usize {
    full.min(rows.next_power_of_two())
}

/// Where outputs go: rows of `cols`.
struct Target {
    base: Base<f32>,
    cols: usize,
}

impl Target {
    /// Writes what `sums` has for panel `panel` and these rows.
    ///
    /// # Safety
    ///
    /// The outputs must have these rows and be borrowed by the caller, and nobody else may touch
    /// those of this panel.
    unsafe fn write(&self, rows: Range<usize>, panel: usize, sums: &Sums, bias: Option<&HostTensor>) {
        let column = panel * PANEL;
        let len = PANEL.min(self.cols - column);
        for (row, sums) in rows.zip(sums) {
            // SAFETY: the row exists and `column + len <= cols`, so the part lies in the outputs, which
            // nobody else touches: the caller's promise.
            let out = unsafe { std::slice::from_raw_parts_mut(self.base.at(row * self.cols + column), len) };
            out.copy_from_slice(&sums[..len]);
            if let Some(bias) = bias {
                out.iter_mut().zip(&bias.row(0)[column..]).for_each(|(value, bias)| *value += bias);
            }
        }
    }
}

/// `out[first_row + i] = row ids[i] of table`.
pub(crate) fn embed(table: &PackedMatrix, ids: &[u32], out: &mut HostTensor, first_row: usize) {
    assert_eq!(out.cols(), table.cols(), "width of the table");
    for (i, &id) in ids.iter().enumerate() {
        table.dequantize_row(id as usize, out.row_mut(first_row + i));
    }
}

#[cfg(test)]
mod tests {
    use crate::cpu::{Cpu, CpuOptions};
    use crate::device::{Arithmetic, Device, MatrixView};
    use crate::dtype::DType;
    use crate::reference::Reference;
    use crate::tensor::HostTensor;

    /// A small generator of bits.
    struct Bits(u64);

    impl Bits {
        fn next(&mut self) -> u32 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 32) as u32
        }

        /// Between -1 and 1, now and then exactly half of a step of 1/127.
        fn number(&mut self) -> f32 {
            match self.next() % 8 {
                0 => (self.next() % 255) as f32 / 254.0 - 0.5,
                _ => self.next() as f32 / (1_u64 << 31) as f32 - 1.0,
            }
        }
    }

    /// Random blocks whose f16 numbers are below 2 in magnitude.
    fn weights(dtype: DType, rows: usize, cols: usize, bits: &mut Bits) -> Vec<u8> {
        let halves: &[usize] = match dtype {
            DType::F32 | DType::BF16 => &[],
            DType::F16 | DType::Q4_0 | DType::Q5_0 | DType::Q8_0 => &[0],
            DType::Q4_1 | DType::Q5_1 | DType::Q4K | DType::Q5K => &[0, 2],
            DType::Q2K => &[80, 82],
            DType::Q3K => &[108],
            DType::Q6K => &[208],
        };
        let mut bytes: Vec<u8> =
            (0..rows * dtype.row_bytes(cols).unwrap()).map(|_| bits.next() as u8).collect();
        for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
            halves.iter().for_each(|at| block[at + 1] &= 0xbf);
            if let [.., high] = block
                && matches!(dtype, DType::F32 | DType::BF16)
            {
                *high &= 0xbf;
            }
        }
        bytes
    }

    fn same(got: &HostTensor, want: &HostTensor) -> bool {
        let equal = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        got.rows() == want.rows() && got.data().iter().zip(want.data()).all(equal)
    }

    #[test]
    fn products_have_the_bits_of_the_reference() {
        let mut bits = Bits(1);
        for level in Cpu::available() {
            let cpu = Cpu::new(CpuOptions { threads: 2, isa_cap: Some(level) });
            for dtype in DType::ALL {
                for (rows, outputs, blocks) in [(1, 1, 1), (2, 16, 3), (3, 40, 2), (8, 17, 1), (21, 33, 3)] {
                    let cols = blocks * dtype.block_len();
                    let bytes = weights(dtype, outputs, cols, &mut bits);
                    let view = MatrixView { rows: outputs, cols, dtype, bytes: &bytes };
                    let mut x: Vec<f32> = (0..rows * cols).map(|_| bits.number()).collect();
                    if rows > 2 {
                        x[cols + cols / 2] = [f32::NAN, f32::INFINITY, 3e38][blocks % 3];
                        x[..cols].fill(1e-41);
                    }
                    let x = HostTensor::from_rows(&x, cols);
                    let bias: Vec<f32> = (0..outputs).map(|_| bits.number()).collect();
                    let bias = HostTensor::from_rows(&bias, outputs);
                    for (arithmetic, bias) in
                        [(Arithmetic::F32, None), (Arithmetic::Int8, None), (Arithmetic::Int8, Some(&bias))]
                    {
                        let Ok(packed) = cpu.matrix(view, arithmetic) else {
                            assert!(dtype.is_float() && arithmetic == Arithmetic::Int8);
                            continue;
                        };
                        let matrix = Reference.matrix(view, arithmetic).unwrap();
                        let mut want = HostTensor::zeros(rows, outputs);
                        Reference.matmul(&x, &matrix, bias, &mut want);
                        let mut got = HostTensor::zeros(rows, outputs);
                        cpu.matmul(&x, &packed, bias, &mut got);
                        let case = format!("{level} {dtype} {arithmetic:?} {rows} x {cols} x {outputs}");
                        assert!(same(&got, &want), "{case}\n{:?}\n{:?}", got.data(), want.data());
                        let ids = [outputs as u32 - 1, 0];
                        let (mut want, mut got) = (HostTensor::zeros(3, cols), HostTensor::zeros(3, cols));
                        Reference.embed(&matrix, &ids, &mut want, 1);
                        cpu.embed(&packed, &ids, &mut got, 1);
                        assert!(same(&got, &want), "rows of {case}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbours() {
        let mut bits = Bits(2);
        let cpu = Cpu::new(CpuOptions { threads: 2, isa_cap: None });
        for dtype in [DType::F16, DType::Q4_0, DType::Q4K, DType::Q6K] {
            let bytes = weights(dtype, 50, 512, &mut bits);
            let view = MatrixView { rows: 50, cols: 512, dtype, bytes: &bytes };
            let arithmetic = if dtype.is_float() { Arithmetic::F32 } else { Arithmetic::Int8 };
            let packed = cpu.matrix(view, arithmetic).unwrap();
            let values: Vec<f32> = (0..30 * 512).map(|_| bits.number()).collect();
            let mut all = HostTensor::zeros(30, 50);
            cpu.matmul(&HostTensor::from_rows(&values, 512), &packed, None, &mut all);
            for (first, rows) in [(0, 1), (7, 2), (9, 3), (11, 13), (29, 1)] {
                let x = HostTensor::from_rows(&values[first * 512..][..rows * 512], 512);
                let mut some = HostTensor::zeros(rows, 50);
                cpu.matmul(&x, &packed, None, &mut some);
                let want = HostTensor::from_rows(&all.data()[first * 50..][..rows * 50], 50);
                assert!(same(&some, &want), "{dtype} rows {first} and {rows} on");
            }
        }
    }
}
