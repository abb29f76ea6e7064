//! Safetensors headers: nothing panics, and every tensor lies inside the file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mobilevlmd::model::files::stored::Entry;
use mobilevlmd::model::hf::safetensors;

fuzz_target!(|file: &[u8]| {
    let Ok(directory) = safetensors::directory(file) else { return };
    for entry in directory.values() {
        if let Entry::Known { bytes, .. } = entry {
            assert!(bytes.start <= bytes.end && bytes.end <= file.len());
        }
    }
});
