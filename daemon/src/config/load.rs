//! Reads the configuration from its sources, each over the one before.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::origin::{Origins, key_at, line_of};
use super::{Config, ConfigError, Origin, check};

/// The file that is read if no other is named. It may be absent.
pub const DEFAULT_PATH: &str = "/etc/mobilevlmd/mobilevlmd.toml";

/// What the names of environment variables begin with.
const PREFIX: &str = "MOBILEVLMD_";

/// Names the file; the one variable that is no key.
const FILE_VARIABLE: &str = "MOBILEVLMD_CONFIG";

/// A configuration longer than this is a mistake.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// One setting from outside the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    /// Where it was made.
    pub origin: Origin,
    /// The key, written `model.path`; `camera` takes a list of `NAME=SOURCE` or `SOURCE`, `rule` one of
    /// `NAME=QUESTION`.
    pub key: String,
    /// The values. A key that is no list takes exactly one.
    pub values: Vec<String>,
}

impl Override {
    /// A setting made by a flag of the command line.
    pub fn flag(flag: &str, key: &str, values: Vec<String>) -> Self {
        Self { origin: Origin::Flag(flag.into()), key: key.into(), values }
    }
}

/// Where settings come from, weakest first. The defaults lie below all.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file; without one, `MOBILEVLMD_CONFIG`, then [`DEFAULT_PATH`] if it exists.
    pub file: Option<PathBuf>,
    /// Variables of the environment; others than `MOBILEVLMD_*` are ignored.
    pub environment: Vec<(String, String)>,
    /// Flags of the command line.
    pub flags: Vec<Override>,
}

impl Sources {
    /// The sources of a process: its environment, a file named on the command line, and flags.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<Override>) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { file, environment, flags }
    }

    /// The file that [`Sources::load`] reads, if any.
    pub fn file(&self) -> Option<PathBuf> {
        let named = || self.environment.iter().find(|(name, _)| name == FILE_VARIABLE);
        let default = Path::new(DEFAULT_PATH);
        self.file
            .clone()
            .or_else(|| named().map(|(_, value)| PathBuf::from(value)))
            .or_else(|| default.exists().then(|| default.to_path_buf()))
    }

    /// Reads everything and validates the result.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let mut origins = Origins::default();
        let mut config = Config::default();
        if let Some(path) = self.file() {
            let text =
                read(&path).map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
            origins = Origins::of_file(&path, &text);
            config = parse(&path, &text)?;
        }
        for change in environment_overrides(&self.environment)?.iter().chain(&self.flags) {
            config = apply(&config, change)?;
            origins.set(&change.key, change.origin.clone());
        }
        config.validate().map_err(|error| with_origin(error, &origins))?;
        Ok(config)
    }
}

/// What commands other than the daemon log: warnings, unless `MOBILEVLMD_LOG` says otherwise.
/// What zenoh would warn of is told as the error of the command.
pub fn log_of_environment() -> Result<String, ConfigError> {
    let name = environment_name("log");
    let Some(log) = std::env::var(&name).ok() else { return Ok("warn,zenoh=off".into()) };
    let config = Config { log: log.clone(), ..Config::default() };
    let mut origins = Origins::default();
    origins.set("log", Origin::Environment(name));
    config.validate().map_err(|error| with_origin(error, &origins))?;
    Ok(log)
}

/// Whether colours are unwelcome on this terminal: `NO_COLOR`.
pub fn wants_plain_text() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// The environment variable that sets a key.
pub fn environment_name(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

impl Config {
    /// Every key with its default, as TOML: tables inside, cameras and rules as empty lists.
    pub fn to_table(&self) -> Table {
        Table::try_from(self).expect("a configuration made of text and numbers is TOML")
    }

    /// Every key that an override can set, `model.path` for example.
    pub fn keys() -> Vec<String> {
        let mut keys = Vec::new();
        for (name, value) in Config::default().to_table() {
            match value {
                Value::Table(section) => keys.extend(section.keys().map(|key| format!("{name}.{key}"))),
                _ => keys.push(name),
            }
        }
        keys
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other("longer than 1 MiB, so not a configuration"));
    }
    Ok(text)
}

