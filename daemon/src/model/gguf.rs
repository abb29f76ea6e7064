//! The GGUF container: header, metadata and tensor directory over the bytes of a file.
//!
//! A header is a list of claims about the file it stands in. Each one is compared with the length of
//! the file before anything is allocated or read by it.

pub mod pair;
pub mod value;

use std::collections::HashMap;
use std::path::Path;

use kernels::DType;

use value::Value;

use super::cursor::{Cursor, Flaw};
use super::files::bytes::FileBytes;
use super::files::error::shown;
use super::files::map::Mapped;
use super::files::stored::{Directory, Entry, StoredTensors};
use super::files::{ModelError, stored_len};

/// Keys or tensors of one file at most; the largest published models have some thousands.
const MAX_ENTRIES: u64 = 1 << 16;

/// Bytes of a key or a tensor name at most: the format's own limit.
const MAX_NAME: usize = (1 << 16) - 1;

/// Extents of a tensor at most.
const MAX_DIMS: u32 = 4;

const DEFAULT_ALIGNMENT: u64 = 32;

/// What the beginning of a file says.
#[derive(Debug)]
pub struct Header<'a> {
    /// Keys and values.
    pub metadata: HashMap<&'a str, Value<'a>>,
    tensors: Directory,
}

impl<'a> Header<'a> {
    /// Reads and checks the header of a whole file.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Flaw> {
        let mut cursor = Cursor::new(bytes);
        read_magic(&mut cursor)?;
        let tensor_count = cursor.u64()?;
        let key_count = cursor.u64()?;
        // A tensor takes 24 bytes at least, a key 13.
        check_count(&cursor, "tensors", tensor_count, 24)?;
        check_count(&cursor, "keys", key_count, 13)?;
        let mut metadata = HashMap::new();
        for _ in 0..key_count {
            let key = read_name(&mut cursor)?;
            let kind = cursor.u32()?;
            let value = Value::read(kind, &mut cursor)?;
            if metadata.insert(key, value).is_some() {
                return Err(cursor.flaw(format!("key {} stands there twice", shown(key))));
            }
        }
        let mut claims = Vec::new();
        for _ in 0..tensor_count {
            claims.push(Claim::read(&mut cursor)?);
        }
        let data = data_start(&cursor, &metadata)?;
        let mut tensors = Directory::new();
        for claim in claims {
            let name = claim.name.to_owned();
            let entry = claim.check(&cursor, data, bytes.len())?;
            if tensors.insert(name, entry).is_some() {
                return Err(cursor.flaw(format!("tensor {} stands there twice", shown(claim.name))));
            }
        }
        Ok(Self { metadata, tensors })
    }

    /// Where the tensors are.
    pub fn into_directory(self) -> Directory {
        self.tensors
    }
}

fn read_magic(cursor: &mut Cursor<'_>) -> Result<(), Flaw> {
    if cursor.array().ok() != Some(*b"GGUF") {
        return Err(Flaw { at: 0, problem: "it does not begin with GGUF".into() });
    }
    match cursor.u32()? {
        2 | 3 => Ok(()),
        version if matches!(version.swap_bytes(), 1..=3) => {
            Err(cursor.flaw("a big-endian file: only little-endian ones can be read".into()))
        }
        version => Err(cursor.flaw(format!("GGUF version {version}: 2 and 3 can be read"))),
    }
}

fn check_count(cursor: &Cursor<'_>, what: &str, count: u64, least_bytes: u64) -> Result<(), Flaw> {
    let room = cursor.remaining() as u64 / least_bytes;
    if count > room || count > MAX_ENTRIES {
        return Err(cursor.flaw(format!(
            "the header claims {count} {what}, at most {} are possible",
            room.min(MAX_ENTRIES)
        )));
    }
    Ok(())
}

fn read_name<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str, Flaw> {
    let name = cursor.text()?;
    if name.len() > MAX_NAME {
        return Err(cursor.flaw(format!("a name of {} bytes", name.len())));
    }
    Ok(name)
}

/// Offset of the tensor data: the end of the header rounded up to the alignment.
fn data_start(cursor: &Cursor<'_>, metadata: &HashMap<&str, Value<'_>>) -> Result<(usize, u64), Flaw> {
    let alignment = match metadata.get("general.alignment") {
        None => DEFAULT_ALIGNMENT,
        Some(value) => match value.unsigned() {
            Some(value) if value.is_power_of_two() && (8..=1 << 20).contains(&value) => value,
            _ => return Err(cursor.flaw(format!("general.alignment of {}", value.words()))),
        },
    };
    // The position is inside the file and the alignment small: no overflow.
    Ok((cursor.position().next_multiple_of(alignment as usize), alignment))
}

