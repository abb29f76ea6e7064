//! Thousands of small random damages, the same in every run.

use std::path::Path;

use mobilevlmd::model::files::ModelPaths;
use mobilevlmd::model::files::stored::{Directory, Entry};
use mobilevlmd::model::gguf::Header;
use mobilevlmd::model::hf::pytorch;
use mobilevlmd::model::hf::safetensors::directory as directory_of_tensors;

use super::build::{
    CONFIG, Folder, checkpoint, checkpoint_shapes, mmproj_gguf, safetensors, text_gguf, torch_file,
};
use super::{EXACT, allowance, load, open};
use crate::allocation;

/// Damages of each kind of file that its reader sees.
const ROUNDS: usize = 4000;

/// Damages of each kind of file that are written to disk and opened as a model.
const FILES: usize = 150;

/// A stream of numbers (splitmix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// `file` with one to three damages among its first `reach` bytes.
pub(crate) fn damaged(file: &[u8], reach: usize, numbers: &mut Numbers) -> Vec<u8> {
    let mut file = file.to_vec();
    for _ in 0..=numbers.below(3) {
        let reach = reach.min(file.len());
        if reach == 0 {
            break;
        }
        let at = numbers.below(reach);
        match numbers.below(5) {
            0 => file[at] ^= 1 << numbers.below(8),
            1 => file[at] = numbers.next() as u8,
            2 => {
                let extremes =
                    [0, 1, 2, 255, 1 << 16, u64::from(u32::MAX), 1 << 40, 1 << 60, 1 << 63, u64::MAX];
                let value = extremes[numbers.below(extremes.len())].to_le_bytes();
                let len = 8.min(file.len() - at);
                file[at..at + len].copy_from_slice(&value[..len]);
            }
            3 => {
                let len = numbers.below(24).min(file.len() - at);
                let copy = file[at..at + len].to_vec();
                let to = numbers.below(reach);
                file.splice(to..to, copy);
            }
            _ => {
                let len = numbers.below(24).min(file.len() - at);
                file.drain(at..at + len);
            }
        }
    }
    file
}

/// Shows a reader `file` damaged again and again; all it says lies inside the file, and it allocates in
/// proportion to the file. Says how often it found nothing wrong.
fn endure<E>(file: &[u8], reach: usize, seed: u64, read: impl Fn(&[u8]) -> Result<Directory, E>) -> usize {
    let mut numbers = Numbers(seed);
    let mut accepted = 0;
    for _ in 0..ROUNDS {
        let file = damaged(file, reach, &mut numbers);
        let (result, tally) = allocation::during(|| read(&file));
        assert!(tally.bytes <= allowance(file.len()), "{tally:?} for {} bytes", file.len());
        let Ok(directory) = result else { continue };
        accepted += 1;
        for entry in directory.values() {
            if let Entry::Known { bytes, .. } = entry {
                assert!(bytes.start <= bytes.end && bytes.end <= file.len());
            }
        }
    }
    accepted
}

/// Damages the file `name` of a model on disk; whatever opens must load. Says how many opened.
fn endure_on_disk(paths: &ModelPaths, name: &Path, reach: usize, seed: u64) -> usize {
    let whole = std::fs::read(name).unwrap();
    let mut numbers = Numbers(seed);
    let mut opened = 0;
    for _ in 0..FILES {
        std::fs::write(name, damaged(&whole, reach, &mut numbers)).unwrap();
        if let Ok(files) = open(paths) {
            load(&files, &EXACT).expect("what was checked loads");
            opened += 1;
        }
    }
    std::fs::write(name, whole).unwrap();
    open(paths).expect("the undamaged file opens");
    opened
}

fn read_gguf(file: &[u8]) -> Result<Directory, ()> {
    Header::parse(file).map(Header::into_directory).map_err(drop)
}

#[test]
fn damaged_containers_are_endured() {
    let shapes = checkpoint_shapes();
    let (text, mmproj) = (text_gguf(), mmproj_gguf());
    let tensors = safetensors(&shapes);
    let torch = torch_file(&shapes, b"");
    // The pickle stands in front, the directory of the archive at the end.
    let pickle = torch.len() / 4;
    for accepted in [
        endure(&text.bytes(), text.header().len(), 1, read_gguf),
        endure(&mmproj.bytes(), mmproj.header().len(), 2, read_gguf),
        endure(
            &tensors,
            8 + u64::from_le_bytes(tensors[..8].try_into().unwrap()) as usize,
            3,
            directory_of_tensors,
        ),
        endure(&torch, pickle, 4, pytorch::directory),
        endure(&torch, torch.len(), 5, pytorch::directory),
    ] {
        assert!(accepted > 0 && accepted < ROUNDS, "{accepted} of {ROUNDS} accepted: the damages miss");
    }
}

#[test]
fn damaged_models_are_endured() {
    let folder = Folder::new();
    let (text, mmproj) = (text_gguf(), mmproj_gguf());
    let vision = folder.write("mmproj.gguf", mmproj.bytes());
    let paths = ModelPaths { model: folder.write("model.gguf", text.bytes()), ..ModelPaths::default() };
    let opened = endure_on_disk(&paths, &paths.model, text.header().len(), 6)
        + endure_on_disk(&paths, &vision, mmproj.header().len(), 7);
    assert!(opened > 0 && opened < 2 * FILES, "{opened} opened: the damages miss");
    let folder = Folder::new();
    checkpoint(&folder);
    folder.write("model.safetensors", safetensors(&checkpoint_shapes()));
    let paths = ModelPaths { model: folder.path().to_owned(), ..ModelPaths::default() };
    let opened = endure_on_disk(&paths, &folder.path().join("config.json"), CONFIG.len(), 8);
    assert!(opened < FILES, "{opened} opened: the damages miss");
}
