//! The seam between the model and the machine: every operation a model may ask for.
//!
//! Tensors are f32 matrices `(rows, cols)` in row order. Shapes below are written that way, and a
//! shape that does not fit is a bug of the caller: methods panic on it. What can fail at run time
//! (memory, an unsupported matrix) is a [`DeviceError`].
//!
//! # Reproducible rows
//!
//! Row `i` of every result is a function of row `i` of the inputs (for attention: of its own
//! sequence and positions) alone. It does not depend on how many rows there are, which rows are
//! beside it, how a prompt was cut into chunks, or how many threads work. To keep that:
//!
//! * a matmul output adds its K blocks in an order that the shape of the weights alone decides (on a
//!   CPU ascending, into one f32 accumulator); inside a block of 32 integers are exact;
//! * attention tiles start at absolute multiples of [`PAGE`] positions and merge in an order that
//!   they alone decide.

use std::ops::Range;

use crate::dtype::DType;
use crate::shared::SharedMatrix;

/// Positions in one page of the KV cache, and the tile of attention.
///
/// 32 keeps copy-on-write of a partly filled page cheap (6 MB at 1.7B in f16) and is two AVX-512
/// vectors of scores.
pub const PAGE: usize = 32;

/// A page of the KV arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageId(pub u32);

/// Where one row of keys and values is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The page.
    pub page: PageId,
    /// The position inside the page, below [`PAGE`].
    pub offset: u32,
}

/// Consecutive query rows of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span<'a> {
    /// Rows of the query tensor.
    pub rows: Range<usize>,
    /// Absolute position of the first of them; row `i` of the span sees positions
    /// `0 ..= position + i`.
    pub position: usize,
    /// Pages of the sequence, page `p` holding positions `p * PAGE ..`.
    pub pages: &'a [PageId],
}

/// Numbers of a head that share a scale where keys and values are 8-bit integers.
pub const KV_BLOCK: usize = 32;

/// Dimensions of a KV arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Layers of the language model.
    pub layers: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
}

impl KvShape {
    /// Bytes of the keys and values of one page; what a device adds to them is not counted.
    pub fn page_bytes(&self, dtype: KvDtype) -> usize {
        let head = match dtype {
            KvDtype::F32 => 4 * self.head_dim,
            KvDtype::F16 => 2 * self.head_dim,
            KvDtype::Q8 => self.head_dim + 2 * self.head_dim.div_ceil(KV_BLOCK),
        };
        2 * self.layers * self.kv_heads * PAGE * head
    }
}

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvDtype {
    /// f32: the exact path.
    F32,
    /// f16, rounded to nearest: the default.
    F16,
    /// Integers of 8 bits with an f16 scale for [`KV_BLOCK`] numbers: about half of f16.
    Q8,
}

impl KvDtype {
    /// Every type, the most exact first.
    pub const ALL: [KvDtype; 3] = [KvDtype::F32, KvDtype::F16, KvDtype::Q8];

    /// The name used in options and messages.
    pub const fn name(self) -> &'static str {
        match self {
            KvDtype::F32 => "f32",
            KvDtype::F16 => "f16",
            KvDtype::Q8 => "q8",
        }
    }
}

/// How activations meet the weights of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Weights are widened to f32, activations stay f32: the exact path, and the only choice for
    /// F32, F16 and BF16 weights.
    F32,
    /// Activations are quantized to 8 bits per block of the weight type, dot products are integer.
    Int8,
    /// The same, but blocks of 32 activations in which a few are far larger than the others are
    /// quantized twice: for inputs with loud channels.
    Int8Split,
}

/// A stored matrix: `rows` outputs of `cols` inputs each, row after row.
#[derive(Clone, Copy, Debug)]
pub struct MatrixView<'a> {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Type of `bytes`.
    pub dtype: DType,
    /// `rows * dtype.row_bytes(cols)` bytes, of any alignment.
    pub bytes: &'a [u8],
}

/// A rectangle of positions, row order: row `y * width + x` of a tensor is position `(x, y)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Positions across.
    pub width: usize,
    /// Positions down.
    pub height: usize,
}

