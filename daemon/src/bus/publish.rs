//! What the daemon says without being asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use messages::keys::{Key, Name, Topic};
use messages::{CameraPhase, CameraState, CaptionPiece, Format, Message, Status, encode};
use tokio::sync::mpsc;
use tokio::task::block_in_place;
use tokio::time::MissedTickBehavior;
use zenoh::pubsub::Publisher;
use zenoh::qos::{CongestionControl, Priority, Reliability};
use zenoh::{Session, Wait};
use zenoh_ext::{AdvancedPublisher, AdvancedPublisherBuilderExt, CacheConfig, MissDetectionConfig};

use super::counts::Counts;
use super::{BusInputs, ros, strangers};
use crate::engine::Event;
use crate::wall_clock;

/// How often the states of cameras are looked at.
const STATES: Duration = Duration::from_millis(200);

/// How often the status is published.
const STATUS: Duration = Duration::from_secs(1);

/// How soon a subscriber learns that it missed the last message, if no other follows.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(1);

/// How a message that meets a full link is treated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    /// Waits, is not lost, and is kept for those who come late.
    Result,
    /// The same, and goes before everything else.
    Alert,
    /// Is dropped, and not even written if nobody listens.
    Passing,
}

/// A message's key and its JSON twin.
struct Pair {
    postcard: Speaker,
    json: Option<Speaker>,
}

