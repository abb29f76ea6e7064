//! Where a setting was made: what an error message points at.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where a setting was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of a configuration file, counted from 1.
    File(PathBuf, usize),
    /// An environment variable.
    Environment(String),
    /// A flag of the command line, with its dashes.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Environment(name) => write!(f, "environment variable {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// The origin of every key that was set. Keys are written `model.path` and `camera[0].name`.
#[derive(Debug, Default)]
pub(super) struct Origins(BTreeMap<String, Origin>);

impl Origins {
    /// The keys of a file. Text that is not TOML has none.
    pub(super) fn of_file(path: &Path, text: &str) -> Self {
        let mut origins = Self::default();
        for (key, span) in keys(text) {
            origins.0.insert(key, Origin::File(path.to_path_buf(), line_of(text, span.start)));
        }
        origins
    }

    /// Notes that `key`, with everything below it, was set at `origin`.
    pub(super) fn set(&mut self, key: &str, origin: Origin) {
        self.0.retain(|known, _| !is_below(known, key));
        self.0.insert(key.into(), origin);
    }

    /// Where `key` was set, or the nearest thing that holds it.
    pub(super) fn find(&self, key: &str) -> Option<&Origin> {
        let mut key = key;
        loop {
            if let Some(origin) = self.0.get(key) {
                return Some(origin);
            }
            key = &key[..key.rfind(['.', '['])?];
        }
    }
}

/// Whether `key` lies inside `parent`: `camera[0].name` in `camera`.
fn is_below(key: &str, parent: &str) -> bool {
    key.strip_prefix(parent).is_some_and(|rest| rest.starts_with(['.', '[']))
}

/// The line, from 1, that holds byte `offset`.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&byte| byte == b'\n').count()
}

/// The key whose name or value covers byte `offset` most closely.
pub(super) fn key_at(text: &str, offset: usize) -> Option<String> {
    keys(text)
        .into_iter()
        .filter(|(_, span)| span.contains(&offset))
        .min_by_key(|(key, span)| (span.len(), std::cmp::Reverse(key.len())))
        .map(|(key, _)| key)
}

/// Every key of a document with the bytes of its name and, as a second entry, of its value.
fn keys(text: &str) -> Vec<(String, std::ops::Range<usize>)> {
    let (table, _errors) = DeTable::parse_recoverable(text);
    let mut found = Vec::new();
    walk_table("", table.get_ref(), &mut found);
    found
}

fn walk_table(parent: &str, table: &DeTable<'_>, found: &mut Vec<(String, std::ops::Range<usize>)>) {
    for (name, value) in table {
        let name_text: &str = name.get_ref();
        let key = if parent.is_empty() { name_text.to_owned() } else { format!("{parent}.{name_text}") };
        // The value first: an origin is the line of the name, and the last entry wins.
        walk_value(&key, value, found);
        found.push((key, name.span()));
    }
}

fn walk_value(key: &str, value: &Spanned<DeValue<'_>>, found: &mut Vec<(String, std::ops::Range<usize>)>) {
    found.push((key.to_owned(), value.span()));
    match value.get_ref() {
        DeValue::Table(table) => walk_table(key, table, found),
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk_value(&format!("{key}[{index}]"), item, found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "device_name = \"r\"\n[model]\npath = 'x'\n\n[[camera]]\nname = \"a\"\n[[camera]]\nname = 3\n";

    #[test]
    fn every_key_has_its_line() {
        let origins = Origins::of_file(Path::new("f.toml"), TEXT);
        for (key, line) in [
            ("device_name", 1),
            ("model", 2),
            ("model.path", 3),
            ("model.dtype", 2),
            ("camera[0]", 5),
            ("camera[0].name", 6),
            ("camera[1].name", 8),
            ("camera[1].source", 7),
        ] {
            assert_eq!(origins.find(key), Some(&Origin::File("f.toml".into(), line)), "{key}");
        }
        assert_eq!(origins.find("bus.listen"), None);
    }

    #[test]
    fn an_override_hides_what_lay_below() {
        let mut origins = Origins::of_file(Path::new("f.toml"), TEXT);
        origins.set("camera", Origin::Flag("--camera".into()));
        assert_eq!(origins.find("camera[1].name"), Some(&Origin::Flag("--camera".into())));
        assert_eq!(origins.find("model.path"), Some(&Origin::File("f.toml".into(), 3)));
    }

    #[test]
    fn the_key_of_an_offset_is_the_innermost() {
        let at = |needle: &str| key_at(TEXT, TEXT.find(needle).expect("needle"));
        assert_eq!(at("3\n").as_deref(), Some("camera[1].name"));
        assert_eq!(at("'x'").as_deref(), Some("model.path"));
        assert_eq!(at("device").as_deref(), Some("device_name"));
    }
}
