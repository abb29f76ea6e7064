//! The rules that a configuration must keep.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use kernels::cpu::{IsaLevel, Processors};
use kernels::{DType, KvDtype};
use messages::keys::Name;
use messages::{Rule, RuleError};
use zenoh::config::EndPoint;

use crate::bus::{host_and_port, is_loopback};
use crate::camera::Source;
use crate::gpu::DeviceChoice;
use crate::model::files::ModelSource;
use crate::ros::layout::Release;
use crate::ros::names::check_namespace;

use super::{BusConfig, CameraConfig, Config, ConfigError, ModelConfig, Ros2Config};

/// Arithmetic that the vision tower can be computed in.
const VISION_DTYPES: [&str; 4] = ["q8_0", "f32", "f16", "bf16"];

/// Types that keys and values can be stored as.
const KV_DTYPES: [KvDtype; 2] = [KvDtype::F16, KvDtype::Q8];

/// Roles on the bus.
const MODES: [&str; 3] = ["peer", "client", "router"];

/// Transports of this build.
const TRANSPORTS: [&str; 3] = ["tcp", "tls", "unixsock-stream"];

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Longest name of a device or camera in bytes.
const MAX_NAME: usize = 64;

/// Longest prompt in bytes; far more than its tokens could fill a context.
const MAX_PROMPT: usize = 8192;

/// The key that is wrong and why.
type Check = Result<(), (String, String)>;

impl Config {
    /// Checks values, names and conflicts. Nothing is opened.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check().map_err(|(key, problem)| ConfigError::Refused { origin: None, key, problem })
    }

    fn check(&self) -> Check {
        if !self.device_name.is_empty() {
            check_name("device_name", &self.device_name)?;
        }
        check_log(&self.log)?;
        check_model(&self.model)?;
        let caption = &self.caption;
        text("caption.prompt", &caption.prompt, MAX_PROMPT)?;
        text("caption.prompt_id", &caption.prompt_id, MAX_NAME)?;
        tokens("caption.max_tokens", caption.max_tokens, &self.model)?;
        seconds("caption.period_s", caption.period_s, 0.0..=86400.0)?;
        seconds("caption.at_least_every_s", caption.at_least_every_s, 0.0..=86400.0)?;
        number("caption.change_threshold", caption.change_threshold, 0.0..=255.0)?;
        seconds("caption.max_silence_s", caption.max_silence_s, 0.0..=86400.0)?;
        let question = &self.question;
        tokens("question.max_tokens", question.max_tokens, &self.model)?;
        seconds("question.deadline_s", question.deadline_s, 0.01..=3600.0)?;
        seconds("question.max_stale_s", question.max_stale_s, 0.0..=3600.0)?;
        whole("question.queue", question.queue, 1..=1024)?;
        whole("question.sessions", question.sessions, 1..=1024)?;
        seconds("question.session_idle_s", question.session_idle_s, 1.0..=86400.0)?;
        whole("question.session_kv_percent", question.session_kv_percent as usize, 0..=90)?;
        check_bus(&self.bus)?;
        check_ros2(&self.ros2)?;
        check_cameras(&self.cameras)?;
        self.check_rules()
    }

    fn check_rules(&self) -> Check {
        if let Err((index, RuleError { field, problem })) = Rule::check_all(&self.rules) {
            return refuse(&format!("rule[{index}].{field}"), problem);
        }
        let cameras = self.cameras_or_test();
        let known: Vec<_> = cameras.iter().map(|camera| camera.name.as_str()).collect();
        for (index, rule) in self.rules.iter().enumerate() {
            for (place, camera) in rule.cameras.iter().enumerate() {
                one_of(&format!("rule[{index}].cameras[{place}]"), camera, &known)?;
            }
        }
        Ok(())
    }
}

