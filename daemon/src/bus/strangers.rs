//! Who was turned away at the door, and who was disconnected. Zenoh tells of that in its log only, and there in
//! words for its developers: here they become lines for whoever runs the daemon, and figures.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer};

/// Modules of zenoh that tell.
const HANDSHAKES: &str = "zenoh_transport::unicast::establishment::accept";
const TLS: &str = "zenoh_link_tls::unicast";
const TCP: &str = "zenoh_link_tcp::unicast";
const SENDING: &str = "zenoh_transport::unicast::universal::tx";

/// Events that are kept until they are told; more of them are only counted.
const KEPT: usize = 16;

/// How many were turned away since start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turned {
    /// Connections refused.
    pub(super) strangers: u64,
    /// Neighbours that did not read.
    pub(super) too_slow: u64,
}

/// The log is one for the process, and so is this.
static SEEN: Mutex<Seen> = Mutex::new(Seen {
    turned: Turned { strangers: 0, too_slow: 0 },
    last: String::new(),
    untold: Vec::new(),
});

struct Seen {
    turned: Turned,
    /// Where the newest connection came from.
    last: String,
    untold: Vec<(String, u32)>,
}

/// How many were turned away since start.
pub(super) fn turned() -> Turned {
    seen().turned
}

/// Tells what happened since the last time, the same thing once.
pub(super) fn tell() {
    let untold = std::mem::take(&mut seen().untold);
    for (what, times) in untold {
        tracing::warn!(times, "{what}");
    }
}

fn seen() -> MutexGuard<'static, Seen> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens to zenoh's log.
pub(crate) struct Doorkeeper;

impl Doorkeeper {
    /// The events it must be given.
    pub(crate) fn filter() -> Targets {
        let debug = [HANDSHAKES, TLS, TCP].map(|target| (target, LevelFilter::DEBUG));
        Targets::new().with_targets(debug).with_target(SENDING, LevelFilter::ERROR)
    }

    /// Whether an event is told here in better words.
    pub(crate) fn retells(metadata: &Metadata<'_>) -> bool {
        metadata.target() == TLS && *metadata.level() == LevelFilter::WARN
            || metadata.target() == SENDING && *metadata.level() == LevelFilter::ERROR
    }
}

impl<S: Subscriber> Layer<S> for Doorkeeper {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        seen().hear(event.metadata().target(), &text.0);
    }
}

impl Seen {
    fn hear(&mut self, target: &str, text: &str) {
        match target {
            SENDING if text.starts_with("Unable to push non droppable") => {
                self.turned.too_slow += 1;
                let who = text.split(' ').find(|word| word.len() > 16 && word.ends_with('.'));
                let who = who.unwrap_or_default().trim_end_matches('.');
                self.keep(format!("neighbour {who} does not read what it subscribed to: disconnected"));
            }
            TLS | TCP => match text.split_once("connection on ") {
                Some((_, addresses)) => self.last = second_address(addresses),
                None if target == TLS => {
                    if let Some(reason) = tls_failure(text) {
                        self.refuse(&format!("no TLS connection: {reason}"));
                    }
                }
                None => {}
            },
            HANDSHAKES if text.contains("UsrPwd extension") => {
                let why = [
                    ("Invalid password", "wrong password"),
                    ("Invalid user", "unknown user"),
                    ("Expected extension", "no user and password"),
                ];
                if let Some((_, why)) = why.iter().find(|(said, _)| text.contains(said)) {
                    let last = &self.last;
                    let from = if last.is_empty() {
                        String::new()
                    } else {
                        format!(" (the newest connection is from {last})")
                    };
                    self.refuse(&format!("{why}{from}"));
                }
            }
            _ => {}
        }
    }

    fn refuse(&mut self, why: &str) {
        self.turned.strangers += 1;
        self.keep(format!("a connection was refused: {why}"));
    }

    fn keep(&mut self, what: String) {
        if let Some((_, times)) = self.untold.iter_mut().find(|(said, _)| *said == what) {
            *times += 1;
        } else if self.untold.len() < KEPT {
            self.untold.push((what, 1));
        }
    }
}

/// `here: there. identity` of an accepted connection.
fn second_address(addresses: &str) -> String {
    let there = addresses.split_once(": ").map_or(addresses, |(_, there)| there);
    there.split(". ").next().unwrap_or(there).chars().take(64).collect()
}

/// What a warning of the TLS link is about, without zenoh's guess that files ran out.
fn tls_failure(text: &str) -> Option<String> {
    let reason = text.split(". Hint: ").next().unwrap_or(text).trim();
    let is_about_callers = text.contains(". Hint: ") || text.starts_with("Error getting client cert");
    is_about_callers.then(|| reason.chars().take(200).collect())
}

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zenohs_words_become_ours() {
        let mut seen = Seen { turned: Turned::default(), last: String::new(), untold: Vec::new() };
        for (target, text) in [
            (TLS, "Accepted TLS connection on 127.0.0.1:7447: 127.0.0.1:50000. Some(\"viewer\")."),
            (HANDSHAKES, "UsrPwd extension - Recv OpenSyn. Invalid password. at usrpwd.rs:424."),
            (HANDSHAKES, "UsrPwd extension - Recv OpenSyn. Invalid password. at usrpwd.rs:424."),
            (HANDSHAKES, "New transport link accepted from a to b: tls/1 "),
            (TLS, "peer sent no certificates. Hint: increase the system open file limit."),
            (TCP, "Accepted TCP connection on 127.0.0.1:7447: 127.0.0.1:50001"),
            (HANDSHAKES, "UsrPwd extension - Recv OpenSyn. Invalid user. at usrpwd.rs:417."),
            (
                SENDING,
                "Unable to push non droppable network message to 6f0e6a9bb2c5d7e8f1a2b3c4. Closing transport!",
            ),
        ] {
            seen.hear(target, text);
        }
        assert_eq!((seen.turned.strangers, seen.turned.too_slow), (4, 1));
        let told: Vec<_> = seen.untold.iter().map(|(what, times)| (what.as_str(), *times)).collect();
        let expected = [
            ("a connection was refused: wrong password (the newest connection is from 127.0.0.1:50000)", 2),
            ("a connection was refused: no TLS connection: peer sent no certificates", 1),
            ("a connection was refused: unknown user (the newest connection is from 127.0.0.1:50001)", 1),
            ("neighbour 6f0e6a9bb2c5d7e8f1a2b3c4 does not read what it subscribed to: disconnected", 1),
        ];
        assert_eq!(told, expected);
    }
}
