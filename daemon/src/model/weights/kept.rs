//! Packed weights on disk: the next start maps them instead of reading and packing the model again,
//! and processes with the same model share them in memory.
//!
//! The file says in words what its bytes depend on: weights, how they are loaded, and the device's layout.
//! Only a file that says exactly what this start would say and keeps all its checksums is used. Any
//! other is replaced as a whole, by a thread beside the work, from what this start has packed.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::iter;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use kernels::{BytesOwner, Device, SharedBytes, SharedMatrix};
use serde::{Deserialize, Serialize};

use crate::model::files::map::Mapped;
use crate::model::files::{LoadOptions, ModelError, ModelFiles};

/// Name of the file in its folder, and of the one it is written to first.
const NAME: &str = "weights.packed";
const DRAFT: &str = "weights.packed.new";

/// What the file begins with. Then, as u32: bytes of the words, bytes of the table; words; table; and the
/// checksum of all that.
const MAGIC: &[u8; 8] = b"MVLMWT\x01\n";

/// Bytes before the words.
const FIXED: usize = MAGIC.len() + 8;

/// Matrices begin at multiples of this, as they do in memory: a cache line, so that no vector crosses two.
const ALIGN: usize = 64;

/// Why a file is not used, or not written.
#[derive(Debug, thiserror::Error)]
enum KeptError {
    #[error(transparent)]
    Read(#[from] ModelError),
    #[error("{}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{}: was made of another model, or for another device or version", path.display())]
    Foreign { path: PathBuf },
    #[error("{}: damaged: {problem}", path.display())]
    Damaged { path: PathBuf, problem: &'static str },
}

/// A line of the table: a matrix and where it is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    rows: usize,
    cols: usize,
    dtype: String,
    start: usize,
    bytes: usize,
    crc: u32,
}

/// Packed weights that were found, and those that this start has.
pub struct Kept {
    /// Where they are kept and the words of the file; `None` keeps nothing.
    place: Option<(PathBuf, String)>,
    found: HashMap<String, SharedMatrix>,
    held: RefCell<Vec<(String, SharedMatrix)>>,
    is_complete: Cell<bool>,
}

impl Kept {
    /// Nothing is kept anywhere.
    pub fn nowhere() -> Self {
        Self { place: None, found: HashMap::new(), held: RefCell::default(), is_complete: Cell::new(true) }
    }

    /// Weights of `files`, loaded as `options` say, as they were kept in `folder` by an earlier start on
    /// such a device. What is wrong with the file is logged; then it is replaced.
    pub fn open<D: Device>(
        folder: Option<&Path>,
        files: &ModelFiles,
        device: &D,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        let mut kept = Self::nowhere();
        let (Some(folder), Some(layout)) = (folder, device.matrix_layout()) else { return Ok(kept) };
        let words = format!(
            "weights {}\nas {} and {}, {}\nlayout {layout}\nversion {} {}\n",
            files.fingerprint()?,
            options.dtype.map_or("stored", |dtype| dtype.name()),
            options.vision_dtype,
            if options.exact { "exact" } else { "fast" },
            env!("CARGO_PKG_VERSION"),
            kernels::NUMBERS,
        );
        match read(&folder.join(NAME), &words) {
            Ok(found) => kept.found = found,
            Err(KeptError::Foreign { path }) => {
                tracing::info!(path = %path.display(), "the packed weights of another model are replaced");
            }
            Err(error) => tracing::warn!(%error, "the weights are packed anew"),
        }
        kept.place = Some((folder.to_owned(), words));
        Ok(kept)
    }

    /// Whether there was a file that can be used.
    pub fn is_found(&self) -> bool {
        !self.found.is_empty()
    }

    /// The matrix `name` if it was kept and is of this shape.
    pub(super) fn find(&self, name: &str, (rows, cols): (usize, usize)) -> Option<SharedMatrix> {
        self.found.get(name).filter(|matrix| (matrix.rows, matrix.cols) == (rows, cols)).cloned()
    }

    /// Takes note of a matrix that this start has packed.
    pub(super) fn add(&self, name: String, matrix: Option<SharedMatrix>) {
        self.is_complete.set(false);
        self.hold(name, matrix);
    }

    /// Takes note of a matrix of this start.
    pub(super) fn hold(&self, name: String, matrix: Option<SharedMatrix>) {
        if let (Some(_), Some(matrix)) = (&self.place, matrix) {
            self.held.borrow_mut().push((name, matrix));
        }
    }