fn check_model(model: &ModelConfig) -> Check {
    if let Err(problem) = model.dtype.parse::<DType>() {
        return refuse("model.dtype", problem);
    }
    one_of("model.vision_dtype", &model.vision_dtype, &VISION_DTYPES)?;
    if let Err(problem) = model.device.parse::<DeviceChoice>() {
        return refuse("model.device", problem);
    }
    let isas: Vec<_> = ["auto"].into_iter().chain(IsaLevel::ALL.map(IsaLevel::name)).collect();
    one_of("model.isa", &model.isa, &isas)?;
    whole("model.threads", model.threads, 0..=256)?;
    for (index, &cpu) in model.cpus.iter().enumerate() {
        whole(&format!("model.cpus[{index}]"), cpu, 0..=Processors::MOST - 1)?;
    }
    whole("model.context", model.context, 256..=8192)?;
    one_of("model.kv_dtype", &model.kv_dtype, &KV_DTYPES.map(KvDtype::name))?;
    whole("model.kv_cache_mib", model.kv_cache_mib, 16..=65536)?;
    for (key, path) in [("model.mmproj", &model.mmproj), ("model.vision_tower", &model.vision_tower)] {
        if !path.as_os_str().is_empty() && model.source() == ModelSource::BuiltIn {
            return refuse(key, "belongs to a model of its own: name that with model.path");
        }
    }
    if !model.mmproj.as_os_str().is_empty() && !model.vision_tower.as_os_str().is_empty() {
        return refuse(
            "model.mmproj",
            "conflicts with model.vision_tower: keep mmproj for GGUF, or vision_tower for a Hugging Face directory",
        );
    }
    Ok(())
}

fn check_bus(bus: &BusConfig) -> Check {
    one_of("bus.mode", &bus.mode, &MODES)?;
    whole("bus.shared_memory_mib", bus.shared_memory_mib, 0..=4096)?;
    let own = BusConfig::default();
    if !bus.zenoh_config.as_os_str().is_empty() {
        for (key, same) in [
            ("bus.mode", bus.mode == own.mode),
            ("bus.listen", bus.listen == own.listen),
            ("bus.connect", bus.connect == own.connect),
        ] {
            if !same {
                return refuse(key, "conflicts with bus.zenoh_config, which says it too: remove one of them");
            }
        }
        return Ok(());
    }
    for (index, endpoint) in bus.listen.iter().enumerate() {
        let key = format!("bus.listen[{index}]");
        let endpoint = check_endpoint(&key, endpoint)?;
        if !bus.allow_remote && !is_loopback(&endpoint) {
            return refuse(
                &key,
                format!(
                    "\"{endpoint}\" lets other machines ask and listen without a password: take 127.0.0.1, \
                     or accept it with bus.allow_remote = true, or protect it with bus.zenoh_config"
                ),
            );
        }
    }
    for (index, endpoint) in bus.connect.iter().enumerate() {
        check_endpoint(&format!("bus.connect[{index}]"), endpoint)?;
    }
    if bus.mode == "client" && bus.connect.is_empty() {
        return refuse("bus.mode", "a client needs something to connect to: set bus.connect");
    }
    Ok(())
}

fn check_endpoint(key: &str, text: &str) -> Result<EndPoint, (String, String)> {
    let expected = "expected PROTOCOL/ADDRESS, for example tcp/127.0.0.1:7447";
    let bad = |why: String| (key.to_owned(), format!("\"{text}\" is no endpoint: {why}; {expected}"));
    let endpoint: EndPoint = text.parse().map_err(|error: zenoh::Error| bad(error.to_string()))?;
    let protocol = endpoint.protocol().as_str().to_owned();
    if !TRANSPORTS.contains(&protocol.as_str()) {
        return Err(bad(format!("{protocol} is not in this build, which has {}", TRANSPORTS.join(", "))));
    }
    if protocol != "unixsock-stream" && host_and_port(endpoint.address().as_str()).is_none() {
        return Err(bad("it has no port".into()));
    }
    Ok(endpoint)
}

fn check_ros2(ros2: &Ros2Config) -> Check {
    one_of("ros2.rmw_zenoh", &ros2.rmw_zenoh, &Release::NAMES)?;
    one_of("ros2.bridge", &ros2.bridge, &Release::NAMES)?;
    // More have no ports of their own in DDS, which numbers them.
    whole("ros2.domain_id", ros2.domain_id as usize, 0..=232)?;
    check_namespace(&ros2.namespace).or_else(|problem| refuse("ros2.namespace", problem))?;
    text("ros2.frame_id", &ros2.frame_id, MAX_NAME)
}

