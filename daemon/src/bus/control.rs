//! Changes while running: each query gets exactly one reply with the new state, or one error reply.
//!
//! One change is made after the other. When it is made it is kept for the next start and published, so
//! that whoever else changes things sees it.

use std::sync::Arc;
use std::time::Duration;

use messages::keys::{Key, Name, Topic};
use messages::{
    AskError, CaptionChange, CaptionSettings, Format, Message, RuleChange, Rules, SessionChange, SessionList,
    decode, encode,
};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::block_in_place;
use zenoh::bytes::ZBytes;
use zenoh::query::{Query, Queryable};
use zenoh::{Session, Wait};

use super::counts::{Counts, Places, Refusals};
use super::publish::{Care, Publishers};
use super::query::{log, refuse};
use crate::changes::{Changes, Kept};
use crate::engine::{Change, ControlSender, Reload, Reloaded};

/// Changes on their way at once; more are refused.
const AT_ONCE: usize = 8;

/// The engine takes a change in after the unit of work it is at, so this is far more than it needs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A kind of change as the bus carries it.
trait Control: Change<State: Message> + Message + Default + PartialEq + Clone {
    /// Last part of its key.
    const KEY: &'static str;

    /// Whether the state is published when it changed.
    const IS_PUBLISHED: bool;

    /// Keeps it for the next start; `state` is what there is now.
    fn keep(&self, state: &Self::State, changes: &mut Changes);
}

impl Control for RuleChange {
    const KEY: &'static str = "rules";
    const IS_PUBLISHED: bool = true;

    fn keep(&self, state: &Rules, changes: &mut Changes) {
        changes.rules = (*self != Self::Reset).then(|| state.rules.clone());
    }
}

impl Control for CaptionChange {
    const KEY: &'static str = "captions";
    const IS_PUBLISHED: bool = true;

    fn keep(&self, state: &CaptionSettings, changes: &mut Changes) {
        let (Self::Set(messages::NewCaptioning { cameras, .. }) | Self::Reset(cameras)) = self else {
            return;
        };
        let names = state.cameras.iter().map(|values| &values.camera);
        for name in names.filter(|name| cameras.is_empty() || cameras.contains(name)) {
            match self {
                Self::Set(new) => changes.captions.entry(name.clone()).or_default().take(new),
                _ => drop(changes.captions.remove(name)),
            }
        }
    }
}

impl Control for SessionChange {
    const KEY: &'static str = "sessions";
    const IS_PUBLISHED: bool = false;

    /// Sessions end with the daemon.
    fn keep(&self, _: &SessionList, _: &mut Changes) {}
}

/// What can be changed.
const CONTROLS: [&str; 3] = [RuleChange::KEY, CaptionChange::KEY, SessionChange::KEY];

/// Takes changes in.
pub(super) struct Panel {
    device: Name,
    control: ControlSender,
    places: Arc<Places>,
    /// Held while a change is made, so that all see the changes in one order.
    ledger: Mutex<Ledger>,
    office: Office,
}

/// What everybody needs who answers.
pub(super) struct Office {
    pub(super) counts: Arc<Counts>,
    pub(super) refusals: Refusals,
    pub(super) runtime: Handle,
}

/// Where changes are written down.
struct Ledger {
    kept: Kept,
    publishers: Publishers,
}

/// A reply: its key, its bytes and their encoding.
type Answer = (Key, Vec<u8>, String);

impl Panel {
    pub(super) fn new(
        device: Name,
        control: ControlSender,
        kept: Kept,
        publishers: Publishers,
        office: Office,
    ) -> Arc<Self> {
        let ledger = Mutex::new(Ledger { kept, publishers });
        Arc::new(Self { device, control, places: Places::new(AT_ONCE), ledger, office })
    }

    /// Listens on every name, so that an unknown one is answered too.
    pub(super) async fn declare(self: Arc<Self>, session: &Session) -> zenoh::Result<Queryable<()>> {
        let key = Key::new(self.device.clone(), Topic::Control(Name::any()));
        session.declare_queryable(key.to_string()).callback(move |query| self.receive(query)).await
    }

    /// Runs on a thread of zenoh: it hands over and returns.
    fn receive(self: &Arc<Self>, query: Query) {
        let panel = self.clone();
        let place = match self.places.take() {
            Ok(place) => place,
            Err(error) => {
                return self.office.refusals.send(move || {
                    panel.office.counts.request(false);
                    refuse(&query, &error);
                });
            }
        };
        self.office.runtime.spawn(async move {
            let outcome = panel.answer(&query).await;
            panel.office.counts.request(outcome.is_ok());
            block_in_place(|| match outcome {
                Ok((key, bytes, encoding)) => {
                    log(query.reply(key.to_string(), bytes).encoding(encoding).wait())
                }
                Err(error) => refuse(&query, &error),
            });
            drop(place);
        });
    }

    async fn answer(&self, query: &Query) -> Result<Answer, AskError> {
        let key = query.key_expr().as_str();
        let name = key.rsplit('/').next().unwrap_or(key);
        if name == RuleChange::KEY {
            self.change::<RuleChange>(query).await
        } else if name == CaptionChange::KEY {
            self.change::<CaptionChange>(query).await
        } else if name == SessionChange::KEY {
            self.change::<SessionChange>(query).await
        } else {
            let name: String = name.chars().take(64).collect();
            let reason = format!("there is no control \"{name}\"; there are: {}", CONTROLS.join(", "));
            Err(AskError::BadRequest { reason })
        }
    }

