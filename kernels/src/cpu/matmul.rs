//! Matrix products: activations are cut into tiles, weights lie in panels, and a kernel gives the
//! outputs of one panel for one tile.
//!
//! Every output is summed by one kernel call from the first input to the last, in a lane of its
//! own. What else is in the tile, how panels are shared out and how wide vectors are therefore
//! never changes it.

use std::array;
use std::ops::Range;

use super::Cpu;
#[cfg(target_arch = "aarch64")]
use super::aarch64::{dotprod, i8mm, neon};
use super::ahead::{Order, PLACES};
use super::isa::Isa;
use super::packed::{Coding, PANEL, PackedMatrix};
use super::scalar;
use super::split::{Layouts, Split};
use super::threads::{Base, Pool};
use super::tiles::{MAX_HEIGHT, Tile};
#[cfg(target_arch = "x86_64")]
use super::x86_64::{avx2, avx512vnni, avxvnni};
use crate::device::Product;
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
        match (self, dtype.is_float()) {
            (Isa::Scalar, _) => 4,
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2(_) | Isa::AvxVnni(_), _) => 4,
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512Vnni(_), true) => 16,
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512Vnni(_), false) => 8,
            #[cfg(target_arch = "aarch64")]
            (Isa::Neon(_), _) | (Isa::Dotprod(_) | Isa::I8mm(_), true) => 4,
            #[cfg(target_arch = "aarch64")]
            (Isa::Dotprod(_) | Isa::I8mm(_), false) => 8,
        }
    }

    /// Fills a tile, see [`Layouts::fill`].
    fn fill(self, layouts: Layouts, x: &[f32], height: usize, numbers: &mut [i32]) {
        match self {
            Isa::Scalar => scalar::fill(layouts, x, height, numbers),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(token) => avx2::fill(token, layouts, x, height, numbers),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni(token) => avx2::fill(token.avx2(), layouts, x, height, numbers),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(token) => avx512vnni::fill(token, layouts, x, height, numbers),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) | Isa::Dotprod(_) => layouts.fill(x, height, numbers),
            #[cfg(target_arch = "aarch64")]
            Isa::I8mm(_) => i8mm::fill(layouts, x, height, numbers),
        }
    }

    /// The outputs of one or two runs of panels for one tile: for each panel a row of [`PANEL`] for each
    /// row of the tile.
    fn product(self, dtype: DType, runs: &[&[u8]], tile: Tile<'_>, out: &mut [&mut [f32]]) {
        #[cfg(target_arch = "x86_64")]
        if let Isa::Avx512Vnni(token) = self {
            return avx512vnni::product(token, dtype, runs, tile, out);
        }
        let mut sums = Sums::default();
        for (run, out) in runs.iter().zip(out) {
            let panels = out.chunks_exact_mut(tile.height * PANEL);
            let panel_bytes = run.len() / panels.len().max(1);
            for (index, out) in panels.enumerate() {
                self.panel(dtype, &run[index * panel_bytes..][..panel_bytes], tile, &mut sums);
                out.copy_from_slice(&sums.as_flattened()[..tile.height * PANEL]);
            }
        }
    }

    /// The outputs of a panel for one tile.
    fn panel(self, dtype: DType, panel: &[u8], tile: Tile<'_>, out: &mut Sums) {
        match self {
            Isa::Scalar => scalar::product(dtype, panel, tile, out),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(token) => avx2::product(token, dtype, panel, tile, out),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni(token) => avxvnni::product(token, dtype, panel, tile, out),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(_) => unreachable!("it takes several at once"),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(token) => neon::product(token, dtype, panel, tile, out),
            #[cfg(target_arch = "aarch64")]
            Isa::Dotprod(token) => dotprod::product(token, dtype, panel, tile, out),
            #[cfg(target_arch = "aarch64")]
            Isa::I8mm(token) => i8mm::product(token, dtype, panel, tile, out),
        }
    }
}

/// Products that share one job of the threads.
const TOGETHER: usize = 4;

/// Numbers of all tiles of an `x` for each kind of weights that it meets, kept from call to call.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    kept: [Vec<i32>; TOGETHER],
    order: Order,
}