/// Reads one file over the defaults.
fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let origin = Origin::File(path.to_path_buf(), line_of(text, offset));
        let problem = plain(error.message());
        let is_toml = text.parse::<Table>().is_ok();
        match key_at(text, offset) {
            Some(key) if is_toml => ConfigError::Refused { origin: Some(origin), key, problem },
            _ => ConfigError::Syntax { origin, problem },
        }
    })
}

/// The settings among the variables of an environment. An unknown `MOBILEVLMD_*` is refused.
fn environment_overrides(environment: &[(String, String)]) -> Result<Vec<Override>, ConfigError> {
    let keys = Config::keys();
    let mut overrides = Vec::new();
    for (name, value) in environment {
        if !name.starts_with(PREFIX) || name == FILE_VARIABLE {
            continue;
        }
        let origin = Origin::Environment(name.clone());
        let Some(key) = keys.iter().find(|key| environment_name(key) == *name) else {
            let names: Vec<_> = keys.iter().map(|key| environment_name(key)).collect();
            return Err(ConfigError::Refused {
                origin: Some(origin),
                key: name.clone(),
                problem: format!("unknown, expected {FILE_VARIABLE} or one of {}", names.join(", ")),
            });
        };
        let is_list = matches!(default_value(key), Some(Value::Array(_)));
        let values = match is_list {
            true => value.split(',').map(|part| part.trim().to_owned()).filter(|v| !v.is_empty()).collect(),
            false => vec![value.clone()],
        };
        overrides.push(Override { origin, key: key.clone(), values });
    }
    Ok(overrides)
}

/// The default of a key; it tells the type that a value must have.
fn default_value(key: &str) -> Option<Value> {
    let table = Config::default().to_table();
    match key.split_once('.') {
        Some((section, name)) => table.get(section)?.as_table()?.get(name).cloned(),
        None => table.get(key).filter(|value| !value.is_table()).cloned(),
    }
}

/// Changes one key.
fn apply(config: &Config, change: &Override) -> Result<Config, ConfigError> {
    let refuse = |problem: String| ConfigError::Refused {
        origin: Some(change.origin.clone()),
        key: change.key.clone(),
        problem,
    };
    let Some(default) = default_value(&change.key) else {
        return Err(refuse(format!("unknown key, expected one of {}", Config::keys().join(", "))));
    };
    let value = typed(&change.key, &default, &change.values).map_err(refuse)?;
    let mut table = config.to_table();
    match change.key.split_once('.') {
        Some((section, name)) => {
            table.get_mut(section).and_then(Value::as_table_mut).and_then(|t| t.insert(name.into(), value))
        }
        None => table.insert(change.key.clone(), value),
    };
    table.try_into().map_err(|error| refuse(plain(error.message())))
}

/// Text as a value of the same type as `default`.
fn typed(key: &str, default: &Value, values: &[String]) -> Result<Value, String> {
    if key == "camera" {
        return values.iter().map(|text| camera(text)).collect::<Result<_, _>>().map(Value::Array);
    }
    if key == "rule" {
        return values.iter().map(|text| rule(text)).collect::<Result<_, _>>().map(Value::Array);
    }
    if default.is_array() {
        return Ok(Value::Array(values.iter().cloned().map(Value::String).collect()));
    }
    let [text] = values else {
        return Err(format!("expected one value, not {}", values.len()));
    };
    let parsed = match default {
        Value::Boolean(_) => text.parse().ok().map(Value::Boolean).ok_or("true or false"),
        Value::Integer(_) => text.parse().ok().map(Value::Integer).ok_or("a whole number"),
        Value::Float(_) => text.parse().ok().map(Value::Float).ok_or("a number"),
        _ => Ok(Value::String(text.clone())),
    };
    parsed.map_err(|expected| format!("\"{text}\" is not accepted, expected {expected}"))
}

