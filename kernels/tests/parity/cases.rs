//! What is compared and timed: the list of operations and sizes, their inputs, and how a device
//! computes them.
//!
//! The parity tests and the benchmark both include this file, each using a part of it.
#![allow(dead_code)]

#[path = "random.rs"]
mod random;
#[path = "sequences.rs"]
pub(crate) mod sequences;

use std::ops::Range;

use kernels::quant::dequantize_row;
use kernels::{Activation, Arithmetic, DType, Device, Grid, KvDtype, MatrixView, Pairing, Product};

pub(crate) use random::{Random, blocks};
use sequences::{Heads, Sequence, attend_step};

/// Seed of the weights of products.
const WEIGHTS: u64 = 29;

/// An operation with what is particular to it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Matmul {
        dtype: DType,
        arithmetic: Arithmetic,
        outputs: usize,
        bias: bool,
    },
    /// Matrices of as many outputs each; their results stand one below the other.
    MatmulEach {
        dtypes: [DType; 5],
        outputs: usize,
    },
    Embed {
        dtype: DType,
    },
    CopyRows,
    LayerNorm,
    RmsNorm,
    Add,
    Activate(Activation),
    SiluMul,
    Rope {
        heads: usize,
        pairing: Pairing,
    },
    Attention {
        heads: usize,
    },
    Attend {
        heads: usize,
        kv_heads: usize,
        dtype: KvDtype,
    },
    Patches {
        patch: usize,
    },
    Depthwise3x3 {
        grid: Grid,
        bias: bool,
        stride: usize,
    },
    AveragePool2x2 {
        grid: Grid,
    },
    ColumnMean,
    ScaleColumns,
}

/// How far from the reference a device may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    /// Not at all.
    Exact,
    /// By this fraction of the largest magnitude in the row.
    OfRow(f32),
    /// By this much.
    Absolute(f32),
}

impl Op {
    /// The methods of `Device` that a case of this operation goes through, besides those that make,
    /// fill and read tensors.
    pub(crate) fn methods(self) -> &'static [&'static str] {
        match self {
            Op::Matmul { .. } => {
                &["matrix", "matrix_bytes", "matrix_layout", "share_matrix", "adopt_matrix", "matmul"]
            }
            Op::MatmulEach { .. } => &["matmul_each"],
            Op::Embed { .. } => &["matrix", "embed"],
            Op::CopyRows => &["copy_rows", "set_rows"],
            Op::LayerNorm => &["layer_norm"],
            Op::RmsNorm => &["rms_norm"],
            Op::Add => &["add"],
            Op::Activate(_) => &["activate"],
            Op::SiluMul => &["silu_mul"],
            Op::Rope { .. } => &["rope"],
            Op::Attention { .. } => &["attention"],
            Op::Attend { .. } => &[
                "kv",
                "kv_bytes",
                "kv_append",
                "kv_forget",
                "kv_copy_page",
                "kv_page_bytes",
                "kv_read_page",
                "kv_write_page",
                "attend",
            ],
            Op::Patches { .. } => &["patches"],
            Op::Depthwise3x3 { .. } => &["depthwise3x3"],
            Op::AveragePool2x2 { .. } => &["average_pool2x2"],
            Op::ColumnMean => &["column_mean"],
            Op::ScaleColumns => &["scale_columns"],
        }
    }

    /// The distance from the reference that is allowed to a device that sums products in one order.
    fn bound(self) -> Bound {
        match self {
            Op::Matmul { .. } | Op::MatmulEach { .. } | Op::Embed { .. } => Bound::Exact,
            Op::CopyRows | Op::Patches { .. } => Bound::Exact,
            Op::Add | Op::ScaleColumns => Bound::Exact,
            Op::LayerNorm | Op::RmsNorm => Bound::OfRow(2e-6),
            // Values are at most 8, but their sum may cancel.
            Op::Attention { .. } | Op::Attend { .. } => Bound::Absolute(2e-5),
            Op::Activate(_) | Op::SiluMul => Bound::OfRow(5e-7),
            Op::Rope { .. } | Op::AveragePool2x2 { .. } => Bound::OfRow(3e-7),
            Op::Depthwise3x3 { .. } | Op::ColumnMean => Bound::OfRow(1e-6),
        }
    }

    /// Whether row `i` of the result comes from row `i` of the input alone.
    pub(crate) fn by_row(self) -> bool {
        !matches!(
            self,
            Op::MatmulEach { .. }
                | Op::Attention { .. }
                | Op::Attend { .. }
                | Op::Patches { .. }
                | Op::Depthwise3x3 { .. }
                | Op::AveragePool2x2 { .. }
                | Op::ColumnMean
        )
    }
}