/// `out = x * w^T (+ bias)` for each product.
pub(crate) fn matmul_each(
    threads: (Isa, &Pool),
    scratch: &mut Scratch,
    x: &HostTensor,
    products: &mut [Product<'_, Cpu>],
) {
    for Product { w, bias, out } in &mut *products {
        assert_eq!(x.cols(), w.cols(), "inputs of the matrix");
        assert_eq!(out.cols(), w.rows(), "outputs of the matrix");
        if let Some(bias) = bias {
            assert_eq!((bias.rows(), bias.cols()), (1, w.rows()), "shape of the bias");
        }
        out.set_rows(x.rows());
    }
    if x.rows() > 0 {
        products.chunks_mut(TOGETHER).for_each(|products| matmul_together(threads, scratch, x, products));
    }
}

/// [`matmul_each`] for at most [`TOGETHER`] products of some rows.
fn matmul_together(
    (isa, pool): (Isa, &Pool),
    scratch: &mut Scratch,
    x: &HostTensor,
    products: &mut [Product<'_, Cpu>],
) {
    let Scratch { kept, order } = scratch;
    let kind = |index: usize| (Coding::of(products[index].w.dtype()), products[index].w.arithmetic());
    // The first product of each kind fills the tiles for all.
    let filled = |index: usize| (0..index).find(|&other| kind(other) == kind(index)).unwrap_or(index);
    let mut tiles = [const { None }; TOGETHER];
    for (index, kept) in kept.iter_mut().enumerate().take(products.len()) {
        if filled(index) == index {
            tiles[index] = Some(Tiles::fill((isa, pool), kept, x, products[index].w));
        }
    }
    let places: [usize; TOGETHER] =
        array::from_fn(|index| if index < products.len() { filled(index) } else { index });
    let mut jobs = [const { None }; TOGETHER];
    for (job, (Product { w, bias, out }, place)) in jobs.iter_mut().zip(products.iter_mut().zip(places)) {
        let target = Target { base: Base(out.data_mut().as_mut_ptr()), cols: w.rows() };
        let group = pairs_per_task(w, pool.threads());
        *job = tiles[place].as_ref().map(|tiles| Job { isa, w, bias: *bias, tiles, target, group });
    }
    let tasks: usize = jobs.iter().flatten().map(Job::tasks).sum();
    if x.rows() == 1
        && let Some(last) = jobs.iter().flatten().next_back()
    {
        let begins = pool.first_tasks(tasks).map(|task| begin(&jobs, task));
        let next = order.note(last.w.run(0..0).as_ptr().addr(), begins);
        next.into_iter().for_each(|next| pool.read_ahead(next));
    }
    pool.run(tasks, &|mut task| {
        for job in jobs.iter().flatten() {
            if task < job.tasks() {
                // SAFETY: the outputs are borrowed until `run` returns, and each task is taken once.
                return unsafe { job.run(task) };
            }
            task -= job.tasks();
        }
    });
}

/// Where a task begins to read: the first panel of both runs.
fn begin(jobs: &[Option<Job<'_>>], mut task: usize) -> [usize; PLACES] {
    for job in jobs.iter().flatten() {
        if task < job.tasks() {
            let (pair, w) = (task * job.group, job.w);
            let place = |panel| if panel < w.panels() { w.panel(panel).as_ptr().addr() } else { 0 };
            return [place(pair), place(w.half() + pair)];
        }
        task -= job.tasks();
    }
    [0; PLACES]
}

/// A product. Panels are multiplied in pairs, one of the first half with one of the second: a task then reads
/// two long stretches of memory.
struct Job<'a> {
    isa: Isa,
    w: &'a PackedMatrix,
    bias: Option<&'a HostTensor>,
    tiles: &'a Tiles<'a>,
    target: Target,
    /// Pairs of panels in a task.
    group: usize,
}

impl Job<'_> {
    fn tasks(&self) -> usize {
        self.w.half().div_ceil(self.group)
    }

    /// Computes the outputs of some pairs of panels for all rows.
    ///
    /// # Safety
    ///
    /// The outputs are borrowed by the caller, and nobody else runs this task.
    unsafe fn run(&self, task: usize) {
        let Self { isa, w, bias, tiles, target, group } = self;
        let mut own = task * group..w.half().min((task + 1) * group);
        // SAFETY: as promised by the caller.
        own.start += unsafe { self.run_lone(own.clone()) };
        let mut sums = [Sums::default(); 2];
        for index in 0..tiles.count() {
            let tile = tiles.get(index);
            let rows = index * tiles.height..tiles.rows.min((index + 1) * tiles.height);
            for pair in own.clone() {
                let (first, second) = (pair, w.half() + pair);
                let count = if second < w.panels() { 2 } else { 1 };
                let panels = [w.panel(first), w.panel(if count == 2 { second } else { first })];
                product(*isa, w.dtype(), &panels[..count], tile, &mut sums);
                if tiles.splits(index).next().is_some() {
                    add_splits(*isa, w, &panels[..count], tiles.splits(index), &mut sums[..count]);
                }
                for (panel, sums) in [first, second].iter().zip(&sums[..count]) {
                    // SAFETY: as promised by the caller; a panel belongs to one task.
                    unsafe { target.write(rows.clone(), *panel, sums, *bias) };
                }
            }
        }
    }

    /// Computes the outputs of pairs of panels for a lone row, as many from the first on as are whole and
    /// need nothing else; returns how many. Nothing interrupts the stream of weights.
    ///
    /// # Safety
    ///
    /// As for [`Job::run`].
    unsafe fn run_lone(&self, own: Range<usize>) -> usize {
        let Self { isa, w, bias, tiles, target, .. } = self;
        let half = w.half();
        let end = own.end.min((w.rows() / PANEL).saturating_sub(half));
        if tiles.rows != 1 || end <= own.start || tiles.splits(0).next().is_some() {
            return 0;
        }
        let own = own.start..end;
        let runs = [own.clone(), half + own.start..half + own.end];
        let out = runs.clone().map(|run| {
            // SAFETY: as promised by the caller; the panels are whole, and both runs are apart.
            unsafe { std::slice::from_raw_parts_mut(target.base.at(run.start * PANEL), run.len() * PANEL) }
        });
        let [mut first, mut second] = out;
        isa.product(
            w.dtype(),
            &runs.clone().map(|run| w.run(run)),
            tiles.get(0),
            &mut [&mut *first, &mut *second],
        );
        for (run, out) in runs.into_iter().zip([&mut first, &mut second]) {
            if let Some(bias) = bias {
                out.iter_mut()
                    .zip(&bias.row(0)[run.start * PANEL..])
                    .for_each(|(value, bias)| *value += bias);
            }
        }
        own.len()
    }
}

/// The outputs of one or two panels for one tile.
fn product(isa: Isa, dtype: DType, panels: &[&[u8]], tile: Tile<'_>, sums: &mut [Sums; 2]) {
    let len = tile.height * PANEL;
    let mut out = sums.each_mut().map(|sums| &mut sums.as_flattened_mut()[..len]);
    isa.product(dtype, panels, tile, &mut out[..panels.len()]);
}

/// Adds what the split blocks of a tile give to the rows that need it.
fn add_splits<'a>(
    isa: Isa,
    w: &PackedMatrix,
    panels: &[&[u8]],
    splits: impl Iterator<Item = Split<'a>>,
    sums: &mut [Sums],
) {
    #[cfg(target_arch = "x86_64")]
    if let Isa::Avx512Vnni(token) = isa {
        return avx512vnni::add_splits(token, w.dtype(), panels, splits, sums);
    }
    let size = Coding::of(w.dtype()).map_or(0, Coding::block_bytes);
    let mut more = [Sums::default(); 2];
    let mut needed = 0_u32;
    for Split { block, rows, tile } in splits {
        needed |= rows;
        let blocks = [panels[0], panels[panels.len() - 1]].map(|panel| &panel[block * size..][..size]);
        let mut parts = [Sums::default(); 2];
        product(isa, w.dtype(), &blocks[..panels.len()], tile, &mut parts);
        for (more, part) in more.iter_mut().zip(&parts) {
            add_rows(rows, part, more);
        }
    }
    for (sums, more) in sums.iter_mut().zip(&more) {
        add_rows(needed, more, sums);
    }
}