/// `NAME=SOURCE` or `SOURCE` as a camera. Without a name it takes one from its source:
/// `v4l2:/dev/video0` is `video0`.
fn camera(text: &str) -> Result<Value, String> {
    let (name, source) = match text.split_once('=') {
        Some((name, source)) if !name.contains([':', '/']) => (name.to_owned(), source),
        _ => (name_of_source(text), text),
    };
    if name.is_empty() || source.is_empty() {
        return Err(format!("\"{text}\" is not accepted, expected NAME=SOURCE or SOURCE"));
    }
    Ok(texts([("name", &name), ("source", source)]))
}

/// `NAME=QUESTION` as a rule.
fn rule(text: &str) -> Result<Value, String> {
    match text.split_once('=') {
        Some((name, question)) => Ok(texts([("name", name), ("question", question)])),
        None => Err(format!("\"{text}\" is not accepted, expected NAME=QUESTION")),
    }
}

/// A table of texts.
fn texts(fields: [(&str, &str); 2]) -> Value {
    Value::Table(fields.map(|(key, value)| (key.into(), Value::String(value.into()))).into_iter().collect())
}

fn name_of_source(source: &str) -> String {
    let (scheme, path) = source.split_once(':').unwrap_or(("", source));
    let stem = Path::new(path).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    check::name_from(&stem.unwrap_or_else(|| scheme.to_owned()))
}

/// A message of the TOML reader in the words of a user who knows no Rust.
fn plain(message: &str) -> String {
    let mut text = message.replace("unknown field", "unknown key").replace('`', "\"");
    for (rust, words) in [
        ("usize", "a whole number, 0 or more"),
        ("u32", "a whole number, 0 or more"),
        ("u64", "a whole number, 0 or more"),
        ("f64", "a number"),
        ("f32", "a number"),
        ("a boolean", "true or false"),
        ("a sequence", "a list"),
        ("path string", "a string"),
    ] {
        if let Some(start) = text.strip_suffix(&format!("expected {rust}")) {
            text = format!("{start}expected {words}");
        }
    }
    text.lines().collect::<Vec<_>>().join(" ")
}

