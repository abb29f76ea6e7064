//! Checkpoint directories with a lie in the configuration, the index or the weights.

use kernels::{Device, Reference};
use mobilevlmd::model::files::{ModelPaths, ProjectorKind};
use mobilevlmd::model::weights::{self, kept::Kept};

use super::build::{
    CONFIG, Folder, TOWER, checkpoint, checkpoint_shapes, checkpoint_shapes_of, safetensors, safetensors_of,
    torch_file, tower_shapes, zip,
};
use super::{EXACT, load, open, refused};

fn paths(folder: &Folder) -> ModelPaths {
    ModelPaths { model: folder.path().to_owned(), ..ModelPaths::default() }
}

/// A complete checkpoint in one safetensors file.
fn complete() -> Folder {
    let folder = Folder::new();
    checkpoint(&folder);
    folder.write("model.safetensors", safetensors(&checkpoint_shapes()));
    folder
}

#[test]
fn the_smallest_checkpoints_load() {
    let folder = complete();
    let files = open(&paths(&folder)).unwrap();
    assert_eq!(files.vision, super::build::vision());
    load(&files, &EXACT).unwrap();
    let folder = Folder::new();
    checkpoint(&folder);
    let weights = folder.write("pytorch_model.bin", torch_file(&checkpoint_shapes(), b""));
    load(&open(&paths(&folder)).unwrap(), &EXACT).unwrap();
    // A weight file stands for its folder.
    load(&open(&ModelPaths { model: weights, ..paths(&folder) }).unwrap(), &EXACT).unwrap();
}

/// Replaces the value of a key of a flat JSON object.
fn with(json: &str, key: &str, value: &str) -> String {
    let mut object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).unwrap();
    object.insert(key.into(), serde_json::from_str(value).unwrap());
    serde_json::to_string(&object).unwrap()
}