/// `to += from` for the rows whose bits are set.
fn add_rows(rows: u32, from: &Sums, to: &mut Sums) {
    for (r, (from, to)) in from.iter().zip(to).enumerate() {
        if rows >> r & 1 == 1 {
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        }
    }
}

/// Pairs that are multiplied together: they fit the cache, and there are tasks for all threads.
fn pairs_per_task(w: &PackedMatrix, threads: usize) -> usize {
    let cached = CACHED_BYTES / (2 * w.panel_bytes()).max(1);
    cached.min(w.half() / (threads * TASKS_PER_THREAD)).max(1)
}

/// The activations of a product, cut into tiles.
struct Tiles<'a> {
    layouts: Layouts,
    /// Rows of all tiles but the last.
    height: usize,
    rows: usize,
    numbers: &'a [i32],
}

impl<'a> Tiles<'a> {
    fn fill((isa, pool): (Isa, &Pool), kept: &'a mut Vec<i32>, x: &HostTensor, w: &PackedMatrix) -> Self {
        let layouts = Layouts::new(x.cols(), Coding::of(w.dtype()), w.arithmetic());
        let (height, rows) = (isa.tile_height(w.dtype()), x.rows());
        let stride = layouts.len(height);
        let len = stride * rows.div_ceil(height);
        if kept.len() < len {
            kept.resize(len, 0);
        }
        let numbers = &mut kept[..len];
        pool.rows(numbers, stride.max(1), 1, &|first, chunk| {
            for (i, numbers) in chunk.chunks_exact_mut(stride).enumerate() {
                let row = (first + i) * height;
                let end = rows.min(row + height);
                let x = &x.data()[row * x.cols()..end * x.cols()];
                isa.fill(layouts, x, tile_height(height, end - row), numbers);
            }
        });
        Self { layouts, height, rows, numbers }
    }

