//! Where nodes of ROS 2 look on zenoh: keys, liveliness tokens and attachments of the two ways there.
//!
//! A node that runs `rmw_zenoh` subscribes to `DOMAIN/TOPIC/TYPE/HASH` and knows others by tokens below
//! `@ros2_lv`. The bridge `zenoh-bridge-ros2dds` takes the bare name of the topic as key, and tokens below
//! `@/ID/@ros2_lv` tell it what to offer to its DDS network. The two do not understand each other.

use xxhash_rust::xxh3::xxh3_128;

use super::RosType;
use super::names::NODE;

/// What stands for the hash before ROS 2 had any.
const NO_HASH: &str = "TypeHashNotSupported";

/// Bytes of an attachment.
pub const ATTACHMENT_BYTES: usize = 33;

/// Releases of ROS 2 that differ here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Types have no hashes.
    Humble,
    /// Types have hashes: Iron, Jazzy and all that follow.
    Jazzy,
}

impl Release {
    /// The names that the configuration knows, and `off`.
    pub const NAMES: [&str; 3] = ["off", "humble", "jazzy"];

    /// The release of that name; `None` for `off` and unknown names.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "humble" => Some(Self::Humble),
            "jazzy" => Some(Self::Jazzy),
            _ => None,
        }
    }
}

/// One of the ways to ROS 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Nodes that run `rmw_zenoh`.
    RmwZenoh {
        /// Their release.
        release: Release,
        /// Their `ROS_DOMAIN_ID`.
        domain: u32,
    },
    /// Nodes behind `zenoh-bridge-ros2dds`.
    Bridge {
        /// Their release.
        release: Release,
    },
}

/// What an endpoint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It publishes.
    Publisher,
    /// It subscribes.
    Subscription,
}

impl Role {
    fn code(self) -> &'static str {
        match self {
            Self::Publisher => "MP",
            Self::Subscription => "MS",
        }
    }
}

/// How messages of a topic are kept. All are reliable and keep the last ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Qos {
    /// Whether subscribers that come late get them (`transient_local`), or not (`volatile`).
    pub is_transient_local: bool,
    /// How many.
    pub depth: u32,
}

/// One end of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What it does.
    pub role: Role,
    /// The topic, a slash in front.
    pub topic: String,
    /// The type of its messages.
    pub kind: RosType,
    /// How they are kept.
    pub qos: Qos,
}

/// Whose endpoints they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Id of the zenoh session, in hexadecimal.
    pub session: String,
    /// Namespace of the node, a slash in front.
    pub namespace: String,
}

impl Layout {
    /// The key that messages of a topic go by.
    pub fn key(&self, topic: &str, kind: RosType) -> String {
        let topic = topic.trim_matches('/');
        match self {
            Self::RmwZenoh { release, domain } => {
                format!("{domain}/{topic}/{}/{}", kind.dds_name(), hash(*release, kind))
            }
            Self::Bridge { .. } => topic.into(),
        }
    }

    /// The token that makes the node known, where nodes are.
    pub fn node_token(&self, owner: &Owner) -> Option<String> {
        match self {
            Self::RmwZenoh { domain, .. } => {
                let Owner { session, namespace } = owner;
                Some(format!("@ros2_lv/{domain}/{session}/0/0/NN/%/{}/{NODE}", mangled(namespace)))
            }
            Self::Bridge { .. } => None,
        }
    }

    /// The token that makes an endpoint known. `id` is its own among the endpoints of the session, from 1.
    pub fn token(&self, owner: &Owner, id: u32, endpoint: &Endpoint) -> String {
        let Owner { session, namespace } = owner;
        let Endpoint { role, topic, kind, qos } = endpoint;
        let role = role.code();
        match self {
            Self::RmwZenoh { release, domain } => {
                let (namespace, topic) = (mangled(namespace), mangled(topic));
                let (name, hash) = (kind.dds_name(), hash(*release, *kind));
                let durability = if qos.is_transient_local { "1" } else { "" };
                // What is left out is as by default: reliable, keep last, no limits of time.
                let qos = format!(":{durability}:,{}:,:,:,,", qos.depth);
                format!(
                    "@ros2_lv/{domain}/{session}/0/{id}/{role}/%/{namespace}/{NODE}/{topic}/{name}/{hash}/{qos}"
                )
            }
            Self::Bridge { release } => {
                let escaped = |text: &str| text.replace('/', "\u{a7}");
                let (topic, name) = (escaped(topic.trim_matches('/')), escaped(&kind.ros_name()));
                // In DDS numbers: reliable, durability, keep last and how many, then the user data of DDS.
                let durability = u8::from(qos.is_transient_local);
                let mut qos = format!(":1:{durability}:0,{}", qos.depth);
                if *release != Release::Humble {
                    qos = format!("{qos}:typehash={};", kind.hash);
                }
                format!("@/{session}/@ros2_lv/{role}/{topic}/{name}/{qos}")
            }
        }
    }

    /// Whether every message needs an attachment.
    pub fn has_attachments(&self) -> bool {
        matches!(self, Self::RmwZenoh { .. })
    }
}

/// The hash in keys.
fn hash(release: Release, kind: RosType) -> &'static str {
    match release {
        Release::Humble => NO_HASH,
        Release::Jazzy => kind.hash,
    }
}

/// A name with slashes as one part of a key.
fn mangled(name: &str) -> String {
    name.replace('/', "%")
}

