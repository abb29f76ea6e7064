//! The keys and values of a prompt's beginning on disk, so that a restart need not compute them.
//!
//! The file says what its numbers depend on, in words: weights, how they were loaded, device,
//! kernels, cache and tokens. Only a file that says exactly what this run would say, has the length
//! that follows from it, and keeps its checksum is used. Anything else is computed anew.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use kernels::{Device, KvShape, PAGE};

use super::kv_cache::{OutOfPages, Sequence};
use super::pass::Pass;
use super::{Input, MobileVlm, PassError};
use crate::whole_file;

/// Name of the file in its folder.
const NAME: &str = "prefix.kv";

/// What the file begins with.
const MAGIC: &[u8; 8] = b"MVLMKV\x01\n";

/// Bytes of the checksum (CRC-32, little endian) behind everything else.
const CHECKSUM: usize = 4;

/// Why a stored prefix is not used, or not stored.
#[derive(Debug, thiserror::Error)]
pub enum PrefixError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It belongs to other weights, another prompt, device, version, or cache.
    #[error("{}: was made by another model, prompt, device, version or cache type", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It is not what was once written.
    #[error("{}: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// The cache has no room.
    #[error(transparent)]
    OutOfPages(#[from] OutOfPages),
}

impl<D: Device> MobileVlm<D> {
    /// Where [`Self::read_beginning`] keeps what it computes; `None` keeps nothing.
    pub fn with_prefix_folder(mut self, folder: Option<PathBuf>) -> Self {
        self.prefix_folder = folder;
        self
    }

    /// Makes the empty `sequence` hold `ids`: from the file of an earlier run where there is one, else
    /// computed and stored. What is wrong with the file is logged; then it is replaced.
    pub fn read_beginning(
        &mut self,
        pass: &mut Pass<D>,
        sequence: &mut Sequence,
        ids: &[u32],
    ) -> Result<(), PassError> {
        let folder = self.prefix_folder.take();
        if let Some(folder) = &folder {
            match self.load_prefix(folder, ids, sequence) {
                Ok(true) => {
                    tracing::debug!(positions = ids.len(), "the system prompt was read from disk");
                    self.prefix_folder = Some(folder.clone());
                    return Ok(());
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the system prompt is computed anew"),
            }
        }
        let done = self.forward(pass, sequence, Input::Tokens(ids));
        if let (Ok(()), Some(folder)) = (&done, &folder)
            && let Err(error) = self.save_prefix(folder, ids, sequence)
        {
            tracing::warn!(%error, "the system prompt is not kept on disk");
        }
        self.prefix_folder = folder;
        done
    }

    /// Writes the positions of `sequence`, which are those of `ids`, to the file in `folder`. The file
    /// is there as a whole or not at all. What the last page holds behind the sequence goes along, so
    /// the cache should be new.
    pub fn save_prefix(&self, folder: &Path, ids: &[u32], sequence: &Sequence) -> Result<(), PrefixError> {
        assert_eq!(ids.len(), sequence.len(), "one id for each position");
        let (path, device) = (folder.join(NAME), &self.device);
        let mut file = self.header(ids);
        let mut page = vec![0; device.kv_page_bytes(self.cache.arena())];
        for &id in sequence.pages() {
            device.kv_read_page(self.cache.arena(), id, &mut page);
            file.extend_from_slice(&page);
        }
        file.extend_from_slice(&crc32fast::hash(&file).to_le_bytes());
        whole_file::write(&path, &file).map_err(|source| PrefixError::Io { path, source })
    }

    /// Makes the empty `sequence` hold the positions of `ids` from the file in `folder`. Returns whether
    /// there is a file. On error the sequence is still empty.
    pub fn load_prefix(
        &mut self,
        folder: &Path,
        ids: &[u32],
        sequence: &mut Sequence,
    ) -> Result<bool, PrefixError> {
        assert!(sequence.is_empty(), "the sequence is empty");
        let path = folder.join(NAME);
        let (header, page) = (self.header(ids), self.device.kv_page_bytes(self.cache.arena()));
        let pages = match read(&path, &header, ids.len().div_ceil(PAGE) * page) {
            Ok(None) => return Ok(false),
            Ok(Some(pages)) => pages,
            Err(Unusable::Io(source)) => return Err(PrefixError::Io { path, source }),
            Err(Unusable::Foreign) => return Err(PrefixError::Foreign { path }),
            Err(Unusable::Damaged(problem)) => return Err(PrefixError::Damaged { path, problem }),
        };
        self.make_room(self.cache.pages_missing(sequence, ids.len()))?;
        self.cache.extend(&self.device, sequence, ids.len(), &mut Vec::new())?;
        for (&id, bytes) in sequence.pages().iter().zip(pages.chunks_exact(page)) {
            self.device.kv_write_page(self.cache.arena_mut(), id, bytes);
        }
        Ok(true)
    }

    /// What the file of `ids` begins with.
    fn header(&self, ids: &[u32]) -> Vec<u8> {
        let (config, options) = (self.language.config(), self.options);
        let KvShape { layers, kv_heads, head_dim } = self.kv_shape;
        let words = format!(
            "weights {} as {} {}\ndevice {} kernels {} {}\n\
             cache {} of {layers} x {kv_heads} x {head_dim}, pages of {PAGE} in {} bytes\n\
             positions {}\ntokens {}\n",
            self.fingerprint,
            options.dtype.map_or("stored", |dtype| dtype.name()),
            if options.exact { "exact" } else { "fast" },
            self.device.name(),
            env!("CARGO_PKG_VERSION"),
            kernels::NUMBERS,
            self.kv_dtype.name(),
            self.device.kv_page_bytes(self.cache.arena()),
            Stretch(config.context, self.context),
            ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "),
        );
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&(words.len() as u64).to_le_bytes());
        header.extend_from_slice(words.as_bytes());
        header
    }
}

