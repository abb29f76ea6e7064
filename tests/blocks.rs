//! The block formats of the kernels against candle's.

use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use kernels::DType;
use kernels::quant::{dequantize_row, quantize_row};

use random::{Random, blocks};

/// Numbers and blocks as the kernels' own tests have them.
#[path = "../kernels/tests/parity/random.rs"]
#[allow(dead_code)]
mod random;

fn candle_type(dtype: DType) -> GgmlDType {
    match dtype {
        DType::F32 => GgmlDType::F32,
        DType::F16 => GgmlDType::F16,
        DType::BF16 => GgmlDType::BF16,
        DType::Q4_0 => GgmlDType::Q4_0,
        DType::Q4_1 => GgmlDType::Q4_1,
        DType::Q5_0 => GgmlDType::Q5_0,
        DType::Q5_1 => GgmlDType::Q5_1,
        DType::Q8_0 => GgmlDType::Q8_0,
        DType::Q2K => GgmlDType::Q2K,
        DType::Q3K => GgmlDType::Q3K,
        DType::Q4K => GgmlDType::Q4K,
        DType::Q5K => GgmlDType::Q5K,
        DType::Q6K => GgmlDType::Q6K,
    }
}

fn floats(tensor: &QTensor) -> Vec<f32> {
    tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn random_blocks_read_as_candle_reads_them() {
    let mut random = Random::new(1);
    for dtype in DType::ALL {
        let cols = 1024;
        let bytes = blocks(&mut random, dtype, 1, cols);
        let mut got = vec![0.0; cols];
        dequantize_row(dtype, &bytes, &mut got).unwrap();
        let theirs = qtensor_from_ggml(candle_type(dtype), &bytes, vec![cols], &Device::Cpu).unwrap();
        let want = floats(&theirs);
        for i in 0..cols {
            assert_eq!(
                got[i].to_bits(),
                want[i].to_bits(),
                "{dtype}: number {i}: {} and {}",
                got[i],
                want[i]
            );
        }
    }
}

#[test]
fn rows_are_quantized_as_candle_does() {
    let mut random = Random::new(2);
    let formats = [DType::F16, DType::BF16, DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1, DType::Q8_0];
    for dtype in formats {
        let values = random.vec(1024);
        let mut bytes = vec![0; dtype.row_bytes(values.len()).unwrap()];
        quantize_row(dtype, &values, &mut bytes).unwrap();
        let tensor = Tensor::new(values.as_slice(), &Device::Cpu).unwrap();
        let theirs = QTensor::quantize(&tensor, candle_type(dtype)).unwrap();
        assert_eq!(bytes, theirs.data().unwrap().as_ref(), "{dtype}");
    }
}