impl Grid {
    /// A square grid.
    pub const fn square(side: usize) -> Self {
        Self { width: side, height: side }
    }

    /// Number of positions.
    pub const fn len(self) -> usize {
        self.width * self.height
    }

    /// Whether there is no position.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// Functions of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `t * sigmoid(1.702 t)` (CLIP).
    QuickGelu,
    /// `t / 2 * (1 + erf(t / sqrt(2)))`.
    Gelu,
    /// `max(t, 0)`.
    Relu,
    /// `t * clamp(t + 3, 0, 6) / 6` (MobileNet V3).
    HardSwish,
    /// `clamp(t + 3, 0, 6) / 6` (MobileNet V3).
    HardSigmoid,
}

/// Which entries of a head rotate together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// `(i, i + head_dim / 2)`: Hugging Face weights.
    Halves,
    /// `(2 i, 2 i + 1)`: GGUF weights, whose q and k rows are reordered.
    Neighbours,
}

/// One of several products of the same activations, see [`Device::matmul_each`].
#[derive(Debug)]
pub struct Product<'a, D: Device + ?Sized> {
    /// The weights `(outputs, inputs)`.
    pub w: &'a D::Matrix,
    /// What is added `(1, outputs)`.
    pub bias: Option<&'a D::Tensor>,
    /// The result `(rows, outputs)`.
    pub out: &'a mut D::Tensor,
}

/// What a device cannot do at run time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// A buffer does not fit.
    #[error("{what} needs {bytes} bytes, more than this device can give")]
    OutOfMemory {
        /// What was to be allocated.
        what: &'static str,
        /// Its size.
        bytes: usize,
    },
    /// A matrix whose bytes and shape disagree.
    #[error("a {dtype} matrix of {rows} x {cols} has {got} bytes, expected {want}")]
    MatrixBytes {
        /// Stored type.
        dtype: DType,
        /// Outputs.
        rows: usize,
        /// Inputs.
        cols: usize,
        /// Bytes given.
        got: usize,
        /// Bytes the shape asks for; 0 where the shape itself is impossible.
        want: usize,
    },
    /// Int8 arithmetic asked for float weights.
    #[error("{0} weights have no integer arithmetic: quantize them first")]
    NoIntegerArithmetic(DType),
    /// A packed matrix from elsewhere that is not in this device's layout.
    #[error("a packed {dtype} matrix of {rows} x {cols} in {bytes} bytes is not in this device's layout")]
    ForeignMatrix {
        /// What it is said to hold.
        dtype: DType,
        /// Outputs.
        rows: usize,
        /// Inputs.
        cols: usize,
        /// Its size.
        bytes: usize,
    },
}

/// Everything a model may ask of a machine.
pub trait Device: Send {
    /// Activations: an f32 matrix with a fixed width and a row capacity.
    type Tensor: Send;
    /// A weight matrix in the layout this device's kernels want.
    type Matrix: Send + Sync;
    /// Keys and values of all layers, in pages.
    type Kv: Send;

    /// Device and kernels in words, for logs and messages, such as `cpu-avx512vnni-2t`.
    fn name(&self) -> String;

    /// Says that the calling thread is the one that asks for everything from now on, so that a device
    /// may give it a place on the machine.
    fn enter(&self) {}

    /// Whether [`Device::matmul`] sums in the one order that fixes its bits. A device that does not
    /// has an order of its own, which is as fixed, and says so here.
    fn sums_in_one_order(&self) -> bool {
        true
    }

    // Memory.

    /// A zeroed tensor with room for `capacity` rows, all in use.
    fn tensor(&self, capacity: usize, cols: usize) -> Result<Self::Tensor, DeviceError>;

    /// `(rows, cols)` in use.
    fn shape(&self, tensor: &Self::Tensor) -> (usize, usize);

    /// Chooses how many rows are in use, at most the capacity, without touching contents.
    fn set_rows(&self, tensor: &mut Self::Tensor, rows: usize);

    /// Copies host `values`, whole rows, to rows `first_row ..` of `to`.
    fn write(&self, values: &[f32], to: &mut Self::Tensor, first_row: usize);

