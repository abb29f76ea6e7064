//! Every stage against the reference data, through the command's own code.

use std::path::{Path, PathBuf};

use mobilevlmd::verify::{Options, Row, Summary, Target, verify};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

/// Rows of a folder, and their counts.
fn rows(options: &Options) -> (Vec<Row>, Summary) {
    let mut rows = Vec::new();
    let summary = verify(options, &mut |row| rows.push(row.clone())).expect("the folder has its indexes");
    assert_eq!(rows.len(), summary.passed + summary.failed);
    (rows, summary)
}

fn failures(rows: &[Row]) -> String {
    rows.iter().filter(|row| !row.passed).map(|row| format!("{row}\n")).collect()
}

#[test]
fn every_number_of_the_reference_is_met_with_every_instruction_set() {
    let (rows, summary) = rows(&Options { dir: data(), ..Options::default() });
    assert_eq!(summary.failed, 0, "failed rows:\n{}", failures(&rows));
    for stage in [
        "quant",
        "tokenizer",
        "pixels",
        "prompt",
        "text",
        "features",
        "projected",
        "logits",
        "ids",
        "steps",
        "repeated",
        "answer",
    ] {
        assert!(rows.iter().any(|row| row.stage == stage), "no row of stage {stage}");
    }
    for target in Target::every_isa(0) {
        for path in ["exact", "run", "run text"] {
            let end = format!(" {path} {target}");
            assert!(rows.iter().any(|row| row.case.ends_with(&end)), "no row of{end}");
        }
    }
    let cached = |row: &&Row| row.stage == "logits" && row.case.contains(" q8 cache ");
    assert!(rows.iter().filter(cached).count() >= 12, "an 8-bit cache is held to every model");
}

#[test]
fn the_scalar_specification_meets_the_reference() {
    let options = Options { dir: data(), exact_only: true, targets: vec![Target::Reference], threads: 1 };
    let (rows, summary) = rows(&options);
    assert_eq!(summary.failed, 0, "failed rows:\n{}", failures(&rows));
}

/// A copy of the folder's indexes and small files, with models left out.
struct Copied(PathBuf);

impl Copied {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("mobilevlmd-golden-{name}-{}", std::process::id()));
        for folder in
            ["goldens", "goldens/v1-tiny", "goldens/pixels", "images", "checkpoints/v1-tiny", "tokenizer"]
        {
            std::fs::create_dir_all(dir.join(folder)).expect("a temporary folder");
        }
        let copied = Self(dir);
        copied.write("goldens/index.json", r#"{"pixels":{},"checkpoints":{}}"#);
        copied.write("goldens/gguf_index.json", "{}");
        copied.write("goldens/tokenizer_cases.json", "{}");
        copied.copy("goldens/quant_blocks.json");
        copied.copy("goldens/quant_blocks.safetensors");
        copied
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.0.join(file), text).expect("a writable folder");
    }

    fn copy(&self, file: &str) {
        std::fs::copy(data().join(file), self.0.join(file)).expect("a file of the reference data");
    }

    fn rows(&self) -> Vec<Row> {
        let options = Options { dir: self.0.clone(), targets: vec![Target::Reference], ..Options::default() };
        rows(&options).0
    }

    /// The failed row of `stage`.
    fn failure(&self, stage: &str) -> Row {
        let rows = self.rows();
        let found = rows.iter().find(|row| row.stage == stage && !row.passed);
        found.unwrap_or_else(|| panic!("no failed row of stage {stage} in {rows:?}")).clone()
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_is_missing_fails() {
    let folder = Copied::new("missing");
    assert!(folder.rows().iter().all(|row| row.passed), "the rest of the folder passes");

    let index = std::fs::read_to_string(data().join("goldens/index.json")).expect("the index");
    folder.write("goldens/index.json", &index);
    let row = folder.failure("load");
    assert!(row.case.starts_with("v1-hd80") && row.problem.is_some(), "{row}");
    let row = folder.failure("pixels");
    assert!(row.problem.as_ref().is_some_and(|problem| problem.contains("images/")), "{row}");
    folder.write("goldens/index.json", r#"{"pixels":{},"checkpoints":{},"sounds":{}}"#);
    assert_eq!(folder.failure("index").case, "sounds");

    folder.write("goldens/tokenizer_cases.json", r#"{"mini":{"vocab_size":5,"encode":[],"decode":[]}}"#);
    assert_eq!(folder.failure("tokenizer").case, "mini");

    folder.write("goldens/quant_blocks.json", r#"{"Q9_0.blocks":["uint8",[1,1]]}"#);
    assert!(folder.failure("quant").problem.is_some());
    folder.write("goldens/quant_blocks.json", "[]");
    let options = Options { dir: folder.0.clone(), ..Options::default() };
    let error = verify(&options, &mut |_| {}).expect_err("no index");
    assert!(error.to_string().contains("quant_blocks.json"), "{error}");
}

#[test]
fn a_wrong_number_fails() {
    let folder = Copied::new("wrong");
    let path = folder.0.join("goldens/quant_blocks.safetensors");
    let mut bytes = std::fs::read(&path).expect("the blocks");
    let last = bytes.len() - 1;
    bytes[last] ^= 0x10;
    std::fs::write(&path, &bytes).expect("a writable file");
    assert!(folder.rows().iter().any(|row| !row.passed));

    let image = "images/tiny_up.png";
    folder.copy(image);
    folder.copy("goldens/pixels/palette.u8.png");
    let picture = format!(r#"{{"file":"{image}","resized_u8":"goldens/pixels/palette.u8.png"}}"#);
    folder
        .write("goldens/index.json", &format!(r#"{{"pixels":{{"swapped":{picture}}},"checkpoints":{{}}}}"#));
    let row = folder.failure("pixels");
    assert!(row.error.is_some_and(|error| error > 1.0), "{row}");
}
