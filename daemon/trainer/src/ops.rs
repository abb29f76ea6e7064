//! Operations of the networks with their derivatives, each in one pass over memory.
//!
//! candle's own composed operations would need five to ten passes, and with two cores memory is
//! what training waits for. Tests compare every derivative with differences.

mod activation;
mod attention;
mod exp;
mod lanes;
mod norm;
mod rope;

use std::ops::Deref;

use candle_core::{CpuStorage, Error, Layout, Result, Shape, Storage, Tensor};
use pulp::WithSimd;

pub use activation::{add_bias, quick_gelu, swiglu};
pub use attention::{HEAD_DIM, Span, attention};
pub use norm::{layer_norm, rms_norm};
pub use rope::{Rotation, rope};

/// Runs loops with the widest instructions of this CPU. A closure must be small: a large one is not
/// inlined into the function that may use them.
#[inline(always)]
fn vectorized<Work: WithSimd>(work: Work) -> Work::Output {
    pulp::Arch::new().dispatch(work)
}

/// The numbers of a stored argument.
fn stored<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let (start, end) =
        layout.contiguous_offsets().ok_or_else(|| Error::Msg("an argument is not contiguous".into()))?;
    Ok(&storage.as_slice::<f32>()?[start..end])
}

/// A look at the numbers of a tensor.
struct View<G> {
    guard: G,
    range: (usize, usize),
}

/// Looks at a tensor whose numbers stand one after another.
fn view(tensor: &Tensor) -> Result<View<impl Deref<Target = Storage> + '_>> {
    let (guard, layout) = tensor.storage_and_layout();
    let range =
        layout.contiguous_offsets().ok_or_else(|| Error::Msg("a gradient is not contiguous".into()))?;
    Ok(View { guard, range })
}

impl<G: Deref<Target = Storage>> View<G> {
    fn numbers(&self) -> Result<&[f32]> {
        match &*self.guard {
            Storage::Cpu(storage) => Ok(&storage.as_slice::<f32>()?[self.range.0..self.range.1]),
            _ => Err(Error::Msg("a tensor is not in main memory".into())),
        }
    }
}

/// A result with the shape of an argument.
fn shaped(numbers: Vec<f32>, layout: &Layout) -> (CpuStorage, Shape) {
    (CpuStorage::F32(numbers), layout.shape().clone())
}

/// A gradient with the shape of its argument.
fn gradient(numbers: Vec<f32>, argument: &Tensor) -> Result<Option<Tensor>> {
    Tensor::from_vec(numbers, argument.shape(), argument.device()).map(Some)
}

/// Extent of the last dimension.
fn width(layout: &Layout) -> Result<usize> {
    layout.dims().last().copied().ok_or_else(|| Error::Msg("a scalar has no rows".into()))
}

#[cfg(test)]
mod tests;
