//! A node of ROS 2, as far as other nodes can tell: captions, alerts, questions and answers in their form.

mod hear;
mod voice;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use messages::keys::Name;
use messages::{Alert, Caption, Status};
use serde::Serialize;
use tokio::task::block_in_place;
use zenoh::Session;
use zenoh::liveliness::LivelinessToken;

use super::BusInputs;
use super::ask::Desk;
use super::publish::ticks;
use crate::config::Ros2Config;
use crate::ros::layout::{Endpoint, Layout, Owner, Release, Role};
use crate::ros::message::{Classification, DiagnosticArray, Words};
use crate::ros::names::Topics;
use crate::ros::{RosMessage, RosType, speech};

use hear::Heard;
use voice::{Tone, Voice};

/// How often cameras and rules are looked at.
const ROUND: Duration = Duration::from_secs(1);

/// Rounds after which a topic is withdrawn whose camera or rule is gone and on which nothing is said.
const ROUNDS_UNUSED: u32 = 10;

/// The node and its endpoints.
pub(super) struct Node {
    session: Session,
    ways: Vec<Layout>,
    owner: Owner,
    topics: Topics,
    device: String,
    frame_ids: String,
    desk: Arc<Desk>,
    /// Number of the last endpoint of the session.
    endpoints: AtomicU32,
    tokens: Mutex<Vec<LivelinessToken>>,
    /// Topics spoken on, with the rounds since they were of use.
    spoken: Mutex<HashMap<String, (Arc<Voice>, u32)>>,
    /// Topics of questions.
    heard: Mutex<HashMap<String, Heard>>,
    /// Topics that were found to have several owners.
    shared: Mutex<HashSet<String>>,
}

impl Node {
    /// Makes the node known in every layout that is on; `None` if all are off.
    pub(super) async fn open(
        session: &Session,
        config: &Ros2Config,
        device: &Name,
        desk: Arc<Desk>,
    ) -> zenoh::Result<Option<Arc<Self>>> {
        let Ros2Config { rmw_zenoh, bridge, domain_id, namespace, frame_id } = config;
        let rmw_zenoh =
            Release::named(rmw_zenoh).map(|release| Layout::RmwZenoh { release, domain: *domain_id });
        let bridge = Release::named(bridge).map(|release| Layout::Bridge { release });
        let ways: Vec<Layout> = rmw_zenoh.into_iter().chain(bridge).collect();
        if ways.is_empty() {
            return Ok(None);
        }
        let topics = Topics::new(namespace, device.as_str());
        let owner = Owner { session: session.zid().to_string(), namespace: topics.namespace().into() };
        let mut tokens = Vec::new();
        for token in ways.iter().filter_map(|way| way.node_token(&owner)) {
            tokens.push(session.liveliness().declare_token(token).await?);
        }
        tracing::info!(namespace = topics.namespace(), "nodes of ROS 2 find topics here");
        Ok(Some(Arc::new(Self {
            session: session.clone(),
            ways,
            owner,
            topics,
            device: device.to_string(),
            frame_ids: frame_id.clone(),
            desk,
            endpoints: AtomicU32::new(0),
            tokens: Mutex::new(tokens),
            spoken: Mutex::default(),
            heard: Mutex::default(),
            shared: Mutex::default(),
        })))
    }

    /// Publishes a caption in both forms.
    pub(super) fn caption(&self, caption: &Caption) {
        let camera = &caption.frame.camera;
        self.say(self.topics.caption(camera), Tone::Result, &speech::caption(caption));
        let stamped = speech::stamped_caption(caption, &self.device, &self.frame_ids);
        self.say(self.topics.caption_stamped(camera), Tone::Result, &stamped);
    }

    /// Publishes the begin or the end of an alert.
    pub(super) fn alert(&self, alert: &Alert) {
        self.say(self.topics.alert(&alert.rule), Tone::Alert, &speech::alert(alert, &self.frame_ids));
    }

    /// Withdraws everything; what is said later is not heard.
    pub(super) fn withdraw(&self) {
        locked(&self.heard).clear();
        locked(&self.spoken).clear();
        locked(&self.tokens).clear();
    }