fn check_cameras(cameras: &[CameraConfig]) -> Check {
    let mut names = HashSet::new();
    for (index, camera) in cameras.iter().enumerate() {
        let key = |name: &str| format!("camera[{index}].{name}");
        if camera.name.is_empty() {
            return refuse(&key("name"), "missing: every [[camera]] needs a name");
        }
        check_name(&key("name"), &camera.name)?;
        if !names.insert(camera.name.as_str()) {
            return refuse(&key("name"), format!("\"{}\" names two cameras, give each its own", camera.name));
        }
        check_source(&key("source"), &camera.source)?;
        for (name, pixels) in [("width", camera.width), ("height", camera.height)] {
            whole(&key(name), pixels as usize, 0..=16384)?;
        }
        if (camera.width == 0) != (camera.height == 0) {
            return refuse(&key("width"), "width and height belong together: set both, or neither");
        }
        seconds(&key("fps"), camera.fps, 0.0..=1000.0)?;
        seconds(&key("max_age_s"), camera.max_age_s, 0.001..=3600.0)?;
        number(&key("publish_fps"), camera.publish_fps, 0.0..=1000.0)?;
        whole(&key("publish_quality"), camera.publish_quality.into(), 1..=100)?;
        number(&key("black_level"), camera.black_level, 0.0..=0.9)?;
        if !matches!(camera.white_balance.len(), 0 | 3) {
            return refuse(
                &key("white_balance"),
                "three gains, of red, green and blue, or none to find them",
            );
        }
        for gain in &camera.white_balance {
            number(&key("white_balance"), *gain, 0.1..=16.0)?;
        }
        if !camera.controls.is_empty() && !camera.source.starts_with("v4l2:") {
            return refuse(&key("controls"), "only cameras of v4l2: have controls");
        }
    }
    Ok(())
}

fn check_source(key: &str, source: &str) -> Check {
    match source.parse::<Source>() {
        Ok(_) => Ok(()),
        Err(error) => refuse(key, error.to_string()),
    }
}

/// A level, and levels of modules: `info,zenoh=warn`.
fn check_log(log: &str) -> Check {
    for part in log.split(',') {
        let (module, level) = part.split_once('=').unwrap_or(("all", part));
        if module.trim().is_empty() || !LEVELS.contains(&level.trim().to_ascii_lowercase().as_str()) {
            return refuse(
                "log",
                format!(
                    "\"{part}\" is no level, expected one of {} or MODULE=LEVEL, with commas between",
                    LEVELS.join(", ")
                ),
            );
        }
    }
    Ok(())
}

fn check_name(key: &str, name: &str) -> Check {
    match Name::new(name) {
        Ok(_) => Ok(()),
        Err(error) => refuse(key, error.to_string()),
    }
}

/// A name made of any text: everything but letters, digits, `-`, `_` and `.` becomes `-`.
pub(super) fn name_from(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.chars().take(MAX_NAME).map(|c| if allowed(c) { c } else { '-' }).collect()
}

fn text(key: &str, value: &str, longest: usize) -> Check {
    match value.len() {
        0 => refuse(key, "empty"),
        n if n > longest => refuse(key, format!("{n} bytes long, at most {longest} are accepted")),
        _ => Ok(()),
    }
}

/// A limit of generated tokens leaves room for the prompt and the image.
fn tokens(key: &str, value: u32, model: &ModelConfig) -> Check {
    let most = model.context.saturating_sub(192);
    if (1..=most).contains(&(value as usize)) {
        return Ok(());
    }
    refuse(
        key,
        format!(
            "{value} is not accepted, expected 1 to {most} (model.context less 192 for image and prompt)"
        ),
    )
}

fn whole(key: &str, value: usize, range: RangeInclusive<usize>) -> Check {
    if range.contains(&value) {
        return Ok(());
    }
    refuse(key, format!("{value} is not accepted, expected {} to {}", range.start(), range.end()))
}