/// An operation on an input of `(rows, cols)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) op: Op,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

/// Computes a result.
type Step<'d, D> = Box<dyn FnMut(&mut <D as Device>::Tensor) + 'd>;

/// A case ready to run on a device any number of times.
pub(crate) struct Prepared<'d, D: Device> {
    step: Step<'d, D>,
    out: D::Tensor,
}

impl<D: Device> Prepared<'_, D> {
    /// Computes the result.
    pub(crate) fn run(&mut self) {
        (self.step)(&mut self.out);
    }

    /// The newest result.
    pub(crate) fn result(&self, device: &D) -> Vec<f32> {
        read(device, &self.out)
    }
}

impl Case {
    /// The ordinary input.
    pub(crate) fn input(&self) -> Vec<f32> {
        Random::new(11).vec(self.rows * self.cols)
    }

    /// The distance from the reference that is allowed to a device.
    pub(crate) fn bound<D: Device>(&self, device: &D, x: &[f32]) -> Bound {
        match self.op {
            Op::Matmul { .. } | Op::MatmulEach { .. } if !device.sums_in_one_order() => {
                let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
                let product = f32::EPSILON * largest * self.largest_weight();
                Bound::Absolute(self.cols as f32 * (product + f32::from_bits(1)))
            }
            op => op.bound(),
        }
    }

