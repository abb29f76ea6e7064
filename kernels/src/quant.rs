//! Block formats: layout, dequantization, quantization.
