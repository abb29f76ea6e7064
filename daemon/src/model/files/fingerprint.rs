//! Whether two files hold the same model, without reading them whole.

use crc32fast::Hasher;

use super::{ModelError, ModelFiles, Part};

/// Places of a large tensor that are looked at.
const SAMPLES: usize = 16;

/// Bytes at each of them. Tensors with no more than all of these are looked at whole.
const SAMPLE: usize = 4096;

impl ModelFiles {
    /// Names the language model by its content: a checksum over its numbers, over name, type and shape
    /// of each tensor, and over samples of all tensors.
    pub fn language_fingerprint(&self) -> Result<String, ModelError> {
        fingerprint(&self.parts.language, format!("{:?}", self.language).as_bytes())
    }

    /// Names the whole model in the same way.
    pub fn fingerprint(&self) -> Result<String, ModelError> {
        let numbers = format!("{:?} {:?}", self.vision, self.projector);
        let vision = fingerprint(&self.parts.vision, numbers.as_bytes())?;
        let projector = fingerprint(&self.parts.projector, &[])?;
        Ok(format!("{vision} {projector} {}", self.language_fingerprint()?))
    }
}

/// A checksum over `numbers`, over name, type and shape of each tensor of `part` and over samples of it.
fn fingerprint<N>(part: &Part<N>, numbers: &[u8]) -> Result<String, ModelError> {
    let mut hasher = Hasher::new();
    hasher.update(numbers);
    let mut names: Vec<&String> = part.shapes.keys().collect();
    names.sort_unstable();
    let mut bytes = 0;
    for name in names {
        let tensor = part.store.tensor(name)?;
        hasher.update(format!("{name} {} {:?};", tensor.dtype, tensor.shape).as_bytes());
        samples(&tensor.bytes).for_each(|sample| hasher.update(sample));
        bytes += tensor.bytes.len();
        part.store.release(name);
    }
    Ok(format!("{:08x}-{bytes}", hasher.finalize()))
}

/// Pieces from the first byte to the last, as far apart as they can be.
fn samples(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_small = bytes.len() <= SAMPLES * SAMPLE;
    let (count, len) = if is_small { (1, bytes.len()) } else { (SAMPLES, SAMPLE) };
    (0..count).map(move |i| &bytes[i * (bytes.len() - len) / count.saturating_sub(1).max(1)..][..len])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_reach_both_ends_and_take_little() {
        let small = [7; 100];
        assert_eq!(samples(&small).collect::<Vec<_>>(), [&small[..]]);
        assert_eq!(samples(&[]).map(<[u8]>::len).sum::<usize>(), 0);
        let large: Vec<u8> = (0..10_000_001_u32).map(|i| (i / 4096) as u8).collect();
        let found: Vec<&[u8]> = samples(&large).collect();
        assert_eq!((found.len(), found[0].as_ptr()), (SAMPLES, large.as_ptr()));
        assert_eq!(found[SAMPLES - 1].as_ptr_range().end, large.as_ptr_range().end);
        assert!(found.iter().all(|sample| sample.len() == SAMPLE));
    }
}