    /// The largest magnitude of any weight.
    fn largest_weight(&self) -> f32 {
        let (dtypes, outputs) = match self.op {
            Op::Matmul { dtype, outputs, .. } => (vec![dtype], outputs),
            Op::MatmulEach { dtypes, outputs } => (dtypes.to_vec(), outputs),
            op => panic!("{op:?} is no product"),
        };
        let random = &mut Random::new(WEIGHTS);
        let mut numbers = vec![0.0; outputs * self.cols];
        let largest = dtypes.into_iter().map(|dtype| {
            dequantize_row(dtype, &blocks(random, dtype, outputs, self.cols), &mut numbers).unwrap();
            numbers.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs()))
        });
        largest.fold(0.0, f32::max)
    }

    /// Computes the result for all rows of `x`.
    pub(crate) fn compute<D: Device>(&self, device: &D, x: &[f32]) -> Vec<f32> {
        self.compute_rows(device, x, 0..self.rows)
    }

    /// Computes the result for some rows of `x`, as if there were no others.
    pub(crate) fn compute_rows<D: Device>(&self, device: &D, x: &[f32], rows: Range<usize>) -> Vec<f32> {
        let mut prepared = self.prepare(device, x, rows);
        prepared.run();
        prepared.result(device)
    }

    /// Uploads what the case needs for some rows of `x`.
    pub(crate) fn prepare<'d, D: Device>(
        &self,
        device: &'d D,
        x: &[f32],
        rows: Range<usize>,
    ) -> Prepared<'d, D> {
        let (cols, count) = (self.cols, rows.len());
        let part = &x[rows.start * cols..rows.end * cols];
        let input = upload(device, part, cols);
        let (out_rows, out_cols) = self.out_shape(count);
        let out = device.tensor(out_rows, out_cols).unwrap();
        let random = &mut Random::new(23);
        let mut weights = |rows: usize| upload(device, &random.vec(rows * cols), cols);
        let step: Step<'d, D> = match self.op {
            Op::Matmul { .. } | Op::MatmulEach { .. } | Op::Embed { .. } => {
                self.matrix_step(device, input, rows)
            }
            Op::CopyRows => Box::new(move |out| {
                device.set_rows(out, count);
                device.copy_rows(&input, 0..count, out, 0);
            }),
            Op::LayerNorm => {
                let (weight, bias) = (weights(1), weights(1));
                Box::new(move |out| device.layer_norm(&input, &weight, &bias, 1e-5, out))
            }
            Op::RmsNorm => {
                let weight = weights(1);
                Box::new(move |out| device.rms_norm(&input, &weight, 1e-6, out))
            }
            Op::Add | Op::SiluMul | Op::Activate(_) | Op::Rope { .. } | Op::ScaleColumns => {
                self.in_place_step(device, input, rows)
            }
            Op::Attention { heads } => {
                let (k, v) = (weights(count), weights(count));
                Box::new(move |out| device.attention(&input, &k, &v, heads, out))
            }
            Op::Attend { heads, kv_heads, dtype } => {
                let sequences = [Sequence { seed: 1, past: 77, new: count, poisoned: false, common: 0 }];
                let shape = Heads { heads, kv_heads, head_dim: cols / heads, dtype };
                let mut step = attend_step(device, shape, &sequences);
                Box::new(move |out| step(out))
            }
            Op::Patches { patch } => Box::new(move |out| device.patches(&input, patch, out)),
            Op::Depthwise3x3 { grid, bias, stride } => {
                let (weight, bias) = (weights(9), bias.then(|| weights(1)));
                Box::new(move |out| {
                    device.depthwise3x3(&input, grid, &weight, bias.as_ref(), stride, out);
                })
            }
            Op::AveragePool2x2 { grid } => Box::new(move |out| device.average_pool2x2(&input, grid, out)),
            Op::ColumnMean => Box::new(move |out| device.column_mean(&input, out)),
        };
        Prepared { step, out }
    }

    fn out_shape(&self, rows: usize) -> (usize, usize) {
        match self.op {
            Op::Matmul { outputs, .. } => (rows, outputs),
            Op::MatmulEach { dtypes, outputs } => (rows * dtypes.len(), outputs),
            Op::Patches { patch } => ((self.cols / patch).pow(2), 3 * patch * patch),
            Op::Depthwise3x3 { grid, stride, .. } => {
                (grid.width.div_ceil(stride) * grid.height.div_ceil(stride), self.cols)
            }
            Op::AveragePool2x2 { grid } => (grid.len() / 4, self.cols),
            Op::ColumnMean => (1, self.cols),
            _ => (rows, self.cols),
        }
    }

    fn matrix_step<'d, D: Device>(&self, device: &'d D, input: D::Tensor, rows: Range<usize>) -> Step<'d, D> {
        let random = &mut Random::new(WEIGHTS);
        let matrix = |random: &mut Random, dtype, rows, arithmetic| {
            let bytes = blocks(random, dtype, rows, self.cols);
            let view = MatrixView { rows, cols: self.cols, dtype, bytes: &bytes };
            let matrix = device.matrix(view, arithmetic).unwrap();
            assert!(device.matrix_bytes(&matrix) > 0);
            match device.matrix_layout() {
                Some(_) => device.adopt_matrix(device.share_matrix(&matrix).unwrap(), arithmetic).unwrap(),
                None => matrix,
            }
        };
        match self.op {
            Op::Matmul { dtype, arithmetic, outputs, bias } => {
                let w = matrix(random, dtype, outputs, arithmetic);
                let bias = bias.then(|| upload(device, &random.vec(outputs), outputs));
                Box::new(move |out| device.matmul(&input, &w, bias.as_ref(), out))
            }
            Op::MatmulEach { dtypes, outputs } => {
                let w = dtypes.map(|dtype| {
                    let exact = dtype.is_float();
                    matrix(random, dtype, outputs, if exact { Arithmetic::F32 } else { Arithmetic::Int8 })
                });
                let bias = upload(device, &random.vec(outputs), outputs);
                let mut parts = dtypes.map(|_| device.tensor(rows.len(), outputs).unwrap());
                Box::new(move |out| {
                    let bias = [None, Some(&bias)].into_iter().cycle();
                    let products = w.iter().zip(&mut parts).zip(bias);
                    let mut products: Vec<_> =
                        products.map(|((w, out), bias)| Product { w, bias, out }).collect();
                    device.matmul_each(&input, &mut products);
                    for (i, part) in parts.iter().enumerate() {
                        device.copy_rows(part, 0..rows.len(), out, i * rows.len());
                    }
                })
            }
            Op::Embed { dtype } => {
                const VOCABULARY: usize = 37;
                let table = matrix(random, dtype, VOCABULARY, Arithmetic::F32);
                let ids: Vec<u32> = rows.map(|row| (row * 5 % VOCABULARY) as u32).collect();
                Box::new(move |out| device.embed(&table, &ids, out, 0))
            }
            _ => panic!("{:?} has no matrix", self.op),
        }
    }

    /// Copies the input to the result and changes it there.
    fn in_place_step<'d, D: Device>(
        &self,
        device: &'d D,
        input: D::Tensor,
        rows: Range<usize>,
    ) -> Step<'d, D> {
        let (op, cols) = (self.op, self.cols);
        let beside = Random::new(31).vec(self.rows * cols);
        let beside = match op {
            Op::ScaleColumns => upload(device, &beside[..cols], cols),
            Op::Rope { heads, .. } => upload(device, &rope_table(cols / heads, rows.end + 3), cols / heads),
            _ => upload(device, &beside[rows.start * cols..rows.end * cols], cols),
        };
        let positions: Vec<u32> = rows.clone().map(|row| row as u32 + 2).collect();
        Box::new(move |out| {
            device.copy_rows(&input, 0..rows.len(), out, 0);
            match op {
                Op::Add => device.add(out, &beside),
                Op::SiluMul => device.silu_mul(out, &beside),
                Op::Activate(f) => device.activate(f, out),
                Op::Rope { heads, pairing } => device.rope(out, heads, &beside, &positions, pairing),
                Op::ScaleColumns => device.scale_columns(out, &beside),
                _ => panic!("{op:?} is not in place"),
            }
        })
    }
}

