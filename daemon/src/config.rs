//! The configuration: one TOML file, every key with a default.
//!
//! [`Sources`] reads it: defaults, then the file, then the environment, then flags, each over the
//! one before. [`Config::validate`] holds the rules. This is the only module that reads environment
//! variables.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kernels::KvDtype;
use messages::Rule;
use serde::{Deserialize, Serialize};

use crate::camera::{ControlValue, SensorCurve};

mod check;
mod error;
mod load;
mod model;
mod origin;
mod reload;

pub use error::ConfigError;
pub use load::{DEFAULT_PATH, Override, Sources, environment_name, log_of_environment, wants_plain_text};
pub use origin::Origin;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of this robot on the bus; empty takes the host name.
    pub device_name: String,
    /// Where changes made over the bus are kept; empty takes the state directory that systemd gives, if
    /// any.
    pub state_dir: PathBuf,
    /// What is logged: a level, and levels of modules that differ from it.
    pub log: String,
    /// What is loaded and how it is computed.
    pub model: ModelConfig,
    /// What is asked of every frame.
    pub caption: CaptionConfig,
    /// Defaults and limits of questions.
    pub question: QuestionConfig,
    /// The bus.
    pub bus: BusConfig,
    /// Nodes of ROS 2.
    pub ros2: Ros2Config,
    /// Sources of frames, by name. Empty: the test scene under the name `test`.
    #[serde(rename = "camera")]
    pub cameras: Vec<CameraConfig>,
    /// What is watched for.
    #[serde(rename = "rule")]
    pub rules: Vec<Rule>,
}

/// `[model]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// A GGUF text model or a Hugging Face directory; empty or `builtin` takes the built-in model.
    pub path: PathBuf,
    /// The GGUF vision part; empty looks beside `path`.
    pub mmproj: PathBuf,
    /// The vision tower of a Hugging Face directory that has none inside; empty looks beside.
    pub vision_tower: PathBuf,
    /// Type that weights stored as floats are quantized to while loading.
    pub dtype: String,
    /// Arithmetic of the vision tower: `q8_0`, `f32`, `f16`, `bf16`.
    pub vision_dtype: String,
    /// `cpu`, `auto`, `cuda:N` or `reference`.
    pub device: String,
    /// Worker threads; 0 takes the physical cores.
    pub threads: usize,
    /// Processors that the threads run on, by number; none takes the fast cores.
    pub cpus: Vec<usize>,
    /// Highest instruction set to use: `auto`, `scalar`, `avx2`, `avxvnni`, `avx512vnni`, `neon`, `dotprod`, `i8mm`.
    pub isa: String,
    /// Positions of one conversation; more than were trained are interpolated.
    pub context: usize,
    /// Storage of keys and values: `f16` or `q8`.
    pub kv_dtype: String,
    /// Memory of the KV cache in MiB.
    pub kv_cache_mib: usize,
    /// Where the system prompt's keys and values are kept for the next start; empty takes the cache
    /// directory that systemd gives, if any.
    pub cache_dir: PathBuf,
    /// Whether packed weights are kept there, too.
    pub keep_weights: bool,
}

/// `[caption]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaptionConfig {
    /// What is asked of every frame.
    pub prompt: String,
    /// Name of the prompt in published captions.
    pub prompt_id: String,
    /// Longest caption in tokens.
    pub max_tokens: u32,
    /// Least seconds between the starts of two captions of one camera.
    pub period_s: f64,
    /// Whether earlier texts foretell captions and answers.
    pub drafts: bool,
    /// Seconds after which the next caption of a camera takes turns with questions.
    pub at_least_every_s: f64,
    /// Levels of 255 by which some place of a frame must differ from the described frame for it to be
    /// described too; 0 describes every frame.
    pub change_threshold: f64,
    /// Seconds after which a frame is described even if nothing changed; 0 waits for a change.
    pub max_silence_s: f64,
}

