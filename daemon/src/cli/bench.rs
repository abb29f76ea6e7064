//! `mobilevlmd bench`: measures this machine's limits and every stage against them.

use std::path::PathBuf;

use super::Failure;
use crate::bench::dims::Dims;
use crate::bench::synthetic::{FileType, Recipe};
use crate::model::files::ProjectorKind;

/// Seed of all made-up weights.
const SEED: u64 = 1;

/// Measures this machine's limits and every stage against them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Dimensions of the made-up model: tiny, 1.7b, 3b or 7b.
    #[arg(long, value_name = "SIZE", default_value = "1.7b")]
    dims: Dims,
    /// Write the made-up model as a pair of GGUF files and measure nothing.
    #[arg(long, value_name = "FOLDER", requires = "file_type")]
    write: Option<PathBuf>,
    /// Types of the written language model, such as q4_0, q4_k_m or q8_0.
    #[arg(long = "type", value_name = "TYPE", requires = "write")]
    file_type: Option<FileType>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    match (&args.write, args.file_type) {
        (Some(folder), Some(file_type)) => {
            let recipe = Recipe {
                vision: args.dims.vision(),
                language: args.dims.language(),
                projector: ProjectorKind::LdpV2,
                file_type,
                seed: SEED,
            };
            for path in recipe.write(folder)? {
                println!("{}", path.display());
            }
            Ok(())
        }
        _ => {
            let mut prober = crate::bench::probe::Prober::new(2)?;
            prober.measure();
            println!("{:?}", prober.limits());
            Ok(())
        }
    }
}
