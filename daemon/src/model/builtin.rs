//! The model that is part of the program: a small MobileVLM that knows the world of the test scene.
//!
//! It is a pair of GGUF files like any other, and is read like any other.

use super::files::bytes::FileBytes;
use super::files::{ModelError, ModelFiles};
use super::gguf::pair;

/// What it is called in messages.
pub const NAME: &str = "built-in world model";

/// Bytes that begin where memory is read fastest, and where other readers of such files want them.
#[repr(C, align(64))]
struct Aligned<B: ?Sized>(B);

static TEXT: &Aligned<[u8]> = &Aligned(*include_bytes!("../../assets/world-q8_0.gguf"));
static MMPROJ: &Aligned<[u8]> = &Aligned(*include_bytes!("../../assets/world-mmproj-f16.gguf"));

/// Opens it.
pub fn open() -> Result<ModelFiles, ModelError> {
    let part = |name, bytes| FileBytes::BuiltIn { name, bytes };
    let text = part("built-in world model (text)", &TEXT.0);
    pair::read("world", text, part("built-in world model (vision)", &MMPROJ.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A copy of the repository and the program stay small.
    const MOST_BYTES: usize = 12_000_000;

    #[test]
    fn it_is_small_and_whole() {
        let bytes = TEXT.0.len() + MMPROJ.0.len();
        assert!(bytes < MOST_BYTES, "{bytes} bytes");
        let files = open().unwrap();
        assert!(files.language_types().iter().all(|stored| stored.matrices > 0), "{}", files.summary());
        assert_eq!(files.vision.image % files.vision.patch, 0);
    }
}