/// `[question]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuestionConfig {
    /// Longest answer in tokens.
    pub max_tokens: u32,
    /// Seconds from arrival to final piece.
    pub deadline_s: f64,
    /// How old, in seconds, the capture of a cached frame may be.
    pub max_stale_s: f64,
    /// Questions that may wait.
    pub queue: usize,
    /// Sessions at once.
    pub sessions: usize,
    /// Seconds after which a session is over in which nothing was asked.
    pub session_idle_s: f64,
    /// Part of the KV cache that sessions may keep between their questions, in percent.
    pub session_kv_percent: u32,
}

/// `[bus]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BusConfig {
    /// A zenoh configuration file, passed through whole; empty uses the keys below.
    pub zenoh_config: PathBuf,
    /// `peer`, `client` or `router`.
    pub mode: String,
    /// Endpoints to listen on.
    pub listen: Vec<String>,
    /// Endpoints to connect to.
    pub connect: Vec<String>,
    /// Whether `listen` may hold endpoints that other machines reach.
    pub allow_remote: bool,
    /// Whether results are also published as JSON.
    pub json: bool,
    /// Shared memory in MiB for frames as captured; 0 publishes none of those.
    pub shared_memory_mib: usize,
}

/// `[ros2]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ros2Config {
    /// Release of the nodes that run `rmw_zenoh`: `off`, `humble` or `jazzy`.
    pub rmw_zenoh: String,
    /// Release of the nodes behind `zenoh-bridge-ros2dds`: `off`, `humble` or `jazzy`.
    pub bridge: String,
    /// `ROS_DOMAIN_ID` of the nodes that run `rmw_zenoh`.
    pub domain_id: u32,
    /// Namespace of all topics; empty takes the device name.
    pub namespace: String,
    /// Coordinate frame in headers; `{camera}` in it is the name of the camera.
    pub frame_id: String,
}

/// `[[camera]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CameraConfig {
    /// Name on the bus.
    pub name: String,
    /// `v4l2:/dev/video0`, `file:PATH`, `test:` or `zenoh:KEY`.
    pub source: String,
    /// Wanted width in pixels; 0 leaves it to the camera.
    pub width: u32,
    /// Wanted height in pixels; 0 leaves it to the camera.
    pub height: u32,
    /// Wanted frames per second; 0 leaves it to the camera.
    pub fps: f64,
    /// Oldest frame that is described, in seconds from capture to the start of encoding.
    pub max_age_s: f64,
    /// Whether it is described and watched for alerts from the start.
    pub describe: bool,
    /// Frames per second that are published for other nodes; 0 publishes none.
    pub publish_fps: f64,
    /// Quality of published pictures that the camera does not deliver as JPEG, 1 to 100.
    pub publish_quality: u8,
    /// V4L2 controls by name, set whenever the device is opened.
    pub controls: BTreeMap<String, ControlValue>,
    /// Bare sensors: the share of the largest sample that stands for no light.
    pub black_level: f64,
    /// Bare sensors: gains of red, green and blue; none finds them in each frame.
    pub white_balance: Vec<f64>,
    /// Bare sensors: from light to code values.
    pub tone_curve: SensorCurve,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            device_name: String::new(),
            state_dir: PathBuf::new(),
            log: "info,zenoh=warn".into(),
            model: ModelConfig::default(),
            caption: CaptionConfig::default(),
            question: QuestionConfig::default(),
            bus: BusConfig::default(),
            ros2: Ros2Config::default(),
            cameras: Vec::new(),
            rules: Vec::new(),
        }
    }
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            mmproj: PathBuf::new(),
            vision_tower: PathBuf::new(),
            dtype: "q4_k".into(),
            vision_dtype: "q8_0".into(),
            device: "cpu".into(),
            threads: 0,
            cpus: Vec::new(),
            isa: "auto".into(),
            context: 2048,
            kv_dtype: KvDtype::F16.name().into(),
            kv_cache_mib: 512,
            cache_dir: PathBuf::new(),
            keep_weights: true,
        }
    }
}

