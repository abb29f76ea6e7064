//! One daemon for each name: who comes second refuses to start and names the first.
//!
//! A daemon answers on its `alive` key from the moment it wants the name, and asks there for others. It sends
//! along who it is, so that of two that ask at the same time at least one knows of the other; which of them
//! goes on is a matter of rank ([`Holder::outranks`]), and both come to the same result. One that is dead does
//! not answer, and its token on the bus blocks nobody.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use messages::keys::{Key, Name, Topic};
use messages::{Claim, Format, Holder, Message, decode, encode};
use zenoh::Session;
use zenoh::query::{ConsolidationMode, Query, QueryTarget, Queryable, Reply};
use zenoh::sample::Locality;

use super::BusError;
use super::present::Present;
use super::query::reply;
use crate::wall_clock;

/// For what is declared to come round. Two daemons that start at once miss each other only if a message takes
/// longer.
const SETTLE: Duration = Duration::from_millis(250);

/// Whoever does not answer for so long is taken for dead.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a running daemon looks for another one of its name, besides when somebody connects.
const LOOK: Duration = Duration::from_secs(60);

/// A daemon's claim to its name.
pub(super) struct NameClaim {
    session: Session,
    key: Key,
    own: Arc<Mutex<Own>>,
    _answers: Queryable<()>,
}

struct Own {
    holder: Holder,
    /// Somebody who asked for the same name and has more right to it.
    rival: Option<Holder>,
}

impl NameClaim {
    /// Asks for a name.
    ///
    /// Errors: another daemon has it, or more right to it.
    pub(super) async fn make(session: &Session, device: &Name) -> Result<Self, BusError> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let holder = Holder {
            zid: session.zid().to_string(),
            host: host.trim().into(),
            process: std::process::id(),
            since: wall_clock::now(),
            claim: Claim::Asking,
        };
        let own = Arc::new(Mutex::new(Own { holder, rival: None }));
        let key = Key::new(device.clone(), Topic::Alive);
        let (asked, shown) = (own.clone(), key.clone());
        let answers = session.declare_queryable(key.to_string()).allowed_origin(Locality::Remote);
        let answers = answers.callback(move |query| answer(&query, &shown, &asked)).await?;
        let claim = Self { session: session.clone(), key, own, _answers: answers };
        if session.info().transports().await.next().is_some() {
            tokio::time::sleep(SETTLE).await;
        }
        claim.advance(Claim::Held).await?;
        Ok(claim)
    }

    /// Goes a step further.
    ///
    /// Errors: another daemon has more right to the name.
    pub(super) async fn advance(&self, to: Claim) -> Result<(), BusError> {
        self.check().await?;
        let mut own = lock(&self.own);
        match own.rival.take() {
            Some(rival) if rival.outranks(&own.holder) => Err(self.taken(rival)),
            _ => {
                own.holder.claim = to;
                Ok(())
            }
        }
    }

    /// Asks everybody who answers to the name.
    async fn check(&self) -> Result<(), BusError> {
        let own = lock(&self.own).holder.clone();
        let replies = self
            .session
            .get(self.key.to_string())
            .payload(encode(&own, Format::Json))
            .encoding(Holder::encoding(Format::Json))
            .target(QueryTarget::All)
            .consolidation(ConsolidationMode::None)
            .allowed_destination(Locality::Remote)
            .timeout(PATIENCE)
            .await?;
        while let Ok(reply) = replies.recv_async().await {
            // What is no holder's answer comes from no daemon.
            if let Some(other) = holder(reply).filter(|other| other.zid != own.zid && other.outranks(&own)) {
                return Err(self.taken(other));
            }
        }
        Ok(())
    }

    /// Tells when another daemon of the same name appears, which happens when networks are joined.
    pub(super) async fn look_out(self: Arc<Self>, present: Present) {
        let mut known = present.ids();
        loop {
            // Newcomers in quick succession cause one look.
            let _ = tokio::time::timeout(LOOK, present.clone().other_than(&known)).await;
            tokio::time::sleep(SETTLE).await;
            known = present.ids();
            if let Err(error) = self.check().await {
                tracing::error!("{error}; until then questions to that name are answered twice");
            }
        }
    }

    fn taken(&self, holder: Holder) -> BusError {
        BusError::Taken { device: self.key.device.to_string(), holder: Box::new(holder) }
    }
}

fn lock(own: &Mutex<Own>) -> MutexGuard<'_, Own> {
    own.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells who has the name, and notes who asks for it with more right.
fn answer(query: &Query, key: &Key, own: &Mutex<Own>) {
    let asking = query.payload().filter(|payload| payload.len() <= Holder::MAX_BYTES);
    let asking = asking.and_then(|payload| decode::<Holder>(&payload.to_bytes(), Format::Json).ok());
    let holder = {
        let mut own = lock(own);
        own.rival = asking.filter(|other| other.outranks(&own.holder)).or(own.rival.take());
        own.holder.clone()
    };
    reply(query, key, &holder);
}

fn holder(reply: Reply) -> Option<Holder> {
    let sample = reply.into_result().ok()?;
    let format = Holder::format(&sample.encoding().to_string()).ok()?;
    decode(&sample.payload().to_bytes(), format).ok()
}
