//! Attention over groups of rows.
//!
//! Rows of a whole batch stand in one matrix. A [`Span`] says which rows attend to which, so that
//! one picture serves many questions: each question is a span that shares the picture's rows. The
//! derivative computes the probabilities again instead of keeping them.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use pulp::{Simd, WithSimd};

use super::exp::exp;
use super::lanes::{largest, sum};
use super::{gradient, shaped, stored, vectorized, view, width};

/// Numbers per head, in both networks.
pub const HEAD_DIM: usize = 32;

type Head = [f32; HEAD_DIM];

/// Rows that attend to the same things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Rows that all of them see.
    pub shared: Range<usize>,
    /// The rows themselves.
    pub own: Range<usize>,
    /// Whether a row sees only itself and those before it among `own`.
    pub causal: bool,
}

/// `softmax(q k^T / sqrt(HEAD_DIM)) v` for every head; all `(rows, heads * HEAD_DIM)`.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, spans: &Arc<Vec<Span>>) -> Result<Tensor> {
    q.apply_op3(k, v, Attention(spans.clone()))
}

struct Attention(Arc<Vec<Span>>);

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let inputs = [stored(s1, l1)?, stored(s2, l2)?, stored(s3, l3)?];
        let heads = width(l1)? / HEAD_DIM;
        let mut out = vec![0.0; inputs[0].len()];
        vectorized(Forward { spans: &self.0, heads, inputs, out: &mut out });
        Ok(shaped(out, l1))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let seen = (view(q)?, view(k)?, view(v)?, view(grad)?);
        let inputs = [seen.0.numbers()?, seen.1.numbers()?, seen.2.numbers()?];
        let heads = q.dim(1)? / HEAD_DIM;
        let mut grads = [0; 3].map(|_| vec![0.0; inputs[0].len()]);
        let d_out = seen.3.numbers()?;
        vectorized(Backward { spans: &self.0, heads, inputs, d_out, grads: &mut grads });
        let [dq, dk, dv] = grads;
        Ok((gradient(dq, q)?, gradient(dk, k)?, gradient(dv, v)?))
    }
}

/// The loops of the function.
struct Forward<'a> {
    spans: &'a [Span],
    heads: usize,
    inputs: [&'a [f32]; 3],
    out: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { spans, heads, inputs: [q, k, v], out } = self;
        let mut scratch = Scratch::default();
        for span in spans {
            for head in 0..heads {
                scratch.gather(span, [k, v], heads, head);
                for (i, row) in span.own.clone().enumerate() {
                    let at = (row * heads + head) * HEAD_DIM;
                    scratch.probabilities(&q[at..at + HEAD_DIM], span.visible(i));
                    let p = &scratch.p[..span.visible(i)];
                    weighted(simd, p, &scratch.v, &mut out[at..at + HEAD_DIM]);
                }
            }
        }
    }
}

/// The derivatives of queries, keys and values.
struct Backward<'a> {
    spans: &'a [Span],
    heads: usize,
    inputs: [&'a [f32]; 3],
    d_out: &'a [f32],
    grads: &'a mut [Vec<f32>; 3],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { spans, heads, inputs: [q, k, v], d_out, grads: [dq, dk, dv] } = self;
        let mut scratch = Scratch::default();
        for span in spans {
            for head in 0..heads {
                scratch.gather(span, [k, v], heads, head);
                for (i, row) in span.own.clone().enumerate() {
                    let at = (row * heads + head) * HEAD_DIM;
                    let here = at..at + HEAD_DIM;
                    scratch.probabilities(&q[here.clone()], span.visible(i));
                    scratch.back(simd, &q[here.clone()], &d_out[here.clone()], span.visible(i));
                    weighted(simd, &scratch.ds, &scratch.k, &mut dq[here]);
                }
                scratch.scatter(span, [dk, dv], heads, head);
            }
        }
    }
}

impl Span {
    /// Keys that row `i` of `own` sees, counted from the first shared one.
    #[inline(always)]
    fn visible(&self, i: usize) -> usize {
        self.shared.len() + if self.causal { i + 1 } else { self.own.len() }
    }

    fn rows(&self) -> impl Iterator<Item = usize> {
        self.shared.clone().chain(self.own.clone())
    }
}

/// Keys and values of one head of one span, close together, and what is computed from them.
#[derive(Default)]
struct Scratch {
    k: Vec<Head>,
    v: Vec<Head>,
    dk: Vec<Head>,
    dv: Vec<Head>,
    /// Keys with room for whole vectors.
    stride: usize,
    /// Keys with the head's numbers outermost: `(HEAD_DIM, stride)`, zeros behind the last key.
    k_columns: Vec<f32>,
    /// Values likewise.
    v_columns: Vec<f32>,
    /// Probabilities of the row at hand.
    p: Vec<f32>,
    /// Derivatives of its scores.
    ds: Vec<f32>,
}

