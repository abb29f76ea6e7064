//! What was changed over the bus, kept for the next start.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use messages::{NewCaptioning, Rule};
use serde::{Deserialize, Serialize};

use crate::whole_file;

/// Name of the file in the state directory.
const NAME: &str = "changes.json";

/// More than all rules and cameras there can be take.
const MOST_BYTES: u64 = 1 << 20;

/// What differs from the configuration. Everything else follows it, also when it is edited later.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Changes {
    /// The rules, if they were changed.
    pub rules: Option<Vec<Rule>>,
    /// What was changed of the captions of some cameras, by name.
    pub captions: BTreeMap<String, NewCaptioning>,
}

/// Why changes are not kept or not found again.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// The file cannot be read or written.
    #[error("{}: {source}; what is changed over the bus lasts until the daemon stops", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
    /// The file holds something else.
    #[error(
        "{}: damaged: {reason}; it is now called {NAME}.damaged, and the configuration holds alone",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Changes and where they are kept.
#[derive(Debug, Default)]
pub struct Kept {
    path: Option<PathBuf>,
    changes: Changes,
}

impl Kept {
    /// Reads what is kept in `folder`; without one nothing is kept. Trouble is told in the log.
    pub fn open(folder: Option<PathBuf>) -> Self {
        let path = folder.map(|folder| folder.join(NAME));
        let changes = path.as_deref().map_or(Ok(Changes::default()), read);
        let changes = changes.unwrap_or_else(|error| {
            tracing::warn!("{error}");
            Changes::default()
        });
        Self { path, changes }
    }

    /// The changes.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Changes the changes and keeps them.
    ///
    /// Errors: they cannot be written. They hold all the same until the daemon stops.
    pub fn update(&mut self, change: impl FnOnce(&mut Changes)) -> Result<(), ChangesError> {
        change(&mut self.changes);
        let Some(path) = &self.path else { return Ok(()) };
        let failed = |source| ChangesError::File { path: path.clone(), source };
        let bytes = serde_json::to_vec_pretty(&self.changes).map_err(|error| failed(error.into()))?;
        whole_file::write(path, &bytes).map_err(failed)
    }
}

/// Reads a file of changes; where there is none, nothing was changed. A damaged one is set aside.
fn read(path: &Path) -> Result<Changes, ChangesError> {
    let failed = |source| ChangesError::File { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Changes::default()),
        Err(error) => return Err(failed(error)),
    };
    let reason = match serde_json::from_slice::<Changes>(&bytes) {
        _ if bytes.len() as u64 > MOST_BYTES => format!("longer than {MOST_BYTES} bytes"),
        Ok(changes) => match changes.rules.as_deref().map(Rule::check_all) {
            Some(Err((index, error))) => format!("rule[{index}].{error}"),
            _ => return Ok(changes),
        },
        Err(error) => error.to_string(),
    };
    fs::rename(path, path.with_extension("json.damaged")).map_err(failed)?;
    Err(ChangesError::Damaged { path: path.to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_folder::Folder;

    #[test]
    fn changes_are_found_again() {
        let folder = Folder::new("changes");
        let open = || Kept::open(Some(folder.0.clone()));
        assert_eq!(open().changes(), &Changes::default());
        let paused = NewCaptioning { paused: Some(true), ..NewCaptioning::default() };
        let mut kept = open();
        kept.update(|changes| {
            changes.rules = Some(vec![Rule::new("door", "Is the door open?")]);
            changes.captions.insert("front".into(), paused.clone());
        })
        .expect("kept");
        assert_eq!(open().changes(), kept.changes());
        assert_eq!(open().changes().captions["front"], paused);
    }

    #[test]
    fn without_a_folder_nothing_is_kept() {
        let mut kept = Kept::open(None);
        kept.update(|changes| changes.rules = Some(Vec::new())).expect("nothing to write");
        assert_eq!(kept.changes().rules, Some(Vec::new()));
        assert_eq!(Kept::open(None).changes(), &Changes::default());
        let mut nowhere = Kept::open(Some("/no/such/folder".into()));
        nowhere.update(|changes| changes.rules = None).expect_err("it cannot be written");
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let nameless = r#"{"rules": [{"name": "", "question": "x"}]}"#;
        let long = " ".repeat(MOST_BYTES as usize + 1);
        for (text, reason) in [
            ("", "EOF"),
            ("{", "EOF"),
            (r#"{"rule": []}"#, "unknown field"),
            (nameless, "rule[0].name"),
            (long.as_str(), "longer than"),
        ] {
            let folder = Folder::new("damaged-changes");
            let path = folder.0.join(NAME);
            fs::write(&path, text).expect("it can be written");
            let error = read(&path).expect_err("damaged").to_string();
            assert!(error.contains(reason), "{error}");
            assert!(!path.exists() && folder.0.join("changes.json.damaged").exists());
            assert_eq!(read(&path).expect("no file is no change"), Changes::default());
        }
    }
}
