//! The shipped files equal the defaults.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use messages::Rule;
use mobilevlmd::config::{CameraConfig, Config, Sources, environment_name};

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Keys and sections of a table, written `model.path`.
fn keys(table: &toml::Table) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for (name, value) in table {
        match value {
            toml::Value::Table(section) => keys.extend(section.keys().map(|key| format!("{name}.{key}"))),
            _ => {
                keys.insert(name.clone());
            }
        }
    }
    keys
}

/// The example of a `[[name]]` table in the shipped file, without its comment marks. It must show
/// every key of `all`.
fn example(name: &str, all: &toml::Table) -> Config {
    let text = shipped("mobilevlmd.toml");
    let head = format!("# [[{name}]]");
    let start = text.find(&head).expect("the file has an example") + head.len();
    let end = text[start..].find("# [[").map_or(text.len(), |end| start + end);
    let lines = text[start..end].lines().map(|line| line.trim_start_matches("# "));
    let keys = lines.filter(|line| line.contains(" = ")).map(|line| format!("{line}\n"));
    let uncommented = format!("[[{name}]]\n{}", keys.collect::<String>());
    let config: Config = toml::from_str(&uncommented).expect("the example is valid");
    let table: toml::Table = uncommented.parse().expect("the example is TOML");
    let given = table[name][0].as_table().expect("one table");
    assert_eq!(
        given.keys().collect::<BTreeSet<_>>(),
        all.keys().collect::<BTreeSet<_>>(),
        "the example [[{name}]] of systemd/mobilevlmd.toml must show every key and no other"
    );
    config
}

#[test]
fn the_shipped_file_holds_the_defaults() {
    let text = shipped("mobilevlmd.toml");
    let config: Config = toml::from_str(&text).expect("the shipped file is valid");
    assert_eq!(config, Config::default());

    let file: toml::Table = text.parse().expect("the shipped file is TOML");
    let mut expected = keys(&Config::default().to_table());
    expected.remove("camera");
    expected.remove("rule");
    assert_eq!(keys(&file), expected, "systemd/mobilevlmd.toml must show every key of Config and no other");

    let all = toml::Table::try_from(CameraConfig::default()).expect("a table");
    let camera = example("camera", &all).cameras.pop().expect("one camera");
    let default =
        CameraConfig { name: camera.name.clone(), source: camera.source.clone(), ..Default::default() };
    assert_eq!(camera, default, "the example camera must show the defaults");
    let all = toml::Table::try_from(Rule::default()).expect("a table");
    let rule = example("rule", &all).rules.pop().expect("one rule");
    let default = Rule::new(rule.name.clone(), rule.question.clone());
    assert_eq!(rule, default, "the example rule must show the defaults");
    assert_eq!(rule.check(), Ok(()));
}

#[test]
fn every_key_has_a_comment() {
    let text = shipped("mobilevlmd.toml");
    let lines: Vec<_> = text.lines().collect();
    for pair in lines.windows(2) {
        // Inside the example camera everything stands behind a comment mark of its own.
        let mark = if pair[1].starts_with("# ") { "# " } else { "" };
        let line = &pair[1][mark.len()..];
        let is_key = line.contains(" = ") && line.starts_with(|c: char| c.is_ascii_lowercase());
        // Width and height share a comment.
        let needs_comment = is_key && !line.starts_with("height");
        assert!(
            !needs_comment || pair[0].starts_with(&format!("{mark}#")),
            "\"{line}\" needs a comment above it"
        );
    }
}

#[test]
fn a_bad_file_is_refused_with_file_line_and_key() {
    for (text, expected) in [
        ("[caption]\npromt = 'x'\n", ":2: caption.promt: unknown key"),
        ("[caption]\nmax_tokens = 0\n", ":2: caption.max_tokens: 0 is not accepted, expected 1 to 1856"),
        ("[model]\nisa = 'sse'\n", ":2: model.isa: \"sse\" is not accepted, expected one of auto, scalar"),
        ("[bus]\nlisten = ['tcp/0.0.0.0:1']\n", ":2: bus.listen[0]: \"tcp/0.0.0.0:1\" lets other machines"),
        ("\n[[camera]]\nname = 'a'\nsource = 'x'\n", ":4: camera[0].source: "),
        ("\n[[camera]]\nsource = 'test:'\n", ":2: camera[0].name: missing"),
        ("[caption]\nprompt = 3\n", ":2: caption.prompt: invalid type: integer \"3\", expected a string"),
        ("caption = 3\n", ":1: caption: "),
        ("x", ":1: not valid TOML: "),
        ("\u{0}", ":1: not valid TOML: "),
    ] {
        let path = write("bad.toml", text.as_bytes());
        let error = refusal(&path);
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        assert!(error.contains(expected), "\"{error}\" should contain \"{expected}\"");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_file_that_is_no_text_is_refused() {
    assert!(refusal(&write("binary.toml", &[0xff, 0xfe, 0x00])).contains("binary.toml: "));
    assert!(refusal(&write("huge.toml", &vec![b'#'; 2 << 20])).contains("longer than 1 MiB"));
    let absent = refusal(Path::new("/nonexistent/mobilevlmd.toml"));
    assert!(absent.contains("/nonexistent/mobilevlmd.toml: ") && absent.contains("--config"), "{absent}");
}

fn write(name: &str, bytes: &[u8]) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("mobilevlmd-config-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("temporary folder");
    let path = folder.join(name);
    fs::write(&path, bytes).expect("temporary file");
    path
}

fn refusal(path: &Path) -> String {
    let sources = Sources { file: Some(path.to_path_buf()), ..Sources::default() };
    sources.load().expect_err("refused").to_string()
}

#[test]
fn the_documented_variable_exists() {
    assert!(
        shipped("mobilevlmd.toml").contains(&format!("model.path is {}", environment_name("model.path")))
    );
}
