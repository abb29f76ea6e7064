//! Whole models on the emulated GPU: pictures and words through every part that the daemon uses, beside
//! the CPU. The kernels themselves are tried in `kernels/tests/cuda`.

#[path = "../kernels/tests/cuda/emulated.rs"]
mod emulated;

use std::path::Path;

use kernels::{Cpu, Cuda, DType, Device, KvDtype};
use mobilevlmd::model::files::{LoadOptions, ModelFiles, ModelPaths};
use mobilevlmd::model::kv_cache::Sequence;
use mobilevlmd::model::{Input, KvOptions, MobileVlm};

fn gpu() -> Cuda<emulated::Emulated> {
    Cuda::new(emulated::gpu()).unwrap()
}

fn files(model: &str) -> ModelFiles {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/gguf").join(model);
    ModelFiles::open(&ModelPaths { model, ..ModelPaths::default() }).unwrap()
}

fn ids() -> Vec<u32> {
    (0..21).map(|i| 3 + i * 131 % 1900).collect()
}

/// Logits behind a picture and some words, which are read `step` at a time. Everything is exact if
/// keys and values are.
fn logits<D: Device>(files: &ModelFiles, device: D, dtype: KvDtype, step: usize) -> Vec<f32> {
    let exact = dtype == KvDtype::F32;
    let vision_dtype = if exact { DType::F32 } else { DType::Q8_0 };
    let options = LoadOptions { dtype: None, vision_dtype, exact };
    let kv = KvOptions { context: 512, pages: 20, dtype };
    let mut model = MobileVlm::load(files, device, &options, kv).unwrap();
    let side = files.vision.image;
    let pixels: Vec<f32> = (0..3 * side * side).map(|i| (i * 37 % 251) as f32 / 125.0 - 1.0).collect();
    model.encode(&pixels);
    let (mut pass, mut sequence) = (model.pass().unwrap(), Sequence::default());
    let visual = Input::Visual(0..model.visual_tokens());
    model.forward(&mut pass, &mut sequence, visual).unwrap();
    for words in ids().chunks(step) {
        model.forward(&mut pass, &mut sequence, Input::Tokens(words)).unwrap();
    }
    model.logits(&pass).to_vec()
}

/// Cosine of the angle between two lists.
fn cosine(x: &[f32], y: &[f32]) -> f64 {
    let dot =
        |x: &[f32], y: &[f32]| -> f64 { x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum() };
    dot(x, y) / (dot(x, x) * dot(y, y)).sqrt()
}

#[test]
fn models_say_on_a_gpu_what_they_say_on_a_cpu() {
    // Where activations are rounded to 8 bits, a small difference may become one of a whole step.
    for (model, dtype, least) in [
        ("v1-tiny/model-q4_0.gguf", KvDtype::F32, 0.999_999),
        ("v2-gqa/model-q8_0.gguf", KvDtype::Q8, 0.999),
        ("v2-k256/model-q4_k_m.gguf", KvDtype::F16, 0.999),
    ] {
        let files = files(model);
        let got = logits(&files, gpu(), dtype, usize::MAX);
        let want = logits(&files, Cpu::default(), dtype, usize::MAX);
        let cosine = cosine(&got, &want);
        assert!(cosine > least, "{model}: {cosine}");
    }
}

#[test]
fn words_read_together_are_words_read_one_by_one() {
    let files = files("v2-gqa/model-q8_0.gguf");
    let bits = |step| -> Vec<u32> {
        logits(&files, gpu(), KvDtype::F16, step).iter().map(|logit| logit.to_bits()).collect()
    };
    let whole = bits(usize::MAX);
    for step in [1, 9] {
        assert!(bits(step) == whole, "{step} at a time");
    }
}
