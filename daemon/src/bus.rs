//! The zenoh bus: captions, alerts, states and status go out, questions, requests and changes come in.
//!
//! This module and its parts are the only asynchronous code. Everything they read of the rest of
//! the daemon comes through [`BusInputs`] and two bounded channels, so that a test can stand in for
//! the cameras and the engine.

mod exposure;
mod session;
mod claim;
mod strangers;
mod frames;
mod present;
mod publish;
mod counts;
mod ask;
mod query;
mod ros;
mod control;
pub mod client;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use messages::keys::{Key, Name, NameError, Topic};
use messages::{AskError, CameraState, Claim, Holder, Status};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use zenoh::Session;
use zenoh::liveliness::LivelinessToken;
use zenoh::query::Queryable;

use crate::camera::{Frame, Network};
use crate::changes::Kept;
use crate::config::{BusConfig, QuestionConfig, Ros2Config};
use crate::engine::{AskSender, ControlSender, Event, Reload};
use claim::NameClaim;
use counts::{Counts, Places, Refusals};

pub(crate) use exposure::{host_and_port, is_loopback};
pub(crate) use strangers::Doorkeeper;

pub use frames::Feed;

/// How long a clean stop waits for the last replies and results, and then for zenoh's own closing.
const LAST_REPLIES: Duration = Duration::from_millis(300);
const CLOSING: Duration = Duration::from_millis(700);

/// Threads that wait for full links: places for the questions of the default queue, for refusals, requests and
/// publications. Without a limit a flood makes hundreds, more than the unit's `TasksMax` allows. Whoever finds no
/// place waits until zenoh closes the link of one who does not read.
const WAITING: usize = 128;

/// How long such a thread lives without work. Work goes round among all of them, so that with a longer time those
/// of a flood would never end.
const IDLE_THREAD: Duration = Duration::from_secs(1);

/// What the bus reads of the rest of the daemon. The calls must be quick and may come from any thread.
pub trait BusInputs: Send + Sync + 'static {
    /// The daemon as it is now.
    fn status(&self) -> Status;

    /// Every configured camera as it is now.
    fn cameras(&self) -> Vec<CameraState>;

    /// Takes the states that cameras went through since the last call, each camera's oldest first. The
    /// bus alone calls it.
    fn camera_changes(&self) -> Vec<CameraState>;

    /// The newest frame of a camera, or one still held by sequence number.
    fn frame(&self, camera: &str, sequence: Option<u64>) -> Option<Arc<Frame>>;

    /// The cameras whose frames are published.
    fn feeds(&self) -> Vec<Feed> {
        Vec::new()
    }

    /// A frame of a camera was published, or was not because readers hold all memory for it.
    fn count_sent(&self, _camera: &str, _is_sent: bool) {}
}

/// Why the bus cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The device name cannot be part of a key.
    #[error("device_name: {0}")]
    Device(#[from] NameError),
    /// zenoh's own configuration file.
    #[error("{}: not a zenoh configuration: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What zenoh says of it.
        reason: String,
    },
    /// A value of the `[bus]` section.
    #[error("[bus] {key} = {value}: {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What zenoh says of it.
        reason: String,
    },
    /// zenoh's own configuration lets everybody in.
    #[error(
        "{}: listens on {endpoint}, which other machines reach, {lacks}: listen on 127.0.0.1, protect it as \
         systemd/fleet/router.json5 does, or accept it with bus.allow_remote = true", path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// What is open to others.
        endpoint: String,
        /// What it lacks.
        lacks: &'static str,
    },
    /// Another daemon has the name.
    #[error(
        "the name \"{device}\" is taken by process {} on host {}, {} on the bus: stop that one, or give this one \
         another device_name", holder.process, holder.host, holder.zid
    )]
    Taken {
        /// The name.
        device: String,
        /// Who has it.
        holder: Box<Holder>,
    },
    /// Another program listens there.
    #[error("[bus] listen {endpoints}: the address is in use; stop the other program or listen elsewhere")]
    InUse {
        /// The endpoints that were asked for.
        endpoints: String,
    },
    /// Nobody to connect to.
    #[error("[bus] connect {endpoints}: no router or peer answers; start it or correct the endpoint")]
    Unreachable {
        /// The endpoints that were asked for.
        endpoints: String,
    },
    /// Anything else zenoh refuses.
    #[error("the bus: {0}")]
    Zenoh(String),
    /// No thread for the bus.
    #[error("the threads of the bus cannot be started: {0}")]
    Threads(std::io::Error),
}

