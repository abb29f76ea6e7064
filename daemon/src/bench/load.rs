//! How long a model takes from its files to the device, packed anew or kept by an earlier start, and
//! whether weights that lie in a mapped file are read as fast as those in the process's own memory.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use kernels::{Device, KvDtype};
use serde::Serialize;

use super::engine::Wait;
use super::{BenchError, Options};
use crate::health::resident_bytes;
use crate::model::files::ModelFiles;
use crate::model::kv_cache::Sequence;
use crate::model::weights::kept::Kept;
use crate::model::{Input, KvOptions, MobileVlm};

/// Tokens decoded on each model.
const TOKENS: usize = 32;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct LoadReport {
    /// The device.
    pub device: String,
    /// The model.
    pub model: String,
    /// Bytes of its packed weights.
    pub weight_bytes: usize,
    /// Bytes of the file that keeps them.
    pub file_bytes: u64,
    /// From the files of the model.
    pub packed: Load,
    /// From the file that keeps packed weights.
    pub kept: Load,
}

/// One way of loading.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// Until the model can be used.
    pub time: Wait,
    /// A token on the loaded model.
    pub token: Wait,
    /// Most memory of this process behind that, mapped files and a KV arena of 64 positions included.
    pub resident_bytes: u64,
}

/// Loads a model in both ways in turn, the kept file in `folder`.
pub fn load<D: Device>(
    files: &ModelFiles,
    device: impl Fn() -> D,
    options: &Options,
    folder: &Path,
) -> Result<LoadReport, BenchError> {
    let made = |source| BenchError::Folder { path: folder.to_owned(), source };
    fs::create_dir_all(folder).map_err(made)?;
    let result = rounds(files, device, options, folder);
    // The result counts; a file that cannot be taken away hurts nobody.
    let _ = fs::remove_dir_all(folder);
    result
}

fn rounds<D: Device>(
    files: &ModelFiles,
    device: impl Fn() -> D,
    options: &Options,
    folder: &Path,
) -> Result<LoadReport, BenchError> {
    let (mut packed, mut kept) = (Way::default(), Way::default());
    let mut weight_bytes = 0;
    write(files, device(), options, folder)?;
    for _ in 0..options.rounds.max(1) {
        weight_bytes = packed.round(files, device(), options, None)?;
        kept.round(files, device(), options, Some(folder))?;
    }
    Ok(LoadReport {
        device: device().name(),
        model: files.id.clone(),
        weight_bytes,
        file_bytes: bytes_in(folder),
        packed: packed.report(),
        kept: kept.report(),
    })
}

/// Makes the file that the rounds load.
fn write<D: Device>(
    files: &ModelFiles,
    device: D,
    options: &Options,
    folder: &Path,
) -> Result<(), BenchError> {
    let kept = Kept::open(Some(folder), files, &device, &options.load)?;
    let model = MobileVlm::load_kept(files, device, &options.load, kv(files), &kept)?;
    let writer = kept.keep();
    drop(model);
    if writer.is_some_and(|writer| writer.join().is_err()) {
        return Err(BenchError::NotKept { path: folder.to_owned() });
    }
    Ok(())
}

fn kv(files: &ModelFiles) -> KvOptions {
    KvOptions::with_budget(&files.language, 2 * TOKENS, 0, KvDtype::F16)
}

fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}

#[derive(Default)]
struct Way {
    loads: Vec<Duration>,
    tokens: Vec<Duration>,
    resident: u64,
}

impl Way {
    /// Loads once and decodes; returns the bytes of the weights.
    fn round<D: Device>(
        &mut self,
        files: &ModelFiles,
        device: D,
        options: &Options,
        folder: Option<&Path>,
    ) -> Result<usize, BenchError> {
        let start = Instant::now();
        let kept = Kept::open(folder, files, &device, &options.load)?;
        let mut model = MobileVlm::load_kept(files, device, &options.load, kv(files), &kept)?;
        self.loads.push(start.elapsed());
        if let Some(folder) = folder.filter(|_| !kept.is_found()) {
            return Err(BenchError::NotKept { path: folder.to_owned() });
        }
        let mut pass = model.pass()?;
        let mut sequence = Sequence::default();
        for index in 0..=TOKENS {
            let start = Instant::now();
            let id = (index * 7919 % files.language.vocabulary) as u32;
            model.forward(&mut pass, &mut sequence, Input::Tokens(&[id]))?;
            model.logits(&pass);
            // The first one meets pages that nobody has touched.
            self.tokens.extend((index > 0).then(|| start.elapsed()));
        }
        self.resident = self.resident.max(resident_bytes());
        Ok(model.weight_bytes())
    }

    fn report(&self) -> Load {
        let (time, token) = (Wait::of(&self.loads), Wait::of(&self.tokens));
        Load { time, token, resident_bytes: self.resident }
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: f64 = (1 << 20) as f64;
        let Self { device, model, weight_bytes, file_bytes, packed, kept } = self;
        let (weights, file) = (*weight_bytes as f64 / MIB, *file_bytes as f64 / MIB);
        writeln!(f, "{model} on {device}: {weights:.0} MiB of packed weights, {file:.0} MiB in the file")?;
        for (name, load) in [("packed anew", packed), ("kept", kept)] {
            writeln!(
                f,
                "{name:<12} load {:7.0} ms (worst {:.0})   token {:6.2} ms (p99 {:.2})   {:5.0} MiB resident",
                load.time.median_ms,
                load.time.longest_ms,
                load.token.median_ms,
                load.token.p99_ms,
                load.resident_bytes as f64 / MIB,
            )?;
        }
        Ok(())
    }
}