    /// Writes what this start has if the file does not hold all of it. The thread that does so shares
    /// the weights with the device and ends by itself.
    pub fn keep(self) -> Option<JoinHandle<()>> {
        let Self { place, held, is_complete, .. } = self;
        let (folder, words) = place.filter(|_| !is_complete.get())?;
        let work = move || match write(&folder, &words, &held.into_inner()) {
            Ok(Some(bytes)) => tracing::debug!(bytes, "packed weights are kept for the next start"),
            Ok(None) => tracing::debug!("another process keeps the packed weights"),
            Err(error) => tracing::warn!(%error, "packed weights are not kept for the next start"),
        };
        thread::Builder::new().name("keep weights".into()).spawn(work).ok()
    }
}

/// The matrices in a file; none if there is no file.
fn read(path: &Path, words: &str) -> Result<HashMap<String, SharedMatrix>, KeptError> {
    if !path.exists() {
        return Ok(HashMap::new());
    }
    let map = Arc::new(Mapped::open(path)?);
    map.want();
    parse(map, words).map_err(|unusable| match unusable {
        Unusable::Foreign => KeptError::Foreign { path: path.to_owned() },
        Unusable::Damaged(problem) => KeptError::Damaged { path: path.to_owned(), problem },
    })
}

#[derive(Debug, PartialEq)]
enum Unusable {
    Foreign,
    Damaged(&'static str),
}

/// Takes the bytes of a file apart and checks all of them.
fn parse(owner: BytesOwner, words: &str) -> Result<HashMap<String, SharedMatrix>, Unusable> {
    let bytes = (*owner).as_ref();
    let table = table(bytes, words)?;
    let mut matrices = Vec::with_capacity(table.len());
    for Entry { name, rows, cols, dtype, start, bytes: len, crc } in table {
        let range = start..start.checked_add(len).ok_or(Unusable::Damaged("its table"))?;
        let bytes = SharedBytes::new(owner.clone(), range).ok_or(Unusable::Damaged("it is too short"))?;
        let dtype = dtype.parse().map_err(|_| Unusable::Damaged("its table"))?;
        matrices.push((name, SharedMatrix { rows, cols, dtype, bytes }, crc));
    }
    if !checksums_hold(&matrices) {
        return Err(Unusable::Damaged("a checksum"));
    }
    Ok(matrices.into_iter().map(|(name, matrix, _)| (name, matrix)).collect())
}

/// The table of a file that begins with these words.
fn table(bytes: &[u8], words: &str) -> Result<Vec<Entry>, Unusable> {
    const SHORT: Unusable = Unusable::Damaged("it is too short");
    let fixed = bytes.get(..FIXED).ok_or(SHORT)?;
    if !fixed.starts_with(MAGIC) {
        return Err(Unusable::Damaged("it holds no packed weights"));
    }
    let number =
        |at: usize| fixed[at..at + 4].iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
    let (words_len, table_len) = (number(MAGIC.len()), number(MAGIC.len() + 4));
    let head = bytes.get(..FIXED + words_len + table_len).ok_or(SHORT)?;
    let crc = bytes.get(head.len()..head.len() + 4).ok_or(SHORT)?;
    if crc != crc32fast::hash(head).to_le_bytes() {
        return Err(Unusable::Damaged("a checksum"));
    }
    let (found, table) = head[FIXED..].split_at(words_len);
    if found != words.as_bytes() {
        return Err(Unusable::Foreign);
    }
    serde_json::from_slice(table).map_err(|_| Unusable::Damaged("its table"))
}

/// Whether all matrices keep their checksums. All cores look.
fn checksums_hold(matrices: &[(String, SharedMatrix, u32)]) -> bool {
    let next = AtomicUsize::new(0);
    let holds = || {
        let mine = iter::from_fn(|| matrices.get(next.fetch_add(1, Ordering::Relaxed)));
        mine.fold(true, |all, (_, matrix, crc)| all & (crc32fast::hash(&matrix.bytes) == *crc))
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let threads: Vec<_> = (1..cores).map(|_| scope.spawn(holds)).collect();
        threads.into_iter().fold(holds(), |all, thread| all & thread.join().unwrap_or(false))
    })
}

/// Writes a file; returns its bytes, or `None` if another process is about it.
fn write(folder: &Path, words: &str, held: &[(String, SharedMatrix)]) -> Result<Option<usize>, KeptError> {
    let (draft, path) = (folder.join(DRAFT), folder.join(NAME));
    let failed = |source| KeptError::Write { path: draft.clone(), source };
    let file = File::options().write(true).create(true).truncate(false).open(&draft).map_err(failed)?;
    // The draft of a process that is still there is locked; one that became the file is no draft any more.
    let is_draft = || Ok::<_, io::Error>(fs::metadata(&draft)?.ino() == file.metadata()?.ino());
    if file.try_lock().is_err() || !is_draft().unwrap_or(false) {
        return Ok(None);
    }
    let written = write_all(&file, words, held).and_then(|bytes| {
        fs::rename(&draft, &path)?;
        Ok(bytes)
    });
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&draft);
    }
    written.map(Some).map_err(failed)
}