    /// Reads a change, has it made, writes it down and tells what there is then.
    async fn change<C: Control>(&self, query: &Query) -> Result<Answer, AskError> {
        let (change, format) = read::<C>(query)?;
        let mut ledger = self.ledger.lock().await;
        let state = self.make(change.clone()).await?;
        // The default of every kind is to change nothing.
        if change != C::default() {
            block_in_place(|| ledger.note(&change, &state));
        }
        let key = Key::new(self.device.clone(), topic::<C>()?);
        Ok((key, encode(&state, format), <C::State as Message>::encoding(format)))
    }

    /// Has another configuration taken up, under what was changed over the bus. It is a change like the
    /// others: made between them, and published.
    pub(super) async fn reload(&self, reload: Reload) -> Result<(), AskError> {
        let mut ledger = self.ledger.lock().await;
        let changes = ledger.kept.changes().clone();
        let answer = self.control.send(Reload { changes, ..reload })?;
        // Without limit: whoever waits for a hung engine is not fed by it either.
        let stopping = |_| AskError::Cancelled { reason: "the engine has ended".into() };
        let Reloaded { rules, captions } = answer.await.map_err(stopping)??;
        block_in_place(|| {
            if let Some(rules) = rules {
                ledger.tell::<RuleChange>(&rules);
            }
            if let Some(captions) = captions {
                ledger.tell::<CaptionChange>(&captions);
            }
        });
        Ok(())
    }

    /// Hands a change to the engine and waits for its answer.
    async fn make<C: Change>(&self, change: C) -> Result<C::State, AskError> {
        let answer = self.control.send(change)?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(state)) => state,
            Ok(Err(_)) => Err(AskError::Cancelled { reason: "the daemon is stopping".into() }),
            Err(_) => Err(AskError::Internal { reason: "the engine does not answer".into() }),
        }
    }
}

impl Ledger {
    fn note<C: Control>(&mut self, change: &C, state: &C::State) {
        if let Err(error) = self.kept.update(|changes| change.keep(state, changes)) {
            tracing::warn!("{error}");
        }
        if C::IS_PUBLISHED {
            self.tell::<C>(state);
        }
    }

    fn tell<C: Control>(&mut self, state: &C::State) {
        match topic::<C>() {
            Ok(topic) => self.publishers.put(topic, Care::Result, state),
            Err(error) => tracing::error!(%error, "not published"),
        }
    }
}

/// The topic of a kind of change.
fn topic<C: Control>() -> Result<Topic, AskError> {
    Name::new(C::KEY).map(Topic::Control).map_err(|error| AskError::Internal { reason: error.to_string() })
}

/// The change in a query, and the format it is in. No payload wants to see the state; text is JSON.
fn read<C: Control>(query: &Query) -> Result<(C, Format), AskError> {
    let empty = ZBytes::new();
    let payload = query.payload().unwrap_or(&empty);
    let encoding = query.encoding().map(ToString::to_string).unwrap_or_default();
    let format = match encoding.split(';').next() {
        None | Some("" | "text/plain" | "zenoh/string" | "zenoh/bytes") => Format::Json,
        _ => C::format(&encoding)?,
    };
    if payload.is_empty() {
        return Ok((C::default(), format));
    }
    // Before the bytes are joined to one piece.
    if payload.len() > C::MAX_BYTES {
        return Err(AskError::TooLong {
            what: "change in bytes".into(),
            got: payload.len() as u64,
            limit: C::MAX_BYTES as u64,
        });
    }
    Ok((decode(&payload.to_bytes(), format)?, format))
}

#[cfg(test)]
mod tests {
    use messages::{Captioning, NewCaptioning, Rule};

    use super::*;

    #[test]
    fn only_what_differs_from_the_configuration_is_kept() {
        let mut changes = Changes::default();
        let rules = Rules { rules: vec![Rule::new("door", "Is the door open?")], revision: 1 };
        RuleChange::Remove("dog".into()).keep(&rules, &mut changes);
        assert_eq!(changes.rules.as_deref(), Some(rules.rules.as_slice()));
        RuleChange::Reset.keep(&rules, &mut changes);
        assert_eq!(changes, Changes::default());

        let camera = |name: &str| Captioning { camera: name.into(), ..Captioning::default() };
        let state = CaptionSettings { cameras: vec![camera("front"), camera("rear")], revision: 2 };
        let new = |paused, prompt: Option<&str>| NewCaptioning {
            paused,
            prompt: prompt.map(str::to_owned),
            ..NewCaptioning::default()
        };
        CaptionChange::Set(new(Some(true), None)).keep(&state, &mut changes);
        let rear = NewCaptioning { cameras: vec!["rear".into()], ..new(None, Some("What moves?")) };
        CaptionChange::Set(rear).keep(&state, &mut changes);
        assert_eq!(changes.captions["front"], new(Some(true), None));
        assert_eq!(changes.captions["rear"], new(Some(true), Some("What moves?")));
        CaptionChange::Reset(vec!["front".into()]).keep(&state, &mut changes);
        assert_eq!(changes.captions.keys().collect::<Vec<_>>(), ["rear"]);
        CaptionChange::Reset(Vec::new()).keep(&state, &mut changes);
        SessionChange::Get.keep(&SessionList::default(), &mut changes);
        assert_eq!(changes, Changes::default());
    }
}
