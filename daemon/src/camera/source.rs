//! What a source of frames is called, and what it does for the camera thread.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use messages::CameraPhase;
use zenoh::key_expr::KeyExpr;

use super::file::{FileSource, Repeat};
use super::frame::{Frame, PixelFormat};
use super::test_camera::TestSource;
use super::tuning::Tuning;
use super::v4l2::{FourCc, Memory, Setup, V4l2Source, pixel_format};

/// Where a camera's frames come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A V4L2 device, `v4l2:/dev/video0`. A format can be demanded by its four letters:
    /// `v4l2:/dev/video0?format=MJPG`. With `dmabuf` as another option, after an `&`, frames are read
    /// as a GPU would read them.
    V4l2 {
        /// The device or a link to it.
        path: PathBuf,
        /// The only format to use.
        format: Option<FourCc>,
        /// How frames are read.
        memory: Memory,
    },
    /// A picture, a folder of pictures or an MJPEG recording, `file:PATH`. Folders and recordings
    /// start over at their end unless the name says `file:PATH?once`.
    File {
        /// The file or folder.
        path: PathBuf,
        /// What happens at the end.
        repeat: Repeat,
    },
    /// The world drawn by the daemon, `test:`. A number makes it another world: `test:7`. A format can
    /// be demanded as of a device: `test:7?format=NV12`.
    Test {
        /// Number of the world.
        seed: u64,
        /// The format of the frames.
        format: Option<FourCc>,
    },
    /// Frames that other nodes publish on the bus, `zenoh:KEY`. The key may hold wildcards.
    Zenoh {
        /// The key expression.
        key: String,
    },
}

/// Why a source's name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceNameError {
    /// The part before the colon is unknown or missing.
    #[error("camera source \"{0}\": write v4l2:/dev/video0, file:PATH, test: or zenoh:KEY")]
    Scheme(String),
    /// There is no path.
    #[error("camera source \"{0}\": the path is missing")]
    NoPath(String),
    /// The world is not a number.
    #[error("camera source \"{0}\": after test: only the number of a world may follow")]
    Seed(String),
    /// What follows the question mark is unknown.
    #[error(
        "camera source \"{0}\": after the name only ?format= and four letters, as in ?format=MJPG, may follow"
    )]
    Option(String),
    /// What follows `zenoh:` is no key expression.
    #[error("camera source \"{name}\": no key to subscribe to: {reason}")]
    Key {
        /// The whole name.
        name: String,
        /// What zenoh says of the key.
        reason: String,
    },
}

impl FromStr for Source {
    type Err = SourceNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = name.split_once(':').ok_or_else(|| SourceNameError::Scheme(name.into()))?;
        match scheme {
            "v4l2" => {
                let (path, format, memory) = with_options(rest, name)?;
                Ok(Self::V4l2 { path: non_empty(path, name)?, format, memory })
            }
            "file" => {
                let (path, repeat) = match rest.strip_suffix("?once") {
                    Some(path) => (path, Repeat::Once),
                    None => (rest, Repeat::Forever),
                };
                Ok(Self::File { path: non_empty(path, name)?, repeat })
            }
            "test" => {
                let (number, format, memory) = with_options(rest, name)?;
                let seed = if number.is_empty() { Ok(0) } else { number.parse() };
                let seed = seed.map_err(|_| SourceNameError::Seed(name.into()))?;
                let is_unknown = format.is_some_and(|format| pixel_format(format).is_none());
                if is_unknown || memory != Memory::default() {
                    return Err(SourceNameError::Option(name.into()));
                }
                Ok(Self::Test { seed, format })
            }
            "zenoh" => match KeyExpr::new(rest) {
                Ok(key) => Ok(Self::Zenoh { key: key.as_str().into() }),
                Err(error) => Err(SourceNameError::Key { name: name.into(), reason: error.to_string() }),
            },
            _ => Err(SourceNameError::Scheme(name.into())),
        }
    }
}

