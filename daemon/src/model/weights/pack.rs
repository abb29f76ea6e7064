//! One stored tensor at a time onto a device: widened, transposed, quantized on the way if asked.

use std::borrow::Cow;

use candle_core::quantized::{GgmlDType, QTensor};
use kernels::quant::{QuantError, dequantize_row, quantize_row};
use kernels::{Arithmetic, DType, Device, DeviceError, MatrixView};

use super::kept::Kept;
use super::names::Shapes;
use crate::model::files::error::shown;
use crate::model::files::{ModelError, Part, RawTensor, TensorStore};

/// Numbers that one thread converts at a time: f32 scratch stays in its cache.
const CHUNK: usize = 1 << 16;

/// Puts tensors of a store on a device.
pub(super) struct Packer<'a, D: Device> {
    device: &'a D,
    store: &'a dyn TensorStore,
    shapes: &'a Shapes,
    exact: bool,
    /// How quantized matrices are multiplied unless everything is exact.
    integers: Arithmetic,
    /// Matrices of earlier starts and for later ones, and the name of the part among them.
    kept: (&'a Kept, &'static str),
}

impl<'a, D: Device> Packer<'a, D> {
    /// The tensors of `part`; `exact` keeps every number as it is stored, `integers` is how quantized
    /// matrices are multiplied otherwise.
    pub(super) fn new<N>(
        device: &'a D,
        part: &'a Part<N>,
        exact: bool,
        integers: Arithmetic,
        kept: (&'a Kept, &'static str),
    ) -> Self {
        Self { device, store: &*part.store, shapes: &part.shapes, exact, integers, kept }
    }

    /// A matrix: the first extent are its outputs, the others together its inputs. Floats are
    /// converted to `dtype` if their rows fill its blocks.
    pub(super) fn matrix(&self, name: &str, dtype: Option<DType>) -> Result<D::Matrix, ModelError> {
        let shape = self.shape(name)?;
        let rows = shape[0];
        let cols = shape[1..].iter().product();
        let (kept, part) = self.kept;
        let key = format!("{part}/{name}");
        if let Some(shared) = kept.find(&key, (rows, cols))
            && let arithmetic = self.arithmetic(shared.dtype)
            && let Ok(matrix) = self.device.adopt_matrix(shared, arithmetic)
        {
            kept.hold(key, self.device.share_matrix(&matrix));
            return Ok(matrix);
        }
        let raw = self.store.tensor(name)?;
        let wanted =
            dtype.filter(|_| raw.dtype.is_float() && !self.exact).and_then(|dtype| fitting(dtype, cols));
        let (dtype, bytes) = match wanted {
            Some(dtype) if dtype != raw.dtype => {
                let bytes = convert(&raw, cols, dtype).map_err(|problem| self.failed(name, problem))?;
                (dtype, Cow::Owned(bytes))
            }
            _ => (raw.dtype, raw.bytes),
        };
        let arithmetic = self.arithmetic(dtype);
        let view = MatrixView { rows, cols, dtype, bytes: &bytes };
        let matrix = self.device.matrix(view, arithmetic).map_err(|source| self.refused(name, source))?;
        self.store.release(name);
        kept.add(key, self.device.share_matrix(&matrix));
        Ok(matrix)
    }

    /// How a matrix of type `dtype` is multiplied.
    fn arithmetic(&self, dtype: DType) -> Arithmetic {
        if self.exact || dtype.is_float() { Arithmetic::F32 } else { self.integers }
    }

    /// A row of f32 numbers.
    pub(super) fn vector(&self, name: &str) -> Result<D::Tensor, ModelError> {
        let values = self.values(name)?;
        self.upload(name, &values, values.len())
    }

    /// Rows of f32 numbers.
    pub(super) fn table(&self, name: &str) -> Result<D::Tensor, ModelError> {
        let cols = self.shape(name)?.last().copied().unwrap_or(1);
        self.upload(name, &self.values(name)?, cols)
    }

    /// A depthwise 3x3 kernel: `(channels, 1, 3, 3)` becomes `(9, channels)`.
    pub(super) fn depthwise(&self, name: &str) -> Result<D::Tensor, ModelError> {
        let values = self.values(name)?;
        let channels = values.len() / 9;
        let turned: Vec<f32> =
            (0..values.len()).map(|at| values[at % channels * 9 + at / channels]).collect();
        self.upload(name, &turned, channels)
    }

    fn shape(&self, name: &str) -> Result<&'a [usize], ModelError> {
        let shape = self.shapes.get(name).ok_or_else(|| ModelError::missing(self.store.place(), name))?;
        Ok(shape)
    }

    fn values(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let raw = self.store.tensor(name)?;
        let mut values = vec![0.0; self.shape(name)?.iter().product()];
        dequantize_row(raw.dtype, &raw.bytes, &mut values)
            .map_err(|problem| self.failed(name, problem.to_string()))?;
        self.store.release(name);
        Ok(values)
    }

    fn upload(&self, name: &str, values: &[f32], cols: usize) -> Result<D::Tensor, ModelError> {
        let tensor = self.device.tensor(values.len() / cols, cols);
        let mut tensor = tensor.map_err(|source| self.refused(name, source))?;
        self.device.write(values, &mut tensor, 0);
        Ok(tensor)
    }

    fn refused(&self, name: &str, source: DeviceError) -> ModelError {
        ModelError::Device { place: self.store.place(), tensor: shown(name), source }
    }

    fn failed(&self, name: &str, problem: String) -> ModelError {
        ModelError::damaged(self.store.place(), format!("tensor {}: {problem}", shown(name)))
    }
}