    fn count(&self) -> usize {
        self.rows.div_ceil(self.height)
    }

    /// Height and numbers of tile `index`.
    fn of(&self, index: usize) -> (usize, &[i32]) {
        let height = tile_height(self.height, self.rows - index * self.height);
        (height, &self.numbers[index * self.layouts.len(self.height)..])
    }

    /// The split blocks of tile `index`.
    fn splits(&self, index: usize) -> impl Iterator<Item = Split<'_>> {
        let (height, numbers) = self.of(index);
        self.layouts.splits(height, numbers)
    }

    fn get(&self, index: usize) -> Tile<'_> {
        let (height, numbers) = self.of(index);
        self.layouts.tile.tile(height, numbers)
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
    use crate::quant::quantize_row;
    use crate::reference::Reference;
    use crate::tensor::HostTensor;

    /// The parity tests compare ordinary numbers and whole hostile rows; here one number of a row is
    /// hostile, which makes its block special and no other.
    #[test]
    fn one_hostile_number_has_the_bits_of_the_reference() {
        const ROWS: usize = 10;
        let hostile = [f32::NAN, f32::INFINITY, f32::MAX, 1e-41, 1e-36, 8.3e6, 2e-6, -0.0, -1.0, 0.0];
        for dtype in [DType::Q4_0, DType::Q5_1, DType::Q8_0, DType::Q4K, DType::Q6K] {
            let cols = 2 * dtype.block_len();
            let mut bytes: Vec<u8> =
                (0..17 * dtype.row_bytes(cols).unwrap()).map(|i| (i * 37 % 59) as u8).collect();
            if dtype == DType::Q8_0 {
                let values: Vec<f32> = (0..17 * cols).map(|i| (i as f32).sin()).collect();
                quantize_row(dtype, &values, &mut bytes).unwrap();
            }
            let view = MatrixView { rows: 17, cols, dtype, bytes: &bytes };
            let mut x = HostTensor::zeros(ROWS, cols);
            for (r, number) in hostile.into_iter().enumerate() {
                let small = if number.abs() < 1e-30 { 1e-42 } else { 1.0 };
                for (i, value) in x.row_mut(r).iter_mut().enumerate() {
                    *value = small * (i as f32 * 0.7 + r as f32).cos();
                }
                x.row_mut(r)[cols / 3] = number;
            }
            let matrix = Reference.matrix(view, Arithmetic::Int8).unwrap();
            let mut want = HostTensor::zeros(ROWS, 17);
            Reference.matmul(&x, &matrix, None, &mut want);
            assert!(want.row(0).iter().all(|value| value.is_nan()), "{dtype}");
            for level in Cpu::available() {
                let cpu = Cpu::new(CpuOptions { threads: 2, isa_cap: Some(level) });
                let packed = cpu.matrix(view, Arithmetic::Int8).unwrap();
                let mut got = HostTensor::zeros(ROWS, 17);
                cpu.matmul(&x, &packed, None, &mut got);
                for r in 0..ROWS {
                    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                    let (got, want) = (got.row(r), want.row(r));
                    assert!(got.iter().zip(want).all(same), "{level} {dtype} row {r}: {got:?}, not {want:?}");
                }
            }
        }
    }

    #[test]
    fn nothing_times_something_is_the_bias() {
        let cpu = Cpu::new(CpuOptions { threads: 2, isa_cap: None });
        let view = MatrixView { rows: 3, cols: 0, dtype: DType::Q4_0, bytes: &[] };
        let matrix = cpu.matrix(view, Arithmetic::Int8).unwrap();
        let mut out = HostTensor::zeros(4, 3);
        let bias = HostTensor::from_rows(&[1.0, 2.0, 3.0], 3);
        cpu.matmul(&HostTensor::zeros(2, 0), &matrix, Some(&bias), &mut out);
        assert_eq!(out.data(), [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
        cpu.matmul(&HostTensor::zeros(0, 0), &matrix, None, &mut out);
        assert_eq!(out.rows(), 0);
    }
}
