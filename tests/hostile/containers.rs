//! GGUF pairs with a lie in the header.

use std::path::PathBuf;

use mobilevlmd::model::files::{ModelPaths, TokenizerSource};

use super::build::{Folder, Gguf, Meta, Stored, mmproj_gguf, text_gguf};
use super::{EXACT, load, open, refused};

fn write(folder: &Folder, text: &Gguf, mmproj: &Gguf) -> ModelPaths {
    folder.write("mmproj.gguf", mmproj.bytes());
    ModelPaths { model: folder.write("model.gguf", text.bytes()), ..ModelPaths::default() }
}

#[test]
fn the_smallest_pair_loads() {
    let folder = Folder::new();
    let paths = write(&folder, &text_gguf(), &mmproj_gguf());
    let files = open(&paths).unwrap();
    assert_eq!(files.id, "model-f16");
    assert_eq!(files.vision, super::build::vision());
    assert!(
        matches!(&files.tokenizer, TokenizerSource::Vocabulary(vocabulary) if vocabulary.pieces.len() == 8)
    );
    assert!(files.summary().contains("language 1 layers of 32"), "{}", files.summary());
    load(&files, &EXACT).unwrap();
    // The folder stands for its only pair.
    assert!(open(&ModelPaths { model: folder.path().to_owned(), ..paths }).is_ok());
}

#[test]
fn version_two_and_other_alignments_load() {
    let folder = Folder::new();
    let mut text = text_gguf();
    text.version = 2;
    text.set("general.alignment", Meta::U32(8));
    // The header happens to end where both alignments agree or not: the data moves with it.
    let paths = write(&folder, &text, &mmproj_gguf());
    let header = text.header().len();
    let mut file = text.header();
    file.resize(header.next_multiple_of(8), 0);
    file.extend(&text.data);
    folder.write("model.gguf", file);
    load(&open(&paths).unwrap(), &EXACT).unwrap();
}

/// A lie: what to change in the text file or in the vision file, and what the message must say.
type Lie = (fn(&mut Gguf, &mut Gguf), &'static [&'static str]);

