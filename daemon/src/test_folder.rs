//! A folder for a test.

use std::fs;
use std::path::PathBuf;

/// A folder that is gone after the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    /// A new folder of this process; no two tests give the same name.
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mobilevlmd-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left for the system to clear.
        let _ = fs::remove_dir_all(&self.0);
    }
}