fn write_all(file: &File, words: &str, held: &[(String, SharedMatrix)]) -> io::Result<usize> {
    // More than a line of the table takes, so that the first matrix has a place before the table is there.
    const LINE: usize = 512;
    let mut end = FIXED + words.len() + held.len() * LINE;
    let first = end.next_multiple_of(ALIGN);
    let mut table = Vec::with_capacity(held.len());
    for (name, SharedMatrix { rows, cols, dtype, bytes }) in held {
        let (name, dtype) = (name.clone(), dtype.name().to_owned());
        let (start, crc) = (end.next_multiple_of(ALIGN), crc32fast::hash(bytes));
        end = start + bytes.len();
        table.push(Entry { name, rows: *rows, cols: *cols, dtype, start, bytes: bytes.len(), crc });
    }
    let lines = serde_json::to_vec(&table)?;
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(io::Error::other);
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&len(words.as_bytes())?.to_le_bytes());
    head.extend_from_slice(&len(&lines)?.to_le_bytes());
    head.extend_from_slice(words.as_bytes());
    head.extend_from_slice(&lines);
    head.extend_from_slice(&crc32fast::hash(&head).to_le_bytes());
    if head.len() > first {
        return Err(io::Error::other("the names of the weights are too long"));
    }
    file.set_len(0)?;
    file.write_all_at(&head, 0)?;
    for (entry, (_, matrix)) in table.iter().zip(held) {
        file.write_all_at(&matrix.bytes, entry.start as u64)?;
    }
    file.sync_all()?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use kernels::DType;

    use super::*;
    use crate::test_folder::Folder;

    const WORDS: &str = "weights of a test\n";

    fn matrices() -> Vec<(String, SharedMatrix)> {
        let matrix = |rows: usize| {
            let bytes: Vec<u8> = (0..rows * 64).map(|i| (i * 7 % 251) as u8).collect();
            let bytes = SharedBytes::all(Arc::new(bytes));
            (format!("vision/matrix {rows}"), SharedMatrix { rows, cols: 16, dtype: DType::F32, bytes })
        };
        [1, 2, 3].map(matrix).to_vec()
    }

    #[test]
    fn what_is_written_is_found_again() {
        let folder = Folder::new("packed");
        assert!(read(&folder.0.join(NAME), WORDS).expect("no file is no error").is_empty());
        let written =
            write(&folder.0, WORDS, &matrices()).expect("it can be written").expect("nobody else does");
        assert_eq!(fs::metadata(folder.0.join(NAME)).expect("it is there").len(), written as u64);
        assert!(!folder.0.join(DRAFT).exists());
        let found = read(&folder.0.join(NAME), WORDS).expect("it is whole");
        assert_eq!(found.len(), 3);
        for (name, matrix) in matrices() {
            let found = &found[&name];
            assert_eq!((found.rows, found.cols, found.dtype), (matrix.rows, matrix.cols, matrix.dtype));
            assert_eq!(found.bytes[..], matrix.bytes[..]);
        }
        let error = read(&folder.0.join(NAME), "weights of another test\n").expect_err("another model");
        assert!(matches!(error, KeptError::Foreign { .. }), "{error}");
        write(&folder.0.join("no/such/folder"), WORDS, &matrices()).expect_err("there is no such folder");
    }

    #[test]
    fn one_process_writes_at_a_time_and_a_draft_left_behind_is_written_over() {
        let folder = Folder::new("packed-draft");
        fs::write(folder.0.join(DRAFT), vec![7; 100_000]).expect("a draft of a process that is gone");
        let other = File::open(folder.0.join(DRAFT)).expect("it is there");
        other.lock().expect("nobody else has it");
        assert_eq!(write(&folder.0, WORDS, &matrices()).expect("no error"), None);
        drop(other);
        let bytes = write(&folder.0, WORDS, &matrices()).expect("no error").expect("written");
        assert_eq!(fs::metadata(folder.0.join(NAME)).expect("it is there").len(), bytes as u64);
    }

    #[test]
    fn every_damage_is_seen() {
        let folder = Folder::new("packed-damage");
        write(&folder.0, WORDS, &matrices()[..2]).expect("it can be written");
        let whole = fs::read(folder.0.join(NAME)).expect("it is there");
        let parse = |bytes: &[u8]| parse(Arc::new(bytes.to_vec()), WORDS);
        let found = parse(&whole).expect("it is whole");
        // What lies between the table and the matrices is read by nobody.
        let used: usize = found.values().map(|matrix| matrix.bytes.len()).sum();
        let head = whole.len() - used - ALIGN;
        let head = whole[..head].iter().rposition(|&byte| byte != 0).expect("a checksum") + 1;
        let mut damaged = whole.clone();
        for at in (0..head).chain(whole.len() - 64..whole.len()) {
            for bit in 0..8 {
                damaged[at] ^= 1 << bit;
                assert!(parse(&damaged).is_err(), "bit {bit} of byte {at}");
                damaged[at] ^= 1 << bit;
            }
        }
        for len in (0..head + 8).chain(whole.len() - 70..whole.len()) {
            assert!(parse(&whole[..len]).is_err(), "{len} bytes");
        }
    }
}
