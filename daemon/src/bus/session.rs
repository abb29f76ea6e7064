//! From configuration to an open zenoh session.

use std::path::Path;

use serde_json::{Value, json};
use zenoh::{Config, Session};

use super::BusError;
use super::exposure::{Exposed, exposed};
use crate::config::BusConfig;

/// Longest message that is put together from the network, in bytes. Raw frames and pictures fit;
/// zenoh's default is 1 GiB.
const MESSAGE_BYTES: usize = 64 << 20;

/// Microseconds that a message waits for a neighbour who does not read, before he is disconnected. All who
/// listen wait with it. zenoh's default is five times that.
const UNREAD_MICROS: u64 = 1_000_000;

/// Opens the session that `config` describes.
pub(super) async fn open(config: &BusConfig) -> Result<Session, BusError> {
    let zenoh = configuration(config)?;
    zenoh::open(zenoh).await.map_err(|error| explain(config, &error.to_string()))
}

/// zenoh's configuration: its own file, or the keys of `[bus]`.
pub(super) fn configuration(config: &BusConfig) -> Result<Config, BusError> {
    if config.zenoh_config.as_os_str().is_empty() {
        return from_keys(config);
    }
    let path = &config.zenoh_config;
    let zenoh = from_file(path)?;
    match exposed(&zenoh) {
        Some(Exposed { endpoint, lacks }) if !config.allow_remote => {
            Err(BusError::Exposed { path: path.clone(), endpoint, lacks })
        }
        _ => Ok(zenoh),
    }
}

/// zenoh's own file, passed through whole.
pub(super) fn from_file(path: &Path) -> Result<Config, BusError> {
    Config::from_file(path)
        .map_err(|error| BusError::File { path: path.into(), reason: one_line(&error.to_string()) })
}

/// The keys of `[bus]`; nothing is found or offered beyond the endpoints named there.
fn from_keys(config: &BusConfig) -> Result<Config, BusError> {
    let mut zenoh = Config::default();
    // A client does not listen.
    let listen: &[String] = if config.mode == "client" { &[] } else { &config.listen };
    set(&mut zenoh, "mode", json!(config.mode))?;
    set(&mut zenoh, "listen/endpoints", json!(listen))?;
    set(&mut zenoh, "connect/endpoints", json!(config.connect))?;
    set(&mut zenoh, "scouting/multicast/enabled", json!(false))?;
    // The segments of a neighbour stay mapped until this process ends, so nothing is shared unasked.
    set(&mut zenoh, "transport/shared_memory/enabled", json!(config.shared_memory_mib > 0))?;
    set(&mut zenoh, "transport/link/rx/max_message_size", json!(MESSAGE_BYTES))?;
    set(
        &mut zenoh,
        "transport/link/tx/queue/congestion_control/block/wait_before_close",
        json!(UNREAD_MICROS),
    )?;
    Ok(zenoh)
}

/// The configuration of a client of one daemon or router.
pub(super) fn of_client(endpoint: &str) -> Result<Config, BusError> {
    from_keys(&BusConfig { mode: "client".into(), connect: vec![endpoint.into()], ..BusConfig::default() })
}

fn set(config: &mut Config, path: &'static str, value: Value) -> Result<(), BusError> {
    let value = value.to_string();
    config.insert_json5(path, &value).map_err(|error| BusError::Value {
        key: path.split('/').next().unwrap_or(path),
        value,
        reason: one_line(&error.to_string()),
    })
}

/// zenoh's refusal in terms of the configuration.
fn explain(config: &BusConfig, reason: &str) -> BusError {
    let own_keys = config.zenoh_config.as_os_str().is_empty();
    if own_keys && reason.contains("in use") {
        BusError::InUse { endpoints: config.listen.join(", ") }
    } else if own_keys && (reason.contains("Unable to connect") || reason.contains("No peer specified")) {
        BusError::Unreachable { endpoints: config.connect.join(", ") }
    } else {
        BusError::Zenoh(one_line(reason))
    }
}

/// zenoh quotes its sources over several lines.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_zenoh_configuration() {
        let bus = BusConfig { connect: vec!["tcp/10.0.0.1:7447".into()], ..BusConfig::default() };
        let zenoh = from_keys(&bus).unwrap();
        let get = |key| zenoh.get_json(key).unwrap();
        assert_eq!(get("mode"), r#""peer""#);
        assert_eq!(get("listen/endpoints"), r#"["tcp/127.0.0.1:7447"]"#);
        assert_eq!(get("connect/endpoints"), r#"["tcp/10.0.0.1:7447"]"#);
        assert_eq!(get("scouting/multicast/enabled"), "false");
        let client = from_keys(&BusConfig { mode: "client".into(), ..bus }).unwrap();
        assert_eq!(client.get_json("listen/endpoints").unwrap(), "[]");
    }

    #[test]
    fn bad_values_are_named() {
        let message = |bus: BusConfig| from_keys(&bus).unwrap_err().to_string();
        let mode = message(BusConfig { mode: "server".into(), ..BusConfig::default() });
        assert!(mode.starts_with("[bus] mode = \"server\": "), "{mode}");
        let listen = message(BusConfig { listen: vec!["127.0.0.1".into()], ..BusConfig::default() });
        assert!(listen.starts_with("[bus] listen = [\"127.0.0.1\"]: "), "{listen}");
    }
}
