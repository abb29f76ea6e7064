//! Packed weights on disk: the same bits as packed from the model, or not used at all.

use std::fs;
use std::path::{Path, PathBuf};

use kernels::{Cpu, CpuOptions, DType, Device, KvDtype, Reference};
use mobilevlmd::model::files::{LoadOptions, ModelFiles, ModelPaths};
use mobilevlmd::model::kv_cache::Sequence;
use mobilevlmd::model::weights::kept::Kept;
use mobilevlmd::model::{Input, KvOptions, MobileVlm};

const OPTIONS: LoadOptions =
    LoadOptions { dtype: Some(DType::Q4_0), vision_dtype: DType::Q8_0, exact: false };
const FILE: &str = "weights.packed";

fn files(model: &str) -> ModelFiles {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(model);
    ModelFiles::open(&ModelPaths { model, ..ModelPaths::default() }).expect("a model")
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packed").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn cpu() -> Cpu {
    Cpu::new(CpuOptions { threads: 2, ..CpuOptions::default() })
}

/// Loads a model as a start with this folder does. Returns whether it found packed weights there, and the
/// bits of visual tokens and logits.
fn start<D: Device>(files: &ModelFiles, device: D, options: &LoadOptions, folder: &Path) -> (bool, Vec<u32>) {
    let kv = KvOptions { context: 256, pages: 10, dtype: KvDtype::F16 };
    let kept = Kept::open(Some(folder), files, &device, options).expect("files that can be read");
    let mut model = MobileVlm::load_kept(files, device, options, kv, &kept).expect("loaded");
    let is_found = kept.is_found();
    if let Some(writer) = kept.keep() {
        writer.join().expect("it does not panic");
    }
    let side = files.vision.image;
    let pixels: Vec<f32> = (0..3 * side * side).map(|index| (index as f32 * 0.01).sin()).collect();
    let mut numbers = model.encode(&pixels).tokens();
    let (mut pass, mut sequence) = (model.pass().expect("room"), Sequence::default());
    let count = model.visual_tokens();
    model.forward(&mut pass, &mut sequence, Input::Visual(0..count)).expect("it fits");
    model.forward(&mut pass, &mut sequence, Input::Tokens(&[1, 300, 400])).expect("it fits");
    numbers.extend_from_slice(model.logits(&pass));
    (is_found, numbers.iter().map(|number| number.to_bits()).collect())
}

#[test]
fn a_second_start_finds_what_the_first_one_packed() {
    for model in ["gguf/v2-gqa/model-q8_0.gguf", "gguf/v1-tiny/model-q4_0.gguf"] {
        let (files, folder) = (files(model), folder(&model.replace('/', "-")));
        let (found, want) = start(&files, cpu(), &OPTIONS, &folder);
        assert!(!found && folder.join(FILE).exists(), "{model}");
        for level in Cpu::available() {
            let plain = folder.join("none");
            let device = || Cpu::new(CpuOptions { threads: 1, isa_cap: Some(level) });
            let (_, fresh) = start(&files, device(), &OPTIONS, &plain);
            let (found, bits) = start(&files, device(), &OPTIONS, &folder);
            assert!(found && bits == fresh, "{model} on {level}");
        }
        let (found, bits) = start(&files, cpu(), &OPTIONS, &folder);
        assert!(found && bits == want, "{model}");
        let written = fs::read_dir(&folder).expect("it is there").count();
        assert_eq!(written, 1, "one file and nothing beside it");
    }
}

#[test]
fn what_another_start_would_pack_differently_is_replaced() {
    let folder = folder("foreign");
    let model = files("gguf/v2-gqa/model-q8_0.gguf");
    let (_, want) = start(&model, cpu(), &OPTIONS, &folder);
    let others = [
        LoadOptions { vision_dtype: DType::F32, ..OPTIONS },
        LoadOptions { exact: true, ..OPTIONS },
        LoadOptions { dtype: None, ..OPTIONS },
    ];
    for options in &others {
        let (found, _) = start(&model, cpu(), options, &folder);
        assert!(!found, "{options:?}");
        assert!(start(&model, cpu(), options, &folder).0, "{options:?} are kept now");
    }
    assert!(!start(&files("gguf/v1-tiny/model-q4_0.gguf"), cpu(), &OPTIONS, &folder).0, "another model");
    assert!(!start(&model, cpu(), &OPTIONS, &folder).0);
    assert!(start(&model, cpu(), &OPTIONS, &folder) == (true, want));
    // The reference packs nothing.
    let before = fs::metadata(folder.join(FILE)).expect("it is there").modified().expect("a time");
    assert!(!start(&model, Reference, &OPTIONS, &folder).0);
    assert_eq!(fs::metadata(folder.join(FILE)).expect("it is there").modified().expect("a time"), before);
}

#[test]
fn a_damaged_file_is_replaced_and_never_trusted() {
    let folder = folder("damaged");
    let model = files("gguf/v1-tiny/model-q4_0.gguf");
    let (_, want) = start(&model, cpu(), &OPTIONS, &folder);
    let whole = fs::read(folder.join(FILE)).expect("it is there");
    let half = whole.len() / 2;
    let mut flipped = whole.clone();
    flipped[half] ^= 4;
    let mut tail = whole.clone();
    *tail.last_mut().expect("not empty") ^= 1;
    let damaged = [Vec::new(), whole[..half].to_vec(), flipped, tail, b"something else".to_vec()];
    for (index, bytes) in damaged.iter().enumerate() {
        fs::write(folder.join(FILE), bytes).expect("written");
        assert_eq!(start(&model, cpu(), &OPTIONS, &folder), (false, want.clone()), "damage {index}");
        assert!(fs::read(folder.join(FILE)).expect("it is there") == whole, "damage {index} is repaired");
    }
    fs::remove_file(folder.join(FILE)).expect("removed");
    fs::create_dir(folder.join(FILE)).expect("a folder in its place");
    assert_eq!(start(&model, cpu(), &OPTIONS, &folder), (false, want));
}
