//! Read-only memory maps of model files.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::{Advice, Mmap, UncheckedAdvice};

use super::ModelError;

/// A file in memory, paged in by the system as it is read.
#[derive(Debug)]
pub struct Mapped {
    path: PathBuf,
    map: Mmap,
}

impl Mapped {
    /// Maps the regular file at `path`; an empty file is an error.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let file = File::open(path).map_err(|error| ModelError::read(path, error))?;
        let meta = file.metadata().map_err(|error| ModelError::read(path, error))?;
        if !meta.is_file() {
            return Err(ModelError::unsupported(path.display().to_string(), "it is no regular file"));
        }
        if meta.len() == 0 {
            return Err(ModelError::damaged(path.display().to_string(), "the file is empty"));
        }
        // SAFETY: the map is read-only and private. Its bytes change only if another process writes
        // the file in place; model files are replaced, not edited, and everything read from the map
        // is either checked after it was copied out or is a weight, for which every bit pattern is
        // a valid number.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| ModelError::read(path, error))?;
        Ok(Self { path: path.to_owned(), map })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file in words, for messages.
    pub fn place(&self) -> String {
        self.path.display().to_string()
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Says that all of it will be read soon.
    pub fn want(&self) {
        // Only advice: the system reads what is touched in any case.
        let _ = self.map.advise(Advice::WillNeed);
    }

    /// Lets the system drop the pages of `range`; they are read again from the file on next use.
    pub fn release(&self, range: Range<usize>) {
        if range.end > self.map.len() || range.is_empty() {
            return;
        }
        // SAFETY: the mapping is a read-only file mapping that nothing wrote to, so dropped pages
        // come back with the same bytes; references to them stay valid.
        let advised =
            unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
        // Only advice: memory stays as it was if the system declines.
        drop(advised);
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_pages_read_the_same_again() {
        let path = std::env::temp_dir().join(format!("mobilevlmd-mapped-{}", std::process::id()));
        let content: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let mapped = Mapped::open(&path).unwrap();
        assert_eq!(mapped.bytes(), content);
        mapped.release(5_000..90_000);
        mapped.release(0..usize::MAX);
        assert_eq!(mapped.bytes(), content);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn empty_and_absent_files_are_errors() {
        let path = std::env::temp_dir().join(format!("mobilevlmd-empty-{}", std::process::id()));
        std::fs::write(&path, b"").unwrap();
        assert!(Mapped::open(&path).unwrap_err().to_string().contains("the file is empty"));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Mapped::open(&path), Err(ModelError::Read { .. })));
        assert!(matches!(Mapped::open(&std::env::temp_dir()), Err(ModelError::Unsupported { .. })));
    }
}
