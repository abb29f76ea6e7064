//! The bench goes through the library, and its made-up models are ordinary files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use candle_core::Device as CandleDevice;
use candle_core::quantized::gguf_file::Content;
use kernels::{Cpu, CpuOptions, DType, KvDtype};
use mobilevlmd::bench::dims::Dims;
use mobilevlmd::bench::engine::synthetic_engine;
use mobilevlmd::bench::stage::Stage;
use mobilevlmd::bench::synthetic::{FileType, Recipe, Synthetic, Tower};
use mobilevlmd::bench::{self, BenchError, Options};
use mobilevlmd::model::files::{
    LoadOptions, ModelFiles, ModelPaths, ProjectorKind, TensorStore, TokenizerSource,
};
use mobilevlmd::model::kv_cache::Sequence;
use mobilevlmd::model::{Input, KvOptions, MobileVlm};

const LOAD: LoadOptions = LoadOptions { dtype: None, vision_dtype: DType::Q8_0, exact: false };

fn recipe(projector: ProjectorKind, file_type: FileType) -> Recipe {
    let (vision, language) = (Dims::Tiny.vision(), Dims::Tiny.language());
    Recipe { vision, language, projector, tower: Tower::Plain, file_type, seed: 5 }
}

/// An empty folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder); // There is nothing to remove the first time.
    folder
}

/// What candle reads is what was made up.
fn assert_same_tensors(path: &Path, store: &Synthetic) {
    let mut file = File::open(path).expect("written");
    let content = Content::read(&mut file).expect("a GGUF file");
    assert_eq!(content.tensor_infos.len(), store.names().len(), "{}", path.display());
    for planned in store.planned() {
        let name = &planned.name;
        let made = store.tensor(name).expect("planned");
        let read = content.tensor(&mut file, name, &CandleDevice::Cpu).expect(name);
        assert_eq!(read.shape().dims(), made.shape, "{name}");
        assert_eq!(
            format!("{:?}", read.dtype()).to_lowercase(),
            made.dtype.name().replace("_k", "k"),
            "{name}"
        );
        assert!(read.data().expect(name) == made.bytes, "{name} differs");
    }
}

#[test]
fn another_reader_finds_the_same_tensors_in_a_written_pair() {
    for (index, file_type) in FileType::ALL.into_iter().enumerate() {
        let projector = [ProjectorKind::Ldp, ProjectorKind::LdpV2][index % 2];
        let recipe = recipe(projector, file_type);
        let folder = folder(&format!("bench-candle-{file_type}"));
        let [text, mmproj] = recipe.write(&folder).expect("written");
        assert_same_tensors(&text, &recipe.text());
        assert_same_tensors(&mmproj, &recipe.mmproj());
        assert_eq!(fs::read_dir(&folder).expect("there").count(), 2, "nothing half-written is left");
        fs::remove_dir_all(&folder).expect("removed");
    }
}

#[test]
fn a_folder_that_cannot_be_is_named() {
    let place = folder("bench-no-folder");
    fs::write(&place, "a file").expect("written");
    let error = recipe(ProjectorKind::LdpV2, FileType::Q4_0).write(&place).expect_err("no folder");
    assert!(error.to_string().starts_with(&format!("cannot write {}: ", place.display())), "{error}");
    fs::remove_file(&place).expect("removed");
}

/// Visual tokens of a picture and logits after them and a short text.
fn answer(files: &ModelFiles) -> (Vec<f32>, Vec<f32>) {
    let kv = KvOptions::with_budget(&files.language, 256, 0, KvDtype::F16);
    let mut model = MobileVlm::load(files, Cpu::default(), &LOAD, kv).expect("loaded");
    let side = files.vision.image;
    let pixels: Vec<f32> = (0..3 * side * side).map(|index| (index as f32 * 0.01).sin()).collect();
    let visual = model.encode(&pixels).tokens();
    let mut pass = model.pass().expect("room");
    let mut sequence = Sequence::default();
    let count = model.visual_tokens();
    model.forward(&mut pass, &mut sequence, Input::Visual(0..count)).expect("fits");
    model.forward(&mut pass, &mut sequence, Input::Tokens(&[1, 300, 400])).expect("fits");
    (visual, model.logits(&pass).to_vec())
}

