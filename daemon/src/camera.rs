//! Where frames come from: one thread per camera owns its source and puts every frame into a
//! one-place slot. A source that fails is opened again; other cameras never notice.

mod format;
mod frame;
mod jpeg;
mod source;
mod tuning;
pub mod v4l2;
mod file;
pub mod world;
mod encode;
mod test_camera;
pub mod network;
mod pace;
mod backoff;
mod capture;
mod pool;
mod board;
mod latest;

pub use file::Repeat;
pub use frame::{Frame, FrameError, PixelFormat};
pub use latest::{Latest, Wake};
pub use network::Network;
pub use pace::Fps;
pub use source::{Source, SourceError, SourceNameError};
pub use tuning::{ControlValue, SensorCurve};

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, PipeWriter};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use messages::{CameraState, CameraStatus};

use crate::config::CameraConfig;
use board::Board;
use capture::{Capture, Open, Patience};
use network::Mailbox;
use source::Wanted;
use tuning::Tuning;
use v4l2::{Setup, V4l2Source, Whereabouts};

/// How long the end of a camera thread is waited for.
const MOST_STOPPING: Duration = Duration::from_secs(1);

/// A running camera. Dropping it stops its thread.
pub struct CameraHandle {
    /// Name on the bus.
    pub name: String,
    /// Its newest frame.
    pub latest: Arc<Latest<Frame>>,
    sent: AtomicU64,
    unsent: AtomicU64,
    board: Arc<Board>,
    /// Dropped to stop the thread.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

/// Why a camera cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum CameraError {
    /// The name of its source is not understood.
    #[error("camera \"{camera}\": {error}")]
    Name {
        /// Name of the camera.
        camera: String,
        /// What is wrong with it.
        error: SourceNameError,
    },
    /// The source cannot be opened.
    #[error("camera \"{camera}\": {error}")]
    Source {
        /// Name of the camera.
        camera: String,
        /// What is wrong with it.
        error: SourceError,
    },
    /// The system has no thread for it.
    #[error("camera \"{camera}\": cannot start a thread: {error}")]
    Thread {
        /// Name of the camera.
        camera: String,
        /// What the system said.
        error: io::Error,
    },
}

/// A camera whose thread does not run yet: its frames have a place already.
pub struct ReadyCamera {
    /// Name on the bus.
    pub name: String,
    /// Where its frames will be.
    pub latest: Arc<Latest<Frame>>,
    source: String,
    open: Open,
    /// The file or device, if the source is one.
    path: Option<PathBuf>,
    patience: Patience,
}

/// Understands the source of a camera and opens nothing; `wake` will ring with every frame. Sources on the
/// bus will be reached over `network`.
pub fn prepare(config: &CameraConfig, network: &Network, wake: Wake) -> Result<ReadyCamera, CameraError> {
    let source = parse(config)?;
    Ok(ReadyCamera {
        name: config.name.clone(),
        latest: Arc::new(Latest::new(wake)),
        source: source.to_string(),
        path: source.path().map(PathBuf::from),
        open: opener(source, wanted(config), Tuning::new(config), network),
        patience: Patience::default(),
    })
}

/// Opens a source as often as it is lost, a device wherever it is by then.
fn opener(source: Source, wanted: Wanted, tuning: Tuning, network: &Network) -> Open {
    match source {
        Source::V4l2 { path, format, memory } => {
            let mut device = Whereabouts::new(&path);
            let setup = Setup { tuning, memory };
            Box::new(move || {
                let node = device.find()?;
                let opened = V4l2Source::open(&node, format, wanted, &setup)?;
                device.note(&node);
                Ok(Box::new(opened))
            })
        }
        Source::Zenoh { key } => {
            let mut mailbox = Mailbox::new(&key, wanted.fps, network);
            Box::new(move || mailbox.open())
        }
        source => Box::new(move || source.open(wanted, &tuning)),
    }
}