/// Cosines, then sines, for each position.
fn rope_table(head_dim: usize, positions: usize) -> Vec<f32> {
    let angle = |p: usize, i: usize| p as f32 * 10000_f32.powf(-2.0 * i as f32 / head_dim as f32);
    (0..positions)
        .flat_map(|p| {
            let cosines = (0..head_dim / 2).map(move |i| angle(p, i).cos());
            cosines.chain((0..head_dim / 2).map(move |i| angle(p, i).sin()))
        })
        .collect()
}

/// A tensor of `values`.
fn upload<D: Device>(device: &D, values: &[f32], cols: usize) -> D::Tensor {
    let mut tensor = device.tensor(values.len() / cols, cols).unwrap();
    device.write(values, &mut tensor, 0);
    tensor
}

/// The rows of a tensor in use.
fn read<D: Device>(device: &D, tensor: &D::Tensor) -> Vec<f32> {
    let (rows, cols) = device.shape(tensor);
    let mut values = vec![0.0; rows * cols];
    device.read(tensor, 0, &mut values);
    values
}

const ACTIVATIONS: [Activation; 5] = [
    Activation::QuickGelu,
    Activation::Gelu,
    Activation::Relu,
    Activation::HardSwish,
    Activation::HardSigmoid,
];

/// Widths that end inside a vector, at its end, or just after it.
const WIDTHS: [usize; 9] = [1, 15, 16, 17, 31, 33, 63, 65, 577];

/// Every case of the parity tests, small ones first.
pub(crate) fn small() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut push = |op, rows, cols| cases.push(Case { op, rows, cols });
    for (i, cols) in WIDTHS.into_iter().enumerate() {
        let rows = i + 1;
        for op in [Op::CopyRows, Op::LayerNorm, Op::RmsNorm, Op::Add, Op::SiluMul, Op::ColumnMean] {
            push(op, rows, cols);
        }
        push(Op::ScaleColumns, rows, cols);
        ACTIVATIONS.into_iter().for_each(|f| push(Op::Activate(f), rows, cols));
        push(Op::Embed { dtype: DType::F32 }, rows, cols);
        for (stride, bias) in [(1, true), (2, false), (2, true)] {
            let grid = Grid { width: rows, height: 10 - rows };
            push(Op::Depthwise3x3 { grid, bias, stride }, grid.len(), cols);
        }
        let grid = Grid { width: 2 * (i % 3 + 1), height: 2 * (i % 2 + 1) };
        push(Op::AveragePool2x2 { grid }, grid.len(), cols);
    }
    for (side, patch) in [(1, 1), (12, 4), (28, 14), (45, 15)] {
        push(Op::Patches { patch }, 3 * side, side);
    }
    // Enough for several tasks.
    let large = [Op::Add, Op::SiluMul, Op::LayerNorm, Op::RmsNorm, Op::ColumnMean, Op::ScaleColumns];
    large.into_iter().for_each(|op| push(op, 70, 1031));
    matrix_cases(&mut push);
    attention_cases(&mut push);
    cases
}

