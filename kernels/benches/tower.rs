//! Times the operations of the vision tower at the dimensions of CLIP ViT-L/14-336, beside how many
//! products of integers this machine can do in the same moment.
//!
//! `cargo bench -p mobilevlm-kernels --bench tower -- [threads=2] [rounds=5] [loud=0] [arithmetic=split]`.
//! A round is one layer after the other; every `loud`th input of the linear layers is a hundred times as
//! large as the others, if there is any.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kernels::cpu::PackedMatrix;
use kernels::cpu::probe::int8_products;
use kernels::{Activation, Arithmetic, Cpu, CpuOptions, DType, Device, HostTensor, MatrixView, Product};

const ROWS: usize = 577;
const HIDDEN: usize = 1024;
const MLP: usize = 4096;
const HEADS: usize = 16;
/// Layers whose output is read.
const LAYERS: usize = 23;
/// Repeats of the probe: some milliseconds.
const REPEATS: u64 = 4_000_000;

/// Products of a layer: of its matrices, and of its attention.
const LINEAR: usize = ROWS * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * MLP);
const ATTENTION: usize = 2 * ROWS * ROWS * HIDDEN;

fn matrix(cpu: &Cpu, arithmetic: Arithmetic, rows: usize, cols: usize) -> PackedMatrix {
    let dtype = if arithmetic == Arithmetic::F32 { DType::F16 } else { DType::Q8_0 };
    let len = rows * dtype.row_bytes(cols).expect("whole blocks");
    let bytes: Vec<u8> = (0..len).map(|i| (i * 7 % 48) as u8).collect();
    cpu.matrix(MatrixView { rows, cols, dtype, bytes: &bytes }, arithmetic).expect("a matrix that fits")
}

/// `(ROWS, cols)` numbers about 1.
fn tensor(cols: usize, loud: usize) -> HostTensor {
    let mut state = 7_u32;
    let mut next = |i: usize| {
        // A sum of four is close enough to normal.
        let sum: i64 = (0..4)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                i64::from(state >> 8)
            })
            .sum();
        let value = (sum - (2 << 24)) as f32 / (1 << 24) as f32;
        if loud > 0 && (i % cols).is_multiple_of(loud) { 100.0 * value } else { value }
    };
    HostTensor::from_rows(&(0..ROWS * cols).map(&mut next).collect::<Vec<_>>(), cols)
}

/// Time of each operation of a round.
#[derive(Default)]
struct Clock(Vec<(&'static str, Vec<Duration>)>);

impl Clock {
    fn time(&mut self, name: &'static str, work: impl FnOnce()) {
        let start = Instant::now();
        work();
        let spent = start.elapsed();
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, all)) => all.push(spent),
            None => self.0.push((name, vec![spent])),
        }
    }
}

fn layer(cpu: &Cpu, weights: &[PackedMatrix; 6], x: &HostTensor, wide: &HostTensor, clock: &mut Clock) {
    let [q, k, v, out, fc1, fc2] = weights;
    let bias = |cols| HostTensor::zeros(1, cols);
    let (narrow_bias, wide_bias) = (bias(HIDDEN), bias(MLP));
    let zeros = || HostTensor::zeros(ROWS, HIDDEN);
    let (mut a, mut b, mut c, mut mixed) = (zeros(), zeros(), zeros(), zeros());
    let mut inner = HostTensor::zeros(ROWS, MLP);
    clock.time("norm", || cpu.layer_norm(x, &narrow_bias, &narrow_bias, 1e-5, &mut mixed));
    clock.time("q k v", || {
        let of = |w, out| Product { w, bias: Some(&narrow_bias), out };
        cpu.matmul_each(x, &mut [of(q, &mut a), of(k, &mut b), of(v, &mut c)]);
    });
    clock.time("attention", || cpu.attention(x, x, x, HEADS, &mut mixed));
    clock.time("out", || cpu.matmul(x, out, Some(&narrow_bias), &mut mixed));
    clock.time("add", || cpu.add(&mut mixed, x));
    clock.time("norm", || cpu.layer_norm(x, &narrow_bias, &narrow_bias, 1e-5, &mut mixed));
    clock.time("fc1", || cpu.matmul(x, fc1, Some(&wide_bias), &mut inner));
    clock.time("gelu", || cpu.activate(Activation::QuickGelu, &mut inner));
    clock.time("fc2", || cpu.matmul(wide, fc2, Some(&narrow_bias), &mut mixed));
    clock.time("add", || cpu.add(&mut mixed, x));
}

/// Products of integers of all threads at once, 10^9 per second.
fn probe(threads: usize) -> f64 {
    let start = Instant::now();
    let done: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| int8_products(REPEATS))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a probe does not panic")).sum()
    });
    done as f64 / start.elapsed().as_secs_f64() / 1e9
}

fn main() {
    let words: BTreeMap<String, String> = std::env::args()
        .skip(1)
        .filter_map(|word| word.split_once('=').map(|(key, value)| (key.into(), value.into())))
        .collect();
    let number = |key: &str, default: usize| words.get(key).map_or(default, |v| v.parse().expect("a number"));
    let arithmetic = match words.get("arithmetic").map_or("split", String::as_str) {
        "split" => Arithmetic::Int8Split,
        "int8" => Arithmetic::Int8,
        "f32" => Arithmetic::F32,
        other => panic!("arithmetic is split, int8 or f32, not {other}"),
    };
    let cpu = Cpu::new(CpuOptions { threads: number("threads", 2), isa_cap: None });
    let shapes = [(HIDDEN, HIDDEN); 4].into_iter().chain([(MLP, HIDDEN), (HIDDEN, MLP)]);
    let made: Vec<_> = shapes.map(|(rows, cols)| matrix(&cpu, arithmetic, rows, cols)).collect();
    let weights: [PackedMatrix; 6] = made.try_into().expect("six matrices");
    let (x, wide) = (tensor(HIDDEN, number("loud", 0)), tensor(MLP, number("loud", 0)));
    layer(&cpu, &weights, &x, &wide, &mut Clock::default());
    let (mut clock, mut rates) = (Clock::default(), Vec::new());
    for _ in 0..number("rounds", 5) {
        rates.push(probe(cpu.threads()));
        (0..LAYERS).for_each(|_| layer(&cpu, &weights, &x, &wide, &mut clock));
    }
    rates.sort_by(f64::total_cmp);
    let rate = rates[rates.len() / 2];
    let mut total = 0.0;
    let lines: Vec<String> = clock
        .0
        .iter_mut()
        .map(|(name, spent)| {
            spent.sort();
            let each = spent[spent.len() / 2].as_secs_f64() * (spent.len() / rates.len()) as f64;
            total += each;
            format!("  {name:<10} {:>8.1} ms", each * 1e3)
        })
        .collect();
    let products = (LAYERS * (LINEAR + ATTENTION)) as f64;
    println!(
        "{LAYERS} layers {arithmetic:?} {}: {:.1} ms, {:.0} GMAC/s of {rate:.0} int8 ({:.1} %)",
        cpu.name(),
        total * 1e3,
        products / total / 1e9,
        products / total / 1e7 / rate,
    );
    lines.iter().for_each(|line| println!("{line}"));
}
