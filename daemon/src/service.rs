//! Builds the parts, starts the threads, shuts down in order.
//!
//! The bus opens first, since an address in use should be told before gigabytes are loaded. On the
//! way down the engine goes first: it ends every open question, and the bus still carries that out.

mod host;
mod load;
mod orders;
mod reload;

use std::io;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use kernels::cuda::OpenError;
use messages::{CameraPhase, CameraState};
use tokio::time::timeout;

use crate::bus::{Bus, BusError, Feed, Traffic};
use crate::camera::{self, CameraError, CameraHandle, Network, Wake};
use crate::changes::{Changes, Kept};
use crate::config::{CameraConfig, Config, ConfigError};
use crate::engine::{CameraInput, EngineError, EngineHandle};
use crate::health::Health;
use crate::model::files::ModelError;
use crate::model::tokenizer::TokenizerError;
use host::Host;

pub use load::{Started, device_name};
pub use orders::{Order, Orders, Signals};

/// How often the service looks after its parts.
const ROUND: Duration = Duration::from_millis(200);

/// How long loading may take before the service manager gives up: gigabytes that are quantized on
/// a slow board.
const LOADING: Duration = Duration::from_secs(1800);

/// How often free memory of the heap goes back to the system. What a burst on the bus took is otherwise kept.
const TRIM: Duration = Duration::from_secs(5);

/// Why the daemon cannot run, or not run on.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The model cannot be loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Its vocabulary cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A source cannot be understood or its thread not started.
    #[error(transparent)]
    Camera(#[from] CameraError),
    /// The bus cannot be opened.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The GPU that was named cannot be used.
    #[error("model.device: {0}; \"auto\" takes the CPU then")]
    Gpu(#[from] OpenError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Threads or timers are refused.
    #[error("the system refuses a thread or a timer: {0}")]
    System(#[from] io::Error),
    /// The engine's thread ended although nobody stopped it.
    #[error("the engine ended by itself; its last messages say why")]
    EngineEnded,
}

impl ServiceError {
    /// Whether the device failed for good, so that another process has to go on.
    pub fn is_device_lost(&self) -> bool {
        matches!(self, Self::Engine(EngineError::Lost(_)))
    }

    /// Whether only another configuration helps, so that starting again is of no use.
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Bus(
                BusError::Device(_)
                    | BusError::File { .. }
                    | BusError::Value { .. }
                    | BusError::Exposed { .. }
            ) | Self::Engine(EngineError::Rules(_) | EngineError::Captions(_))
        )
    }
}

/// Runs the daemon until it is ordered to stop. `load` reads the configuration again; `listen` is called
/// before anything else is done, in a runtime that handles signals.
///
/// Errors: whatever keeps it from starting, or a part that failed for good.
pub fn run<O: Orders>(
    config: Config,
    load: impl Fn() -> Result<Config, ConfigError>,
    listen: impl FnOnce() -> io::Result<O>,
) -> Result<(), ServiceError> {
    let clock = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut orders = clock.block_on(async { listen() })?;
    let mut health = Health::new();
    health.starting("loading the model", LOADING);
    let mut service = Service::start(config)?;
    let (mut is_alive, mut is_to_reload, mut trimmed) = (true, false, Instant::now());
    while is_alive {
        match clock.block_on(async { timeout(ROUND, orders.next()).await }) {
            Ok(Order::Stop) => break,
            Ok(Order::Reload) => is_to_reload = true,
            Err(_) => {}
        }
        is_alive = service.look_after(&mut health);
        if trimmed.elapsed() >= TRIM {
            kernels::heap::trim();
            trimmed = Instant::now();
        }
        if is_to_reload && is_alive && service.is_ready() {
            is_to_reload = false;
            service.reload(&load, &mut health)?;
        }
    }
    health.stopping();
    service.stop()?;
    if is_alive { Ok(()) } else { Err(ServiceError::EngineEnded) }
}

/// An engine on the model of a configuration, with what it publishes and what it is; without a bus.
pub fn start_engine(config: &Config, cameras: Vec<CameraInput>, wake: Wake) -> Result<Started, ServiceError> {
    load::open(&config.model)?.start((config, &Changes::default()), cameras, wake)
}

/// The running parts, in the order in which they stop.
struct Service {
    engine: EngineHandle,
    bus: Bus,
    host: Arc<Host>,
    /// What holds now.
    config: Config,
    /// Why a newer configuration was refused.
    refused: Option<String>,
    /// Rings for the engine.
    wake: Wake,
}

