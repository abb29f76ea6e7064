//! What a user sees: one line, exit code 1, in a process that may not have much memory.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::build::{
    Folder, Meta, checkpoint, checkpoint_shapes, mmproj_gguf, safetensors, text_gguf, torch_file,
};
use crate::service::daemon;

/// Address space of the process in KiB: enough for the program, not for a believed lie.
const MEMORY: &str = "2000000";

/// Runs the program with little memory.
fn run(arguments: &[&str]) -> Output {
    let daemon = daemon(arguments);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -v {MEMORY} && exec \"$0\" \"$@\"")]);
    command.arg(daemon.get_program()).args(daemon.get_args());
    for (name, value) in daemon.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.stdin(Stdio::null()).output().expect("a process of this program")
}

/// A folder with a sound pair whose text file is then replaced.
fn pair_with(folder: &Folder, text: impl AsRef<[u8]>) -> PathBuf {
    folder.write("mmproj.gguf", mmproj_gguf().bytes());
    folder.write("model.gguf", text)
}

/// A checkpoint whose weights are `bytes` in the file `name`.
fn checkpoint_with(folder: &Folder, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    checkpoint(folder);
    folder.write(name, bytes);
    folder.path().to_owned()
}

/// Every way to be refused: what it is, how to make it, and what the line must say.
type Case = (fn(&Folder) -> PathBuf, &'static str);

const CASES: [Case; 9] = [
    (|folder| pair_with(folder, b""), "model.gguf is damaged: the file is empty"),
    (|folder| pair_with(folder, &text_gguf().bytes()[..700]), "model.gguf is damaged"),
    (
        |folder| {
            let mut text = text_gguf();
            text.set("general.architecture", Meta::Text("gemma"));
            pair_with(folder, text.bytes())
        },
        "its architecture is \"gemma\", only llama is supported",
    ),
    (
        |folder| {
            let mut text = text_gguf();
            text.tensor("output.weight").offset = 1 << 50;
            pair_with(folder, text.bytes())
        },
        "tensor \"output.weight\" ends past the end of the file",
    ),
    (
        |folder| {
            let mut text = text_gguf();
            text.tensor_count = Some(1 << 60);
            pair_with(folder, text.bytes())
        },
        "the header claims 1152921504606846976 tensors",
    ),
    (
        |folder| {
            let list = [&4u32.to_le_bytes()[..], &(1u64 << 60).to_le_bytes()].concat();
            let mut text = text_gguf();
            text.set("tokenizer.ggml.token_type", Meta::Raw(9, list));
            pair_with(folder, text.bytes())
        },
        "4611686018427387904 bytes expected",
    ),
    (
        |folder| {
            let index = r#"{"weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}"#;
            checkpoint_with(folder, "model.safetensors.index.json", index)
        },
        "model-00002-of-00002.safetensors not found",
    ),
    (
        |folder| {
            let model = checkpoint_with(folder, "model.safetensors", safetensors(&checkpoint_shapes()));
            std::fs::remove_file(model.join("openai/clip/config.json")).expect("a file of the test");
            model
        },
        "the vision tower \"openai/clip\"",
    ),
    (
        |folder| {
            let weights = torch_file(&checkpoint_shapes(), b"cos\nsystem\nX\x04\0\0\0true\x85R0");
            checkpoint_with(folder, "pytorch_model.bin", weights)
        },
        "a call of \"os.system\"",
    ),
];

#[track_caller]
fn assert_refused(command: &[&str], model: &Path, words: &str) {
    let model = model.to_string_lossy();
    let output = run(&[command, &["--model", &model]].concat());
    let shown = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(1), "{command:?}: {shown}");
    let lines = shown.lines().filter(|line| line.contains(words)).count();
    assert_eq!(lines, 1, "{command:?}, {words:?}: {shown}");
    assert!(!shown.contains("panicked") && !shown.contains("memory allocation"), "{shown}");
}

/// A picture that nothing is wrong with.
const PICTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/images/gradient.png");

#[test]
fn refusals_are_one_line_and_code_one() {
    for (make, words) in CASES {
        let folder = Folder::new();
        let model = make(&folder);
        for command in [&["check"][..], &["caption", PICTURE]] {
            assert_refused(command, &model, words);
        }
    }
}