    /// Offers the topics of all cameras and rules, and withdraws those of no use.
    fn meet(self: &Arc<Self>, status: &Status) {
        let topics = &self.topics;
        let mut wanted: Vec<(String, RosType, Tone)> = Vec::new();
        let mut asked = Vec::new();
        for camera in &status.cameras {
            let camera = camera.state.camera.as_str();
            wanted.push((topics.caption(camera), Words::TYPE, Tone::Result));
            wanted.push((topics.caption_stamped(camera), DiagnosticArray::TYPE, Tone::Result));
            wanted.push((topics.answer(camera), Words::TYPE, Tone::Reply));
            wanted.push((topics.answer_partial(camera), Words::TYPE, Tone::Piece));
            asked.push((topics.ask(camera), camera));
        }
        wanted.extend(
            status.rules.iter().map(|rule| (topics.alert(&rule.rule), Classification::TYPE, Tone::Alert)),
        );
        self.tell_of_shared("camera", &asked);
        let rules: Vec<(String, &str)> =
            status.rules.iter().map(|rule| (topics.alert(&rule.rule), rule.rule.as_str())).collect();
        self.tell_of_shared("rule", &rules);
        for (topic, kind, tone) in wanted {
            drop(self.voice(topic, kind, tone));
        }
        locked(&self.spoken).retain(|_, (_, unused)| {
            *unused += 1;
            *unused <= ROUNDS_UNUSED
        });
        locked(&self.heard).retain(|topic, _| asked.iter().any(|(asked, _)| asked == topic));
        for (topic, camera) in asked {
            self.listen(topic, camera);
        }
    }

    /// Tells once of cameras or rules whose names are the same in ROS 2.
    fn tell_of_shared(&self, what: &str, owners: &[(String, &str)]) {
        for (topic, first, other) in shared(owners) {
            if locked(&self.shared).insert(topic.to_owned()) {
                tracing::warn!(
                    topic,
                    "{what}s \"{first}\" and \"{other}\" have the same topics in ROS 2, where nobody can tell them apart: \
                     rename one"
                );
            }
        }
    }

    /// Says a message on a topic, in every layout. It may wait for a full link.
    fn say<M: RosMessage + Serialize>(&self, topic: String, tone: Tone, message: &M) {
        if let Some(voice) = self.voice(topic, M::TYPE, tone) {
            voice.say(message);
        }
    }

    /// The voice of a topic, declared when first needed.
    fn voice(&self, topic: String, kind: RosType, tone: Tone) -> Option<Arc<Voice>> {
        let mut spoken = locked(&self.spoken);
        if let Some((voice, unused)) = spoken.get_mut(&topic) {
            *unused = 0;
            return Some(voice.clone());
        }
        let endpoint = Endpoint { role: Role::Publisher, topic, kind, qos: tone.qos() };
        let speakers = self.ways.iter().map(|way| {
            let token = way.token(&self.owner, self.next_endpoint(), &endpoint);
            voice::Speaker::declare(&self.session, *way, &endpoint, token, tone)
        });
        match speakers.collect() {
            Ok(speakers) => {
                let voice = Arc::new(Voice::new(speakers));
                spoken.insert(endpoint.topic, (voice.clone(), 0));
                Some(voice)
            }
            Err(error) => {
                tracing::warn!(topic = endpoint.topic, %error, "not offered to ROS 2");
                None
            }
        }
    }

    fn next_endpoint(&self) -> u32 {
        self.endpoints.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Nothing in here is left half done by a panic.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the topics of a node as cameras and rules come and go, for as long as the node is there.
pub(super) async fn follow(node: Weak<Node>, inputs: Arc<dyn BusInputs>) {
    let mut round = ticks(ROUND);
    loop {
        round.tick().await;
        let Some(node) = node.upgrade() else { return };
        block_in_place(|| node.meet(&inputs.status()));
    }
}

/// Topics with several owners, each with two of them.
fn shared<'a>(owners: &'a [(String, &'a str)]) -> Vec<(&'a str, &'a str, &'a str)> {
    let mut first: HashMap<&str, &str> = HashMap::new();
    let mut shared = Vec::new();
    for (topic, owner) in owners {
        let known = *first.entry(topic).or_insert(owner);
        if known != *owner {
            shared.push((topic.as_str(), known, *owner));
        }
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_the_same_in_ros_are_found() {
        let topics = Topics::new("/a", "robot");
        let names = ["door-open", "window", "door-open", "door open", "door.open"];
        let owners: Vec<_> = names.map(|name| (topics.alert(name), name)).into();
        let expected = ["door open", "door.open"].map(|other| ("/a/alert/door_open", "door-open", other));
        assert_eq!(shared(&owners), expected);
        assert_eq!(shared(&owners[..3]), [], "a rule on two cameras is one rule");
    }
}