/// The id of an endpoint by which `rmw_zenoh` knows it: the hash of its token.
pub fn gid(token: &str) -> [u8; 16] {
    xxh3_128(token.as_bytes()).to_le_bytes()
}

/// What `rmw_zenoh` reads beside every message: its number from 1, when it was sent in nanoseconds since
/// the Unix epoch, and who sent it.
pub fn attachment(sequence: i64, sent_at: i64, gid: [u8; 16]) -> [u8; ATTACHMENT_BYTES] {
    let mut bytes = [0; ATTACHMENT_BYTES];
    bytes[..8].copy_from_slice(&sequence.to_le_bytes());
    bytes[8..16].copy_from_slice(&sent_at.to_le_bytes());
    // Length of the id.
    bytes[16] = 16;
    bytes[17..].copy_from_slice(&gid);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ros::RosMessage;
    use crate::ros::message::{Classification, Words};

    const HUMBLE: Layout = Layout::RmwZenoh { release: Release::Humble, domain: 7 };
    const JAZZY: Layout = Layout::RmwZenoh { release: Release::Jazzy, domain: 0 };
    const BRIDGE: Layout = Layout::Bridge { release: Release::Humble };

    fn owner(namespace: &str) -> Owner {
        Owner { session: "aac3178e146ba6f1fc6e6a4085e77f21".into(), namespace: namespace.into() }
    }

    fn chatter(role: Role, is_transient_local: bool, depth: u32) -> Endpoint {
        let qos = Qos { is_transient_local, depth };
        Endpoint { role, topic: "/chatter".into(), kind: Words::TYPE, qos }
    }

    #[test]
    fn keys_are_those_of_rmw_zenoh() {
        assert_eq!(
            JAZZY.key("/chatter", Words::TYPE),
            "0/chatter/std_msgs::msg::dds_::String_/\
             RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18"
        );
        assert_eq!(
            HUMBLE.key("/robot/alert/door", Classification::TYPE),
            "7/robot/alert/door/vision_msgs::msg::dds_::Classification_/TypeHashNotSupported"
        );
    }

    #[test]
    fn keys_of_the_bridge_are_names_of_topics() {
        assert_eq!(BRIDGE.key("/robot/alert/door", Classification::TYPE), "robot/alert/door");
    }

    #[test]
    fn nodes_are_known_as_in_rmw_zenoh() {
        let token = |layout: Layout, namespace: &str| layout.node_token(&owner(namespace));
        assert_eq!(
            token(JAZZY, "/").unwrap(),
            "@ros2_lv/0/aac3178e146ba6f1fc6e6a4085e77f21/0/0/NN/%/%/mobilevlmd"
        );
        assert_eq!(
            token(HUMBLE, "/robot/head").unwrap(),
            "@ros2_lv/7/aac3178e146ba6f1fc6e6a4085e77f21/0/0/NN/%/%robot%head/mobilevlmd"
        );
        assert_eq!(token(BRIDGE, "/"), None);
    }

    #[test]
    fn endpoints_are_known_as_in_rmw_zenoh() {
        assert_eq!(
            JAZZY.token(&owner("/"), 10, &chatter(Role::Publisher, false, 10)),
            "@ros2_lv/0/aac3178e146ba6f1fc6e6a4085e77f21/0/10/MP/%/%/mobilevlmd/%chatter/\
             std_msgs::msg::dds_::String_/\
             RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18/::,10:,:,:,,"
        );
        assert_eq!(
            HUMBLE.token(&owner("/robot"), 2, &chatter(Role::Subscription, true, 1)),
            "@ros2_lv/7/aac3178e146ba6f1fc6e6a4085e77f21/0/2/MS/%/%robot/mobilevlmd/%chatter/\
             std_msgs::msg::dds_::String_/TypeHashNotSupported/:1:,1:,:,:,,"
        );
    }

    #[test]
    fn endpoints_are_known_to_the_bridge() {
        assert_eq!(
            BRIDGE.token(&owner("/"), 2, &chatter(Role::Publisher, true, 1)),
            "@/aac3178e146ba6f1fc6e6a4085e77f21/@ros2_lv/MP/chatter/std_msgs\u{a7}msg\u{a7}String/:1:1:0,1"
        );
        let endpoint = Endpoint { topic: "/robot/ask".into(), ..chatter(Role::Subscription, false, 10) };
        assert_eq!(
            Layout::Bridge { release: Release::Jazzy }.token(&owner("/"), 2, &endpoint),
            "@/aac3178e146ba6f1fc6e6a4085e77f21/@ros2_lv/MS/robot\u{a7}ask/std_msgs\u{a7}msg\u{a7}String/\
             :1:0:0,10:typehash=RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18;"
        );
    }

    #[test]
    fn attachments_read_as_documented() {
        let gid = std::array::from_fn(|index| index as u8 + 0xa0);
        #[rustfmt::skip]
        let expected = [
            2, 1, 0, 0, 0, 0, 0, 0,
            0x15, 0xcd, 0x5b, 0x07, 0, 0, 0, 0,
            16,
            0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf,
        ];
        assert_eq!(attachment(258, 123_456_789, gid), expected);
    }

    #[test]
    fn ids_are_hashes_of_tokens() {
        // XXH3 of no bytes, 128 bits, low half first.
        assert_eq!(u128::from_le_bytes(gid("")), 0x99aa_06d3_0147_98d8_6001_c324_468d_497f);
        assert_ne!(gid("a"), gid("b"));
    }
}
