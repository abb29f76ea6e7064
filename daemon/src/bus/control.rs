//! Changes while running: each query gets exactly one reply with the new state, or one error reply.

use std::sync::Arc;
use std::time::Duration;

use messages::keys::{Key, Name, Topic};
use messages::{AskError, Format, Message, RuleChange, Rules, decode, encode};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::block_in_place;
use zenoh::bytes::ZBytes;
use zenoh::query::{Query, Queryable};
use zenoh::{Session, Wait};

use super::query::{log, refuse};
use crate::engine::RuleSender;

/// Changes on their way at once; more are refused.
const AT_ONCE: usize = 8;

/// What a refused caller is told.
const RETRY_AFTER_MS: u32 = 500;

/// The engine takes a change in after the unit of work it is at, so this is far more than it needs.
const PATIENCE: Duration = Duration::from_secs(20);

/// What can be changed.
const CONTROLS: [&str; 1] = ["rules"];

/// Takes changes in.
pub(super) struct Panel {
    device: Name,
    rules: RuleSender,
    at_once: Arc<Semaphore>,
    runtime: Handle,
}

impl Panel {
    pub(super) fn new(device: Name, rules: RuleSender, runtime: Handle) -> Arc<Self> {
        Arc::new(Self { device, rules, at_once: Arc::new(Semaphore::new(AT_ONCE)), runtime })
    }

    /// Listens on every name, so that an unknown one is answered too.
    pub(super) async fn declare(self: Arc<Self>, session: &Session) -> zenoh::Result<Queryable<()>> {
        let key = Key::new(self.device.clone(), Topic::Control(Name::any()));
        session.declare_queryable(key.to_string()).callback(move |query| self.receive(query)).await
    }

    /// Runs on a thread of zenoh: it hands over and returns.
    fn receive(self: &Arc<Self>, query: Query) {
        let Ok(place) = self.at_once.clone().try_acquire_owned() else {
            return refuse(&query, &AskError::Overloaded { retry_after_ms: RETRY_AFTER_MS });
        };
        let panel = self.clone();
        self.runtime.spawn(async move {
            let outcome = panel.change(&query).await;
            block_in_place(|| match outcome {
                Ok((rules, format)) => panel.reply(&query, &rules, format),
                Err(error) => refuse(&query, &error),
            });
            drop(place);
        });
    }

    /// Reads a change, hands it to the engine and waits for its answer.
    async fn change(&self, query: &Query) -> Result<(Rules, Format), AskError> {
        check_name(query)?;
        let (change, format) = read(query)?;
        let answer = self.rules.send(change)?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(rules)) => Ok((rules?, format)),
            Ok(Err(_)) => Err(AskError::Cancelled { reason: "the daemon is stopping".into() }),
            Err(_) => Err(AskError::Internal { reason: "the engine does not answer".into() }),
        }
    }

    fn reply(&self, query: &Query, rules: &Rules, format: Format) {
        let Ok(name) = Name::new(CONTROLS[0]) else { return };
        let key = Key::new(self.device.clone(), Topic::Control(name)).to_string();
        log(query.reply(key, encode(rules, format)).encoding(Rules::encoding(format)).wait());
    }
}

/// Whether there is what a query wants to change.
fn check_name(query: &Query) -> Result<(), AskError> {
    let key = query.key_expr().as_str();
    let name = key.rsplit('/').next().unwrap_or(key);
    if CONTROLS.contains(&name) {
        return Ok(());
    }
    let name: String = name.chars().take(64).collect();
    Err(AskError::BadRequest {
        reason: format!("there is no control \"{name}\"; there are: {}", CONTROLS.join(", ")),
    })
}

/// The change in a query, and the format it is in. No payload wants to see the rules; text is JSON.
fn read(query: &Query) -> Result<(RuleChange, Format), AskError> {
    let empty = ZBytes::new();
    let payload = query.payload().unwrap_or(&empty);
    let encoding = query.encoding().map(ToString::to_string).unwrap_or_default();
    let format = match encoding.split(';').next() {
        None | Some("" | "text/plain" | "zenoh/string" | "zenoh/bytes") => Format::Json,
        _ => RuleChange::format(&encoding)?,
    };
    if payload.is_empty() {
        return Ok((RuleChange::Get, format));
    }
    // Before the bytes are joined to one piece.
    if payload.len() > RuleChange::MAX_BYTES {
        return Err(AskError::TooLong {
            what: "change in bytes".into(),
            got: payload.len() as u64,
            limit: RuleChange::MAX_BYTES as u64,
        });
    }
    Ok((decode(&payload.to_bytes(), format)?, format))
}
