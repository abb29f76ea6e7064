//! A folder of reference data against this build on this machine.
//!
//! Every entry of the folder's indexes gives at least one row; what is unknown or missing is a
//! failed row. Models go through the same loader, model code and devices as `run`, on these
//! paths with every instruction set of this processor:
//!
//! * exact: weights as stored, f32 arithmetic and cache, bounds of a plain f32 implementation;
//! * run: what the daemon does by default: 8-bit activations for quantized weights, 8-bit vision,
//!   f16 cache. Text weights have the type of the file, since there are no numbers for others. As
//!   what the vision part changes would hide what the text part does, its logits are also compared
//!   behind an exact picture (`run text`);
//! * q8 cache: exact but for keys and values, which are 8-bit integers; on the last instruction set.
//!
//! Beside the reference's numbers, `repeated` demands that a prompt read at once gives every bit
//! of the logits that decoding token by token gave.

use std::path::{Path, PathBuf};

mod case;
mod golden;
mod index;
mod models;
mod pixels;
mod quant;
mod row;
mod table;
mod target;
mod tokenizer;
pub mod tower;
pub mod world;

pub use row::{Bound, Row};
pub use target::Target;

/// What is checked and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The folder.
    pub dir: PathBuf,
    /// Leaves the default path of `run` out.
    pub exact_only: bool,
    /// Devices; empty takes every instruction set of this processor.
    pub targets: Vec<Target>,
    /// Threads where `targets` is empty; 0 takes the physical cores.
    pub threads: usize,
}

/// How many checks there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Checks that hold.
    pub passed: usize,
    /// Checks that do not hold or could not be made.
    pub failed: usize,
}

/// Why a folder cannot be checked at all.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file of the folder could not be read.
    #[error("{}: {error}; expected a folder of reference data", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// An index is not what it should be.
    #[error("{}: {error}", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: serde_json::Error,
    },
}

/// 8-bit vision: the smallest cosine of a patch.
const VISION_COSINE: Bound = Bound::AtLeast(0.999);

/// Where rows go; counts them.
struct Sink<'a> {
    show: &'a mut dyn FnMut(&Row),
    summary: Summary,
}

impl Sink<'_> {
    fn push(&mut self, row: Row) {
        if row.passed {
            self.summary.passed += 1;
        } else {
            self.summary.failed += 1;
        }
        (self.show)(&row);
    }
}

/// What normalizes a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
struct PictureNumbers {
    mean: [f32; 3],
    deviation: [f32; 3],
}

/// Checks a folder and shows every row as it is made.
pub fn verify(options: &Options, show: &mut dyn FnMut(&Row)) -> Result<Summary, VerifyError> {
    let dir: &Path = &options.dir;
    let targets = match options.targets.as_slice() {
        [] => Target::every_isa(options.threads),
        chosen => chosen.to_vec(),
    };
    let index: index::Index = index::read(dir, "goldens/index.json")?;
    let ggufs = index::read(dir, "goldens/gguf_index.json")?;
    let mut sink = Sink { show, summary: Summary::default() };
    for section in index.unknown.keys() {
        sink.push(Row::failed(
            "index",
            section,
            "this program does not know this section of goldens/index.json",
        ));
    }
    quant::check(dir, &targets, &mut sink)?;
    tokenizer::check(dir, &ggufs, &mut sink)?;
    let models = models::Models::find(dir, &index, &ggufs);
    pixels::check(dir, &index.pixels, models.picture_numbers(), &mut sink);
    models.check(&targets, options.exact_only, &mut sink);
    Ok(sink.summary)
}
