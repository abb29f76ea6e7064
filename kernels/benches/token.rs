//! Times decoded tokens at the dimensions of MobileVLM 1.7B: operation by operation, beside how fast
//! the memory can be read in the same moment.
//!
//! `cargo bench -p mobilevlm-kernels --bench token -- [type=q4_0] [threads=2] [depth=0] [sequences=1]
//! [rounds=24] [prefix=0]`. A round is one step; `sequences` share `prefix` positions of their keys
//! and values.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use kernels::cpu::PackedMatrix;
use kernels::cpu::probe::ReadBuffer;
use kernels::{
    Arithmetic, Cpu, CpuOptions, DType, Device, HostTensor, KvDtype, KvShape, MatrixView, PAGE, PageId,
    Pairing, Product, Slot, Span,
};

const HIDDEN: usize = 2048;
const LAYERS: usize = 24;
const HEADS: usize = 16;
const FFN: usize = 5632;
const VOCABULARY: usize = 32000;

/// Bytes of the read probe.
const PROBE: usize = 512 << 20;

/// Bytes of it that are read after each step: no cache keeps them until their next turn.
const SLICE: usize = 128 << 20;

/// What is asked for on the command line.
struct Wanted {
    dtype: DType,
    threads: usize,
    depth: usize,
    sequences: usize,
    prefix: usize,
    rounds: usize,
}

fn wanted() -> Wanted {
    let words: BTreeMap<String, String> = std::env::args()
        .skip(1)
        .filter_map(|word| word.split_once('=').map(|(key, value)| (key.into(), value.into())))
        .collect();
    let number = |key: &str, default: usize| words.get(key).map_or(default, |v| v.parse().expect("a number"));
    let dtype = words.get("type").map_or("q4_0", String::as_str);
    Wanted {
        dtype: DType::ALL.into_iter().find(|d| d.to_string() == dtype).expect("a type"),
        threads: number("threads", 2),
        depth: number("depth", 0),
        sequences: number("sequences", 1),
        prefix: number("prefix", 0),
        rounds: number("rounds", 24),
    }
}

/// Time of each operation of a step.
#[derive(Default)]
struct Clock {
    spent: Vec<(&'static str, Duration)>,
}

impl Clock {
    fn time(&mut self, name: &'static str, work: impl FnOnce()) {
        let start = Instant::now();
        work();
        let spent = start.elapsed();
        match self.spent.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += spent,
            None => self.spent.push((name, spent)),
        }
    }
}

/// Matrices of a layer: q, k, v, out, gate, up, down.
struct Layer([PackedMatrix; 7]);

struct Model {
    cpu: Cpu,
    layers: Vec<Layer>,
    head: PackedMatrix,
    kv: <Cpu as Device>::Kv,
    norm: HostTensor,
    rope: HostTensor,
}

fn matrix(cpu: &Cpu, dtype: DType, rows: usize, cols: usize) -> PackedMatrix {
    let len = rows * dtype.row_bytes(cols).expect("whole blocks");
    let bytes: Vec<u8> = (0..len).map(|i| (i * 7 % 48) as u8).collect();
    let arithmetic = if dtype.is_float() { Arithmetic::F32 } else { Arithmetic::Int8 };
    cpu.matrix(MatrixView { rows, cols, dtype, bytes: &bytes }, arithmetic).expect("a matrix that fits")
}

impl Model {
    fn new(wanted: &Wanted) -> Self {
        let cpu = Cpu::new(CpuOptions { threads: wanted.threads, isa_cap: None });
        let d = wanted.dtype;
        let layer = |_| {
            let shapes = [
                (HIDDEN, HIDDEN),
                (HIDDEN, HIDDEN),
                (HIDDEN, HIDDEN),
                (HIDDEN, HIDDEN),
                (FFN, HIDDEN),
                (FFN, HIDDEN),
                (HIDDEN, FFN),
            ];
            Layer(shapes.map(|(rows, cols)| matrix(&cpu, d, rows, cols)))
        };
        let layers = (0..LAYERS).map(layer).collect();
        let shape = KvShape { layers: LAYERS, kv_heads: HEADS, head_dim: HIDDEN / HEADS };
        let pages = (wanted.depth + 64).div_ceil(PAGE) * wanted.sequences + wanted.prefix.div_ceil(PAGE);
        let kv = cpu.kv(shape, pages, KvDtype::F16).expect("an arena");
        let head = matrix(&cpu, if d.block_len() == 256 { DType::Q6K } else { d }, VOCABULARY, HIDDEN);
        let norm = HostTensor::from_rows(&vec![1.0; HIDDEN], HIDDEN);
        let rope = HostTensor::from_rows(&vec![0.5; 512 * HIDDEN / HEADS], HIDDEN / HEADS);
        Self { layers, head, kv, norm, rope, cpu }
    }

    fn weight_bytes(&self) -> usize {
        let layers = self.layers.iter().flat_map(|layer| &layer.0);
        layers.chain([&self.head]).map(|matrix| self.cpu.matrix_bytes(matrix)).sum()
    }
}

/// Tensors between operations.
struct Scratch {
    x: HostTensor,
    normed: HostTensor,
    q: HostTensor,
    k: HostTensor,
    v: HostTensor,
    mixed: HostTensor,
    gate: HostTensor,
    up: HostTensor,
    logits: HostTensor,
}