/// A tensor as the header claims it.
#[derive(Debug)]
struct Claim<'a> {
    name: &'a str,
    /// Innermost first, as stored.
    extents: Vec<u64>,
    kind: u32,
    offset: u64,
}

impl<'a> Claim<'a> {
    fn read(cursor: &mut Cursor<'a>) -> Result<Self, Flaw> {
        let name = read_name(cursor)?;
        let dims = cursor.u32()?;
        if dims > MAX_DIMS {
            return Err(cursor.flaw(format!("tensor {} has {dims} dimensions", shown(name))));
        }
        let mut extents = Vec::with_capacity(MAX_DIMS as usize);
        for _ in 0..dims {
            extents.push(cursor.u64()?);
        }
        Ok(Self { name, extents, kind: cursor.u32()?, offset: cursor.u64()? })
    }

    fn check(
        &self,
        cursor: &Cursor<'_>,
        (data, alignment): (usize, u64),
        file: usize,
    ) -> Result<Entry, Flaw> {
        let name = shown(self.name);
        let dtype = match stored_type(self.kind) {
            Ok(dtype) => dtype,
            Err(words) => return Ok(Entry::Foreign(words)),
        };
        if !self.offset.is_multiple_of(alignment) {
            return Err(cursor.flaw(format!("tensor {name} is not aligned to {alignment} bytes")));
        }
        let shape: Option<Vec<usize>> =
            self.extents.iter().rev().map(|&extent| usize::try_from(extent).ok()).collect();
        let too_large = || cursor.flaw(format!("tensor {name} of {:?} numbers cannot be", self.extents));
        let shape = shape.ok_or_else(too_large)?;
        let len = stored_len(dtype, &shape).ok_or_else(too_large)?;
        let start = usize::try_from(self.offset).ok().and_then(|offset| offset.checked_add(data));
        match start.and_then(|start| Some((start, start.checked_add(len)?))) {
            Some((start, end)) if end <= file => {
                Ok(Entry::Known { dtype, shape, strides: None, bytes: start..end })
            }
            _ => Err(cursor.flaw(format!("tensor {name} ends past the end of the file"))),
        }
    }
}

/// The element type behind a number of the format, or its name if it cannot be read.
fn stored_type(kind: u32) -> Result<DType, String> {
    Ok(match kind {
        0 => DType::F32,
        1 => DType::F16,
        2 => DType::Q4_0,
        3 => DType::Q4_1,
        6 => DType::Q5_0,
        7 => DType::Q5_1,
        8 => DType::Q8_0,
        10 => DType::Q2K,
        11 => DType::Q3K,
        12 => DType::Q4K,
        13 => DType::Q5K,
        14 => DType::Q6K,
        30 => DType::BF16,
        16 => return Err("iq2_xxs".into()),
        17 => return Err("iq2_xs".into()),
        18 => return Err("iq3_xxs".into()),
        19 => return Err("iq1_s".into()),
        20 => return Err("iq4_nl".into()),
        21 => return Err("iq3_s".into()),
        22 => return Err("iq2_s".into()),
        23 => return Err("iq4_xs".into()),
        24..=27 => return Err("an integer type".into()),
        28 => return Err("f64".into()),
        29 => return Err("iq1_m".into()),
        other => return Err(format!("number {other}")),
    })
}

/// Maps and checks a file; `describe` sees its header and makes of it what the caller keeps.
pub fn open<T>(
    path: &Path,
    describe: impl FnOnce(&Header<'_>, &str) -> Result<T, ModelError>,
) -> Result<(StoredTensors, T), ModelError> {
    read(Mapped::open(path)?.into(), describe)
}

/// Checks a file as [`open`] does; `describe` sees its header and makes of it what the caller keeps.
pub fn read<T>(
    file: FileBytes,
    describe: impl FnOnce(&Header<'_>, &str) -> Result<T, ModelError>,
) -> Result<(StoredTensors, T), ModelError> {
    let place = file.place();
    let header = Header::parse(file.bytes())
        .map_err(|flaw| ModelError::damaged(&place, format!("{} (at byte {})", flaw.problem, flaw.at)))?;
    let described = describe(&header, &place)?;
    let directory = header.into_directory();
    Ok((StoredTensors::new(file, directory), described))
}
