//! Who can reach a session: listening beyond this machine wants transport security, or a word that it does not.

use std::net::IpAddr;
use std::path::Path;

use serde_json::Value;
use zenoh::Config;
use zenoh::config::EndPoint;

/// What an endpoint lacks that other machines reach.
const NO_TLS: &str = "without TLS";
const NO_CREDENTIALS: &str = "with TLS, but asks callers neither for a certificate (enable_mtls) nor for a password \
                              (a dictionary_file with users)";

/// An endpoint that lets everybody in.
pub(super) struct Exposed {
    /// The endpoint.
    pub(super) endpoint: String,
    /// What is missing.
    pub(super) lacks: &'static str,
}

/// The first endpoint that other machines reach and that is not protected. Protected is TLS that asks callers
/// for a certificate, or for a user and password.
pub(super) fn exposed(config: &Config) -> Option<Exposed> {
    let get =
        |key: &str| config.get_json(key).ok().and_then(|json| serde_json::from_str::<Value>(&json).ok());
    let mode = get("mode").and_then(|mode| mode.as_str().map(str::to_owned)).unwrap_or("peer".into());
    let listen = get("listen/endpoints").unwrap_or_default();
    // Zenoh has one list for all, or one for each mode.
    let endpoints = listen.get(&mode).unwrap_or(&listen);
    let wants_certificate = get("transport/link/tls/enable_mtls") == Some(Value::Bool(true));
    let dictionary = get("transport/auth/usrpwd/dictionary_file");
    let wants_password = dictionary.as_ref().and_then(Value::as_str).is_some_and(has_users);
    let all = endpoints.as_array().into_iter().flatten().filter_map(Value::as_str);
    all.filter_map(|text| {
        let lacks = match text.parse::<EndPoint>() {
            Ok(endpoint) if is_loopback(&endpoint) => return None,
            Ok(endpoint) if endpoint.protocol().as_str() == "tls" => {
                let own = endpoint.config().get("enable_mtls").map(|value| value == "true");
                match own.unwrap_or(wants_certificate) || wants_password {
                    true => return None,
                    false => NO_CREDENTIALS,
                }
            }
            // What zenoh does not understand either, it refuses itself.
            _ => NO_TLS,
        };
        Some(Exposed { endpoint: text.into(), lacks })
    })
    .next()
}

/// Without a user in the file, zenoh asks nobody for a password.
fn has_users(file: &str) -> bool {
    std::fs::read_to_string(Path::new(file)).is_ok_and(|text| !text.trim().is_empty())
}

/// Whether an endpoint is reached from this machine only.
pub(crate) fn is_loopback(endpoint: &EndPoint) -> bool {
    if endpoint.protocol().as_str() == "unixsock-stream" {
        return true;
    }
    let address = endpoint.address();
    let Some((host, _)) = host_and_port(address.as_str()) else { return false };
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost",
    }
}

/// The parts of an address.
pub(crate) fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacking(json5: &str) -> Option<&'static str> {
        let config = Config::from_json5(json5).expect("a zenoh configuration");
        exposed(&config).map(|exposed| exposed.lacks)
    }

    #[test]
    fn what_counts_as_transport_security() {
        let users = std::env::temp_dir().join(format!("mobilevlm-exposure-{}", std::process::id()));
        let empty = users.with_extension("empty");
        std::fs::write(&users, "robot:secret\n").unwrap();
        std::fs::write(&empty, "\n").unwrap();
        let with = |endpoint: &str, transport: &str| {
            format!(
                "{{ mode: \"peer\", listen: {{ endpoints: [\"{endpoint}\"] }}, transport: {{ {transport} }} }}"
            )
        };
        let password = |file: &Path| format!("auth: {{ usrpwd: {{ dictionary_file: {file:?} }} }}");
        let mtls = "link: { tls: { enable_mtls: true } }";
        for (json5, expected) in [
            (with("tcp/127.0.0.1:7447", ""), None),
            (with("tls/localhost:7447", ""), None),
            (with("unixsock-stream//run/vlm.sock", ""), None),
            (with("tcp/0.0.0.0:7447", ""), Some(NO_TLS)),
            (with("tcp/0.0.0.0:7447", &password(&users)), Some(NO_TLS)),
            (with("tls/0.0.0.0:7447", ""), Some(NO_CREDENTIALS)),
            (with("tls/0.0.0.0:7447", mtls), None),
            (with("tls/[::]:7447", &password(&users)), None),
            (with("tls/[::]:7447", &password(&empty)), Some(NO_CREDENTIALS)),
            (with("tls/[::]:7447#enable_mtls=false", mtls), Some(NO_CREDENTIALS)),
            (with("tls/[::]:7447#enable_mtls=true", ""), None),
            // Zenoh's own defaults listen everywhere.
            ("{}".into(), Some(NO_TLS)),
            ("{ mode: \"router\" }".into(), Some(NO_TLS)),
            ("{ mode: \"client\" }".into(), None),
            (
                "{ mode: \"peer\", listen: { endpoints: { router: [\"tcp/[::]:1\"], peer: [] } } }".into(),
                None,
            ),
        ] {
            assert_eq!(lacking(&json5), expected, "{json5}");
        }
        std::fs::remove_file(&users).unwrap();
        std::fs::remove_file(&empty).unwrap();
    }
}
