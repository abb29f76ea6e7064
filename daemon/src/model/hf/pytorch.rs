//! Tensors of a `pytorch_model.bin`: a zip archive with a pickle and one entry for each storage.

use std::ops::Range;
use std::path::Path;

use super::pickle::{self, TensorView};
use super::zip;
use crate::model::cursor::Flaw;
use crate::model::files::ModelError;
use crate::model::files::error::shown;
use crate::model::files::map::Mapped;
use crate::model::files::stored::{Directory, Entry, StoredTensors, odd_strides};

/// Maps and checks a file. Nothing in it is executed.
pub fn open(path: &Path) -> Result<StoredTensors, ModelError> {
    let map = Mapped::open(path)?;
    let directory = directory(map.bytes()).map_err(|flaw| ModelError::damaged(map.place(), flaw.problem))?;
    Ok(StoredTensors::new(map, directory))
}

/// Where the tensors of a whole file are.
pub fn directory(file: &[u8]) -> Result<Directory, Flaw> {
    let problem = |problem: String| Flaw { at: 0, problem };
    // Before torch 1.6 a file was a bare pickle.
    if file.first() == Some(&0x80) {
        return Err(problem("it was written by torch before 1.6; load and save it with a newer one".into()));
    }
    let entries = zip::entries(file)?;
    let (root, pickle) = entries
        .iter()
        .find_map(|(name, range)| Some((name.strip_suffix("/data.pkl")?, range.clone())))
        .ok_or_else(|| problem("it has no data.pkl: not a file that torch wrote".into()))?;
    if entries.get(&*format!("{root}/byteorder")).is_some_and(|order| file[order.clone()] != *b"little") {
        return Err(problem("its numbers are big-endian, which is not supported".into()));
    }
    let mut tensors = Directory::new();
    for (name, view) in pickle::read_tensors(&file[pickle])? {
        let storage = entries.get(&*format!("{root}/data/{}", view.storage.key));
        let entry = place(&view, storage)
            .ok_or_else(|| problem(format!("tensor {} reaches past the end of its storage", shown(name))))?;
        if tensors.insert(name.to_owned(), entry).is_some() {
            return Err(problem(format!("tensor {} stands there twice", shown(name))));
        }
    }
    Ok(tensors)
}

/// Where `view` is, if all of it lies inside its storage and its storage inside the entry.
fn place(view: &TensorView<'_>, storage: Option<&Range<usize>>) -> Option<Entry> {
    let dtype = match &view.storage.dtype {
        Ok(dtype) => *dtype,
        Err(words) => return Some(Entry::Foreign(words.clone())),
    };
    let storage = storage?;
    let size = dtype.block_bytes();
    if view.storage.len.checked_mul(size)? > storage.len() || view.shape.len() != view.strides.len() {
        return None;
    }
    let numbers = view.shape.iter().try_fold(1usize, |numbers, &extent| numbers.checked_mul(extent))?;
    let reach = view.shape.iter().zip(&view.strides).try_fold(view.offset, |last, (&extent, &stride)| {
        last.checked_add(extent.checked_sub(1)?.checked_mul(stride)?)
    })?;
    // No weight repeats its numbers: a view larger than its storage is an attempt to fill memory.
    if reach >= view.storage.len || numbers > view.storage.len {
        return None;
    }
    let start = storage.start + view.offset * size;
    let end = storage.start + (reach + 1) * size;
    let strides = odd_strides(&view.shape, &view.strides);
    Some(Entry::Known { dtype, shape: view.shape.clone(), strides, bytes: start..end })
}

#[cfg(test)]
mod tests {
    use super::super::pickle::tests::one_tensor;
    use super::super::zip::tests::archive;
    use super::*;

    /// Twelve numbers 0, 1, ... as 16-bit patterns.
    fn numbers() -> Vec<u8> {
        (0..12u16).flat_map(u16::to_le_bytes).collect()
    }

    fn file(pickle: &[u8]) -> Vec<u8> {
        archive(&[("m/data.pkl", pickle), ("m/byteorder", b"little"), ("m/data/0", &numbers())])
    }

    #[test]
    fn a_view_is_found_in_its_storage() {
        let file = file(&one_tensor(12, 2, &[3, 2], &[1, 3]));
        let Some(Entry::Known { bytes, shape, strides, .. }) = directory(&file).unwrap().remove("w") else {
            panic!("the tensor is lost")
        };
        assert_eq!(file[bytes], numbers()[4..16]);
        assert_eq!((shape, strides), (vec![3, 2], Some(vec![1, 3])));
    }

    #[test]
    fn views_outside_their_storage_are_refused() {
        for (len, offset, shape, strides) in [
            (12, 0, &[13][..], &[1][..]),
            (12, 11, &[2], &[1]),
            (12, 0, &[2, 2], &[11, 1]),
            (13, 0, &[1], &[1]),
            (12, i32::MAX, &[1], &[1]),
            (12, 0, &[i32::MAX; 8], &[i32::MAX; 8]),
            (12, 0, &[0], &[1]),
            (12, 0, &[1, 1], &[1]),
            // Broadcast: 2^30 numbers out of one.
            (12, 0, &[1 << 30], &[0]),
        ] {
            let problem = directory(&file(&one_tensor(len, offset, shape, strides))).unwrap_err().problem;
            assert!(problem.contains("tensor \"w\" reaches past"), "{shape:?}: {problem}");
        }
    }

    #[test]
    fn other_files_are_named() {
        assert!(directory(b"\x80\x02\x8a\x0al").unwrap_err().problem.contains("torch before 1.6"));
        assert!(directory(b"hello").unwrap_err().problem.contains("no zip archive"));
        assert!(directory(&archive(&[("a", b"b")])).unwrap_err().problem.contains("no data.pkl"));
        let big = archive(&[("m/data.pkl", b"}."), ("m/byteorder", b"big")]);
        assert!(directory(&big).unwrap_err().problem.contains("big-endian"));
    }
}
