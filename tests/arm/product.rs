//! One product of a matrix of zeros, for tools that count its instructions.
//!
//! usage: `product DTYPE LEVEL ROWS INPUTS`; there are 16 outputs, which is one panel.

use std::error::Error;

use kernels::{Arithmetic, Cpu, CpuOptions, DType, Device, HostTensor, IsaLevel, MatrixView};

const OUTPUTS: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [dtype, level, rows, inputs] = words.as_slice() else {
        return Err("usage: product DTYPE LEVEL ROWS INPUTS".into());
    };
    let (dtype, level): (DType, IsaLevel) = (dtype.parse()?, level.parse()?);
    let (rows, inputs): (usize, usize) = (rows.parse()?, inputs.parse()?);
    let cpu = Cpu::new(CpuOptions { threads: 1, isa_cap: Some(level) });
    if cpu.isa() != level {
        return Err(format!("this processor has no {level}").into());
    }
    let bytes = vec![0; OUTPUTS * dtype.row_bytes(inputs).ok_or("not whole blocks")?];
    let matrix =
        cpu.matrix(MatrixView { rows: OUTPUTS, cols: inputs, dtype, bytes: &bytes }, Arithmetic::Int8)?;
    let mut out = HostTensor::zeros(rows, OUTPUTS);
    cpu.matmul(&HostTensor::zeros(rows, inputs), &matrix, None, &mut out);
    println!("{}", out.row(0)[0]);
    Ok(())
}
