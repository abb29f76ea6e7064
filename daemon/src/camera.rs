//! Where frames come from: one thread per camera owns its source and puts every frame into a
//! one-place slot. A source that fails is opened again; other cameras never notice.

mod frame;
mod jpeg;
mod source;
pub mod v4l2;
mod file;
pub mod world;
mod encode;
mod test_camera;
mod pace;
mod capture;
mod pool;
mod board;
mod latest;

pub use file::Repeat;
pub use frame::{Frame, FrameError, PixelFormat};
pub use latest::{Latest, Wake};
pub use pace::Fps;
pub use source::{Source, SourceError, SourceNameError};

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use messages::{CameraState, CameraStatus};

use crate::config::CameraConfig;
use board::{Board, OnState};
use capture::{Capture, Open, Patience};
use source::Wanted;

/// A running camera. Dropping it stops its thread.
pub struct CameraHandle {
    /// Name on the bus.
    pub name: String,
    /// Its newest frame.
    pub latest: Arc<Latest<Frame>>,
    board: Arc<Board>,
    /// Dropped to stop the thread.
    stop: Option<SyncSender<()>>,
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

/// Starts a camera. Its source may be absent: it is opened as soon as it is there. `on_state` is
/// called on the camera's thread with the first state and then once per change; `wake` rings with
/// every frame.
pub fn spawn(
    config: &CameraConfig,
    wake: Wake,
    on_state: impl Fn(CameraState) + Send + 'static,
) -> Result<CameraHandle, CameraError> {
    let source = parse(config)?;
    let wanted = wanted(config);
    let name = source.to_string();
    let open = Box::new(move || source.open(wanted));
    start(&config.name, &name, open, (wake, Box::new(on_state), Patience::default()))
}

/// Opens the source of a camera, closes it again and returns what it said of itself: format, size
/// and rate.
pub fn probe(config: &CameraConfig) -> Result<String, CameraError> {
    let failed = |error| CameraError::Source { camera: config.name.clone(), error };
    parse(config)?.open(wanted(config)).map(|source| source.describe()).map_err(failed)
}

fn parse(config: &CameraConfig) -> Result<Source, CameraError> {
    config.source.parse().map_err(|error| CameraError::Name { camera: config.name.clone(), error })
}

fn wanted(config: &CameraConfig) -> Wanted {
    Wanted { width: config.width, height: config.height, fps: config.fps }
}

/// Starts the thread of a camera.
fn start(
    camera: &str,
    source: &str,
    open: Open,
    (wake, on_state, patience): (Wake, OnState, Patience),
) -> Result<CameraHandle, CameraError> {
    let latest = Arc::new(Latest::new(wake));
    let board = Arc::new(Board::new(camera, source, on_state));
    let (stop, stopped) = sync_channel(0);
    let capture = Capture { open, latest: latest.clone(), board: board.clone(), stop: stopped, patience };
    let thread = thread::Builder::new()
        // Linux shows 15 letters.
        .name(format!("camera {camera}"))
        .spawn(move || capture.run())
        .map_err(|error| CameraError::Thread { camera: camera.to_owned(), error })?;
    Ok(CameraHandle { name: camera.to_owned(), latest, board, stop: Some(stop), thread: Some(thread) })
}

impl CameraHandle {
    /// State and counters as of now. What only the engine knows (captions, frames too old) is 0.
    pub fn status(&self) -> CameraStatus {
        self.board.status()
    }

    /// Counts a frame that turned out to be damaged when it was decoded.
    pub fn count_damaged(&self) {
        self.board.count_damaged();
    }

    /// Stops the thread and waits for its end, about a tenth of a second.
    pub fn stop(self) {}
}

impl Drop for CameraHandle {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(camera = self.name, "the camera thread panicked");
        }
    }
}

impl fmt::Debug for CameraHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CameraHandle").field("name", &self.name).finish_non_exhaustive()
    }
}