#[test]
fn absurd_configurations_are_refused_by_key() {
    let folder = complete();
    for (key, value, words) in [
        (
            "mm_projector_type",
            "\"mlp2x_gelu\"",
            &["config.json", "mm_projector_type is \"mlp2x_gelu\"", "ldpnetv2"][..],
        ),
        ("mm_projector_type", "null", &["model_type is \"mobilevlm\"", "no MobileVLM model"]),
        ("num_attention_heads", "0", &["num_attention_heads is 0"]),
        ("num_attention_heads", "3", &["num_attention_heads is 3, which does not divide hidden_size 32"]),
        ("num_attention_heads", "-2", &["num_attention_heads is \"-2\", expected a whole number"]),
        ("num_attention_heads", "\"two\"", &["num_attention_heads is"]),
        ("num_key_value_heads", "0", &["number of key heads is 0"]),
        ("hidden_size", "1e300", &["hidden_size is"]),
        ("hidden_size", "18446744073709551615", &["num_attention_heads is 2"]),
        ("hidden_size", "18446744073709551614", &["hidden size is 18446744073709551614"]),
        ("hidden_size", "64", &["expected [8, 64]"]),
        ("vocab_size", "9", &["\"lm_head.weight\" has shape [8, 32], expected [9, 32]"]),
        ("num_hidden_layers", "2", &["has no tensor \"model.layers.1.input_layernorm.weight\""]),
        ("num_hidden_layers", "1000000000000", &["number of layers is 1000000000000"]),
        ("rms_norm_eps", "0", &["epsilon is 0"]),
        ("rope_theta", "-1", &["rotary base is -1"]),
        ("rope_scaling", "{\"type\": \"linear\", \"factor\": 2.0}", &["rope_scaling is set"]),
        ("mm_vision_select_layer", "-9", &["mm_vision_select_layer is -9"]),
        (
            "mm_vision_select_layer",
            "-9223372036854775808",
            &["mm_vision_select_layer is -9223372036854775808"],
        ),
        ("mm_vision_select_layer", "0", &["number of vision blocks is 0"]),
        ("image_aspect_ratio", "\"anyres\"", &["image_aspect_ratio is \"anyres\""]),
        ("hidden_act", "\"gelu\"", &["hidden_act is \"gelu\""]),
    ] {
        folder.write("config.json", with(CONFIG, key, value));
        refused(&paths(&folder), words);
    }
    for (text, words) in [
        ("", "config.json is damaged"),
        ("[1, 2]", "no JSON object"),
        ("{\"rms_norm_eps\": NaN}", "config.json is damaged"),
        (&"[".repeat(100_000), "config.json is damaged"),
        ("{\"hidden_size\"\n:\n", "config.json is damaged"),
    ] {
        folder.write("config.json", text);
        refused(&paths(&folder), &[words]);
    }
    folder.write("config.json", CONFIG);
    for (key, value, words) in [
        ("num_attention_heads", "0", "number of vision heads is 0"),
        ("patch_size", "3", "patch size is 3"),
        ("image_size", "0", "image size is 0"),
        ("hidden_act", "\"gelu\"", "hidden_act is"),
        ("layer_norm_eps", "1", "epsilon is 1"),
    ] {
        folder.write("openai/clip/config.json", with(TOWER, key, value));
        refused(&paths(&folder), &["clip", words].map(|word| if word == "clip" { "" } else { word }));
    }
    folder.write("openai/clip/config.json", TOWER);
    folder.write("openai/clip/preprocessor_config.json", r#"{"image_std": [0.1, 0.1]}"#);
    refused(&paths(&folder), &["preprocessor_config.json: image_std is"]);
}

#[test]
fn the_tower_is_found_or_asked_for() {
    let folder = complete();
    std::fs::rename(folder.path().join("openai"), folder.path().join("elsewhere")).unwrap();
    refused(&paths(&folder), &["vision tower \"openai/clip\"", "--vision-tower"]);
    let named = ModelPaths { vision_tower: Some(folder.path().join("elsewhere/clip")), ..paths(&folder) };
    assert!(open(&named).is_ok());
    let absent = ModelPaths { vision_tower: Some(folder.path().join("absent")), ..paths(&folder) };
    refused(&absent, &["cannot read", "absent"]);
    // LDP checkpoints take the weights of the tower; without any there is nothing to take.
    let mut shapes = checkpoint_shapes();
    shapes.retain(|name, _| !name.contains("vision_tower"));
    folder.write("model.safetensors", safetensors(&shapes));
    refused(&named, &["the weights of", "elsewhere/clip"]);
}

/// The number that fills the vision weights which a checkpoint loads.
fn vision_value(folder: &Folder) -> f32 {
    let files = open(&paths(folder)).unwrap();
    let weights = weights::vision(&files, &Reference, &EXACT, &Kept::nowhere()).unwrap();
    let mut class = vec![0.0; files.vision.hidden];
    Reference.read(&weights.class, 0, &mut class);
    class[0]
}

#[test]
fn each_version_takes_its_own_vision_weights() {
    let (inside, beside) = (1.0, 2.0);
    for (projector, kind, both) in
        [("ldpnet", ProjectorKind::Ldp, beside), ("ldpnetv2", ProjectorKind::LdpV2, inside)]
    {
        let folder = Folder::new();
        checkpoint(&folder);
        folder.write("config.json", with(CONFIG, "mm_projector_type", &format!("{projector:?}")));
        let mut shapes = checkpoint_shapes_of(kind);
        folder.write("model.safetensors", safetensors_of(&shapes, inside));
        assert_eq!(vision_value(&folder), inside, "{projector} inside only");
        folder.write("openai/clip/model.safetensors", safetensors_of(&tower_shapes(), beside));
        assert_eq!(vision_value(&folder), both, "{projector} inside and beside");
        shapes.retain(|name, _| !name.contains("vision_tower"));
        folder.write("model.safetensors", safetensors_of(&shapes, inside));
        assert_eq!(vision_value(&folder), beside, "{projector} beside only");
    }
}

#[test]
fn files_that_are_missing_are_named() {
    let folder = complete();
    std::fs::remove_file(folder.path().join("tokenizer.model")).unwrap();
    refused(&paths(&folder), &["the tokenizer of", "tokenizer.json"]);
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    refused(&paths(&folder), &["the weights of", "pytorch_model.bin.index.json"]);
    std::fs::remove_file(folder.path().join("config.json")).unwrap();
    refused(&paths(&folder), &["a model in", "config.json"]);
    refused(
        &ModelPaths { model: folder.path().join("absent"), ..paths(&folder) },
        &["cannot read", "absent"],
    );
}

#[test]
fn an_index_leads_to_weights_in_its_own_folder_only() {
    let folder = Folder::new();
    checkpoint(&folder);
    let index = |shard: &str| {
        let map = checkpoint_shapes()
            .into_keys()
            .map(|name| (name, shard.into()))
            .collect::<serde_json::Map<_, _>>();
        serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map }).to_string()
    };
    let name = "model.safetensors.index.json";
    for (shard, words) in [
        (
            "model-00001-of-00002.safetensors",
            &["shard", "model-00001-of-00002.safetensors not found", name][..],
        ),
        ("model.safetensors.index.json", &["weight_map", "names the shard"]),
        ("../model.safetensors", &["weight_map", "in its own folder"]),
        ("/etc/passwd", &["weight_map"]),
        ("", &["weight_map"]),
        ("openai/x.bin", &["weight_map"]),
        ("tokenizer.model", &["weight_map"]),
    ] {
        folder.write(name, index(shard));
        refused(&paths(&folder), words);
    }
    folder.write(name, r#"{"weight_map": {}}"#);
    refused(&paths(&folder), &["the weights of", "openai/clip"]);
    folder.write(name, r#"{"weight_map": 3}"#);
    refused(&paths(&folder), &[name, "is damaged"]);
    folder.write(name, index("whole.safetensors"));
    folder.write("whole.safetensors", safetensors(&checkpoint_shapes()));
    load(&open(&paths(&folder)).unwrap(), &EXACT).unwrap();
}

#[test]
fn damaged_safetensors_are_refused() {
    let folder = complete();
    let whole = safetensors(&checkpoint_shapes());
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for len in (0..header).step_by(37).chain((header..whole.len()).step_by(997)) {
        folder.write("model.safetensors", &whole[..len]);
        refused(&paths(&folder), &["model.safetensors is damaged"]);
    }
    for claim in [0, 1, header as u64, 1 << 40, 1 << 63, u64::MAX] {
        let mut file = whole.clone();
        file[..8].copy_from_slice(&claim.to_le_bytes());
        folder.write("model.safetensors", file);
        refused(&paths(&folder), &["model.safetensors is damaged"]);
    }
    let mut shapes = checkpoint_shapes();
    *shapes.get_mut("model.norm.weight").unwrap() = vec![31];
    folder.write("model.safetensors", safetensors(&shapes));
    refused(&paths(&folder), &["\"model.norm.weight\" has shape [31], expected [32]"]);
    shapes.remove("model.norm.weight");
    folder.write("model.safetensors", safetensors(&shapes));
    refused(&paths(&folder), &["has no tensor \"model.norm.weight\""]);
}

#[test]
fn pickles_that_call_are_refused() {
    let folder = Folder::new();
    checkpoint(&folder);
    let witness = folder.path().join("called");
    let command = format!("touch {}", witness.display());
    let command = [&(command.len() as u32).to_le_bytes()[..], command.as_bytes()].concat();
    for (module, words) in [
        ("cos\nsystem\n", "os.system"),
        ("cposix\nsystem\n", "posix.system"),
        ("cbuiltins\nexec\n", "builtins.exec"),
        ("ctorch\nload\n", "torch.load"),
    ] {
        let prelude = [module.as_bytes(), b"X", &command, b"\x85R0"].concat();
        folder.write("pytorch_model.bin", torch_file(&checkpoint_shapes(), &prelude));
        refused(&paths(&folder), &["pytorch_model.bin is damaged", words, "do not trust it"]);
    }
    assert!(!witness.exists());
}

#[test]
fn damaged_torch_files_are_refused() {
    let folder = Folder::new();
    checkpoint(&folder);
    let whole = torch_file(&checkpoint_shapes(), b"");
    for len in (0..whole.len()).step_by(613) {
        folder.write("pytorch_model.bin", &whole[..len]);
        refused(&paths(&folder), &["pytorch_model.bin is damaged"]);
    }
    // Sizes of the last directory entry, then of the directory itself, as large as they go.
    let end = whole.len() - 22;
    for at in [end + 8, end + 10, end + 12, end + 16] {
        let mut file = whole.clone();
        file[at..at + 2].fill(255);
        folder.write("pytorch_model.bin", file);
        assert!(open(&paths(&folder)).is_err() || at == end + 8);
    }
    let pickle = b"\x80\x02}(X\xff\xff\xff\x7f".to_vec();
    folder.write("pytorch_model.bin", zip(&[("m/data.pkl".into(), pickle)]));
    refused(&paths(&folder), &["2147483647 bytes expected"]);
    folder.write("pytorch_model.bin", b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.");
    refused(&paths(&folder), &["torch before 1.6"]);
}