const LIES: [Lie; 43] = [
    (|t, _| t.version = 1, &["model.gguf", "GGUF version 1"]),
    (|t, _| t.version = 3u32.swap_bytes(), &["big-endian"]),
    (|t, _| t.tensor_count = Some(1 << 60), &["1152921504606846976 tensors"]),
    (|t, _| t.key_count = Some(1 << 60), &["1152921504606846976 keys"]),
    (|t, _| t.key_count = Some(70_000), &["70000 keys"]),
    (|t, _| t.tensor_count = Some(13), &["model.gguf is damaged"]),
    (
        |t, _| t.set("general.architecture", Meta::Text("qwen2vl")),
        &["model.gguf", "\"qwen2vl\"", "only llama"],
    ),
    (|t, _| t.set("general.architecture", Meta::Text("clip")), &["--mmproj"]),
    (|t, _| t.set("general.architecture", Meta::U32(1)), &["general.architecture is 1"]),
    (|t, _| t.set("split.count", Meta::U32(3)), &["model.gguf", "one of 3 parts", "--merge"]),
    (|t, _| t.set("general.alignment", Meta::U32(0)), &["general.alignment of 0"]),
    (|t, _| t.set("general.alignment", Meta::U32(24)), &["general.alignment of 24"]),
    (
        |t, _| t.set("x", Meta::Raw(8, (1u64 << 63).to_le_bytes().to_vec())),
        &["a text of 9223372036854775808 bytes"],
    ),
    (
        |t, _| t.set("x", Meta::Raw(9, [&8u32.to_le_bytes()[..], &(1u64 << 60).to_le_bytes()].concat())),
        &["1152921504606846976 elements"],
    ),
    (
        |t, _| t.set("x", Meta::Raw(9, [&10u32.to_le_bytes()[..], &(1u64 << 61).to_le_bytes()].concat())),
        &["elements"],
    ),
    (|t, _| t.set("x", Meta::Raw(99, vec![])), &["unknown value type 99"]),
    (|t, _| t.keys.push(("llama.block_count", Meta::U32(2))), &["\"llama.block_count\" stands there twice"]),
    (|t, _| t.tensors.push(t.tensors[0].clone()), &["stands there twice"]),
    (|t, _| t.tensor("output.weight").offset = 1 << 40, &["\"output.weight\" ends past the end"]),
    (|t, _| t.tensor("output.weight").offset = u64::MAX - 31, &["\"output.weight\" ends past the end"]),
    (|t, _| t.tensor("output.weight").offset += 1, &["not aligned to 32"]),
    (|t, _| t.tensor("output.weight").extents = vec![32, 1 << 40], &["\"output.weight\""]),
    (
        |t, _| t.tensor("output.weight").extents = vec![1 << 40, 1 << 40],
        &["\"output.weight\" of [1099511627776, 1099511627776] numbers"],
    ),
    (|t, _| t.tensor("output.weight").extents = vec![1; 5], &["5 dimensions"]),
    (
        |t, _| t.tensor("output.weight").extents = vec![32, 7],
        &["\"output.weight\" has shape [7, 32], expected [8, 32]"],
    ),
    (|t, _| t.tensor("output.weight").extents = vec![32, 0], &["\"output.weight\""]),
    (|t, _| t.tensor("output.weight").kind = 20, &["\"output.weight\" has type iq4_nl", "q4_0"]),
    (|t, _| t.tensor("output.weight").kind = 4_000_000_000, &["type number 4000000000"]),
    (
        |t, _| t.tensors.retain(|tensor| tensor.name != "blk.0.attn_k.weight"),
        &["has no tensor \"blk.0.attn_k.weight\""],
    ),
    (|t, _| t.set("llama.attention.head_count", Meta::U32(0)), &["llama.attention.head_count is 0"]),
    (|t, _| t.set("llama.attention.head_count", Meta::U32(3)), &["does not divide the width 32"]),
    (|t, _| t.set("llama.attention.head_count_kv", Meta::U32(0)), &["number of key heads is 0"]),
    (|t, _| t.set("llama.block_count", Meta::U32(u32::MAX)), &["number of layers is 4294967295"]),
    (|t, _| t.set("llama.attention.layer_norm_rms_epsilon", Meta::F32(f32::NAN)), &["epsilon is NaN"]),
    (|t, _| t.set("llama.rope.freq_base", Meta::F32(f32::NEG_INFINITY)), &["rotary base is -inf"]),
    (|t, _| t.set("tokenizer.ggml.model", Meta::Text("gpt2")), &["tokenizer.ggml.model is \"gpt2\""]),
    (
        |t, _| t.set("tokenizer.ggml.scores", Meta::F32s(vec![0.0; 7])),
        &["tokenizer.ggml.scores has 7 entries"],
    ),
    (|t, _| t.set("tokenizer.ggml.eos_token_id", Meta::U32(8)), &["tokenizer.ggml.eos_token_id is 8"]),
    (
        |_, m| m.set("clip.projector_type", Meta::Text("resampler")),
        &["mmproj.gguf", "\"resampler\"", "ldpv2"],
    ),
    (|_, m| m.set("general.architecture", Meta::Text("llama")), &["mmproj.gguf", "\"llama\""]),
    (|_, m| m.set("clip.vision.patch_size", Meta::U32(0)), &["patch size is 0"]),
    (|_, m| m.set("clip.vision.image_std", Meta::F32s(vec![0.0; 3])), &["image deviation"]),
    (
        |_, m| m.tensor("v.blk.0.attn_q.bias").extents = vec![16],
        &["mmproj.gguf", "\"v.blk.0.attn_q.bias\" has shape [16]"],
    ),
];

#[test]
fn lies_are_refused_by_name() {
    for (tell, words) in LIES {
        let folder = Folder::new();
        let (mut text, mut mmproj) = (text_gguf(), mmproj_gguf());
        tell(&mut text, &mut mmproj);
        refused(&write(&folder, &text, &mmproj), words);
    }
}