impl From<zenoh::Error> for BusError {
    fn from(error: zenoh::Error) -> Self {
        Self::Zenoh(error.to_string())
    }
}

/// Whether zenoh understands the configuration. Nothing is opened.
pub fn check(config: &BusConfig) -> Result<(), BusError> {
    session::configuration(config).map(drop)
}

/// What passes between the bus and the engine, and the limits of questions.
pub struct Traffic {
    /// Cameras and status.
    pub inputs: Arc<dyn BusInputs>,
    /// Questions to the engine.
    pub asks: AskSender,
    /// Changes to the engine.
    pub control: ControlSender,
    /// Where changes are kept.
    pub kept: Kept,
    /// Results of the engine; the bus publishes until it is closed.
    pub events: mpsc::Receiver<Event>,
    /// Limits of questions.
    pub question: QuestionConfig,
    /// Nodes of ROS 2.
    pub ros2: Ros2Config,
}

/// An open session and everything declared on it.
pub struct Bus {
    device: Name,
    json: bool,
    /// Shared memory for frames as captured.
    shared_bytes: usize,
    session: Session,
    stop: watch::Sender<bool>,
    in_flight: Arc<Semaphore>,
    questions: u32,
    declared: Vec<Queryable<()>>,
    /// Where changes are taken in, once it serves.
    panel: Option<Arc<control::Panel>>,
    alive: Option<LivelinessToken>,
    /// What nodes of ROS 2 see.
    ros: Option<Arc<ros::Node>>,
    claim: Arc<NameClaim>,
    refusals: Refusals,
    /// Ends when the engine has no more results.
    results: Option<JoinHandle<()>>,
    /// There until the bus is dropped.
    runtime: Option<Runtime>,
}

impl Bus {
    /// Opens the session and claims the name; nothing else is said or heard before [`Bus::serve`].
    ///
    /// Errors: a bad configuration, an address in use, nobody to connect to, a name that another daemon has.
    pub fn open(config: &BusConfig, device_name: &str) -> Result<Self, BusError> {
        let device = Name::new(device_name)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(WAITING)
            .thread_keep_alive(IDLE_THREAD)
            .thread_name("bus")
            .enable_time()
            .build()
            .map_err(BusError::Threads)?;
        let (session, claim) = runtime.block_on(async {
            let session = session::open(config).await?;
            let claim = NameClaim::make(&session, &device).await?;
            Ok::<_, BusError>((session, Arc::new(claim)))
        })?;
        Ok(Self {
            device,
            json: config.json,
            shared_bytes: config.shared_memory_mib << 20,
            session,
            stop: watch::Sender::new(false),
            in_flight: Arc::new(Semaphore::new(0)),
            questions: 0,
            declared: Vec::new(),
            panel: None,
            alive: None,
            ros: None,
            claim,
            refusals: Refusals::new(runtime.handle().clone()),
            results: None,
            runtime: Some(runtime),
        })
    }

    /// The bus for cameras whose frames come over it.
    pub fn network(&self) -> Network {
        Network::of(self.session.clone())
    }

