//! How fast the kernels are on a GPU, beside its own copy bandwidth: `cargo bench -p
//! mobilevlm-kernels --bench cuda -- [GPU]`. Times are medians by the GPU's clock.

use std::process::ExitCode;

use kernels::cuda::{Cuda, Gpu, Shelf};
use kernels::quant::quantize_row;
use kernels::{Arithmetic, DType, Device, KvDtype, KvShape, MatrixView, PAGE, PageId, Span};

/// Compiles anew each time.
struct Nowhere;

impl Shelf for Nowhere {
    fn get(&self, _: &str) -> Option<Vec<u8>> {
        None
    }

    fn put(&self, _: &str, _: &[u8]) {}
}

fn main() -> ExitCode {
    let ordinal = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(0);
    match Cuda::open(ordinal, &Nowhere) {
        Ok(device) => {
            measure(&device);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("no GPU to measure: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The median time of one of `work`, in seconds.
fn median(device: &Cuda<Gpu>, mut work: impl FnMut()) -> f64 {
    const ROUNDS: usize = 15;
    const TIMES: usize = 20;
    let mut round = || {
        device.flush();
        let time = device.driver().time(|| {
            (0..TIMES).for_each(|_| work());
            device.flush();
        });
        time.unwrap_or_else(|lost| panic!("{lost}")) / TIMES as f64
    };
    round();
    let mut times: Vec<f64> = (0..ROUNDS).map(|_| round()).collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}

fn measure(device: &Cuda<Gpu>) {
    println!("{}", device.name());
    let copied = copy_bandwidth(device);
    println!("copy bandwidth {:.1} GB/s, read and written", copied / 1e9);
    for dtype in [DType::Q4_0, DType::Q4K, DType::Q5K, DType::Q6K, DType::Q8_0] {
        for (outputs, inputs) in [(4096, 4096), (11_008, 4096), (4096, 11_008), (32_000, 4096)] {
            for rows in [1, 4, 8, 32] {
                let (time, bytes) = product(device, dtype, (outputs, inputs), rows);
                let speed = bytes as f64 / time;
                println!(
                    "{dtype} {outputs} x {inputs}, {rows} rows: {:8.1} us, {:6.1} GB/s, {:5.3} of the copy",
                    time * 1e6,
                    speed / 1e9,
                    speed / copied
                );
            }
        }
    }
    for (outputs, inputs) in [(1024, 1024), (4096, 1024), (1024, 4096)] {
        let (time, _) = product(device, DType::Q8_0, (outputs, inputs), 577);
        let work = 577.0 * outputs as f64 * inputs as f64;
        println!(
            "q8_0 {outputs} x {inputs}, 577 rows: {:8.1} us, {:6.2} TMAC/s",
            time * 1e6,
            work / time / 1e12
        );
    }
    println!("attention of 577 patches: {:8.1} us", attention(device) * 1e6);
    for positions in [200, 2000] {
        println!("attend to {positions} positions: {:8.1} us", attend(device, positions) * 1e6);
    }
}

/// Bytes read and written in a second.
fn copy_bandwidth(device: &Cuda<Gpu>) -> f64 {
    const ROWS: usize = 1 << 14;
    let [from, mut to] = [(); 2].map(|()| device.tensor(ROWS, 4096).expect("512 MiB of memory"));
    let time = median(device, || device.copy_rows(&from, 0..ROWS, &mut to, 0));
    2.0 * (ROWS * 4096 * 4) as f64 / time
}

/// Time of a product, and the bytes of its weights. So many matrices take turns that no cache holds them.
fn product(device: &Cuda<Gpu>, dtype: DType, (outputs, inputs): (usize, usize), rows: usize) -> (f64, usize) {
    const CACHES: usize = 256 << 20;
    let mut bytes = vec![0; outputs * inputs / dtype.block_len() * dtype.block_bytes()];
    if dtype.block_len() == 32 {
        let row: Vec<f32> = (0..inputs).map(|i| (i * 7919 % 1013) as f32 / 506.0 - 1.0).collect();
        let row_bytes = bytes.len() / outputs;
        bytes.chunks_mut(row_bytes).for_each(|out| quantize_row(dtype, &row, out).expect("whole blocks"));
    }
    let view = MatrixView { rows: outputs, cols: inputs, dtype, bytes: &bytes };
    let count = (CACHES / bytes.len()).max(1);
    let matrices: Vec<_> =
        (0..count).map(|_| device.matrix(view, Arithmetic::Int8).expect("memory for weights")).collect();
    let x = device.tensor(rows, inputs).expect("memory");
    let mut out = device.tensor(rows, outputs).expect("memory");
    let mut turn = matrices.iter().cycle();
    let time = median(device, || device.matmul(&x, turn.next().expect("endless"), None, &mut out));
    (time, device.matrix_bytes(&matrices[0]))
}

fn attention(device: &Cuda<Gpu>) -> f64 {
    let [q, k, v, mut out] = [(); 4].map(|()| device.tensor(577, 1024).expect("memory"));
    median(device, || device.attention(&q, &k, &v, 16, &mut out))
}

fn attend(device: &Cuda<Gpu>, positions: usize) -> f64 {
    let pages: Vec<PageId> = (0..positions.div_ceil(PAGE) as u32).map(PageId).collect();
    let shape = KvShape { layers: 24, kv_heads: 16, head_dim: 128 };
    let kv = device.kv(shape, pages.len(), KvDtype::F16).expect("memory");
    let [q, mut out] = [(); 2].map(|()| device.tensor(1, 2048).expect("memory"));
    let spans = [Span { rows: 0..1, position: positions - 1, pages: &pages }];
    let mut layer = (0..24).cycle();
    median(device, || device.attend(&q, &kv, layer.next().expect("endless"), &spans, 16, &mut out))
}
