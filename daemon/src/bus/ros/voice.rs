//! Publishing to nodes of ROS 2.

use std::sync::Mutex;

use serde::Serialize;
use zenoh::bytes::{Encoding, ZBytes};
use zenoh::liveliness::LivelinessToken;
use zenoh::pubsub::Publisher;
use zenoh::qos::{CongestionControl, Priority, Reliability};
use zenoh::{Session, Wait};
use zenoh_ext::{AdvancedPublisher, AdvancedPublisherBuilderExt, CacheConfig, MissDetectionConfig};

use super::locked;
use crate::bus::publish::HEARTBEAT;
use crate::ros::layout::{Endpoint, Layout, Qos, attachment, gid};
use crate::ros::{RosMessage, cdr};
use crate::wall_clock;

/// Messages of a topic that a subscriber may be behind, as ROS 2 has it by default.
const DEPTH: u32 = 10;

/// How a topic is spoken on; a full link is met as on the bus's own keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// Waits, is not lost, and is kept for those who come late.
    Result,
    /// The same, and goes before everything else.
    Alert,
    /// Waits and is not lost.
    Reply,
    /// Is dropped, and not even written if nobody listens.
    Piece,
}

impl Tone {
    /// What other nodes are told of it.
    pub(super) fn qos(self) -> Qos {
        match self {
            Self::Result | Self::Alert => Qos { is_transient_local: true, depth: 1 },
            Self::Reply | Self::Piece => Qos { is_transient_local: false, depth: DEPTH },
        }
    }
}

/// One topic in every layout.
pub(super) struct Voice {
    speakers: Vec<Speaker>,
}

/// One topic in one layout.
pub(super) struct Speaker {
    publisher: Declared,
    /// Who sends, where messages need attachments.
    gid: Option<[u8; 16]>,
    /// Messages sent.
    sent: Mutex<i64>,
    _token: LivelinessToken,
}

enum Declared {
    /// What was said last is kept, as `rmw_zenoh` and the bridge ask for it.
    Kept(Box<AdvancedPublisher<'static>>),
    Plain(Publisher<'static>),
    Passing(Publisher<'static>),
}

impl Voice {
    pub(super) fn new(speakers: Vec<Speaker>) -> Self {
        Self { speakers }
    }

    /// Says a message in every layout. It may wait for a full link.
    pub(super) fn say<M: RosMessage + Serialize>(&self, message: &M) {
        let bytes = ZBytes::from(cdr::encode(message));
        for speaker in &self.speakers {
            speaker.say(bytes.clone());
        }
    }

    /// Says a message in the layout of that number.
    pub(super) fn say_in<M: RosMessage + Serialize>(&self, way: usize, message: &M) {
        if let Some(speaker) = self.speakers.get(way) {
            speaker.say(cdr::encode(message).into());
        }
    }
}

impl Speaker {
    /// Declares the publisher, then the token that makes it known.
    pub(super) fn declare(
        session: &Session,
        way: Layout,
        endpoint: &Endpoint,
        token: String,
        tone: Tone,
    ) -> zenoh::Result<Self> {
        let key = way.key(&endpoint.topic, endpoint.kind);
        let congestion = if tone == Tone::Piece { CongestionControl::Drop } else { CongestionControl::Block };
        let priority = if tone == Tone::Alert { Priority::InteractiveHigh } else { Priority::Data };
        let publisher = session
            .declare_publisher(key)
            .encoding(Encoding::APPLICATION_CDR)
            .congestion_control(congestion)
            .priority(priority)
            .reliability(Reliability::Reliable);
        let publisher = match tone {
            Tone::Result | Tone::Alert => {
                let kept = publisher
                    .sample_miss_detection(MissDetectionConfig::default().sporadic_heartbeat(HEARTBEAT))
                    .cache(CacheConfig::default().max_samples(1))
                    .publisher_detection();
                Declared::Kept(Box::new(kept.wait()?))
            }
            Tone::Reply => Declared::Plain(publisher.wait()?),
            Tone::Piece => Declared::Passing(publisher.wait()?),
        };
        let gid = way.has_attachments().then(|| gid(&token));
        let token = session.liveliness().declare_token(token).wait()?;
        Ok(Self { publisher, gid, sent: Mutex::new(0), _token: token })
    }

    /// What cannot be sent is logged: nobody waits for an answer.
    fn say(&self, bytes: ZBytes) {
        // Held while sending, so that messages go out in the order of their numbers.
        let mut sent = locked(&self.sent);
        *sent += 1;
        let attachment = self.gid.map(|gid| {
            let now = i64::try_from(wall_clock::now()).unwrap_or(i64::MAX);
            ZBytes::from(attachment(*sent, now, gid).to_vec())
        });
        let put = match &self.publisher {
            Declared::Kept(publisher) => publisher.put(bytes).attachment(attachment).wait(),
            Declared::Plain(publisher) => publisher.put(bytes).attachment(attachment).wait(),
            Declared::Passing(publisher) => match publisher.matching_status().wait() {
                Ok(status) if !status.matching() => Ok(()),
                _ => publisher.put(bytes).attachment(attachment).wait(),
            },
        };
        if let Err(error) = put {
            tracing::warn!(%error, "not published to ROS 2");
        }
    }
}