fn step(model: &mut Model, s: &mut Scratch, wanted: &Wanted, clock: &mut Clock) {
    let own = (wanted.depth + 64).div_ceil(PAGE);
    let shared = wanted.prefix / PAGE;
    let position = wanted.depth;
    let tables: Vec<Vec<PageId>> = (0..wanted.sequences)
        .map(|sequence| {
            let first = wanted.prefix.div_ceil(PAGE) + sequence * own;
            (0..own).map(|p| PageId(if p < shared { p } else { first + p } as u32)).collect()
        })
        .collect();
    let positions = vec![position as u32; wanted.sequences];
    let slots: Vec<Slot> = tables
        .iter()
        .map(|pages| Slot { page: pages[position / PAGE], offset: (position % PAGE) as u32 })
        .collect();
    let spans: Vec<Span<'_>> =
        tables.iter().enumerate().map(|(row, pages)| Span { rows: row..row + 1, position, pages }).collect();
    let Model { cpu, layers, head, kv, norm, rope } = model;
    for (index, Layer([q, k, v, out, gate, up, down])) in layers.iter().enumerate() {
        clock.time("norm", || cpu.rms_norm(&s.x, norm, 1e-6, &mut s.normed));
        clock.time("q k v", || {
            let (one, two) =
                (Product { w: q, bias: None, out: &mut s.q }, Product { w: k, bias: None, out: &mut s.k });
            cpu.matmul_each(&s.normed, &mut [one, two, Product { w: v, bias: None, out: &mut s.v }]);
        });
        clock.time("rope", || {
            cpu.rope(&mut s.q, HEADS, rope, &positions, Pairing::Neighbours);
            cpu.rope(&mut s.k, HEADS, rope, &positions, Pairing::Neighbours);
        });
        clock.time("append", || cpu.kv_append(kv, index, &s.k, &s.v, &slots));
        clock.time("attend", || cpu.attend(&s.q, kv, index, &spans, HEADS, &mut s.mixed));
        clock.time("out", || cpu.matmul(&s.mixed, out, None, &mut s.normed));
        clock.time("add", || cpu.add(&mut s.x, &s.normed));
        clock.time("norm", || cpu.rms_norm(&s.x, norm, 1e-6, &mut s.normed));
        clock.time("gate up", || {
            let one = Product { w: gate, bias: None, out: &mut s.gate };
            cpu.matmul_each(&s.normed, &mut [one, Product { w: up, bias: None, out: &mut s.up }]);
        });
        clock.time("silu", || cpu.silu_mul(&mut s.gate, &s.up));
        clock.time("down", || cpu.matmul(&s.gate, down, None, &mut s.normed));
        clock.time("add", || cpu.add(&mut s.x, &s.normed));
    }
    clock.time("norm", || cpu.rms_norm(&s.x, norm, 1e-6, &mut s.normed));
    clock.time("head", || cpu.matmul(&s.normed, head, None, &mut s.logits));
}

/// Reads a slice of `buffer` on all threads, another one in each round; 10^9 bytes per second.
fn probe(cpu: &Cpu, buffer: &ReadBuffer, round: usize) -> f64 {
    let slices = PROBE / SLICE;
    let bytes = &buffer.bytes()[round % slices * SLICE..][..SLICE];
    let start = Instant::now();
    black_box(cpu.read(bytes));
    SLICE as f64 / start.elapsed().as_secs_f64() / 1e9
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let wanted = wanted();
    let mut model = Model::new(&wanted);
    let rows = wanted.sequences;
    let mut s = Scratch {
        x: HostTensor::zeros(rows, HIDDEN),
        normed: HostTensor::zeros(rows, HIDDEN),
        q: HostTensor::zeros(rows, HIDDEN),
        k: HostTensor::zeros(rows, HIDDEN),
        v: HostTensor::zeros(rows, HIDDEN),
        mixed: HostTensor::zeros(rows, HIDDEN),
        gate: HostTensor::zeros(rows, FFN),
        up: HostTensor::zeros(rows, FFN),
        logits: HostTensor::zeros(rows, VOCABULARY),
    };
    let values: Vec<f32> = (0..rows * HIDDEN).map(|i| (i as f32 * 0.11).cos()).collect();
    let buffer = ReadBuffer::new(PROBE).expect("a buffer");
    let (mut times, mut rates, mut clock) = (Vec::new(), Vec::new(), Clock::default());
    for round in 0..wanted.rounds + 1 {
        s.x.data_mut().copy_from_slice(&values);
        let mut fresh = Clock::default();
        let start = Instant::now();
        step(&mut model, &mut s, &wanted, if round == 0 { &mut fresh } else { &mut clock });
        let spent = start.elapsed().as_secs_f64();
        if round > 0 {
            times.push(spent);
        }
        rates.push(probe(&model.cpu, &buffer, round));
    }
    let (bytes, count) = (model.weight_bytes() as f64, times.len() as f64);
    let mut fractions: Vec<f64> = times
        .iter()
        .zip(rates.windows(2))
        .map(|(time, r)| bytes / time / (r[0] + r[1]) * 2.0 / 1e9)
        .collect();
    let (time, rate, fraction) = (median(&mut times), median(&mut rates), median(&mut fractions));
    println!(
        "{} {} depth {} x{}: {:.2} ms, {:.1} tok/s, {:.1} GB/s of {:.1} ({:.1} %), quickest {:.2} ms",
        wanted.dtype,
        model.cpu.name(),
        wanted.depth,
        rows,
        time * 1e3,
        rows as f64 / time,
        bytes / time / 1e9,
        rate,
        fraction * 100.0,
        times[0] * 1e3,
    );
    for (name, spent) in clock.spent {
        println!("  {name:<8} {:>8.3} ms", spent.as_secs_f64() * 1e3 / count);
    }
}
