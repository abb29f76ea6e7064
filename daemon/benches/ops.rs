//! Times operations at the dimensions of MobileVLM 1.7B on every instruction set this processor has,
//! matrix products beside candle's in the same run.
//!
//! `cargo bench -p mobilevlmd --bench ops -- [WORD]...` runs the cases whose line holds all
//! words. Each time is the least of several rounds, in which candle takes turns. One multiplication
//! with its addition counts as one MAC.

#[path = "../../kernels/tests/parity/cases.rs"]
mod cases;

use std::borrow::Cow;
use std::hint::black_box;
use std::time::{Duration, Instant};

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{Module, Tensor};
use kernels::quant::quantize_row;
use kernels::{Arithmetic, Cpu, CpuOptions, DType, Device, HostTensor, MatrixView};

use cases::Case;

/// Threads of both.
const THREADS: usize = 2;

/// Rounds of each case.
const ROUNDS: usize = 7;

/// Time one side of a round takes at least.
const ROUND: Duration = Duration::from_millis(20);

/// `x (rows, inputs) * w (outputs, inputs)`.
struct Product {
    dtype: DType,
    rows: usize,
    outputs: usize,
    inputs: usize,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |label: &str| words.iter().all(|word| label.contains(word.as_str()));
    let devices: Vec<Cpu> = Cpu::available()
        .into_iter()
        .map(|level| Cpu::new(CpuOptions { threads: THREADS, isa_cap: Some(level) }))
        .collect();
    println!(
        "{:<44} {:>10} {:>8} {:>8} {:>10} {:>6}",
        "product", "us", "GMAC/s", "GB/s", "candle us", "ratio"
    );
    for case in products() {
        for cpu in &devices {
            let label = format!("{} {}", case.label(), cpu.name());
            if wanted(&label) {
                report_product(&label, &case, cpu);
            }
        }
    }
    println!("{:<84} {:>10}", "operation", "us");
    for case in cases::real() {
        for cpu in &devices {
            let label = format!("{:?} {}x{} {}", case.op, case.rows, case.cols, cpu.name());
            if wanted(&label) {
                report_operation(&label, &case, cpu);
            }
        }
    }
}

fn products() -> Vec<Product> {
    let mut cases = Vec::new();
    for dtype in [DType::Q4_0, DType::Q8_0, DType::Q4K, DType::Q6K] {
        for rows in [1, 4, 8, 164] {
            for (outputs, inputs) in [(5632, 2048), (2048, 5632)] {
                cases.push(Product { dtype, rows, outputs, inputs });
            }
        }
    }
    for dtype in [DType::F32, DType::F16] {
        cases.push(Product { dtype, rows: 577, outputs: 4096, inputs: 1024 });
        cases.push(Product { dtype, rows: 1, outputs: 4096, inputs: 1024 });
    }
    cases
}

impl Product {
    fn label(&self) -> String {
        format!("{} [{}x{}] m={}", self.dtype, self.outputs, self.inputs, self.rows)
    }

    fn macs(&self) -> f64 {
        (self.rows * self.outputs * self.inputs) as f64
    }

    fn arithmetic(&self) -> Arithmetic {
        if self.dtype.is_float() { Arithmetic::F32 } else { Arithmetic::Int8 }
    }

    /// Stored weights that are all finite.
    fn weights(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.outputs * self.dtype.row_bytes(self.inputs).expect("whole blocks")];
        if self.dtype.block_len() == 256 {
            // There is no quantizer for K types, and time does not depend on the numbers.
            bytes.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 7 % 50) as u8);
            return bytes;
        }
        for (row, bytes) in bytes.chunks_exact_mut(self.dtype.row_bytes(self.inputs).unwrap_or(1)).enumerate()
        {
            let values: Vec<f32> = (0..self.inputs).map(|i| ((row + i) as f32 * 0.37).sin()).collect();
            quantize_row(self.dtype, &values, bytes).expect("a type with a quantizer");
        }
        bytes
    }
}

/// Times an operation and prints its line.
fn report_operation(label: &str, case: &Case, cpu: &Cpu) {
    let mut prepared = case.prepare(cpu, &case.input(), 0..case.rows);
    let best = (0..ROUNDS).map(|_| time(|| prepared.run())).fold(f64::MAX, f64::min);
    println!("{label:<84} {:>10.1}", best * 1e6);
}

/// Times a product and prints its line.
fn report_product(label: &str, case: &Product, cpu: &Cpu) {
    let bytes = case.weights();
    let view = MatrixView { rows: case.outputs, cols: case.inputs, dtype: case.dtype, bytes: &bytes };
    let matrix = cpu.matrix(view, case.arithmetic()).expect("a matrix that fits");
    let values: Vec<f32> = (0..case.rows * case.inputs).map(|i| (i as f32 * 0.11).cos()).collect();
    let x = HostTensor::from_rows(&values, case.inputs);
    let mut out = HostTensor::zeros(case.rows, case.outputs);
    let theirs = candle(case, &bytes, values).expect("candle takes the same matrix");

    let (mut ours_best, mut theirs_best) = (f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        ours_best = ours_best.min(time(|| cpu.matmul(&x, &matrix, None, black_box(&mut out))));
        theirs_best = theirs_best.min(time(|| {
            black_box(theirs());
        }));
    }
    println!(
        "{label:<44} {:>10.1} {:>8.1} {:>8.1} {:>10.1} {:>6.2}",
        ours_best * 1e6,
        case.macs() / ours_best / 1e9,
        cpu.matrix_bytes(&matrix) as f64 / ours_best / 1e9,
        theirs_best * 1e6,
        theirs_best / ours_best,
    );
}

/// candle's product of the same numbers.
fn candle(case: &Product, bytes: &[u8], x: Vec<f32>) -> candle_core::Result<impl Fn() -> Tensor> {
    let cpu = candle_core::Device::Cpu;
    let dtype = match case.dtype {
        DType::F32 => GgmlDType::F32,
        DType::F16 => GgmlDType::F16,
        DType::Q4_0 => GgmlDType::Q4_0,
        DType::Q8_0 => GgmlDType::Q8_0,
        DType::Q4K => GgmlDType::Q4K,
        _ => GgmlDType::Q6K,
    };
    let storage = QStorage::from_data(Cow::Borrowed(bytes), &cpu, dtype)?;
    let weights = QMatMul::from_qtensor(QTensor::new(storage, (case.outputs, case.inputs))?)?;
    let x = Tensor::from_vec(x, (case.rows, case.inputs), &cpu)?;
    Ok(move || weights.forward(&x).expect("shapes that fit"))
}

/// Seconds of one call, the mean over at least [`ROUND`].
fn time(mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut calls = 0_u32;
    while calls == 0 || start.elapsed() < ROUND {
        call();
        calls += 1;
    }
    start.elapsed().as_secs_f64() / f64::from(calls)
}
