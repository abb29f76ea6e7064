//! Rotary position embedding of neighbouring pairs, as GGUF files order the rows of queries and keys.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::attention::HEAD_DIM;
use super::{gradient, shaped, stored, vectorized, view};

/// Cosines and sines of every row's position.
#[derive(Clone)]
pub struct Rotation(Arc<Vec<[f32; HEAD_DIM]>>);

impl Rotation {
    /// For rows at `positions`, with `base` as base of the frequencies.
    pub fn new(positions: &[usize], base: f32) -> Self {
        let angle = |position: usize, pair: usize| {
            position as f64 / f64::from(base).powf(2.0 * pair as f64 / HEAD_DIM as f64)
        };
        let row = |&position: &usize| {
            std::array::from_fn(|i| {
                let angle = angle(position, i / 2);
                (if i % 2 == 0 { angle.cos() } else { angle.sin() }) as f32
            })
        };
        Self(Arc::new(positions.iter().map(row).collect()))
    }

    /// Rotates all heads of all rows, forwards or (`direction` -1) back.
    fn turn(&self, numbers: &mut [f32], direction: f32) {
        let width = numbers.len() / self.0.len().max(1);
        vectorized(|| {
            for (row, table) in numbers.chunks_exact_mut(width).zip(self.0.iter()) {
                for head in row.as_chunks_mut::<HEAD_DIM>().0 {
                    for pair in 0..HEAD_DIM / 2 {
                        let (cos, sin) = (table[2 * pair], direction * table[2 * pair + 1]);
                        let (a, b) = (head[2 * pair], head[2 * pair + 1]);
                        head[2 * pair] = a * cos - b * sin;
                        head[2 * pair + 1] = a * sin + b * cos;
                    }
                }
            }
        });
    }
}

/// Rotates the rows of `x` `(rows, heads * HEAD_DIM)`.
pub fn rope(x: &Tensor, rotation: &Rotation) -> Result<Tensor> {
    x.apply_op1(Rope(rotation.clone()))
}

struct Rope(Rotation);

impl CustomOp1 for Rope {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut out = stored(storage, layout)?.to_vec();
        self.0.turn(&mut out, 1.0);
        Ok(shaped(out, layout))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let seen = view(grad)?;
        let mut dx = seen.numbers()?.to_vec();
        self.0.turn(&mut dx, -1.0);
        gradient(dx, x)
    }
}
