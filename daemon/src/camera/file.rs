//! Recorded frames: a picture, a folder of pictures, an MJPEG recording.

use std::fs::{self, File};
use std::io::{self, BufReader, Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use image::{ImageFormat, ImageReader};
use kernels::pixels::Color;

use super::frame::{Frame, PixelFormat};
use super::jpeg;
use super::pace::Pace;
use super::source::{Delivery, FrameSource, SourceError};
use crate::wall_clock;

/// Largest picture file.
const MAX_FILE: u64 = 64 << 20;
/// Frames per second of pictures unless the configuration says otherwise.
const PICTURE_FPS: f64 = 1.0;
/// Frames per second of recordings unless the configuration says otherwise.
const RECORDING_FPS: f64 = 30.0;

/// What happens at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It starts over.
    Forever,
    /// The camera has ended.
    Once,
}

/// A file or folder as a camera.
#[derive(Debug)]
pub(super) struct FileSource {
    path: PathBuf,
    reel: Reel,
    repeat: Repeat,
    pace: Pace,
}

/// Where the next frame comes from.
#[derive(Debug)]
enum Reel {
    /// The same picture every time.
    Still { picture: Picture, shown: bool },
    /// Pictures in the order of their names.
    Folder { paths: Vec<PathBuf>, next: usize },
    /// Concatenated JPEG pictures.
    Recording { stream: BufReader<File>, read: u64 },
}

/// A picture as it lies in a file.
#[derive(Debug)]
struct Picture {
    width: u32,
    height: u32,
    format: PixelFormat,
    bytes: Vec<u8>,
}

impl FileSource {
    /// Opens `path`, to be shown at `fps` frames per second; 0 takes a default.
    pub(super) fn open(path: &Path, repeat: Repeat, fps: f64) -> Result<Self, SourceError> {
        let failed = |error| SourceError::io(path, "open", error);
        let is_folder = fs::metadata(path).map_err(failed)?.is_dir();
        let reel = if is_folder {
            Reel::Folder { paths: pictures_in(path)?, next: 0 }
        } else if has_extension(path, &["mjpeg", "mjpg"]) {
            Reel::Recording { stream: BufReader::new(File::open(path).map_err(failed)?), read: 0 }
        } else {
            Reel::Still { picture: Picture::load(path)?, shown: false }
        };
        let default_fps = if matches!(reel, Reel::Recording { .. }) { RECORDING_FPS } else { PICTURE_FPS };
        Ok(Self { path: path.to_owned(), reel, repeat, pace: Pace::new(fps, default_fps) })
    }

    /// Puts the next picture into `frame`.
    fn advance(&mut self, frame: &mut Frame) -> Result<Delivery, SourceError> {
        match &mut self.reel {
            Reel::Still { shown: true, .. } if self.repeat == Repeat::Once => Ok(Delivery::Ended),
            Reel::Still { picture, shown } => {
                *shown = true;
                picture.copy_to(frame);
                Ok(Delivery::Frame { lost: 0 })
            }
            Reel::Folder { paths, next } => {
                if *next == paths.len() {
                    if self.repeat == Repeat::Once {
                        return Ok(Delivery::Ended);
                    }
                    *next = 0;
                }
                let path = &paths[*next];
                *next += 1;
                match Picture::load(path) {
                    Ok(picture) => picture.copy_to(frame),
                    Err(error) => return Ok(Delivery::Damaged(error.to_string())),
                }
                Ok(Delivery::Frame { lost: 0 })
            }
            Reel::Recording { stream, read } => {
                let advanced = advance_recording(stream, read, self.repeat, frame);
                advanced.map_err(|error| SourceError::io(&self.path, "read", error))
            }
        }
    }
}

impl FrameSource for FileSource {
    fn describe(&self) -> String {
        let what = match &self.reel {
            Reel::Still { picture, .. } => format!("picture of {}x{}", picture.width, picture.height),
            Reel::Folder { paths, .. } => format!("{} pictures", paths.len()),
            Reel::Recording { .. } => "MJPEG recording".to_owned(),
        };
        format!("{}, {what} at {} fps", self.path.display(), self.pace.fps())
    }

    fn interval(&self) -> Duration {
        self.pace.interval()
    }

    fn next_frame(&mut self, frame: &mut Frame, wait: Duration) -> Result<Delivery, SourceError> {
        if !self.pace.wait(wait) {
            return Ok(Delivery::Nothing);
        }
        (frame.captured, frame.captured_at) = (Instant::now(), wall_clock::now());
        self.advance(frame)
    }
}

/// Reads the next picture of a recording; a recording without pictures has ended.
fn advance_recording(
    stream: &mut BufReader<File>,
    read: &mut u64,
    repeat: Repeat,
    frame: &mut Frame,
) -> io::Result<Delivery> {
    if !jpeg::read_next(stream, &mut frame.bytes)? {
        if repeat == Repeat::Once || *read == 0 {
            return Ok(Delivery::Ended);
        }
        stream.rewind()?;
        if !jpeg::read_next(stream, &mut frame.bytes)? {
            return Ok(Delivery::Ended);
        }
    }
    *read += 1;
    match jpeg::dimensions(&frame.bytes) {
        Ok((width, height)) => (frame.width, frame.height) = (width, height),
        Err(error) => return Ok(Delivery::Damaged(error.to_string())),
    }
    (frame.stride, frame.format) = (0, PixelFormat::Mjpeg);
    Ok(Delivery::Frame { lost: 0 })
}

impl Picture {
    /// Reads a picture. JPEG is left as it is, to be decoded by whoever looks at it.
    fn load(path: &Path) -> Result<Self, SourceError> {
        let failed = |error| SourceError::io(path, "read", error);
        let unreadable = |reason: String| SourceError::Unreadable { path: path.to_owned(), reason };
        let mut bytes = Vec::new();
        File::open(path).map_err(failed)?.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(unreadable(format!("larger than {} MiB", MAX_FILE >> 20)));
        }
        match image::guess_format(&bytes) {
            Ok(ImageFormat::Jpeg) => {
                let (width, height) =
                    jpeg::dimensions(&bytes).map_err(|error| unreadable(error.to_string()))?;
                Ok(Self { width, height, format: PixelFormat::Mjpeg, bytes })
            }
            Ok(ImageFormat::Png) => {
                let reader = ImageReader::with_format(Cursor::new(bytes), ImageFormat::Png);
                let picture = reader.decode().map_err(|error| unreadable(error.to_string()))?.into_rgb8();
                let (width, height) = picture.dimensions();
                Ok(Self { width, height, format: PixelFormat::Rgb24, bytes: picture.into_raw() })
            }
            _ => Err(unreadable("neither a JPEG nor a PNG picture".into())),
        }
    }

    fn copy_to(&self, frame: &mut Frame) {
        (frame.width, frame.height, frame.format) = (self.width, self.height, self.format);
        frame.stride = if self.format == PixelFormat::Rgb24 { 3 * self.width } else { 0 };
        frame.color = Color::default();
        frame.bytes.clone_from(&self.bytes);
    }
}

/// The pictures of a folder, sorted by name.
fn pictures_in(folder: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let failed = |error| SourceError::io(folder, "list", error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if has_extension(&path, &["jpg", "jpeg", "png"]) {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        let reason = "no .jpg, .jpeg or .png files in the folder".into();
        return Err(SourceError::Unreadable { path: folder.to_owned(), reason });
    }
    paths.sort();
    Ok(paths)
}

fn has_extension(path: &Path, known: &[&str]) -> bool {
    path.extension().is_some_and(|extension| known.iter().any(|known| extension.eq_ignore_ascii_case(known)))
}