/// The type a matrix with rows of `cols` gets where `dtype` is asked for: `dtype` itself, else the
/// smallest type of 32 numbers that loses no more, else none.
fn fitting(dtype: DType, cols: usize) -> Option<DType> {
    let smaller_blocks = match dtype {
        DType::Q2K | DType::Q3K => DType::Q4_0,
        DType::Q4K => DType::Q5_0,
        DType::Q5K => DType::Q5_1,
        DType::Q6K => DType::Q8_0,
        other => other,
    };
    [dtype, smaller_blocks].into_iter().find(|dtype| dtype.row_bytes(cols).is_some())
}

/// The numbers of `raw`, in rows of `cols`, as `dtype`.
fn convert(raw: &RawTensor<'_>, cols: usize, dtype: DType) -> Result<Vec<u8>, String> {
    let lengths = dtype.row_bytes(cols).zip(raw.dtype.row_bytes(cols)).filter(|_| cols > 0);
    let (to, from) = lengths.ok_or_else(|| format!("rows of {cols} numbers cannot become {dtype}"))?;
    let rows = raw.bytes.len() / from;
    let mut out = vec![0; rows * to];
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = rows.div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let parts = raw.bytes.chunks(share * from).zip(out.chunks_mut(share * to));
        let workers: Vec<_> = parts
            .map(|(from_rows, to_rows)| {
                scope.spawn(move || convert_rows((raw.dtype, from_rows), cols, (dtype, to_rows)))
            })
            .collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    Ok(out)
}

fn convert_rows(from: (DType, &[u8]), cols: usize, to: (DType, &mut [u8])) -> Result<(), String> {
    let rows = (CHUNK / cols).max(1);
    let (Some(from_len), Some(to_len)) = (from.0.row_bytes(rows * cols), to.0.row_bytes(rows * cols)) else {
        return Err(format!("rows of {cols} numbers cannot become {}", to.0));
    };
    let mut values = vec![0.0; rows * cols];
    for (stored, out) in from.1.chunks(from_len).zip(to.1.chunks_mut(to_len)) {
        let values = &mut values[..stored.len() / (from_len / rows) * cols];
        dequantize_row(from.0, stored, values).map_err(|problem| problem.to_string())?;
        match quantize_row(to.0, values, out) {
            Err(QuantError::NoQuantizer(_)) => quantize_k(to.0, values, out)?,
            done => done.map_err(|problem| problem.to_string())?,
        }
    }
    Ok(())
}

/// Quantizes to a K type with candle's search for scales.
fn quantize_k(dtype: DType, values: &[f32], out: &mut [u8]) -> Result<(), String> {
    let theirs = match dtype {
        DType::Q2K => GgmlDType::Q2K,
        DType::Q3K => GgmlDType::Q3K,
        DType::Q4K => GgmlDType::Q4K,
        DType::Q5K => GgmlDType::Q5K,
        DType::Q6K => GgmlDType::Q6K,
        other => return Err(format!("cannot quantize to {other}")),
    };
    let quantize = || -> candle_core::Result<Vec<u8>> {
        let tensor = candle_core::Tensor::from_slice(values, values.len(), &candle_core::Device::Cpu)?;
        Ok(QTensor::quantize(&tensor, theirs)?.data()?.into_owned())
    };
    let bytes = quantize().map_err(|error| error.to_string())?;
    if bytes.len() != out.len() {
        return Err(format!("{} bytes of {dtype} where {} were expected", bytes.len(), out.len()));
    }
    out.copy_from_slice(&bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(count: usize) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 0.37).sin() * (1.0 + (i % 7) as f32)).collect()
    }

    fn stored(dtype: DType, values: &[f32]) -> Vec<u8> {
        let mut bytes = vec![0; dtype.row_bytes(values.len()).unwrap()];
        quantize_row(dtype, values, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn every_type_can_be_made_and_stays_close() {
        let (rows, cols) = (37, 256);
        let values = wave(rows * cols);
        let bytes = stored(DType::F32, &values);
        let raw = RawTensor { dtype: DType::F32, shape: vec![rows, cols], bytes: bytes.into() };
        let power: f32 = values.iter().map(|value| value * value).sum();
        for (dtype, bound) in [
            (DType::F16, 1e-7),
            (DType::BF16, 1e-5),
            (DType::Q8_0, 1e-4),
            (DType::Q6K, 1e-3),
            (DType::Q5_1, 3e-3),
            (DType::Q5_0, 3e-3),
            (DType::Q5K, 3e-3),
            (DType::Q4_1, 1e-2),
            (DType::Q4_0, 1e-2),
            (DType::Q4K, 1e-2),
            (DType::Q3K, 5e-2),
            (DType::Q2K, 2e-1),
        ] {
            let made = convert(&raw, cols, dtype).unwrap();
            let mut back = vec![0.0; values.len()];
            dequantize_row(dtype, &made, &mut back).unwrap();
            let error: f32 = values.iter().zip(&back).map(|(a, b)| (a - b) * (a - b)).sum();
            assert!(error <= bound * power, "{dtype}: {}", error / power);
        }
    }

    #[test]
    fn threads_do_not_change_rows() {
        let cols = 32;
        let values = wave(10_000 * cols);
        let bytes = stored(DType::F32, &values);
        let raw = RawTensor { dtype: DType::F32, shape: vec![10_000, cols], bytes: bytes.into() };
        assert_eq!(convert(&raw, cols, DType::Q4_0).unwrap(), stored(DType::Q4_0, &values));
    }

    #[test]
    fn rows_that_fill_no_block_fall_back() {
        assert_eq!(fitting(DType::Q4K, 512), Some(DType::Q4K));
        assert_eq!(fitting(DType::Q4K, 96), Some(DType::Q5_0));
        assert_eq!(fitting(DType::Q8_0, 588), None);
        assert_eq!(fitting(DType::F16, 588), Some(DType::F16));
    }
}