#[test]
fn a_written_pair_is_the_model_in_memory() {
    for (projector, file_type) in
        [(ProjectorKind::LdpV2, FileType::Q4_K_M), (ProjectorKind::Ldp, FileType::Q8_0)]
    {
        let recipe = recipe(projector, file_type);
        let folder = folder(&format!("bench-same-{file_type}"));
        let [text, _] = recipe.write(&folder).expect("written");
        let paths = ModelPaths { model: text, ..ModelPaths::default() };
        let (written, made) = (ModelFiles::open(&paths).expect("opened"), recipe.files().expect("sound"));
        assert_eq!(written.vision, made.vision);
        assert_eq!(written.language, made.language);
        assert_eq!(written.projector, made.projector);
        assert_eq!((written.image_mean, written.image_std), (made.image_mean, made.image_std));
        let vocabulary = |files: &ModelFiles| match &files.tokenizer {
            TokenizerSource::Vocabulary(vocabulary) => vocabulary.clone(),
            other => panic!("{other:?} is no vocabulary of a GGUF file"),
        };
        assert_eq!(vocabulary(&written), vocabulary(&made));
        let (from_file, from_memory) = (answer(&written), answer(&made));
        assert!(from_file.1.iter().all(|logit| logit.is_finite()));
        assert!(from_file == from_memory, "{file_type}: file and memory disagree");
        fs::remove_dir_all(&folder).expect("removed");
    }
}

#[test]
fn a_run_reports_every_default_stage() {
    let cpu = CpuOptions { threads: 2, ..CpuOptions::default() };
    let options = Options { rounds: 1, load: LOAD, threads: 2 };
    let report = bench::synthetic(Dims::Tiny, &Stage::DEFAULT, || Cpu::new(cpu), &options).expect("measured");
    let names: Vec<_> = report.stages.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "encode_v2",
        "prefill_q4_0",
        "prefill_q4_k_m",
        "prefill_q8_0",
        "decode_q4_0",
        "decode_q4_k_m",
        "decode_q8_0",
    ];
    assert_eq!(names, expected);
    let json = serde_json::to_value(&report).expect("plain numbers");
    for limit in ["read_gb_s", "int8_gmac_s", "f32_gmac_s"] {
        assert!(json["limits"][limit].as_f64().is_some_and(|value| value > 0.0), "{limit}");
    }
    for name in expected {
        for key in ["ms", "tok_s", "gb_s", "gmac_s", "fraction_of_limit", "limit"] {
            assert!(json["stages"][name][key].as_f64().is_some_and(|value| value > 0.0), "{name} {key}");
        }
    }
}

#[test]
fn the_engine_is_measured_at_every_load() {
    let cpu = CpuOptions { threads: 2, ..CpuOptions::default() };
    let options = Options { rounds: 1, load: LOAD, threads: 2 };
    let report = synthetic_engine(Dims::Tiny, Cpu::new(cpu), &options).expect("measured");
    assert_eq!(report.positions.question, 20);
    let together: Vec<_> = report.together.iter().map(|together| together.questions).collect();
    assert_eq!(together, [1, 2, 4, 8]);
    assert_eq!(report.rules.iter().map(|(rules, _)| *rules).collect::<Vec<_>>(), [0, 1, 5]);
    assert_eq!(report.cameras.iter().map(|cameras| cameras.cameras).collect::<Vec<_>>(), [1, 2, 4]);
    assert_eq!(report.captions.len(), 3);
    let waits = [report.idle, report.busy, report.restart.computed, report.restart.from_disk];
    let captions = report.captions.iter().map(|(_, wait)| *wait);
    for wait in waits.into_iter().chain(captions) {
        assert!(wait.count > 0 && 0.0 < wait.median_ms && wait.median_ms <= wait.longest_ms, "{wait:?}");
    }
    let kinds: Vec<_> = report.units.iter().map(|units| units.kind.as_str()).collect();
    let expected = ["intake", "picture", "patches", "block", "projector", "board", "layers", "logits"];
    assert_eq!(kinds, expected);
    for units in &report.units {
        let is_ordered = units.median_ms <= units.p999_ms && units.p999_ms <= units.longest_ms;
        assert!(is_ordered && units.longest_ms <= report.longest_unit_ms, "{units:?}");
        // A unit of logits alone is one that found no room behind the layers of a small model.
        assert!(units.count > 0 || units.kind == "logits", "{units:?}");
    }
    let json = serde_json::to_value(&report).expect("plain numbers");
    assert!(json["idle"]["p99_ms"].as_f64().is_some_and(|ms| ms > 0.0));
}

