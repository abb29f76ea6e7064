//! The entries of a PyTorch file: a zip archive whose entries are stored as they are.
//!
//! Only what torch writes is read: one disk, no compression, no encryption, 32- and 64-bit sizes.
//! Entries can then be borrowed from the memory map.

use std::collections::HashMap;
use std::ops::Range;

use crate::model::cursor::{Cursor, Flaw};
use crate::model::files::error::shown;

const LOCAL: [u8; 4] = *b"PK\x03\x04";
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const END: [u8; 4] = *b"PK\x05\x06";
const END64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR64: [u8; 4] = *b"PK\x06\x07";

/// Bytes of the end record without its comment.
const END_LEN: usize = 22;

/// Bytes of a central entry without its name, extra field and comment.
const CENTRAL_LEN: u64 = 46;

/// Entries at most; a torch file has one for each tensor.
const MAX_ENTRIES: u64 = 1 << 16;

/// Byte ranges of all entries by name.
pub fn entries(file: &[u8]) -> Result<HashMap<&str, Range<usize>>, Flaw> {
    let end = find_end(file)?;
    let directory = directory(file, end)?;
    let mut cursor = Cursor::new(file);
    cursor.go_to(directory.start)?;
    let room = directory.len as u64 / CENTRAL_LEN;
    if directory.count > room.min(MAX_ENTRIES) {
        return Err(cursor.flaw(format!("the zip directory claims {} entries", directory.count)));
    }
    let mut found = HashMap::new();
    for _ in 0..directory.count {
        let (name, entry) = read_central(&mut cursor)?;
        let range = entry.locate(file, name)?;
        if found.insert(name, range).is_some() {
            return Err(cursor.flaw(format!("entry {} stands there twice", shown(name))));
        }
    }
    Ok(found)
}

/// Offset of the end record: the last one whose comment fills the file.
fn find_end(file: &[u8]) -> Result<usize, Flaw> {
    let last = file.len().checked_sub(END_LEN);
    let longest_comment = usize::from(u16::MAX);
    let fits = |&at: &usize| {
        let record = &file[at..];
        record[..4] == END
            && usize::from(u16::from_le_bytes([record[20], record[21]])) == record.len() - END_LEN
    };
    last.and_then(|last| (last.saturating_sub(longest_comment)..=last).rev().find(fits))
        .ok_or_else(|| Flaw { at: file.len(), problem: "it is no zip archive, or its end is cut off".into() })
}

/// The list of entries: where it is and what it claims.
struct Directory {
    start: usize,
    len: usize,
    count: u64,
}

fn directory(file: &[u8], end: usize) -> Result<Directory, Flaw> {
    let mut cursor = Cursor::new(file);
    cursor.go_to(end + 10)?;
    let mut count = u64::from(cursor.u16()?);
    let mut len = u64::from(cursor.u32()?);
    let mut start = u64::from(cursor.u32()?);
    let is_64 = count == u64::from(u16::MAX) || len == u64::from(u32::MAX) || start == u64::from(u32::MAX);
    if is_64 {
        let locator = end.checked_sub(20).ok_or_else(|| cursor.flaw("no 64-bit locator".into()))?;
        cursor.go_to(locator)?;
        cursor.expect(LOCATOR64)?;
        cursor.u32()?;
        let record = cursor.u64()?;
        cursor.go_to(usize::try_from(record).unwrap_or(usize::MAX))?;
        cursor.expect(END64)?;
        // Size of the record, versions, disks, entries on this disk.
        cursor.take(8 + 2 + 2 + 4 + 4 + 8)?;
        count = cursor.u64()?;
        len = cursor.u64()?;
        start = cursor.u64()?;
    }
    match (usize::try_from(start), usize::try_from(len)) {
        (Ok(start), Ok(len)) if start.checked_add(len).is_some_and(|stop| stop <= end) => {
            Ok(Directory { start, len, count })
        }
        _ => Err(cursor.flaw("the zip directory lies outside the file".into())),
    }
}

/// An entry as the directory claims it.
struct Entry {
    len: u64,
    local: u64,
}

