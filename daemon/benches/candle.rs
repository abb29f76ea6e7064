//! candle's part in a comparison: all matrix products of a prefill, on the matrices of a GGUF file.
//!
//! `candle MODEL.gguf` loads them into `QMatMul`, then takes standard input line by line: each line
//! `prefill` multiplies as many rows as the daemon's bench prefills tokens by every matrix of every
//! layer, and one row by the last matrix. There are no norms, no rope and no attention. One line of JSON
//! answers each line, and one more comes first. `RAYON_NUM_THREADS` sets the threads. `tests/peer/run`
//! lets it take turns with `mobilevlmd bench turns`.

use std::fs::File;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::quantized::QMatMul;
use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Error, Module, Result, Tensor};
use mobilevlmd::bench::stage::Work;

/// The matrices of a layer.
const PARTS: [&str; 7] = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

fn main() -> Result<()> {
    let Some(path) = std::env::args().skip(1).find(|word| !word.starts_with("--")).map(PathBuf::from) else {
        // `cargo bench` starts every bench; this one has nothing to do by itself.
        eprintln!("candle: name a GGUF file; tests/peer/run uses this program");
        return Ok(());
    };
    let matrices = Matrices::load(&path)?;
    answer("{\"stages\": [\"prefill\"]}")?;
    for line in stdin().lock().lines() {
        match line?.trim() {
            "prefill" => {
                let start = Instant::now();
                matrices.prefill()?;
                let ms = start.elapsed().as_secs_f64() * 1e3;
                answer(&format!("{{\"stage\": \"prefill\", \"ms\": {ms}}}"))?;
            }
            other => return Err(Error::Msg(format!("no stage \"{other}\" here, only prefill"))),
        }
    }
    Ok(())
}

fn answer(line: &str) -> Result<()> {
    let mut output = stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}

/// Matrices with what they are multiplied by.
struct Matrices {
    layers: Vec<(QMatMul, Tensor)>,
    head: (QMatMul, Tensor),
}

impl Matrices {
    fn load(path: &Path) -> Result<Self> {
        let mut file = BufReader::new(File::open(path)?);
        let content = Content::read(&mut file)?;
        let mut matrix = |name: &str, rows: usize| {
            let weights = content.tensor(&mut file, name, &Device::Cpu)?;
            let (_, inputs) = weights.shape().dims2()?;
            let values: Vec<f32> = (0..rows * inputs).map(|i| (i as f32 * 0.11).cos()).collect();
            let x = Tensor::from_vec(values, (rows, inputs), &Device::Cpu)?;
            Ok::<_, Error>((QMatMul::from_qtensor(weights)?, x))
        };
        let layers = (0..).take_while(|layer| content.tensor_infos.contains_key(&name(*layer, PARTS[0])));
        let names = layers.flat_map(|layer| PARTS.map(|part| name(layer, part)));
        let layers = names.map(|name| matrix(&name, Work::PREFILL_TOKENS)).collect::<Result<Vec<_>>>()?;
        Ok(Self { layers, head: matrix("output.weight", 1)? })
    }

    fn prefill(&self) -> Result<()> {
        for (weights, x) in self.layers.iter().chain([&self.head]) {
            black_box(weights.forward(x)?);
        }
        Ok(())
    }
}

fn name(layer: usize, part: &str) -> String {
    format!("blk.{layer}.{part}.weight")
}
