//! Stored blocks and their values, by the format itself and by every device.

use std::collections::BTreeSet;
use std::path::Path;

use kernels::quant::dequantize_row;
use kernels::{Arithmetic, DType, Device, MatrixView};

use super::golden::Golden;
use super::row::{Bound, Row};
use super::target::{OnDevice, Target};
use super::{Sink, VerifyError, index};

const STAGE: &str = "quant";
/// In units of the last place: one f32 rounding.
const ROUNDING: Bound = Bound::AtMost(1.0);

/// A row for every format and device.
pub(super) fn check(dir: &Path, targets: &[Target], sink: &mut Sink<'_>) -> Result<(), VerifyError> {
    let declared = index::read(dir, "goldens/quant_blocks.json")?;
    let golden = Golden::read(dir.join("goldens/quant_blocks.safetensors"))
        .and_then(|golden| golden.check_declared(&declared).map(|()| golden));
    let golden = match golden {
        Ok(golden) => golden,
        Err(problem) => {
            sink.push(Row::failed(STAGE, "quant_blocks", problem));
            return Ok(());
        }
    };
    let known: BTreeSet<&str> =
        declared.keys().map(|name| name.rsplit_once('.').map_or(name.as_str(), |(name, _)| name)).collect();
    for name in known {
        match Blocks::read(&golden, name) {
            Ok(blocks) => {
                sink.push(Row::measured(STAGE, format!("{name} format"), blocks.by_format(), ROUNDING));
                for target in targets {
                    let error = target.with(&blocks);
                    sink.push(Row::measured(STAGE, format!("{name} {target}"), error, ROUNDING));
                }
            }
            Err(problem) => sink.push(Row::failed(STAGE, name, problem)),
        }
    }
    Ok(())
}

/// Rows of one block each and their values.
struct Blocks {
    dtype: DType,
    bytes: Vec<u8>,
    values: Vec<f32>,
}

impl Blocks {
    fn read(golden: &Golden, name: &str) -> Result<Self, String> {
        let dtype: DType = name.parse()?;
        let (block_shape, bytes) = golden.bytes(&format!("{name}.blocks"))?;
        let (value_shape, values) = golden.floats(&format!("{name}.values"))?;
        let rows = block_shape.first().copied().unwrap_or(0);
        let want = [rows, dtype.block_len()];
        if rows == 0 || block_shape != [rows, dtype.block_bytes()] || value_shape != want {
            return Err(format!(
                "blocks {block_shape:?} and values {value_shape:?} are not those of {dtype}"
            ));
        }
        Ok(Self { dtype, bytes, values })
    }

    fn rows(&self) -> usize {
        self.values.len() / self.dtype.block_len()
    }

    fn by_format(&self) -> f64 {
        let mut got = vec![f32::NAN; self.values.len()];
        match dequantize_row(self.dtype, &self.bytes, &mut got) {
            Ok(()) => roundings(&got, &self.values),
            Err(_) => f64::NAN,
        }
    }
}

impl OnDevice for &Blocks {
    type Output = f64;

    /// Looks the rows up as a device looks up token embeddings.
    fn run<D: Device>(self, device: D) -> f64 {
        let (rows, cols) = (self.rows(), self.dtype.block_len());
        let view = MatrixView { rows, cols, dtype: self.dtype, bytes: &self.bytes };
        let (Ok(matrix), Ok(mut out)) = (device.matrix(view, Arithmetic::F32), device.tensor(rows, cols))
        else {
            return f64::NAN;
        };
        let ids: Vec<u32> = (0..rows as u32).collect();
        device.embed(&matrix, &ids, &mut out, 0);
        let mut got = vec![f32::NAN; rows * cols];
        device.read(&out, 0, &mut got);
        roundings(&got, &self.values)
    }
}

/// The largest difference in units of the last place of the wanted number.
fn roundings(got: &[f32], want: &[f32]) -> f64 {
    let units = |(&got, &want): (&f32, &f32)| {
        let unit = f64::from(f32::from_bits(want.abs().to_bits() + 1)) - f64::from(want.abs());
        (f64::from(got) - f64::from(want)).abs() / unit
    };
    got.iter()
        .zip(want)
        .map(units)
        .fold(0.0, |most, units| if units > most || units.is_nan() { units } else { most })
}