#[test]
fn cut_files_are_refused_wherever_they_are_cut() {
    let folder = Folder::new();
    let (text, mmproj) = (text_gguf(), mmproj_gguf());
    let paths = write(&folder, &text, &mmproj);
    for (name, gguf) in [("model.gguf", &text), ("mmproj.gguf", &mmproj)] {
        let (header, whole) = (gguf.header().len(), gguf.bytes());
        // The padding behind the last tensor may go.
        let last = whole.len() - 31;
        for len in (0..header).step_by(11).chain((header..last).step_by(499)) {
            folder.write(name, &whole[..len]);
            refused(&paths, &[name, if len == 0 { "the file is empty" } else { "is damaged" }]);
        }
        folder.write(name, whole);
    }
    assert!(open(&paths).is_ok());
}

#[test]
fn the_vision_file_is_found_or_asked_for() {
    let folder = Folder::new();
    let model = folder.write("model.gguf", text_gguf().bytes());
    let paths = ModelPaths { model, ..ModelPaths::default() };
    refused(&paths, &["the vision file of", "--mmproj"]);
    let one = folder.write("mmproj-f16.gguf", mmproj_gguf().bytes());
    assert!(open(&paths).is_ok());
    folder.write("other-mmproj.gguf", mmproj_gguf().bytes());
    refused(&paths, &["mmproj-f16.gguf, other-mmproj.gguf", "--mmproj"]);
    assert!(open(&ModelPaths { mmproj: Some(one), ..paths.clone() }).is_ok());
    refused(
        &ModelPaths { mmproj: Some(PathBuf::from("/nowhere.gguf")), ..paths },
        &["cannot read /nowhere.gguf"],
    );
}

/// A tower as the old converter wrote it: the last block left out and not counted, the MLP's matrices
/// called by each other's names.
fn legacy(mut mmproj: Gguf) -> Gguf {
    mmproj.set("clip.vision.block_count", Meta::U32(1));
    for tensor in &mut mmproj.tensors {
        tensor.name = match tensor.name.split_once("ffn_") {
            Some((block, rest)) if rest.starts_with("up") => format!("{block}ffn_down{}", &rest[2..]),
            Some((block, rest)) => format!("{block}ffn_up{}", &rest[4..]),
            None => tensor.name.clone(),
        };
    }
    mmproj
}

#[test]
fn old_and_new_vision_files_run_the_same_blocks() {
    let folder = Folder::new();
    let text = text_gguf();
    let mut with_layer = legacy(mmproj_gguf());
    with_layer.set("clip.vision.feature_layer", Meta::U32(1));
    let mut with_newer_key = mmproj_gguf();
    with_newer_key.keys.retain(|(key, _)| *key != "clip.projector_type");
    with_newer_key.set("clip.vision.projector_type", Meta::Text("ldpv2"));
    let mut squeezed = mmproj_gguf();
    squeezed.tensor("mm.model.peg.0.weight").extents = vec![3, 3, 32];
    for mmproj in [mmproj_gguf(), legacy(mmproj_gguf()), with_layer, with_newer_key, squeezed] {
        let files = open(&write(&folder, &text, &mmproj)).unwrap();
        assert_eq!(files.vision.blocks, 1);
        load(&files, &EXACT).unwrap();
    }
    // A complete tower with the old names: its last norm tells.
    let mut complete = legacy(mmproj_gguf());
    complete.set("clip.vision.block_count", Meta::U32(2));
    complete.tensors.push(Stored { name: "v.post_ln.weight".into(), extents: vec![32], kind: 1, offset: 0 });
    assert_eq!(open(&write(&folder, &text, &complete)).unwrap().vision.blocks, 1);
    // A block less than counted is a block lost.
    let mut lost = legacy(mmproj_gguf());
    lost.set("clip.vision.block_count", Meta::U32(2));
    refused(&write(&folder, &text, &lost), &["mmproj.gguf has no tensor \"v.blk.1."]);
}