fn read_central<'a>(cursor: &mut Cursor<'a>) -> Result<(&'a str, Entry), Flaw> {
    cursor.expect(CENTRAL)?;
    // Versions.
    cursor.take(4)?;
    let flags = cursor.u16()?;
    let method = cursor.u16()?;
    // Time, date, checksum.
    cursor.take(8)?;
    let packed = cursor.u32()?;
    let len = cursor.u32()?;
    let name_len = cursor.u16()?;
    let extra_len = cursor.u16()?;
    let comment_len = cursor.u16()?;
    // Disk, attributes.
    cursor.take(8)?;
    let local = cursor.u32()?;
    let name = cursor.take(name_len.into())?;
    let name = std::str::from_utf8(name).map_err(|_| cursor.flaw("a name that is not UTF-8".into()))?;
    let extra = cursor.take(extra_len.into())?;
    cursor.take(comment_len.into())?;
    if method != 0 || flags & 1 != 0 {
        let problem =
            format!("entry {} is compressed or encrypted: torch stores entries as they are", shown(name));
        return Err(cursor.flaw(problem));
    }
    let mut wide = wide_fields(extra);
    let mut widen = |narrow: u32| -> Result<u64, Flaw> {
        if narrow != u32::MAX {
            return Ok(narrow.into());
        }
        wide.as_mut().map_or_else(|| Err(cursor.flaw("a 64-bit field is missing".into())), Cursor::u64)
    };
    let len = widen(len)?;
    let packed = widen(packed)?;
    let local = widen(local)?;
    if packed != len {
        return Err(cursor.flaw(format!("entry {} has two lengths, {packed} and {len}", shown(name))));
    }
    Ok((name, Entry { len, local }))
}

/// The 64-bit fields inside the extra field of an entry.
fn wide_fields(extra: &[u8]) -> Option<Cursor<'_>> {
    let mut cursor = Cursor::new(extra);
    loop {
        let tag = cursor.u16().ok()?;
        let len = cursor.u16().ok()?;
        let body = cursor.take(len.into()).ok()?;
        if tag == 1 {
            return Some(Cursor::new(body));
        }
    }
}

impl Entry {
    /// The bytes of the entry: behind its local header, whose own name and extra field count.
    fn locate(&self, file: &[u8], name: &str) -> Result<Range<usize>, Flaw> {
        let mut cursor = Cursor::new(file);
        cursor.go_to(usize::try_from(self.local).unwrap_or(usize::MAX))?;
        cursor.expect(LOCAL)?;
        cursor.take(22)?;
        let name_len = cursor.u16()?;
        let extra_len = cursor.u16()?;
        cursor.take(name_len.into())?;
        cursor.take(extra_len.into())?;
        let start = cursor.position();
        match usize::try_from(self.len).ok().filter(|&len| len <= cursor.remaining()) {
            Some(len) => Ok(start..start + len),
            None => Err(cursor.flaw(format!("entry {} ends past the end of the file", shown(name)))),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A zip archive of stored entries, as torch writes it but for alignment.
    pub(in crate::model::hf) fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut central = Vec::new();
        for (name, bytes) in entries {
            let local = file.len() as u32;
            let sizes = [(bytes.len() as u32).to_le_bytes(), (bytes.len() as u32).to_le_bytes()].concat();
            let name_len = (name.len() as u16).to_le_bytes();
            file.extend([&LOCAL[..], &[0; 14], &sizes, &name_len, &[0; 2], name.as_bytes(), bytes].concat());
            let head = [&CENTRAL[..], &[0; 16], &sizes, &name_len, &[0; 12]].concat();
            central.extend([&head[..], &local.to_le_bytes(), name.as_bytes()].concat());
        }
        let count = (entries.len() as u16).to_le_bytes();
        let place = [(central.len() as u32).to_le_bytes(), (file.len() as u32).to_le_bytes()].concat();
        file.extend(central);
        file.extend([&END[..], &[0; 4], &count, &count, &place, &[0; 2]].concat());
        file
    }

    #[test]
    fn stored_entries_are_found() {
        let file = archive(&[("a/data.pkl", b"one"), ("a/data/0", b"three")]);
        let found = entries(&file).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(&file[found["a/data.pkl"].clone()], b"one");
        assert_eq!(&file[found["a/data/0"].clone()], b"three");
    }

    #[test]
    fn no_cut_and_no_changed_byte_panics() {
        let file = archive(&[("a/data.pkl", b"one"), ("a/data/0", b"three")]);
        for len in 0..file.len() {
            assert!(entries(&file[..len]).is_err(), "cut at {len}");
        }
        for at in 0..file.len() {
            for value in [0, 1, 127, 255] {
                let mut changed = file.clone();
                changed[at] = value;
                for range in entries(&changed).unwrap_or_default().into_values() {
                    assert!(range.end <= file.len());
                }
            }
        }
    }

    #[test]
    fn compressed_and_repeated_entries_are_refused() {
        let mut file = archive(&[("x", b"abc")]);
        let method = file.len() - END_LEN - 1 - 46 + 10;
        file[method] = 8;
        assert!(entries(&file).unwrap_err().problem.contains("compressed"));
        let twice = archive(&[("x", b"abc"), ("x", b"abc")]);
        assert!(entries(&twice).unwrap_err().problem.contains("twice"));
    }
}