fn matrix_cases(push: &mut impl FnMut(Op, usize, usize)) {
    for dtype in DType::ALL {
        let widths: &[usize] = match dtype.block_len() {
            1 => &WIDTHS,
            32 => &[32, 64, 96, 544],
            _ => &[256, 512, 1280],
        };
        for (i, &cols) in widths.iter().enumerate() {
            push(Op::Embed { dtype }, 2 * i + 1, cols);
            let sizes = [(1, 1), (2, 15), (3, 16), (4, 17), (5, 31), (6, 33), (7, 63), (8, 65), (9, 64)];
            for (rows, outputs) in sizes.into_iter().skip(i % 2).step_by(2).chain([(1, 130), (33, 48)]) {
                for arithmetic in [Arithmetic::F32, Arithmetic::Int8, Arithmetic::Int8Split] {
                    if arithmetic == Arithmetic::F32 || !dtype.is_float() {
                        push(Op::Matmul { dtype, arithmetic, outputs, bias: i % 2 == 0 }, rows, cols);
                    }
                }
            }
        }
    }
    let dtypes = [DType::Q4K, DType::Q6K, DType::Q4K, DType::Q8_0, DType::F16];
    for (rows, outputs) in [(1, 33), (3, 16), (20, 65)] {
        push(Op::MatmulEach { dtypes, outputs }, rows, 512);
    }
    let op = |dtype, arithmetic| Op::Matmul { dtype, arithmetic, outputs: 577, bias: true };
    push(op(DType::F32, Arithmetic::F32), 65, 577);
    push(op(DType::Q4_0, Arithmetic::Int8), 65, 576);
    push(op(DType::Q8_0, Arithmetic::Int8Split), 65, 576);
    push(op(DType::Q4K, Arithmetic::Int8), 65, 512);
}

fn attention_cases(push: &mut impl FnMut(Op, usize, usize)) {
    for head_dim in [1, 16, 24, 40, 64, 80, 128] {
        for pairing in [Pairing::Halves, Pairing::Neighbours] {
            if head_dim > 1 {
                push(Op::Rope { heads: 3, pairing }, 9, 3 * head_dim);
            }
        }
        for rows in [1, 2, 15, 17, 31, 32, 33, 65] {
            push(Op::Attention { heads: 2 }, rows, 2 * head_dim);
        }
        for dtype in KvDtype::ALL {
            for (heads, kv_heads) in [(1, 1), (4, 2), (6, 1)] {
                let op = Op::Attend { heads, kv_heads, dtype };
                [1, 3, 20, 60].into_iter().for_each(|rows| push(op, rows, heads * head_dim));
            }
        }
    }
    push(Op::Attention { heads: 2 }, 577, 128);
    for dtype in [KvDtype::F16, KvDtype::Q8] {
        push(Op::Attend { heads: 2, kv_heads: 2, dtype }, 164, 256);
    }
}

/// The operations besides matrix products at the sizes of the 1.7B model, for timing.
pub(crate) fn real() -> Vec<Case> {
    let attend = Op::Attend { heads: 16, kv_heads: 16, dtype: KvDtype::F16 };
    let eight = Op::Attend { heads: 16, kv_heads: 16, dtype: KvDtype::Q8 };
    let grid = Grid::square(24);
    [
        (Op::Attention { heads: 16 }, 577, 1024),
        (attend, 1, 2048),
        (attend, 164, 2048),
        (eight, 1, 2048),
        (eight, 164, 2048),
        (Op::LayerNorm, 577, 1024),
        (Op::Activate(Activation::QuickGelu), 577, 4096),
        (Op::Activate(Activation::Gelu), 576, 2048),
        (Op::Add, 577, 1024),
        (Op::RmsNorm, 1, 2048),
        (Op::RmsNorm, 164, 2048),
        (Op::Rope { heads: 16, pairing: Pairing::Neighbours }, 164, 2048),
        (Op::SiluMul, 1, 5632),
        (Op::SiluMul, 164, 5632),
        (Op::Patches { patch: 14 }, 3 * 336, 336),
        (Op::Depthwise3x3 { grid, bias: false, stride: 1 }, 576, 2048),
        (Op::AveragePool2x2 { grid }, 576, 2048),
        (Op::ColumnMean, 576, 2048),
        (Op::ScaleColumns, 576, 2048),
    ]
    .map(|(op, rows, cols)| Case { op, rows, cols })
    .to_vec()
}