/// How one key is spoken on.
enum Speaker {
    /// What was said last is kept for subscribers who come late, and numbered, so that they notice what
    /// they miss. To all others it is a plain publication.
    Kept(Box<AdvancedPublisher<'static>>),
    /// Nothing is said while nobody listens.
    Passing(Publisher<'static>),
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

    /// Publishes the state of a camera and notes it.
    fn put_state(&mut self, published: &mut HashMap<String, CameraState>, state: CameraState) {
        let Some(name) = name(&state.camera) else { return };
        self.put(Topic::State(name), Care::Result, &state);
        published.insert(state.camera.clone(), state);
    }

    /// Speaks on these topics no more: whoever comes late finds nothing kept there.
    fn forget(&mut self, topics: &[Topic]) {
        block_in_place(|| topics.iter().for_each(|topic| drop(self.pairs.remove(topic))));
    }

    fn pair(&mut self, topic: Topic, care: Care) -> zenoh::Result<&Pair> {
        if !self.pairs.contains_key(&topic) {
            let key = Key::new(self.device.clone(), topic.clone());
            let postcard = Speaker::declare(&self.session, key.to_string(), care)?;
            let twin = || Speaker::declare(&self.session, key.json().to_string(), care);
            let json = self.json.then(twin).transpose()?;
            self.pairs.insert(topic.clone(), Pair { postcard, json });
        }
        Ok(&self.pairs[&topic])
    }
}

impl Pair {
    /// Sends in both formats, as far as they are of use; returns how many were sent. It may wait for a
    /// full link, so it must not run on a worker thread.
    fn put<M: Message>(&self, message: &M) -> zenoh::Result<usize> {
        let twins = [(Some(&self.postcard), Format::Postcard), (self.json.as_ref(), Format::Json)];
        let mut sent = 0;
        for (speaker, format) in twins {
            let Some(speaker) = speaker else { continue };
            if speaker.is_heard()? {
                speaker.put(encode(message, format), M::encoding(format))?;
                sent += 1;
            }
        }
        Ok(sent)
    }
}

impl Speaker {
    fn declare(session: &Session, key: String, care: Care) -> zenoh::Result<Self> {
        let publisher = session.declare_publisher(key);
        if care == Care::Passing {
            let publisher =
                publisher.congestion_control(CongestionControl::Drop).reliability(Reliability::BestEffort);
            return Ok(Self::Passing(publisher.wait()?));
        }
        let priority = if care == Care::Alert { Priority::InteractiveHigh } else { Priority::Data };
        let publisher = publisher
            .congestion_control(CongestionControl::Block)
            .priority(priority)
            .reliability(Reliability::Reliable)
            .sample_miss_detection(MissDetectionConfig::default().sporadic_heartbeat(HEARTBEAT))
            .cache(CacheConfig::default().max_samples(1))
            .publisher_detection();
        Ok(Self::Kept(Box::new(publisher.wait()?)))
    }

    /// Whether it is of use to speak: what is kept is for those who come later, too.
    fn is_heard(&self) -> zenoh::Result<bool> {
        match self {
            Self::Kept(_) => Ok(true),
            Self::Passing(publisher) => Ok(publisher.matching_status().wait()?.matching()),
        }
    }

    fn put(&self, bytes: Vec<u8>, encoding: String) -> zenoh::Result<()> {
        match self {
            Self::Kept(publisher) => publisher.put(bytes).encoding(encoding).wait(),
            Self::Passing(publisher) => publisher.put(bytes).encoding(encoding).wait(),
        }
    }
}

/// Publishes captions, pieces of them and alerts until the engine is gone. It runs on a thread of its own,
/// because a result waits for a full link.
pub(super) fn results(
    mut publishers: Publishers,
    ros: Option<Arc<ros::Node>>,
    mut events: mpsc::Receiver<Event>,
) {
    while let Some(event) = events.blocking_recv() {
        match event {
            Event::Caption(mut caption, captured) => {
                let Some(name) = name(&caption.frame.camera) else { continue };
                caption.age_ms = age_ms(captured);
                publishers.put(Topic::Caption(name), Care::Result, caption.as_ref());
                if let Some(ros) = &ros {
                    ros.caption(&caption);
                }
            }
            Event::Piece(piece) => {
                let Some(name) = name(&piece.frame.camera) else { continue };
                publishers.put::<CaptionPiece>(Topic::CaptionPartial(name), Care::Passing, &piece);
            }
            Event::Alert(mut alert, captured) => {
                let Some(name) = name(&alert.rule) else { continue };
                alert.age_ms = age_ms(captured);
                publishers.put(Topic::Alert(name), Care::Alert, alert.as_ref());
                if let Some(ros) = &ros {
                    ros.alert(&alert);
                }
            }
            Event::CameraRemoved(camera) => {
                let Some(name) = name(&camera) else { continue };
                publishers.forget(&[Topic::Caption(name.clone()), Topic::CaptionPartial(name)]);
            }
        }
    }
}

/// Publishes every state that a camera goes through, once, and a last one when the camera is there no more.
pub(super) async fn states(mut publishers: Publishers, inputs: Arc<dyn BusInputs>) {
    let mut published: HashMap<String, CameraState> = HashMap::new();
    let mut tick = ticks(STATES);
    loop {
        tick.tick().await;
        for state in inputs.camera_changes() {
            publishers.put_state(&mut published, state);
        }
        let states = inputs.cameras();
        let is_removed = |camera: &String| !states.iter().any(|state| state.camera == *camera);
        for camera in published.extract_if(|camera, _| is_removed(camera)).map(|(camera, _)| camera) {
            let Some(name) = name(&camera) else { continue };
            publishers.put(Topic::State(name.clone()), Care::Result, &removed(camera));
            publishers.forget(&[Topic::State(name)]);
        }
        for state in states {
            if published.get(&state.camera).is_some_and(|last| adds(&state, last)) {
                publishers.put_state(&mut published, state);
            }
        }
    }
}

/// Whether the engine adds something to a state that was published. What else differs is a change that
/// the next round takes.
fn adds(state: &CameraState, last: &CameraState) -> bool {
    let unchanged_since = last.unchanged_since;
    state != last && *last == CameraState { unchanged_since, ..state.clone() }
}

/// The last state of a camera.
fn removed(camera: String) -> CameraState {
    CameraState {
        camera,
        phase: CameraPhase::Gone,
        reason: "it is no longer in the configuration".into(),
        since: wall_clock::now(),
        unchanged_since: None,
    }
}

/// Publishes the status once a second, and tells who was turned away.
pub(super) async fn status(mut publishers: Publishers, inputs: Arc<dyn BusInputs>, counts: Arc<Counts>) {
    let mut tick = ticks(STATUS);
    loop {
        tick.tick().await;
        strangers::tell();
        let status = Status { bus: counts.figures(), ..inputs.status() };
        publishers.put(Topic::Status, Care::Passing, &status);
    }
}

pub(super) fn ticks(period: Duration) -> tokio::time::Interval {
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

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A session that meets nobody.
    fn session() -> Session {
        let mut config = zenoh::Config::default();
        for (key, value) in [
            ("mode", "\"peer\""),
            ("listen/endpoints", "[]"),
            ("connect/endpoints", "[]"),
            ("scouting/multicast/enabled", "false"),
        ] {
            config.insert_json5(key, value).unwrap();
        }
        zenoh::open(config).wait().unwrap()
    }

    /// Waits until a piece goes out in so many formats.
    fn wait_for(pair: &Pair, formats: usize) {
        let deadline = Instant::now() + PATIENCE;
        while pair.put(&CaptionPiece::default()).unwrap() != formats {
            assert!(Instant::now() < deadline, "never in {formats} formats");
        }
    }

    #[test]
    fn pieces_are_written_only_while_somebody_listens() {
        let session = session();
        let name = |name| Name::new(name).unwrap();
        let mut publishers = Publishers::new(session.clone(), name("scout"), true);
        let topic = Topic::CaptionPartial(name("front"));
        let pair = publishers.pair(topic, Care::Passing).unwrap();
        assert_eq!(pair.put(&CaptionPiece::default()).unwrap(), 0);
        let key = "mobilevlm/scout/camera/front/caption/partial";
        let twin = session.declare_subscriber(format!("{key}/json")).wait().unwrap();
        wait_for(pair, 1);
        let both = session.declare_subscriber("mobilevlm/*/camera/*/caption/**").wait().unwrap();
        wait_for(pair, 2);
        drop((twin, both));
        wait_for(pair, 0);

        // What is kept for those who come late is always written.
        let pair = publishers.pair(Topic::Caption(name("front")), Care::Result).unwrap();
        assert_eq!(pair.put(&messages::Caption::default()).unwrap(), 2);
    }
}