impl Scratch {
    #[inline(always)]
    fn gather(&mut self, span: &Span, [k, v]: [&[f32]; 2], heads: usize, head: usize) {
        self.stride = padded(span.shared.len() + span.own.len());
        let keys = self.stride;
        let pairs = [
            (k, &mut self.k, &mut self.k_columns, &mut self.dk),
            (v, &mut self.v, &mut self.v_columns, &mut self.dv),
        ];
        for (from, rows, columns, grads) in pairs {
            rows.clear();
            rows.extend(span.rows().map(|row| {
                let at = (row * heads + head) * HEAD_DIM;
                std::array::from_fn::<f32, HEAD_DIM, _>(|i| from[at + i])
            }));
            columns.clear();
            columns.resize(HEAD_DIM * keys, 0.0);
            for (i, row) in rows.iter().enumerate() {
                for (d, &number) in row.iter().enumerate() {
                    columns[d * keys + i] = number;
                }
            }
            grads.clear();
            grads.resize(rows.len(), [0.0; HEAD_DIM]);
        }
    }

    #[inline(always)]
    fn scatter(&self, span: &Span, [dk, dv]: [&mut [f32]; 2], heads: usize, head: usize) {
        for (i, row) in span.rows().enumerate() {
            let at = (row * heads + head) * HEAD_DIM;
            for d in 0..HEAD_DIM {
                dk[at + d] += self.dk[i][d];
                dv[at + d] += self.dv[i][d];
            }
        }
    }

    /// Probabilities of the first `visible` keys for query `q`.
    #[inline(always)]
    fn probabilities(&mut self, q: &[f32], visible: usize) {
        products(q, &self.k_columns, self.stride, padded(visible), &mut self.p);
        let scale = 1.0 / (HEAD_DIM as f32).sqrt();
        self.p[visible..].fill(f32::NEG_INFINITY);
        let most = largest(&self.p);
        self.p.iter_mut().for_each(|p| *p = exp(scale * (*p - most)));
        self.p[visible..].fill(0.0);
        let share = 1.0 / sum(&self.p, &self.p, |p, _| p);
        self.p.iter_mut().for_each(|p| *p *= share);
    }

    /// Derivatives of a row's scores, and its share of those of keys and values.
    #[inline(always)]
    fn back<S: Simd>(&mut self, simd: S, q: &[f32], d_out: &[f32], visible: usize) {
        products(d_out, &self.v_columns, self.stride, padded(visible), &mut self.ds);
        let along = sum(&self.ds, &self.p, |d, p| d * p);
        let scale = 1.0 / (HEAD_DIM as f32).sqrt();
        for (d, p) in self.ds.iter_mut().zip(&self.p) {
            *d = scale * p * (*d - along);
        }
        // A padded key has no probability, so it has no derivative either.
        self.ds.truncate(visible);
        self.p.truncate(visible);
        add_outer(simd, &self.ds, q, &mut self.dk);
        add_outer(simd, &self.p, d_out, &mut self.dv);
    }
}

/// Room for `keys` in whole vectors, so that no loop has a slow end.
fn padded(keys: usize) -> usize {
    keys.next_multiple_of(16)
}

/// Products of `a` with the first `count` columns of `(HEAD_DIM, stride)`.
#[inline(always)]
fn products(a: &[f32], columns: &[f32], stride: usize, count: usize, out: &mut Vec<f32>) {
    out.clear();
    out.resize(count, 0.0);
    for (group, columns) in a.as_chunks::<4>().0.iter().zip(columns.chunks_exact(4 * stride)) {
        let [c0, c1, c2, c3] = [0, 1, 2, 3].map(|i| &columns[i * stride..i * stride + count]);
        for (j, out) in out.iter_mut().enumerate() {
            let low = group[0].mul_add(c0[j], *out);
            let high = group[2].mul_add(c2[j], group[3] * c3[j]);
            *out = group[1].mul_add(c1[j], low) + high;
        }
    }
}

/// The sum of `rows`, each times its weight.
#[inline(always)]
fn weighted<S: Simd>(simd: S, weights: &[f32], rows: &[Head], out: &mut [f32]) {
    let (groups, rest) = weights.as_chunks::<4>();
    for (piece, out) in S::as_mut_simd_f32s(out).0.iter_mut().enumerate() {
        let part = |row: &Head| S::as_simd_f32s(row).0[piece];
        // Four sums, since one product has to wait for the one before it.
        let mut sums = [simd.splat_f32s(0.0); 4];
        for (weights, rows) in groups.iter().zip(rows.as_chunks::<4>().0) {
            for i in 0..4 {
                sums[i] = simd.mul_add_f32s(simd.splat_f32s(weights[i]), part(&rows[i]), sums[i]);
            }
        }
        for (&weight, row) in rest.iter().zip(&rows[4 * groups.len()..]) {
            sums[0] = simd.mul_add_f32s(simd.splat_f32s(weight), part(row), sums[0]);
        }
        *out = simd.add_f32s(simd.add_f32s(sums[0], sums[1]), simd.add_f32s(sums[2], sums[3]));
    }
}

/// Adds `row`, times each weight, to the row of that weight.
#[inline(always)]
fn add_outer<S: Simd>(simd: S, weights: &[f32], row: &[f32], sums: &mut [Head]) {
    let row = S::as_simd_f32s(row).0;
    for (&weight, sum) in weights.iter().zip(sums) {
        let weight = simd.splat_f32s(weight);
        for (sum, &part) in S::as_mut_simd_f32s(sum).0.iter_mut().zip(row) {
            *sum = simd.mul_add_f32s(weight, part, *sum);
        }
    }
}
