//! Whole models on the emulated GPU: pictures and words through every part that the daemon uses, beside
//! the CPU. The kernels themselves are tried in `kernels/tests/cuda`.

#[path = "../kernels/tests/cuda/emulated.rs"]
mod emulated;

use std::path::Path;
use std::sync::{Arc, Mutex};

use kernels::cuda::driver::{Address, DeviceLost, Driver, List};
use kernels::device::DeviceError;
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

/// A model that has seen a picture. Everything is exact if keys and values are.
fn model<D: Device>(files: &ModelFiles, device: D, dtype: KvDtype) -> MobileVlm<D> {
    let exact = dtype == KvDtype::F32;
    let vision_dtype = if exact { DType::F32 } else { DType::Q8_0 };
    let options = LoadOptions { dtype: None, vision_dtype, exact };
    let kv = KvOptions { context: 512, pages: 20, dtype };
    let mut model = MobileVlm::load(files, device, &options, kv).unwrap();
    let side = files.vision.image;
    let pixels: Vec<f32> = (0..3 * side * side).map(|i| (i * 37 % 251) as f32 / 125.0 - 1.0).collect();
    model.encode(&pixels);
    model
}

/// Logits behind the picture and some words, which are read `step` at a time; `read` is told of each.
fn logits<D: Device>(model: &mut MobileVlm<D>, step: usize, mut read: impl FnMut()) -> Vec<f32> {
    let (mut pass, mut sequence) = (model.pass().unwrap(), Sequence::default());
    let visual = Input::Visual(0..model.visual_tokens());
    model.forward(&mut pass, &mut sequence, visual).unwrap();
    for words in ids().chunks(step) {
        model.forward(&mut pass, &mut sequence, Input::Tokens(words)).unwrap();
        model.logits(&pass);
        read();
    }
    let logits = model.logits(&pass).to_vec();
    model.release(&mut sequence);
    logits
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
    for (name, dtype, least) in [
        ("v1-tiny/model-q4_0.gguf", KvDtype::F32, 0.999_999),
        ("v2-gqa/model-q8_0.gguf", KvDtype::Q8, 0.999),
        ("v2-k256/model-q4_k_m.gguf", KvDtype::F16, 0.999),
    ] {
        let files = files(name);
        let got = logits(&mut model(&files, gpu(), dtype), usize::MAX, || {});
        let want = logits(&mut model(&files, Cpu::default(), dtype), usize::MAX, || {});
        let cosine = cosine(&got, &want);
        assert!(cosine > least, "{name}: {cosine}");
    }
}

#[test]
fn words_read_together_are_words_read_one_by_one() {
    let mut model = model(&files("v2-gqa/model-q8_0.gguf"), gpu(), KvDtype::F16);
    let mut bits =
        |step| -> Vec<u32> { logits(&mut model, step, || {}).iter().map(|logit| logit.to_bits()).collect() };
    let whole = bits(usize::MAX);
    for step in [1, 3, 9] {
        assert!(bits(step) == whole, "{step} at a time");
    }
}

/// The emulated GPU, and the lists it was given.
struct Watched {
    gpu: emulated::Emulated,
    lists: Arc<Mutex<Vec<List>>>,
}

impl Driver for Watched {
    fn name(&self) -> String {
        self.gpu.name()
    }

    fn alloc(&self, bytes: usize) -> Result<Address, DeviceError> {
        self.gpu.alloc(bytes)
    }

    unsafe fn free(&self, address: Address, bytes: usize) {
        // SAFETY: the caller's.
        unsafe { self.gpu.free(address, bytes) };
    }

    unsafe fn upload(&self, bytes: &[u8], to: Address) -> Result<(), DeviceLost> {
        // SAFETY: the caller's.
        unsafe { self.gpu.upload(bytes, to) }
    }

    unsafe fn download(&self, from: Address, into: &mut [u8]) -> Result<(), DeviceLost> {
        // SAFETY: the caller's.
        unsafe { self.gpu.download(from, into) }
    }

    unsafe fn run(&self, list: &List) -> Result<(), DeviceLost> {
        self.lists.lock().unwrap().push(list.clone());
        // SAFETY: the caller's.
        unsafe { self.gpu.run(list) }
    }
}

/// What a driver needs to launch a token as one graph.
#[test]
fn every_token_is_one_list_and_the_same() {
    let lists: Arc<Mutex<Vec<List>>> = Arc::default();
    let watched = Watched { gpu: emulated::gpu(), lists: lists.clone() };
    let mut model = model(&files("v1-tiny/model-q4_0.gguf"), Cuda::new(watched).unwrap(), KvDtype::F16);
    let mut tokens = Vec::new();
    logits(&mut model, 1, || tokens.push(std::mem::take(&mut *lists.lock().unwrap())));
    // The first one comes behind the picture.
    let [_, first, later @ ..] = tokens.as_slice() else { panic!("one list for each token") };
    assert_eq!(first.len(), 1, "one list for a token");
    assert!(first[0].len() > 30, "all of it: {} launches", first[0].len());
    assert!(later.iter().all(|token| token == first), "every token gives the same list");
}