#[test]
fn a_given_model_is_measured_under_its_own_names() {
    let files = recipe(ProjectorKind::Ldp, FileType::Q5_K_M).files().expect("sound");
    let options = Options { rounds: 1, load: LOAD, threads: 1 };
    let run = |wanted: &[&str]| {
        let wanted: Vec<String> = wanted.iter().map(|&word| word.into()).collect();
        bench::model(&files, &wanted, Cpu::default(), &options)
    };
    let report = run(&["decode", "encode_v1"]).expect("measured");
    let names: Vec<_> = report.stages.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["encode_v1", "decode_q5_k_m"]);
    let error = run(&["decode_q8_0"]).expect_err("not in this model").to_string();
    assert!(error.contains("decode_q8_0") && error.contains("prefill_q5_k_m"), "{error}");
}

/// What `bench turns` answers to lines on a made-up model.
fn turns(lines: &str) -> (Result<(), BenchError>, Vec<serde_json::Value>) {
    let files = recipe(ProjectorKind::LdpV2, FileType::Q4_K_M).files().expect("sound");
    let options = Options { rounds: 1, load: LOAD, threads: 1 };
    let cpu = Cpu::new(CpuOptions { threads: 1, ..CpuOptions::default() });
    let mut output = Vec::new();
    let result = bench::turns::turns(&files, cpu, &options, lines.as_bytes(), &mut output);
    let text = String::from_utf8(output).expect("text");
    (result, text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect())
}

#[test]
fn each_line_has_one_stage_done() {
    let lines = "encode\nprefill_q4_k_m\ndecode192\nprobe int8\nrows\nlogits\n";
    let (result, answers) = turns(lines);
    result.expect("all known");
    assert_eq!(answers.len(), 7, "{answers:?}");
    assert_eq!(answers[0]["stages"][1], "prefill_q4_k_m");
    let stages = [("encode_v2", 144), ("prefill_q4_k_m", 164), ("decode192_q4_k_m", 64)];
    for (answer, (stage, tokens)) in answers[1..].iter().zip(stages) {
        assert_eq!((answer["stage"].as_str(), answer["tokens"].as_u64()), (Some(stage), Some(tokens)));
        assert_eq!(answer["limit"], "int8");
        for number in ["ms", "work"] {
            assert!(answer[number].as_f64().is_some_and(|value| value > 0.0), "{answer}");
        }
    }
    assert!(answers[4]["limit"] == "int8" && answers[4]["rate"].as_f64().is_some_and(|rate| rate > 0.0));
    let language = Dims::Tiny.language();
    for (answer, count) in answers[5..].iter().zip([144 * language.hidden, language.vocabulary]) {
        let values = answer["values"].as_array().expect("numbers");
        assert!(values.len() == count && values.iter().any(|value| value != &values[0]));
    }
}

#[test]
fn a_line_that_names_no_stage_ends_the_turns() {
    let (result, answers) = turns("decode\ncaption\ndecode\n");
    let error = result.expect_err("no such stage").to_string();
    assert!(error.contains("\"caption\"") && error.contains("decode_q4_k_m"), "{error}");
    assert_eq!(answers.len(), 2);
}
