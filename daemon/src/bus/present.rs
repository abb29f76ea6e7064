//! Who is connected, so that work for callers who left can end.

use std::collections::HashSet;

use tokio::sync::watch;
use zenoh::Session;
use zenoh::query::Query;
use zenoh::sample::SampleKind;
use zenoh::session::{TransportEvent, ZenohId};

/// Ids of all neighbours on the network.
#[derive(Clone)]
pub(super) struct Present(watch::Receiver<HashSet<ZenohId>>);

/// Whose leaving ends a question.
enum Whom {
    /// The neighbour that asked and said so.
    One(ZenohId),
    /// All: zenoh does not tell who asked, but there was somebody.
    All,
    /// Nobody's: the caller is in this process, or not yet seen.
    Nobody,
}

impl Present {
    /// Listens to neighbours coming and going for as long as the session is open.
    pub(super) async fn listen(session: &Session) -> zenoh::Result<Self> {
        let (sender, receiver) = watch::channel(HashSet::new());
        let note = move |event: TransportEvent| {
            let id = *event.transport().zid();
            sender.send_modify(|present| match event.kind() {
                SampleKind::Put => drop(present.insert(id)),
                SampleKind::Delete => drop(present.remove(&id)),
            });
        };
        session.info().transport_events_listener().history(true).callback(note).background().await?;
        Ok(Self(receiver))
    }

    /// Everybody who is connected.
    pub(super) fn ids(&self) -> HashSet<ZenohId> {
        self.0.borrow().clone()
    }

    /// How many are connected.
    pub(super) fn number(&self) -> usize {
        self.0.borrow().len()
    }

    /// Waits until somebody is connected who is not among `known`.
    pub(super) async fn other_than(mut self, known: &HashSet<ZenohId>) {
        if self.0.wait_for(|present| present.iter().any(|id| !known.contains(id))).await.is_err() {
            // The session is closing, and nobody comes any more.
            std::future::pending().await
        }
    }

    /// Waits until whoever sent the query has left: the neighbour named in the query's source, or
    /// else every neighbour. Callers behind a router are known only as far as the router.
    pub(super) async fn left(mut self, query: &Query) {
        let source = query.source_info().map(|source| source.source_id().zid());
        let whom = {
            let present = self.0.borrow();
            match source {
                Some(id) if present.contains(&id) => Whom::One(id),
                _ if present.is_empty() => Whom::Nobody,
                _ => Whom::All,
            }
        };
        let seen = match whom {
            Whom::One(id) => self.0.wait_for(|present| !present.contains(&id)).await.is_ok(),
            Whom::All => self.0.wait_for(HashSet::is_empty).await.is_ok(),
            Whom::Nobody => false,
        };
        // Otherwise nobody tells: the session is closing, or there is nothing to tell.
        if !seen {
            std::future::pending().await
        }
    }
}
