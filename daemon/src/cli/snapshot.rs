//! `mobilevlmd snapshot`: saves the newest frame of a camera.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::Failure;
use crate::bus::client::{Client, Connect};

/// Saves the newest frame of a camera as JPEG
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the camera
    camera: String,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// A frame still held instead of the newest
    #[arg(long, value_name = "NUMBER")]
    sequence: Option<u64>,
    #[command(flatten)]
    connect: Connect,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let (jpeg, stamp) = Client::connect(&args.connect)?.snapshot(&args.camera, args.sequence)?;
    let path = args.output.display();
    std::fs::write(&args.output, &jpeg)
        .map_err(|error| Failure::new(format!("{path}: cannot be written: {error}")))?;
    let captured = SystemTime::UNIX_EPOCH + Duration::from_nanos(stamp.captured_at);
    let age = captured.elapsed().unwrap_or_default().as_secs_f32();
    say!(
        "{path}: frame {} of camera \"{}\", {age:.2} s old, {} bytes",
        stamp.sequence,
        stamp.camera,
        jpeg.len()
    );
    Ok(())
}
