//! What the daemon says without being asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use messages::keys::{Key, Name, Topic};
use messages::{CameraState, CaptionPiece, Format, Message, encode};
use tokio::sync::mpsc;
use tokio::task::block_in_place;
use tokio::time::MissedTickBehavior;
use zenoh::pubsub::Publisher;
use zenoh::qos::{CongestionControl, Priority, Reliability};
use zenoh::{Session, Wait};

use super::BusInputs;
use crate::engine::Event;

/// How often the states of cameras are looked at.
const STATES: Duration = Duration::from_millis(200);

/// How often the status is published.
const STATUS: Duration = Duration::from_secs(1);

/// How a message that meets a full link is treated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    /// Waits, is not lost.
    Result,
    /// Waits, is not lost and goes before everything else.
    Alert,
    /// Is dropped, and not even written if nobody listens.
    Passing,
}

/// A message's key and its JSON twin.
struct Pair {
    postcard: Publisher<'static>,
    json: Option<Publisher<'static>>,
    care: Care,
}

/// Publishers by topic, declared when first needed.
pub(super) struct Publishers {
    session: Session,
    device: Name,
    json: bool,
    pairs: HashMap<Topic, Pair>,
}

impl Publishers {
    pub(super) fn new(session: Session, device: Name, json: bool) -> Self {
        Self { session, device, json, pairs: HashMap::new() }
    }

    /// Publishes a message and its twin. What cannot be sent is logged: nobody waits for an answer.
    pub(super) fn put<M: Message>(&mut self, topic: Topic, care: Care, message: &M) {
        let sent = self.pair(topic, care).and_then(|pair| block_in_place(|| pair.put(message)));
        if let Err(error) = sent {
            tracing::warn!(message = M::NAME, %error, "not published");
        }
    }

    fn pair(&mut self, topic: Topic, care: Care) -> zenoh::Result<&Pair> {
        if !self.pairs.contains_key(&topic) {
            let key = Key::new(self.device.clone(), topic.clone());
            let declare = |key: String| {
                let publisher = self.session.declare_publisher(key);
                match care {
                    Care::Result => publisher
                        .congestion_control(CongestionControl::Block)
                        .reliability(Reliability::Reliable),
                    Care::Alert => publisher
                        .congestion_control(CongestionControl::Block)
                        .priority(Priority::InteractiveHigh)
                        .reliability(Reliability::Reliable),
                    Care::Passing => publisher
                        .congestion_control(CongestionControl::Drop)
                        .reliability(Reliability::BestEffort),
                }
                .wait()
            };
            let postcard = declare(key.to_string())?;
            let json = if self.json { Some(declare(key.json().to_string())?) } else { None };
            self.pairs.insert(topic.clone(), Pair { postcard, json, care });
        }
        Ok(&self.pairs[&topic])
    }
}

impl Pair {
    /// Sends in both formats. It may wait for a full link, so it must not run on a worker thread.
    fn put<M: Message>(&self, message: &M) -> zenoh::Result<()> {
        let twins = [(Some(&self.postcard), Format::Postcard), (self.json.as_ref(), Format::Json)];
        for (publisher, format) in twins {
            let Some(publisher) = publisher else { continue };
            if self.care != Care::Passing || publisher.matching_status().wait()?.matching() {
                publisher.put(encode(message, format)).encoding(M::encoding(format)).wait()?;
            }
        }
        Ok(())
    }
}

/// Publishes captions, pieces of them and alerts until the engine is gone. It runs on a thread of its own,
/// because a result waits for a full link.
pub(super) fn results(mut publishers: Publishers, mut events: mpsc::Receiver<Event>) {
    while let Some(event) = events.blocking_recv() {
        match event {
            Event::Caption(mut caption, captured) => {
                let Some(name) = name(&caption.frame.camera) else { continue };
                caption.age_ms = age_ms(captured);
                publishers.put(Topic::Caption(name), Care::Result, caption.as_ref());
            }
            Event::Piece(piece) => {
                let Some(name) = name(&piece.frame.camera) else { continue };
                publishers.put::<CaptionPiece>(Topic::CaptionPartial(name), Care::Passing, &piece);
            }
            Event::Alert(mut alert, captured) => {
                let Some(name) = name(&alert.rule) else { continue };
                alert.age_ms = age_ms(captured);
                publishers.put(Topic::Alert(name), Care::Alert, alert.as_ref());
            }
        }
    }
}

/// Publishes the state of each camera when it changes.
pub(super) async fn states(mut publishers: Publishers, inputs: Arc<dyn BusInputs>) {
    let mut published: HashMap<String, CameraState> = HashMap::new();
    let mut tick = ticks(STATES);
    loop {
        tick.tick().await;
        for state in inputs.cameras() {
            let Some(name) = name(&state.camera) else { continue };
            if published.get(&state.camera) != Some(&state) {
                publishers.put(Topic::State(name), Care::Result, &state);
                published.insert(state.camera.clone(), state);
            }
        }
    }
}

/// Publishes the status once a second.
pub(super) async fn status(mut publishers: Publishers, inputs: Arc<dyn BusInputs>) {
    let mut tick = ticks(STATUS);
    loop {
        tick.tick().await;
        publishers.put(Topic::Status, Care::Passing, &inputs.status());
    }
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}

/// The camera or rule of a result as part of a key. The configuration lets no other names through.
fn name(name: &str) -> Option<Name> {
    Name::new(name).inspect_err(|error| tracing::error!(name, %error, "not published")).ok()
}

/// Milliseconds since `captured`.
fn age_ms(captured: Instant) -> f32 {
    captured.elapsed().as_secs_f32() * 1000.0
}