/// What stands before the question mark and the options behind it.
fn with_options<'a>(rest: &'a str, name: &str) -> Result<(&'a str, Option<FourCc>, Memory), SourceNameError> {
    let Some((rest, options)) = rest.split_once('?') else { return Ok((rest, None, Memory::Mapped)) };
    let (mut format, mut memory) = (None, Memory::Mapped);
    for option in options.split('&') {
        match option.strip_prefix("format=").and_then(FourCc::parse) {
            Some(fourcc) => format = Some(fourcc),
            None if option == "dmabuf" => memory = Memory::Exported,
            None => return Err(SourceNameError::Option(name.into())),
        }
    }
    Ok((rest, format, memory))
}

fn non_empty(path: &str, name: &str) -> Result<PathBuf, SourceNameError> {
    if path.is_empty() { Err(SourceNameError::NoPath(name.into())) } else { Ok(path.into()) }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4l2 { path, format, memory } => {
                write!(f, "v4l2:{}", path.display())?;
                let format = format.map(|format| format!("format={format}"));
                let memory = (*memory == Memory::Exported).then(|| "dmabuf".to_owned());
                let options: Vec<_> = [format, memory].into_iter().flatten().collect();
                if options.is_empty() { Ok(()) } else { write!(f, "?{}", options.join("&")) }
            }
            Self::File { path, repeat: Repeat::Forever } => write!(f, "file:{}", path.display()),
            Self::File { path, repeat: Repeat::Once } => write!(f, "file:{}?once", path.display()),
            Self::Test { seed, format } => {
                f.write_str("test:")?;
                if *seed != 0 {
                    write!(f, "{seed}")?;
                }
                format.map_or(Ok(()), |format| write!(f, "?format={format}"))
            }
            Self::Zenoh { key } => write!(f, "zenoh:{key}"),
        }
    }
}

/// Size and rate asked of a source. 0 leaves a value to it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Wanted {
    /// Pixels across.
    pub(super) width: u32,
    /// Pixels down.
    pub(super) height: u32,
    /// Frames per second.
    pub(super) fps: f64,
}

/// What a wait for a frame brought.
#[derive(Debug)]
pub(super) enum Delivery {
    /// A frame, and how many the driver lost before it.
    Frame {
        /// Frames lost.
        lost: u64,
    },
    /// A frame that cannot be used, and why.
    Damaged(String),
    /// Nothing within the wait.
    Nothing,
    /// Nothing now and nothing later.
    Ended,
}

/// An open source. The camera thread owns it.
pub(super) trait FrameSource {
    /// The source in words, with the chosen format, size and rate.
    fn describe(&self) -> String;

    /// Usual time between frames.
    fn interval(&self) -> Duration;

    /// Waits at most `wait` for a frame and writes it into `frame`, all but its sequence number.
    /// Nobody looks at `frame` unless it was delivered.
    fn next_frame(&mut self, frame: &mut Frame, wait: Duration) -> Result<Delivery, SourceError>;
}

/// Why a source cannot be opened or stopped delivering.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It is not there.
    #[error("{}: no such device or file", .0.display())]
    Absent(PathBuf),
    /// It was there.
    #[error("{}: the device was unplugged", .0.display())]
    Lost(PathBuf),
    /// Another camera has its path.
    #[error("{}: another camera now ({name}); the one that was there is waited for", path.display())]
    Replaced {
        /// The configured path.
        path: PathBuf,
        /// What is there now.
        name: String,
    },
    /// This user may not use it.
    #[error("{}: permission denied: add the user to group video", .0.display())]
    Denied(PathBuf),
    /// Somebody else captures from it.
    #[error("{}: busy: another program captures from it", .0.display())]
    Busy(PathBuf),
    /// It captures no pictures.
    #[error("{}: not a capture device: see mobilevlmd cameras", .0.display())]
    NotCapture(PathBuf),
    /// It captures nothing that is understood.
    #[error("{}: no usable format: it offers {offered}", path.display())]
    NoFormat {
        /// The device.
        path: PathBuf,
        /// What it offers.
        offered: String,
    },
    /// A control of the configuration cannot be set.
    #[error("{}: {problem}: see mobilevlmd cameras", path.display())]
    Control {
        /// The device.
        path: PathBuf,
        /// The control, its value and what is wrong.
        problem: String,
    },
    /// The driver refused something or said something impossible.
    #[error("{}: {what}: {error}", path.display())]
    Io {
        /// The device or file.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The file is no picture.
    #[error("{}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody publishes frames.
    #[error("no frames under {key} on the bus: {reason}")]
    Silent {
        /// The key expression.
        key: String,
        /// Why, as far as it is known.
        reason: String,
    },
    /// The key cannot be subscribed to.
    #[error("{key}: cannot be subscribed to: {reason}")]
    Bus {
        /// The key expression.
        key: String,
        /// What zenoh says.
        reason: String,
    },
    /// A command without a bus.
    #[error("zenoh:{0}: frames of other nodes come over the bus, which only the daemon opens")]
    NoBus(String),
}

