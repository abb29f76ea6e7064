//! The kernels' source, their names, and the name under which a compiled form may be kept.

/// The files in the order in which they are compiled as one, [`MACHINE`] being the first.
pub const SOURCES: [&str; 8] = [
    include_str!("activation.cu"),
    include_str!("norm.cu"),
    include_str!("rope.cu"),
    include_str!("conv.cu"),
    include_str!("quantize.cu"),
    include_str!("matmul.cu"),
    include_str!("stored.cu"),
    include_str!("attention.cu"),
];

/// What stands in front of them for a real GPU.
pub const MACHINE: &str = include_str!("machine.cu");

/// Kernels that are not products of quantized weights.
const OTHERS: [&str; 21] = [
    "add",
    "activate",
    "silu_mul",
    "layer_norm",
    "rms_norm",
    "rope",
    "patches",
    "depthwise3x3",
    "average_pool2x2",
    "column_mean",
    "scale_columns",
    "quantize32",
    "quantize256",
    "embed",
    "exact_f32",
    "exact_stored",
    "attention",
    "attend_f32",
    "attend_f16",
    "attend_q8",
    "kv_append",
];

/// Options of the compiler. Rounding is as written: products and sums join where the source says
/// `fmaf`, and nowhere else, so that the emulator of the tests computes the same.
pub const OPTIONS: [&str; 3] = ["--std=c++17", "--fmad=false", "-default-device"];

/// Every kernel by its name.
pub fn kernels() -> impl Iterator<Item = &'static str> {
    OTHERS.into_iter().chain(super::matmul::KERNELS.into_iter().flatten())
}

/// The whole source as NVRTC takes it.
pub fn source() -> String {
    std::iter::once(MACHINE).chain(SOURCES).collect()
}

/// Names what this source becomes when it is compiled by this version for this architecture.
pub fn key(architecture: &str, compiler: (i32, i32)) -> String {
    // FNV-1a: the name has to differ between builds, not to withstand anybody.
    let text = [&source(), OPTIONS.join(" ").as_str()].concat();
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("kernels-{architecture}-nvrtc{}.{}-{hash:016x}.cubin", compiler.0, compiler.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_named_once_in_the_source() {
        let source = source();
        for name in kernels() {
            let (form, format) = ["one_row_", "four_rows_", "eight_rows_", "many_rows_", "embed_"]
                .into_iter()
                .find_map(|form| Some((form, name.strip_prefix(form)?)))
                .unwrap_or(("", name));
            let found = match (form, name) {
                ("", "attend_f32" | "attend_f16" | "attend_q8") => format!("\nATTEND({name}, "),
                ("", _) => format!(" {format}("),
                _ => format!("\nPRODUCTS({format}, "),
            };
            assert!(source.contains(&found), "{found} for {name}");
        }
        assert!(source.is_ascii());
    }

    #[test]
    fn a_key_tells_architectures_and_compilers_apart() {
        let keys = [key("sm_87", (12, 6)), key("sm_90", (12, 6)), key("sm_87", (12, 8))];
        assert!(keys[0].starts_with("kernels-sm_87-nvrtc12.6-") && keys[0].ends_with(".cubin"), "{keys:?}");
        assert!(keys[0] != keys[1] && keys[0] != keys[2]);
        assert_eq!(keys[0], key("sm_87", (12, 6)));
    }
}