fn seconds(key: &str, value: f64, range: RangeInclusive<f64>) -> Check {
    number(key, value, range)
}

/// Not-a-number lies in no range.
fn number(key: &str, value: f64, range: RangeInclusive<f64>) -> Check {
    if range.contains(&value) {
        return Ok(());
    }
    refuse(key, format!("{value} is not accepted, expected {} to {}", range.start(), range.end()))
}

fn one_of(key: &str, value: &str, names: &[&str]) -> Check {
    if names.contains(&value) {
        return Ok(());
    }
    refuse(key, format!("\"{value}\" is not accepted, expected one of {}", names.join(", ")))
}

fn refuse(key: &str, problem: impl Into<String>) -> Check {
    Err((key.to_owned(), problem.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        match config.validate() {
            Ok(()) => "accepted".into(),
            Err(error) => error.to_string(),
        }
    }

    fn camera(name: &str, source: &str) -> CameraConfig {
        CameraConfig { name: name.into(), source: source.into(), ..CameraConfig::default() }
    }

    #[test]
    fn the_defaults_are_accepted() {
        assert_eq!(problem(|_| ()), "accepted");
    }

    #[test]
    fn each_rule_names_its_key() {
        type Change = fn(&mut Config);
        let cases: [(Change, &str); 33] = [
            (|c| c.ros2.rmw_zenoh = "foxy".into(), "ros2.rmw_zenoh: "),
            (|c| c.ros2.bridge = "on".into(), "ros2.bridge: "),
            (|c| c.ros2.domain_id = 233, "ros2.domain_id: "),
            (|c| c.ros2.namespace = "/a-b".into(), "ros2.namespace: "),
            (|c| c.ros2.frame_id = String::new(), "ros2.frame_id: "),
            (|c| c.device_name = "a/b".into(), "device_name: "),
            (|c| c.log = "loud".into(), "log: "),
            (|c| c.log = "info,zenoh=".into(), "log: "),
            (|c| c.model.dtype = "q9".into(), "model.dtype: "),
            (|c| c.model.vision_dtype = "q4_0".into(), "model.vision_dtype: "),
            (|c| c.model.device = "tpu".into(), "model.device: "),
            (|c| c.model.cpus = vec![0, 1024], "model.cpus[1]: 1024 is not accepted, expected 0 to 1023"),
            (|c| c.model.isa = "mmx".into(), "expected one of auto, scalar, avx2, avxvnni, avx512vnni"),
            (|c| c.model.context = 10_000, "model.context: "),
            (|c| c.model.kv_dtype = "f32".into(), "expected one of f16, q8"),
            (|c| c.model.kv_cache_mib = 0, "model.kv_cache_mib: "),
            (|c| c.model.mmproj = "x".into(), "name that with model.path"),
            (|c| c.caption.prompt.clear(), "caption.prompt: empty"),
            (|c| c.caption.max_tokens = 0, "caption.max_tokens: "),
            (|c| c.caption.max_tokens = 2000, "caption.max_tokens: "),
            (|c| c.caption.period_s = f64::NAN, "caption.period_s: "),
            (|c| c.caption.at_least_every_s = -1.0, "caption.at_least_every_s: "),
            (|c| c.caption.change_threshold = 256.0, "caption.change_threshold: "),
            (|c| c.caption.max_silence_s = -1.0, "caption.max_silence_s: "),
            (|c| c.question.deadline_s = 0.0, "question.deadline_s: "),
            (|c| c.question.queue = 0, "question.queue: "),
            (|c| c.question.sessions = 0, "question.sessions: "),
            (|c| c.question.session_idle_s = 0.0, "question.session_idle_s: "),
            (|c| c.question.session_kv_percent = 91, "question.session_kv_percent: "),
            (|c| c.bus.mode = "server".into(), "bus.mode: "),
            (|c| c.bus.mode = "client".into(), "set bus.connect"),
            (|c| c.bus.connect = vec!["quic/a:1".into()], "not in this build"),
            (|c| c.bus.connect = vec!["tcp/robot".into()], "no port"),
        ];
        for (change, expected) in cases {
            let problem = problem(change);
            assert!(problem.contains(expected), "\"{problem}\" should contain \"{expected}\"");
        }
    }

    #[test]
    fn listening_beyond_this_machine_is_a_decision() {
        for (endpoint, local) in [
            ("tcp/127.0.0.1:7447", true),
            ("tcp/[::1]:7447", true),
            ("tcp/localhost:7447", true),
            ("tls/127.0.0.2:7447", true),
            ("unixsock-stream//run/mobilevlmd.sock", true),
            ("tcp/0.0.0.0:7447", false),
            ("tcp/[::]:7447", false),
            ("tcp/192.168.1.5:7447", false),
            ("tcp/robot.local:7447", false),
            ("tcp/127.0.0.1.example.org:7447", false),
        ] {
            let without = problem(|c| c.bus.listen = vec![endpoint.into()]);
            assert_eq!(without == "accepted", local, "{endpoint}: {without}");
            let with = problem(|c| {
                c.bus.listen = vec![endpoint.into()];
                c.bus.allow_remote = true;
            });
            assert_eq!(with, "accepted", "{endpoint}");
        }
    }

    #[test]
    fn an_own_bus_file_says_everything_itself() {
        assert_eq!(problem(|c| c.bus.zenoh_config = "z.json5".into()), "accepted");
        let both = problem(|c| {
            c.bus.zenoh_config = "z.json5".into();
            c.bus.listen = vec!["tcp/127.0.0.1:1".into()];
        });
        assert!(both.contains("bus.listen: conflicts with bus.zenoh_config"), "{both}");
    }

    #[test]
    fn cameras_need_names_and_sources() {
        for (cameras, expected) in [
            (vec![camera("a", "test:"), camera("b", "file:/tmp/x")], "accepted"),
            (vec![camera("", "test:")], "camera[0].name: missing"),
            (vec![camera("a", "test:"), camera("a", "test:")], "camera[1].name: \"a\" names two"),
            (vec![camera("a b", "test:")], "camera[0].name: "),
            (vec![camera("a/**", "test:")], "camera[0].name: "),
            (vec![camera("a", "")], "camera[0].source: "),
            (vec![camera("a", "usb:1")], "camera[0].source: "),
            (vec![CameraConfig { width: 640, ..camera("a", "test:") }], "set both"),
            (vec![camera("a", "zenoh:scout/*/image")], "accepted"),
            (vec![camera("a", "zenoh:scout//image")], "camera[0].source: "),
            (vec![CameraConfig { fps: -1.0, ..camera("a", "test:") }], "camera[0].fps: "),
            (vec![CameraConfig { publish_fps: -1.0, ..camera("a", "test:") }], "camera[0].publish_fps: "),
            (
                vec![CameraConfig { publish_quality: 0, ..camera("a", "test:") }],
                "camera[0].publish_quality: ",
            ),
        ] {
            let problem = problem(|c| c.cameras = cameras);
            assert!(problem.contains(expected), "\"{problem}\" should contain \"{expected}\"");
        }
    }
    #[test]
    fn rules_need_names_questions_and_cameras_that_are_there() {
        let rule = || Rule::new("door", "Is the door open?");
        let on = |camera: &str| Rule { cameras: vec![camera.into()], ..rule() };
        for (cameras, rules, expected) in [
            (vec![], vec![rule(), Rule { name: "dog".into(), ..rule() }], "accepted"),
            (vec![], vec![on("test")], "accepted"),
            (vec![camera("a", "test:")], vec![on("a")], "accepted"),
            (vec![camera("a", "test:")], vec![on("test")], "rule[0].cameras[0]: \"test\" is not accepted"),
            (vec![], vec![rule(), rule()], "rule[1].name: \"door\" names two rules"),
            (vec![], vec![Rule { question: String::new(), ..rule() }], "rule[0].question: missing"),
            (vec![], vec![Rule { threshold: 1.5, ..rule() }], "rule[0].threshold: 1.5"),
        ] {
            let problem = problem(|c| (c.cameras, c.rules) = (cameras, rules));
            assert!(problem.contains(expected), "\"{problem}\" should contain \"{expected}\"");
        }
    }
}