    /// Copies rows `first_row ..` of `from` to the host until `into` is full.
    fn read(&self, from: &Self::Tensor, first_row: usize, into: &mut [f32]);

    /// `to[first_row + i] = from[rows.start + i]`. Widths are equal.
    fn copy_rows(&self, from: &Self::Tensor, rows: Range<usize>, to: &mut Self::Tensor, first_row: usize);

    /// Packs a stored matrix for this device.
    fn matrix(&self, view: MatrixView<'_>, arithmetic: Arithmetic) -> Result<Self::Matrix, DeviceError>;

    /// Bytes a packed matrix holds.
    fn matrix_bytes(&self, matrix: &Self::Matrix) -> usize;

    /// The layout of packed matrices in words; `None` where they cannot be kept for another run.
    fn matrix_layout(&self) -> Option<String>;

    /// A packed matrix to be kept; `None` where there is no [`Device::matrix_layout`].
    fn share_matrix(&self, matrix: &Self::Matrix) -> Option<SharedMatrix>;

    /// The matrix that [`Device::share_matrix`] gave on a device with the same layout. Nothing is copied
    /// where the device can reach the bytes. Any bytes are safe, if senseless.
    fn adopt_matrix(&self, shared: SharedMatrix, arithmetic: Arithmetic)
    -> Result<Self::Matrix, DeviceError>;

    // Linear layers.

    /// `out[r, o] = sum over k of x[r, k] * w[o, k]  (+ bias[0, o])`;
    /// x `(rows, inputs)`, w `(outputs, inputs)`, bias `(1, outputs)`, out `(rows, outputs)`.
    ///
    /// Sets the rows of `out`. What follows fixes every bit of it for a device that
    /// [sums in one order](Device::sums_in_one_order), as all CPUs do. Others quantize activations to
    /// the same integers and sum those of 32 numbers exactly, but round more often and add in another
    /// order, the same for every row and any number of rows. Their results differ by at most
    /// `inputs * 2^-23 * max|x| * max|w|`, or a few of the smallest numbers there are.
    ///
    /// Each output has one f32 accumulator `acc`, 0 at first; `fma` rounds once, every other operation
    /// on its own; `out = acc`, or `acc + bias`.
    ///
    /// **[`Arithmetic::F32`]**: `acc = fma(x[k], w[k], acc)` for ascending `k`, `w` widened to f32 or
    /// dequantized as [`crate::quant`] does.
    ///
    /// **[`Arithmetic::Int8`], blocks of 32** (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0). A row of x is quantized
    /// in blocks of 32: `d = max|x| / 127`, `id = 1 / d`, `q = round(x * id)` with halves away from
    /// zero; `d_x` is `d` rounded to f16. Where `1 / d` is not finite all `q` and `d_x` are 0. Then for
    /// ascending blocks, integers exact, `d_w` and `m_w` the scale and the minimum of the weight block:
    ///
    /// * Q4_0, Q5_0, Q8_0: `acc = fma(f32(sum of w * q), d_w * d_x, acc)`, `w` the signed integer
    ///   (code - 8, code - 16, code);
    /// * Q4_1, Q5_1: `acc = fma(f32(sum of code * q), d_w * d_x, acc)`, then
    ///   `acc = fma(f32(sum of q), m_w * d_x, acc)`.
    ///
    /// **[`Arithmetic::Int8`], K types**. A row of x is quantized in blocks of 256: `max` is the entry
    /// of largest magnitude with its sign, the first of equals; `scale = -127 / max`;
    /// `q = round(x * scale)` with halves to even, at most 127; `d_x = 1 / scale`. Where `scale` is not
    /// finite all `q` and `d_x` are 0. Then for ascending blocks, with the integer scales and minimums
    /// of sub-blocks `j`, sums exact in i32 and rounded once to f32:
    ///
    /// * `acc = fma(f32(sum over j of scale_j * dot_j), d_w * d_x, acc)`, where `dot_j` sums `w * q`
    ///   over the sub-block; `w` is the code for Q2_K, Q4_K and Q5_K, code - 4 for Q3_K, code - 32
    ///   for Q6_K;
    /// * Q2_K, Q4_K and Q5_K then
    ///   `acc = fma(f32(sum over j of min_j * (sum of q in j)), -(dmin_w * d_x), acc)`.
    ///
    /// **[`Arithmetic::Int8Split`]** is the same for K types. With blocks of 32, a block of x is split if
    /// fewer than 16 of its `q` are 4 or more in magnitude, unless `d_x` is 0 or not finite. What is left
    /// over of it, `x - q * d_x`, is quantized in the same way, and the block's part of the sum is computed of these
    /// integers with an accumulator of its own that is 0 at first. The parts of all split blocks of a row
    /// are added up in ascending order, beginning with 0, and their sum is added to `acc` if there is one.
    ///
    /// In all, a block of x that holds a NaN or an infinity has `d_x = NaN` and all `q = 0`, so that
    /// every output of that row, and of no other, is NaN. The bits of a NaN are not fixed.
    fn matmul(&self, x: &Self::Tensor, w: &Self::Matrix, bias: Option<&Self::Tensor>, out: &mut Self::Tensor);

    /// [`Device::matmul`] with each of `products`, to the same bits. Devices may prepare `x` once and
    /// go through all matrices together.
    fn matmul_each(&self, x: &Self::Tensor, products: &mut [Product<'_, Self>]) {
        for Product { w, bias, out } in products {
            self.matmul(x, w, *bias, out);
        }
    }

    /// `out[first_row + i] = dequantized row ids[i] of table`; table `(vocabulary, hidden)`.
    fn embed(&self, table: &Self::Matrix, ids: &[u32], out: &mut Self::Tensor, first_row: usize);

    // Rows.

    /// `out = (x - mean) / sqrt(variance + eps) * weight + bias`, mean and biased variance of each
    /// row; x and out `(rows, cols)`, weight and bias `(1, cols)`. Sets the rows of `out`.
    fn layer_norm(
        &self,
        x: &Self::Tensor,
        weight: &Self::Tensor,
        bias: &Self::Tensor,
        eps: f32,
        out: &mut Self::Tensor,
    );

    /// `out = x / sqrt(mean(x * x) + eps) * weight` for each row. Sets the rows of `out`.
    fn rms_norm(&self, x: &Self::Tensor, weight: &Self::Tensor, eps: f32, out: &mut Self::Tensor);

    /// `x += y`, same shape.
    fn add(&self, x: &mut Self::Tensor, y: &Self::Tensor);

    /// `x = f(x)`.
    fn activate(&self, f: Activation, x: &mut Self::Tensor);

    /// `gate = gate * sigmoid(gate) * up`, same shape (SwiGLU).
    fn silu_mul(&self, gate: &mut Self::Tensor, up: &Self::Tensor);

    /// Rotates each head of row `r` by `positions[r]`, in place; x `(rows, heads * head_dim)`.
    ///
    /// Row `p` of `table` is `head_dim / 2` cosines, then as many sines. A pair `(a, b)` becomes
    /// `(a cos - b sin, a sin + b cos)`.
    fn rope(
        &self,
        x: &mut Self::Tensor,
        heads: usize,
        table: &Self::Tensor,
        positions: &[u32],
        pairing: Pairing,
    );

    // Attention.

    /// Attention of every row to every row:
    /// `out[r, h] = sum over j of softmax(q[r, h] . k[j, h] / sqrt(head_dim))[j] * v[j, h]`;
    /// all `(rows, heads * head_dim)`. Sets the rows of `out`.
    fn attention(
        &self,
        q: &Self::Tensor,
        k: &Self::Tensor,
        v: &Self::Tensor,
        heads: usize,
        out: &mut Self::Tensor,
    );

    /// An arena of `pages` pages of [`PAGE`] positions.
    fn kv(&self, shape: KvShape, pages: usize, dtype: KvDtype) -> Result<Self::Kv, DeviceError>;

    /// Bytes an arena holds.
    fn kv_bytes(&self, kv: &Self::Kv) -> usize;

    /// Stores row `r` of k and v, each `(rows, kv_heads * head_dim)`, at `slots[r]` of `layer`.
    ///
    /// [`KvDtype::Q8`] stores each head of a row in blocks of [`KV_BLOCK`] numbers, the last being
    /// what is left: `d` is `max|x| / 127` rounded to f16, and `q` is `x / d`, at least -127 and at
    /// most 127, rounded with halves to even. A number is then `q * d`. Where `d` is 0 all `q` are 0.
    /// A block with a NaN or an infinity, or whose `d` no f16 can hold, is all NaN.
    fn kv_append(&self, kv: &mut Self::Kv, layer: usize, k: &Self::Tensor, v: &Self::Tensor, slots: &[Slot]);

    /// Lets pages go, in ascending order, whose contents nobody needs: their memory may return to the system until
    /// they are written again. Until then their contents are undefined.
    fn kv_forget(&self, kv: &mut Self::Kv, pages: &[PageId]) {
        let _ = (kv, pages);
    }

    /// Copies a page with all its layers.
    fn kv_copy_page(&self, kv: &mut Self::Kv, from: PageId, to: PageId);

    /// Bytes of a page as [`Device::kv_read_page`] gives them.
    fn kv_page_bytes(&self, kv: &Self::Kv) -> usize;

    /// Copies a page with all its layers to the host, in an order of this device and build.
    fn kv_read_page(&self, kv: &Self::Kv, page: PageId, into: &mut [u8]);

    /// Makes a page what [`Device::kv_read_page`] gave for an arena of the same shape and type. Any
    /// bytes are safe, if senseless.
    fn kv_write_page(&self, kv: &mut Self::Kv, page: PageId, from: &[u8]);

    /// Causal attention over cached keys and values, like [`Device::attention`] with row `i` of
    /// span `s` seeing positions `0 ..= s.position + i` of its own pages; q and out
    /// `(rows, heads * head_dim)`, query head `h` reading kv head `h / (heads / kv_heads)`.
    /// The spans cover all rows once. Sets the rows of `out`.
    ///
    /// Pages that neighbouring spans begin with in common are best read once for all of them.
    fn attend(
        &self,
        q: &Self::Tensor,
        kv: &Self::Kv,
        layer: usize,
        spans: &[Span<'_>],
        heads: usize,
        out: &mut Self::Tensor,
    );

    // Images.

    /// Cuts planes into squares: `out[y * n + x, c * p * p + dy * p + dx] =
    /// image[c * side + y * p + dy, x * p + dx]`; image `(3 * side, side)`, `p = patch`,
    /// `n = side / p`, out `(n * n, 3 * p * p)`. Sets the rows of `out`.
    fn patches(&self, image: &Self::Tensor, patch: usize, out: &mut Self::Tensor);

    /// 3x3 depthwise cross-correlation with zero padding 1:
    /// `out[(y, x), c] = sum over dy, dx in 0..3 of
    /// weight[dy * 3 + dx, c] * x[(y * stride + dy - 1, x * stride + dx - 1), c]  (+ bias[0, c])`;
    /// x `(grid, channels)`, weight `(9, channels)`,
    /// out `(ceil(height / stride) * ceil(width / stride), channels)`. Sets the rows of `out`.
    fn depthwise3x3(
        &self,
        x: &Self::Tensor,
        grid: Grid,
        weight: &Self::Tensor,
        bias: Option<&Self::Tensor>,
        stride: usize,
        out: &mut Self::Tensor,
    );

    /// Means of 2x2 squares; x `(grid, channels)`, even sides, out `(grid / 4, channels)`.
    /// Sets the rows of `out`.
    fn average_pool2x2(&self, x: &Self::Tensor, grid: Grid, out: &mut Self::Tensor);

    /// `out[0, c]` = mean of column c; out `(1, channels)`.
    fn column_mean(&self, x: &Self::Tensor, out: &mut Self::Tensor);

    /// `x[r, c] *= scale[0, c]`.
    fn scale_columns(&self, x: &mut Self::Tensor, scale: &Self::Tensor);
}