impl Default for CaptionConfig {
    fn default() -> Self {
        Self {
            prompt: "Describe the scene in one sentence.".into(),
            prompt_id: "scene".into(),
            max_tokens: 48,
            period_s: 0.0,
            drafts: true,
            at_least_every_s: 10.0,
            change_threshold: 8.0,
            max_silence_s: 30.0,
        }
    }
}

impl Default for QuestionConfig {
    fn default() -> Self {
        Self {
            max_tokens: 128,
            deadline_s: 30.0,
            max_stale_s: 5.0,
            queue: 32,
            sessions: 16,
            session_idle_s: 600.0,
            session_kv_percent: 50,
        }
    }
}

impl Default for BusConfig {
    fn default() -> Self {
        Self {
            zenoh_config: PathBuf::new(),
            mode: "peer".into(),
            listen: vec!["tcp/127.0.0.1:7447".into()],
            connect: Vec::new(),
            allow_remote: false,
            json: true,
            shared_memory_mib: 0,
        }
    }
}

impl Default for Ros2Config {
    fn default() -> Self {
        Self {
            rmw_zenoh: "off".into(),
            bridge: "off".into(),
            domain_id: 0,
            namespace: String::new(),
            frame_id: "{camera}".into(),
        }
    }
}

impl Default for CameraConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            source: String::new(),
            width: 0,
            height: 0,
            fps: 0.0,
            max_age_s: 1.0,
            describe: true,
            publish_fps: 0.0,
            publish_quality: 80,
            controls: BTreeMap::new(),
            black_level: 0.0,
            white_balance: Vec::new(),
            tone_curve: SensorCurve::Auto,
        }
    }
}

impl Config {
    /// The configured cameras; with none, the test scene under the name `test`.
    pub fn cameras_or_test(&self) -> Vec<CameraConfig> {
        match self.cameras.as_slice() {
            [] => {
                vec![CameraConfig { name: "test".into(), source: "test:".into(), ..CameraConfig::default() }]
            }
            cameras => cameras.to_vec(),
        }
    }

    /// Name of this robot on the bus: [`Config::device_name`], else the host name with characters
    /// that no bus key may hold replaced by `-`.
    pub fn device(&self) -> String {
        if !self.device_name.is_empty() {
            return self.device_name.clone();
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        match check::name_from(host.trim()) {
            name if name.is_empty() => "robot".into(),
            name => name,
        }
    }
}

impl Config {
    /// Where to keep changes made over the bus: [`Config::state_dir`], else the first directory that systemd
    /// made for this service.
    pub fn state_folder(&self) -> Option<PathBuf> {
        folder(&self.state_dir, "STATE_DIRECTORY")
    }
}

/// A named folder, else the first one that systemd lists in an environment variable.
fn folder(named: &Path, variable: &str) -> Option<PathBuf> {
    if !named.as_os_str().is_empty() {
        return Some(named.to_owned());
    }
    std::env::split_paths(&std::env::var_os(variable)?).find(|path| path.is_absolute())
}

impl CaptionConfig {
    /// [`CaptionConfig::at_least_every_s`] as a duration.
    pub fn at_least_every(&self) -> Duration {
        Duration::from_secs_f64(self.at_least_every_s)
    }

    /// [`CaptionConfig::max_silence_s`] as a duration, if there is a limit.
    pub fn max_silence(&self) -> Option<Duration> {
        (self.max_silence_s > 0.0).then(|| Duration::from_secs_f64(self.max_silence_s))
    }
}

impl QuestionConfig {
    /// [`QuestionConfig::deadline_s`] as a duration.
    pub fn deadline(&self) -> Duration {
        Duration::from_secs_f64(self.deadline_s)
    }
}