    /// Starts publishing and answering, then says that the device is alive.
    ///
    /// Errors: zenoh refuses a declaration, or another daemon has taken the name meanwhile.
    pub fn serve(&mut self, traffic: Traffic) -> Result<(), BusError> {
        let Traffic { inputs, asks, control, kept, events, question, ros2 } = traffic;
        let Some(runtime) = &self.runtime else { return Ok(()) };
        runtime.block_on(self.claim.advance(Claim::Serving))?;
        let key = |topic| Key::new(self.device.clone(), topic);
        self.questions = u32::try_from(question.queue).unwrap_or(u32::MAX).clamp(1, 1 << 16);
        self.in_flight.add_permits(self.questions as usize);

        let present = runtime.block_on(present::Present::listen(&self.session))?;
        let counts = Counts::new(present.clone());
        let desk = Arc::new(ask::Desk {
            device: self.device.clone(),
            inputs: inputs.clone(),
            asks,
            deadline: question.deadline(),
            in_flight: self.in_flight.clone(),
            stop: self.stop.subscribe(),
            present: present.clone(),
            counts: counts.clone(),
            refusals: self.refusals.clone(),
            runtime: runtime.handle().clone(),
        });
        let window = Arc::new(query::Window {
            device: self.device.clone(),
            inputs: inputs.clone(),
            places: Places::new(query::AT_ONCE),
            counts: counts.clone(),
            refusals: self.refusals.clone(),
            runtime: runtime.handle().clone(),
        });
        let publisher = || publish::Publishers::new(self.session.clone(), self.device.clone(), self.json);
        let office = control::Office {
            counts: counts.clone(),
            refusals: self.refusals.clone(),
            runtime: runtime.handle().clone(),
        };
        let panel = control::Panel::new(self.device.clone(), control, kept, publisher(), office);
        let declared = runtime.block_on(async {
            let mut declared =
                vec![desk.clone().declare(&self.session).await?, panel.clone().declare(&self.session).await?];
            declared.extend(window.declare(&self.session).await?);
            let alive = self.session.liveliness().declare_token(key(Topic::Alive).to_string()).await?;
            Ok::<_, zenoh::Error>((declared, alive))
        })?;
        self.declared = declared.0;
        self.panel = Some(panel);
        self.alive = Some(declared.1);

        self.ros = runtime.block_on(ros::Node::open(&self.session, &ros2, &self.device, desk))?;
        if let Some(node) = &self.ros {
            runtime.spawn(ros::follow(Arc::downgrade(node), inputs.clone()));
        }

        let (results, ros) = (publisher(), self.ros.clone());
        self.results = Some(runtime.spawn_blocking(move || publish::results(results, ros, events)));
        runtime.spawn(publish::states(publisher(), inputs.clone()));
        let feeder =
            frames::Feeder::new(self.session.clone(), self.device.clone(), inputs.clone(), self.shared_bytes);
        runtime.spawn(feeder.run(self.stop.subscribe()));
        runtime.spawn(publish::status(publisher(), inputs, counts));
        runtime.spawn(self.claim.clone().look_out(present));
        Ok(())
    }

    /// Has the engine take up another configuration, under what was changed over the bus, and publishes
    /// what became of rules and captions.
    ///
    /// Errors: the engine refuses it, and nothing is changed, or there is none.
    pub fn reload(&self, reload: Reload) -> Result<(), AskError> {
        let (Some(panel), Some(runtime)) = (&self.panel, &self.runtime) else {
            return Err(AskError::Internal { reason: "the bus does not serve yet".into() });
        };
        runtime.block_on(panel.reload(reload))
    }

    /// Ends every open question with an error, withdraws what was declared and closes the session.
    /// It takes about a second at most.
    pub fn stop(mut self) {
        self.stop.send_replace(true);
        let Some(runtime) = self.runtime.take() else { return };
        runtime.block_on(async {
            let idle =
                async { tokio::join!(self.in_flight.acquire_many(self.questions), self.refusals.sent()) };
            if tokio::time::timeout(LAST_REPLIES, idle).await.is_err() {
                tracing::warn!("some questions were not told that the daemon stops");
            }
            // The ends of alerts, if the engine has stopped before.
            if let Some(results) = self.results.take()
                && tokio::time::timeout(LAST_REPLIES, results).await.is_err()
            {
                tracing::warn!("some results were not published before the stop");
            }
            self.alive = None;
            if let Some(ros) = self.ros.take() {
                ros.withdraw();
            }
            self.declared.clear();
            if tokio::time::timeout(CLOSING, self.session.close()).await.is_err() {
                tracing::warn!("the bus did not close in time");
            }
        });
        runtime.shutdown_background();
    }
}

impl Drop for Bus {
    /// A bus that was not stopped, since something failed, does not wait for the end of results.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
