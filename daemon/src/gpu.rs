//! The GPU: whether there is one to be used, and its compiled kernels from one start to the next.

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use kernels::Cuda;
use kernels::cuda::{Gpu, OpenError, Shelf};

use crate::whole_file;

/// What computes, as a configuration names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU if it can be used, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU by its number; without it nothing starts.
    Cuda(usize),
    /// The scalar reference.
    Reference,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => return Ok(Self::Auto),
            "cpu" => return Ok(Self::Cpu),
            "cuda" => return Ok(Self::Cuda(0)),
            "reference" => return Ok(Self::Reference),
            _ => {}
        }
        // Digits only: a sign would be a number to the parser, too.
        let number = text.strip_prefix("cuda:").filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        number.and_then(|digits| digits.parse().ok()).map(Self::Cuda).ok_or_else(|| {
            format!("\"{text}\" is not accepted, expected one of auto, cpu, cuda, cuda:NUMBER, reference")
        })
    }
}

/// Opens a GPU, with compiled kernels from `folder` if they are there and sound.
pub fn open(ordinal: usize, folder: Option<PathBuf>) -> Result<Cuda<Gpu>, OpenError> {
    Cuda::open(ordinal, &Compiled { folder })
}

/// The first GPU, or a line in the journal that says why not.
pub fn open_if_usable(folder: Option<PathBuf>) -> Option<Cuda<Gpu>> {
    match open(0, folder) {
        Ok(device) => Some(device),
        Err(OpenError::NoDriver) => {
            tracing::info!("no NVIDIA driver on this machine: the CPU computes");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "the GPU is not used, the CPU computes: {error}");
            None
        }
    }
}

/// Compiled kernels in a folder, each file with a checksum at its end. Without a folder they are kept
/// as long as this process, for commands that open a device more than once.
struct Compiled {
    folder: Option<PathBuf>,
}

/// What was compiled last without a folder, and its name.
static LAST: Mutex<Option<(String, Vec<u8>)>> = Mutex::new(None);

/// Far more than the kernels take; a larger file is not ours.
const LARGEST: u64 = 64 << 20;

impl Shelf for Compiled {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        let Some(folder) = &self.folder else {
            let last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
            return last.as_ref().filter(|(name, _)| name == key).map(|(_, compiled)| compiled.clone());
        };
        let path = folder.join(key);
        if fs::metadata(&path).ok()?.len() > LARGEST {
            return None;
        }
        let mut bytes = fs::read(path).ok()?;
        let end = bytes.len().checked_sub(4)?;
        let sum = bytes.split_off(end);
        (sum == crc32fast::hash(&bytes).to_le_bytes()).then_some(bytes)
    }

    fn put(&self, key: &str, compiled: &[u8]) {
        let Some(folder) = &self.folder else {
            let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Some((key.to_owned(), compiled.to_vec()));
            return;
        };
        let sum = crc32fast::hash(compiled).to_le_bytes();
        let written = fs::create_dir_all(folder)
            .and_then(|()| whole_file::write(&folder.join(key), &[compiled, &sum].concat()));
        if let Err(error) = written {
            tracing::warn!(folder = %folder.display(), %error, "compiled kernels are not kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_known_by_their_names() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
            ("reference", DeviceChoice::Reference),
        ] {
            assert_eq!(text.parse(), Ok(choice));
        }
        for text in ["", "tpu", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda:99999999999999999999", "CUDA"]
        {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }

    #[test]
    fn kept_kernels_come_back_whole_or_not_at_all() {
        let folder = std::env::temp_dir().join(format!("mobilevlmd-kernels-{}", std::process::id()));
        let shelf = Compiled { folder: Some(folder.clone()) };
        assert_eq!(shelf.get("a.cubin"), None);
        shelf.put("a.cubin", b"kernels");
        assert_eq!(shelf.get("a.cubin"), Some(b"kernels".to_vec()));
        let mut bytes = fs::read(folder.join("a.cubin")).expect("it is there");
        bytes[2] ^= 1;
        fs::write(folder.join("a.cubin"), &bytes).expect("it can be written");
        assert_eq!(shelf.get("a.cubin"), None);
        fs::write(folder.join("a.cubin"), b"abc").expect("it can be written");
        assert_eq!(shelf.get("a.cubin"), None);
        shelf.put("a.cubin", b"kernels");
        assert_eq!(shelf.get("a.cubin"), Some(b"kernels".to_vec()));
        fs::remove_dir_all(folder).expect("it can be removed");
        let nowhere = Compiled { folder: None };
        nowhere.put("a.cubin", b"kernels");
        assert_eq!(nowhere.get("a.cubin"), Some(b"kernels".to_vec()));
        assert_eq!(nowhere.get("b.cubin"), None);
    }
}