fn with_origin(error: ConfigError, origins: &Origins) -> ConfigError {
    match error {
        ConfigError::Refused { origin: None, key, problem } => {
            ConfigError::Refused { origin: origins.find(&key).cloned(), key, problem }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(environment: &[(&str, &str)], flags: &[(&str, &[&str])]) -> Result<Config, String> {
        let path = std::env::temp_dir().join(format!("mobilevlmd-empty-{}.toml", std::process::id()));
        std::fs::write(&path, "").expect("temporary file");
        let sources = Sources {
            file: Some(path),
            environment: environment.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            flags: flags
                .iter()
                .map(|(key, values)| {
                    Override::flag("--set", key, values.iter().map(|v| v.to_string()).collect())
                })
                .collect(),
        };
        sources.load().map_err(|error| error.to_string())
    }

    fn parse_error(text: &str) -> String {
        parse(Path::new("m.toml"), text).expect_err("refused").to_string()
    }

    #[test]
    fn flags_stand_over_the_environment() {
        let config = load(
            &[
                ("MOBILEVLMD_MODEL_PATH", "a.gguf"),
                ("MOBILEVLMD_MODEL_THREADS", "3"),
                ("MOBILEVLMD_BUS_JSON", "false"),
                ("MOBILEVLMD_CAPTION_PERIOD_S", "2"),
                ("MOBILEVLMD_BUS_CONNECT", "tcp/10.0.0.1:7447, tcp/10.0.0.2:7447"),
                ("HOME", "/root"),
            ],
            &[("model.path", &["b.gguf"])],
        )
        .expect("accepted");
        assert_eq!(config.model.path, Path::new("b.gguf"));
        assert_eq!(config.model.threads, 3);
        assert!(!config.bus.json);
        assert_eq!(config.caption.period_s, 2.0);
        assert_eq!(config.bus.connect, ["tcp/10.0.0.1:7447", "tcp/10.0.0.2:7447"]);
    }

    #[test]
    fn cameras_take_their_names_from_their_sources() {
        let config =
            load(&[], &[("camera", &["front=test:", "v4l2:/dev/video2", "test:"])]).expect("accepted");
        let names: Vec<_> = config.cameras.iter().map(|camera| camera.name.as_str()).collect();
        assert_eq!(names, ["front", "video2", "test"]);
        assert_eq!(config.cameras[1].source, "v4l2:/dev/video2");
        assert_eq!(config.cameras[1].max_age_s, 1.0);
    }

    #[test]
    fn rules_are_names_and_questions() {
        let config = load(&[], &[("rule", &["door=Is the door open?"])]).expect("accepted");
        assert_eq!(config.rules, [messages::Rule::new("door", "Is the door open?")]);
    }

    #[test]
    fn bad_overrides_are_named() {
        for (environment, flags, expected) in [
            (vec![("MOBILEVLMD_MODEL_PAHT", "x")], vec![], "variable MOBILEVLMD_MODEL_PAHT"),
            (vec![("MOBILEVLMD_MODEL_THREADS", "many")], vec![], "expected a whole number"),
            (vec![("MOBILEVLMD_MODEL_THREADS", "-1")], vec![], "model.threads"),
            (vec![("MOBILEVLMD_MODEL_ISA", "mmx")], vec![], "MOBILEVLMD_MODEL_ISA: model.isa"),
            (vec![], vec![("model.x", &["1"][..])], "flag --set: model.x: unknown key"),
            (vec![], vec![("model", &["1"][..])], "unknown key"),
            (vec![], vec![("bus.json", &["yes"][..])], "expected true or false"),
            (vec![], vec![("camera", &["=test:"][..])], "NAME=SOURCE"),
            (vec![], vec![("rule", &["Is the door open?"][..])], "NAME=QUESTION"),
            (vec![], vec![("rule", &["a b=Is it?"][..])], "flag --set: rule[0].name: "),
        ] {
            let error = load(&environment, &flags).expect_err("refused");
            assert!(error.contains(expected), "{error} should contain {expected}");
        }
    }

    #[test]
    fn messages_name_file_line_key_and_what_is_accepted() {
        for (text, expected) in [
            ("[model]\npaht = 'x'\n", "m.toml:2: model.paht: unknown key \"paht\", expected one of \"path\""),
            ("\n[modle]\n", "m.toml:2: modle: unknown key \"modle\", expected one of "),
            ("[model]\nthreads = 'two'\n", "m.toml:2: model.threads: invalid type"),
            ("[model]\nthreads = -2\n", "expected a whole number, 0 or more"),
            ("[bus]\nlisten = [\n 'a',\n 3]\n", "m.toml:4: bus.listen[1]: invalid type"),
            ("[[camera]]\nnam = 'a'\n", "m.toml:2: camera[0].nam: unknown key"),
            ("[model\n", "m.toml:1: not valid TOML: "),
            ("log = 'a'\nlog = 'b'\n", "m.toml:2: not valid TOML: "),
        ] {
            let error = parse_error(text);
            assert!(error.contains(expected), "{error} should contain {expected}");
        }
    }

    #[test]
    fn variables_have_one_name_each() {
        let keys = Config::keys();
        let mut names: Vec<_> = keys.iter().map(|key| environment_name(key)).collect();
        names.push(FILE_VARIABLE.into());
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(names.contains(&"MOBILEVLMD_LOG".to_owned()));
    }
}