/// Starts a camera. Its source may be absent: it is opened as soon as it is there. `on_state` is
/// called on the camera's thread with the first state and then once per change; `wake` rings with
/// every frame. Sources on the bus are reached over `network`.
pub fn spawn(
    config: &CameraConfig,
    network: &Network,
    wake: Wake,
    on_state: impl Fn(CameraState) + Send + 'static,
) -> Result<CameraHandle, CameraError> {
    prepare(config, network, wake)?.start(on_state)
}

/// Opens the source of a camera, closes it again and returns what it said of itself: format, size
/// and rate. Sources on the bus are not tried.
pub fn probe(config: &CameraConfig) -> Result<String, CameraError> {
    let failed = |error| CameraError::Source { camera: config.name.clone(), error };
    let source = parse(config)?;
    if let Source::Zenoh { key } = &source {
        return Ok(format!("subscribes to {key} on the bus; whether frames come is seen once it is open"));
    }
    source.open(wanted(config), &Tuning::new(config)).map(|source| source.describe()).map_err(failed)
}

fn parse(config: &CameraConfig) -> Result<Source, CameraError> {
    config.source.parse().map_err(|error| CameraError::Name { camera: config.name.clone(), error })
}

fn wanted(config: &CameraConfig) -> Wanted {
    Wanted { width: config.width, height: config.height, fps: config.fps }
}

impl ReadyCamera {
    /// Lets the source be opened only after these threads have ended, which close what it needs.
    pub fn after(self, closing: Vec<JoinHandle<()>>) -> Self {
        let Self { mut open, .. } = self;
        let mut closing = closing.into_iter();
        let open = Box::new(move || {
            // One that panicked has closed what it held as well.
            closing.by_ref().for_each(|thread| drop(thread.join()));
            open()
        });
        Self { open, ..self }
    }

    /// Starts the thread. `on_state` is called on it with the first state and then once per change.
    pub fn start(self, on_state: impl Fn(CameraState) + Send + 'static) -> Result<CameraHandle, CameraError> {
        let Self { name, latest, source, open, path, patience } = self;
        let failed = |error| CameraError::Thread { camera: name.clone(), error };
        let board = Arc::new(Board::new(&name, &source, Box::new(on_state)));
        let (stopped, stop) = io::pipe().map_err(failed)?;
        let seed = RandomState::new().build_hasher().finish();
        let (latest_there, board_there) = (latest.clone(), board.clone());
        let capture =
            Capture { open, path, latest: latest_there, board: board_there, stop: stopped, patience, seed };
        let thread = thread::Builder::new()
            // Linux shows 15 letters.
            .name(format!("camera {name}"))
            .spawn(move || capture.run())
            .map_err(failed)?;
        let (sent, unsent) = Default::default();
        Ok(CameraHandle { name, latest, sent, unsent, board, stop: Some(stop), thread: Some(thread) })
    }
}

impl CameraHandle {
    /// State and counters as of now. What only the engine knows (captions, frames too old) is 0.
    pub fn status(&self) -> CameraStatus {
        let [published, unpublished] = [&self.sent, &self.unsent].map(|count| count.load(Ordering::Relaxed));
        CameraStatus { published, unpublished, ..self.board.status() }
    }

    /// Counts a frame that was published, or was not because readers hold all memory for it.
    pub fn count_sent(&self, is_sent: bool) {
        let count = if is_sent { &self.sent } else { &self.unsent };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a frame that turned out to be damaged when it was decoded.
    pub fn count_damaged(&self) {
        self.board.count_damaged();
    }

    /// Takes the changes of state since the last call, oldest first.
    pub fn changes(&self) -> Vec<CameraState> {
        self.board.changes()
    }

    /// Stops the thread and waits for its end, about a tenth of a second. One that a driver holds is
    /// left behind after a second.
    pub fn stop(self) {}
}

impl Drop for CameraHandle {
    fn drop(&mut self) {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else { return };
        let deadline = Instant::now() + MOST_STOPPING;
        while !thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        if !thread.is_finished() {
            tracing::warn!(camera = self.name, "the driver does not return; its thread is left behind");
        } else if thread.join().is_err() {
            tracing::error!(camera = self.name, "the camera thread panicked");
        }
    }
}

impl fmt::Debug for CameraHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CameraHandle").field("name", &self.name).finish_non_exhaustive()
    }
}