impl SourceError {
    /// The error for `error` that came of doing `what` with `path`.
    pub(super) fn io(path: &Path, what: &'static str, error: io::Error) -> Self {
        let path = path.to_owned();
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENXIO) => Self::Absent(path),
            Some(libc::ENODEV) => Self::Lost(path),
            Some(libc::EBUSY) => Self::Busy(path),
            _ => Self::Io { path, what, error },
        }
    }

    /// State of a camera whose source failed like this for the first time.
    pub(super) fn phase(&self) -> CameraPhase {
        match self {
            Self::Absent(_) | Self::Silent { .. } => CameraPhase::Absent,
            Self::Lost(_) | Self::Replaced { .. } => CameraPhase::Gone,
            _ => CameraPhase::Failing,
        }
    }
}

impl Source {
    /// The file or device, if it is one.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::V4l2 { path, .. } | Self::File { path, .. } => Some(path),
            Self::Test { .. } | Self::Zenoh { .. } => None,
        }
    }

    /// Opens the source. Those on the bus are opened by a mailbox.
    pub(super) fn open(&self, wanted: Wanted, tuning: &Tuning) -> Result<Box<dyn FrameSource>, SourceError> {
        Ok(match self {
            Self::V4l2 { path, format, memory } => {
                let setup = Setup { tuning: tuning.clone(), memory: *memory };
                Box::new(V4l2Source::open(path, *format, wanted, &setup)?)
            }
            Self::File { path, repeat } => Box::new(FileSource::open(path, *repeat, wanted.fps)?),
            Self::Test { seed, format } => {
                let format = format.and_then(pixel_format).unwrap_or(PixelFormat::Yuyv);
                Box::new(TestSource::new(*seed, format, wanted))
            }
            Self::Zenoh { key } => return Err(SourceError::NoBus(key.clone())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_and_written_back() {
        for name in [
            "v4l2:/dev/video0",
            "v4l2:/dev/v4l/by-id/usb-046d_C920-video-index0",
            "v4l2:/dev/video2?format=MJPG",
            "v4l2:/dev/video2?dmabuf",
            "v4l2:/dev/video2?format=YUYV&dmabuf",
            "file:/data/kitchen.mjpeg",
            "file:what?.png",
            "file:frames?once",
            "test:",
            "test:7",
            "test:?format=NV12",
            "test:7?format=MJPG",
            "zenoh:mobilevlm/scout/camera/front/frame",
            "zenoh:0/*/image_raw/**",
        ] {
            assert_eq!(name.parse::<Source>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn unknown_names_are_refused_with_the_known_ones() {
        for name in ["", "/dev/video0", "rtsp://camera", "V4L2:/dev/video0"] {
            let error = name.parse::<Source>().unwrap_err();
            assert_eq!(error, SourceNameError::Scheme(name.into()));
            assert!(error.to_string().contains("v4l2:/dev/video0, file:PATH, test: or zenoh:KEY"));
        }
        assert!(matches!("v4l2:".parse::<Source>(), Err(SourceNameError::NoPath(_))));
        assert!(matches!("file:?once".parse::<Source>(), Err(SourceNameError::NoPath(_))));
        for key in ["zenoh:", "zenoh:/front", "zenoh:a//b", "zenoh:a b#"] {
            assert!(matches!(key.parse::<Source>(), Err(SourceNameError::Key { .. })), "{key}");
        }
        assert!(matches!("test:red".parse::<Source>(), Err(SourceNameError::Seed(_))));
        assert!(matches!("test:7?format=XYZW".parse::<Source>(), Err(SourceNameError::Option(_))));
        assert!(matches!("test:?dmabuf".parse::<Source>(), Err(SourceNameError::Option(_))));
        assert!(matches!("v4l2:/dev/video0?size=9".parse::<Source>(), Err(SourceNameError::Option(_))));
    }
}