impl Service {
    fn start(config: Config) -> Result<Self, ServiceError> {
        let start = Instant::now();
        let device = config.device();
        let mut bus = Bus::open(&config.bus, &device)?;
        let wake = Wake::default();
        let loading = load::open(&config.model)?;
        let (cameras, inputs) = start_cameras(&config.cameras_or_test(), &bus.network(), &wake)?;
        let kept = Kept::open(config.state_folder());
        let (engine, events, model) = loading.start((&config, kept.changes()), inputs, wake.clone())?;
        tracing::info!(
            model = model.id,
            weights = model.weights,
            device = model.device,
            seconds = start.elapsed().as_secs_f32(),
            "model loaded"
        );
        let feeds = RwLock::new(feeds(&config.cameras_or_test()));
        let cameras = RwLock::new(cameras);
        let host = Arc::new(Host { device, start, model, progress: engine.progress(), cameras, feeds });
        let traffic = Traffic {
            inputs: host.clone(),
            asks: engine.asks(),
            control: engine.control(),
            kept,
            events,
            question: config.question.clone(),
            ros2: config.ros2.clone(),
        };
        bus.serve(traffic)?;
        Ok(Self { engine, bus, host, config, refused: None, wake })
    }

    /// Whether the model has answered.
    fn is_ready(&self) -> bool {
        self.engine.progress().is_ready()
    }

    /// How things are, in a line.
    fn summary(&self) -> String {
        let summary = self.host.summary();
        match &self.refused {
            Some(refused) => format!("{summary}; the new configuration is refused: {refused}"),
            None => summary,
        }
    }

    /// Tells the service manager how things are. Returns whether the engine is still there.
    fn look_after(&self, health: &mut Health) -> bool {
        let progress = self.engine.progress();
        health.feed(progress.ticks());
        if progress.is_ready() {
            health.ready();
            health.status(&self.summary());
        }
        !self.engine.is_finished()
    }

    /// Errors: what the engine ended with.
    fn stop(self) -> Result<(), ServiceError> {
        let start = Instant::now();
        let Self { engine, bus, host, .. } = self;
        let engine_end = engine.stop();
        bus.stop();
        // The cameras stop with their last holder.
        drop(host);
        tracing::info!(seconds = start.elapsed().as_secs_f32(), "stopped");
        Ok(engine_end?)
    }
}

/// Starts every camera; what the engine is given stands in the same order.
fn start_cameras(
    configs: &[CameraConfig],
    network: &Network,
    wake: &Wake,
) -> Result<(Vec<CameraHandle>, Vec<CameraInput>), CameraError> {
    let mut handles = Vec::new();
    let mut inputs = Vec::new();
    for config in configs {
        let handle = camera::spawn(config, network, wake.clone(), log_state)?;
        inputs.push(CameraInput {
            name: handle.name.clone(),
            latest: handle.latest.clone(),
            max_age: Duration::from_secs_f64(config.max_age_s),
            describe: config.describe,
        });
        handles.push(handle);
    }
    Ok((handles, inputs))
}

/// The cameras whose frames are published.
fn feeds(configs: &[CameraConfig]) -> Vec<Feed> {
    let feed = |config: &CameraConfig| {
        let CameraConfig { name, publish_fps, publish_quality, .. } = config;
        let (camera, fps, quality) = (name.clone(), *publish_fps, *publish_quality);
        (fps > 0.0).then_some(Feed { camera, fps, quality })
    };
    configs.iter().filter_map(feed).collect()
}

/// Tells of a camera's new state, as a warning if it delivers nothing.
fn log_state(state: CameraState) {
    let CameraState { camera, phase, reason, .. } = state;
    let name = format!("{phase:?}").to_lowercase();
    let reason = (!reason.is_empty()).then_some(reason);
    match phase {
        CameraPhase::Opening | CameraPhase::Live | CameraPhase::Ended => {
            tracing::info!(camera, phase = name, reason, "camera is {name}")
        }
        CameraPhase::Stalled
        | CameraPhase::Gone
        | CameraPhase::Reopening
        | CameraPhase::Absent
        | CameraPhase::Failing => {
            tracing::warn!(camera, phase = name, reason, "camera is {name}")
        }
    }
}
