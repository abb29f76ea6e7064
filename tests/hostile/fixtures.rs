//! Every reference file opens, loads, and holds what candle's readers see in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;
use candle_core::{Device, Tensor};
use kernels::DType;
use mobilevlmd::model::files::stored::StoredTensors;
use mobilevlmd::model::files::{LoadOptions, ModelPaths, TensorStore};
use mobilevlmd::model::{gguf, hf};

use super::{EXACT, load, open};

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(path)
}

/// Files of `folder` and below whose name ends with `end`.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of the reference data") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path, end));
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn every_model_loads_in_every_type() {
    let text_files = files(&data("gguf"), ".gguf");
    let is_text = |path: &&PathBuf| !path.to_string_lossy().contains("mmproj");
    let models = text_files.iter().filter(is_text).cloned().chain([
        data("checkpoints/v1-tiny/pytorch_model.bin"),
        data("checkpoints/v1-tiny/model.safetensors"),
        data("checkpoints/v1-hd80"),
        data("checkpoints/v2-gqa"),
    ]);
    let mut count = 0;
    for model in models {
        let files = open(&ModelPaths { model, ..ModelPaths::default() }).unwrap();
        load(&files, &EXACT).unwrap();
        for dtype in [DType::Q4_0, DType::Q8_0, DType::Q4K] {
            load(&files, &LoadOptions { dtype: Some(dtype), vision_dtype: DType::Q8_0, exact: false })
                .unwrap();
        }
        count += 1;
    }
    assert!(count >= 8, "{count} models");
}

/// Types, shapes and bytes that a reader of ours sees.
fn ours(store: &StoredTensors) -> BTreeMap<String, (DType, Vec<usize>, Vec<u8>)> {
    let read = |name: String| {
        let raw = store.tensor(&name).expect("a tensor that is listed");
        assert_eq!(store.info(&name), Some((raw.dtype, raw.shape.clone())));
        (name, (raw.dtype, raw.shape, raw.bytes.into_owned()))
    };
    store.names().into_iter().map(read).collect()
}

fn float_bytes(tensor: &Tensor) -> Option<(DType, Vec<u8>)> {
    let flat = tensor.flatten_all().expect("a dense tensor");
    match tensor.dtype() {
        candle_core::DType::F32 => {
            let values = flat.to_vec1::<f32>().expect("f32");
            Some((DType::F32, values.into_iter().flat_map(f32::to_le_bytes).collect()))
        }
        candle_core::DType::F16 => {
            let values = flat.to_vec1::<half::f16>().expect("f16");
            Some((DType::F16, values.into_iter().flat_map(half::f16::to_le_bytes).collect()))
        }
        candle_core::DType::BF16 => {
            let values = flat.to_vec1::<half::bf16>().expect("bf16");
            Some((DType::BF16, values.into_iter().flat_map(half::bf16::to_le_bytes).collect()))
        }
        _ => None,
    }
}

#[test]
fn gguf_files_hold_what_candle_sees() {
    for path in files(&data("gguf"), ".gguf") {
        let (store, keys) =
            gguf::open(&path, |header, _| Ok(header.metadata.len())).expect("a file of the reference data");
        let ours = ours(&store);
        let mut file = std::fs::File::open(&path).unwrap();
        let content = candle_core::quantized::gguf_file::Content::read(&mut file).unwrap();
        assert_eq!(keys, content.metadata.len());
        assert_eq!(ours.len(), content.tensor_infos.len(), "{}", path.display());
        for (name, (dtype, shape, bytes)) in ours {
            let theirs = content.tensor(&mut file, &name, &Device::Cpu).unwrap();
            assert_eq!(theirs.shape().dims(), shape, "{name}");
            assert_eq!(theirs.dtype(), ggml_type(dtype), "{name}");
            assert!(theirs.data().unwrap() == bytes, "{name} of {}", path.display());
        }
    }
}

fn ggml_type(dtype: DType) -> GgmlDType {
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

#[test]
fn torch_files_hold_what_candle_sees() {
    let paths = files(&data("checkpoints"), ".bin");
    assert!(paths.len() >= 4);
    for path in paths {
        let ours = ours(&hf::pytorch::open(&path).unwrap());
        let theirs = candle_core::pickle::PthTensors::new(&path, None).unwrap();
        let mut floats = 0;
        for name in theirs.tensor_infos().keys() {
            let tensor = theirs.get(name).unwrap().expect("a tensor that is listed");
            // Positions are stored as integers, which no part of a model needs.
            let Some((dtype, bytes)) = float_bytes(&tensor) else { continue };
            assert!(ours[name] == (dtype, tensor.dims().to_vec(), bytes), "{name} of {}", path.display());
            floats += 1;
        }
        assert_eq!(floats, ours.len());
    }
}

#[test]
fn safetensors_files_hold_what_candle_sees() {
    let paths = files(&data("checkpoints"), ".safetensors");
    assert!(paths.len() >= 3);
    for path in paths {
        let ours = ours(&hf::safetensors::open(&path).unwrap());
        let theirs = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        assert_eq!(ours.len(), theirs.len());
        for (name, tensor) in theirs {
            let (dtype, bytes) = float_bytes(&tensor).expect("a float tensor");
            assert!(ours[&name] == (dtype, tensor.dims().to_vec(), bytes), "{name} of {}", path.display());
        }
    }
}

#[test]
fn the_vocabulary_comes_with_the_file() {
    let files =
        open(&ModelPaths { model: data("gguf/v1-tiny/model-q8_0.gguf"), ..ModelPaths::default() }).unwrap();
    let mobilevlmd::model::files::TokenizerSource::Vocabulary(vocabulary) = &files.tokenizer else {
        panic!("{:?}", files.tokenizer)
    };
    assert_eq!(vocabulary.pieces.len(), files.language.vocabulary);
    assert_eq!(vocabulary.pieces[..4], ["<unk>", "<s>", "</s>", "<0x00>"]);
    assert_eq!((vocabulary.unk, vocabulary.bos, vocabulary.eos), (0, 1, 2));
    assert_eq!(vocabulary.kinds[..4], [2, 3, 3, 6]);
    assert_eq!(files.id, "v1-tiny-q8_0");
    assert_eq!(
        files.summary(),
        "v1-tiny-q8_0: language 3 layers of 64, 4 heads (4 for keys), 2048 words, 30 tensors, 0.5 MB (q8_0 23, f32 7); \
         vision 3 blocks of 64, 4 heads, picture 336, 53 tensors, 0.5 MB (f32 33, f16 20); \
         projector LDP, 24 tensors, 0.0 MB (f32 14, f16 10)"
    );
}