/// How positions are turned into angles: up to as many as trained they do not depend on the context.
struct Stretch(usize, usize);

impl fmt::Display for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(trained, context) = *self;
        if context > trained { write!(f, "{trained} over {context}") } else { f.write_str("as trained") }
    }
}

/// Why a file is not used.
#[derive(Debug)]
enum Unusable {
    Io(io::Error),
    Foreign,
    Damaged(&'static str),
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The `len` bytes behind `header`, if there is a file.
fn read(path: &Path, header: &[u8], len: usize) -> Result<Option<Vec<u8>>, Unusable> {
    let meta = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        meta => meta?,
    };
    if !meta.is_file() {
        return Err(Unusable::Damaged("is no file"));
    }
    check(File::open(path)?, header, len).map(Some)
}

/// The `len` bytes behind `header` if the checksum is right and nothing follows.
fn check(mut file: impl Read, header: &[u8], len: usize) -> Result<Vec<u8>, Unusable> {
    let mut start = Vec::with_capacity(header.len());
    (&mut file).take(header.len() as u64).read_to_end(&mut start)?;
    if start != header {
        let is_ours = start.starts_with(MAGIC);
        return Err(if is_ours { Unusable::Foreign } else { Unusable::Damaged("is no stored prefix") });
    }
    // One byte more than there may be, to see whether there is one.
    let mut rest = Vec::with_capacity(len + CHECKSUM + 1);
    file.take((len + CHECKSUM + 1) as u64).read_to_end(&mut rest)?;
    if rest.len() != len + CHECKSUM {
        return Err(Unusable::Damaged("is too short or too long"));
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(&rest[..len]);
    if rest[len..] != hasher.finalize().to_le_bytes() {
        return Err(Unusable::Damaged("does not keep its checksum"));
    }
    rest.truncate(len);
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_damage_is_seen() {
        const LEN: usize = 3000;
        let header = [&MAGIC[..], b"what the numbers depend on"].concat();
        let payload: Vec<u8> = (0..LEN).map(|i| (i * 7 % 251) as u8).collect();
        let mut whole = [&header[..], &payload].concat();
        whole.extend_from_slice(&crc32fast::hash(&whole).to_le_bytes());
        let read = |bytes: &[u8]| check(bytes, &header, LEN);
        assert_eq!(read(&whole).expect("it is whole"), payload);
        let mut damaged = whole.clone();
        for at in 0..whole.len() {
            for bit in 0..8 {
                damaged[at] ^= 1 << bit;
                assert!(read(&damaged).is_err(), "bit {bit} of byte {at}");
                damaged[at] ^= 1 << bit;
            }
            assert!(read(&whole[..at]).is_err(), "{at} bytes");
        }
        assert!(read(&[&whole[..], &[0]].concat()).is_err());
        let other = [&MAGIC[..], b"what others may depend on"].concat();
        assert!(matches!(check(&whole[..], &other, LEN), Err(Unusable::Foreign)));
    }
}
