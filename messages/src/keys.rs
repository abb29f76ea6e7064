//! Every key expression of the bus: [`Key`] formats and parses them.
//!
//! | key | kind | content |
//! | --- | --- | --- |
//! | `mobilevlm/<device>/camera/<name>/caption` | publication | [`Caption`](crate::Caption) |
//! | `mobilevlm/<device>/camera/<name>/caption/partial` | publication | [`CaptionPiece`](crate::CaptionPiece) |
//! | `mobilevlm/<device>/camera/<name>/ask` | queryable | [`Question`](crate::Question) in, [`AnswerPiece`](crate::AnswerPiece)s out |
//! | `mobilevlm/<device>/camera/<name>/frame` | queryable | JPEG, the [`FrameStamp`](crate::FrameStamp) as JSON in the attachment; `?sequence=N` asks for a frame still held |
//! | `mobilevlm/<device>/camera/<name>/frame` | publication, if configured | the same JPEG and attachment, some times a second |
//! | `mobilevlm/<device>/camera/<name>/frame/raw` | publication, if configured | the frame as captured: `sensor_msgs/Image` in CDR, or JPEG; the same attachment |
//! | `mobilevlm/<device>/camera/<name>/state` | publication, queryable | [`CameraState`](crate::CameraState) |
//! | `mobilevlm/<device>/alert/<rule>` | publication | [`Alert`](crate::Alert) |
//! | `mobilevlm/<device>/status` | publication, queryable | [`Status`](crate::Status) |
//! | `mobilevlm/<device>/control/rules` | queryable, publication | [`RuleChange`](crate::RuleChange) in, [`Rules`](crate::Rules) out |
//! | `mobilevlm/<device>/control/captions` | queryable, publication | [`CaptionChange`](crate::CaptionChange) in, [`CaptionSettings`](crate::CaptionSettings) out |
//! | `mobilevlm/<device>/control/sessions` | queryable | [`SessionChange`](crate::SessionChange) in, [`SessionList`](crate::SessionList) out |
//! | `mobilevlm/<device>/alive` | liveliness token, queryable | [`Holder`](crate::Holder) |
//!
//! Publications, and the queryables of the same keys, have a JSON twin under `<key>/json`. Queries
//! that fail get an [`AskError`](crate::AskError) as JSON in an error reply.
//!
//! ```
//! use messages::keys::{Key, Name, Topic};
//! let key = Key::new(Name::any(), Topic::Caption(Name::new("front")?));
//! assert_eq!(key.json().to_string(), "mobilevlm/*/camera/front/caption/json");
//! # Ok::<(), messages::keys::NameError>(())
//! ```

use std::fmt;
use std::str::FromStr;

/// First part of every key.
pub const ROOT: &str = "mobilevlm";

/// Longest name of a device, camera or rule, in bytes.
const NAME_BYTES: usize = 64;

/// The part of a key that a user names: device, camera, rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

/// Why a text cannot be a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No characters.
    #[error("a name must not be empty")]
    Empty,
    /// Over 64 bytes.
    #[error("the name \"{start}...\" has {got} bytes, at most {NAME_BYTES} are allowed")]
    Long {
        /// Its beginning.
        start: String,
        /// Its length in bytes.
        got: usize,
    },
    /// A character with a meaning in key expressions.
    #[error("the name \"{name}\" has {character:?}; use letters, digits, '-', '_' and '.'")]
    Character {
        /// The name.
        name: String,
        /// What is not allowed.
        character: char,
    },
    /// `@` in front is zenoh's own.
    #[error("the name \"{0}\" begins with '@', which zenoh keeps for itself")]
    At(String),
}

impl Name {
    /// Checks a name: 1 to 64 bytes without `/ * $ # ?`, white space or control characters, and
    /// no `@` in front.
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        let forbidden =
            |c: char| matches!(c, '/' | '*' | '$' | '#' | '?') || c.is_whitespace() || c.is_control();
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > NAME_BYTES {
            let start = name[..name.floor_char_boundary(NAME_BYTES / 2)].into();
            return Err(NameError::Long { start, got: name.len() });
        }
        if let Some(character) = name.chars().find(|&c| forbidden(c)) {
            return Err(NameError::Character { name, character });
        }
        if name.starts_with('@') {
            return Err(NameError::At(name));
        }
        Ok(Self(name))
    }

    /// Stands for every name, in keys to subscribe to or to query.
    pub fn any() -> Self {
        Self("*".into())
    }

    /// Whether this is [`Name::any`].
    pub fn is_any(&self) -> bool {
        self.0 == "*"
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A part of a key: a name or the wildcard.
    fn part(part: &str) -> Result<Self, NameError> {
        if part == "*" { Ok(Self::any()) } else { Self::new(part) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

/// What a key is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Captions of a camera.
    Caption(Name),
    /// Captions of a camera while they are written.
    CaptionPartial(Name),
    /// Questions to a camera.
    Ask(Name),
    /// Pictures of a camera.
    Frame(Name),
    /// Frames of a camera as captured.
    FrameRaw(Name),
    /// State of a camera.
    State(Name),
    /// Alerts of a rule.
    Alert(Name),
    /// The daemon.
    Status,
    /// Changes while running.
    Control(Name),
    /// The daemon is there.
    Alive,
}

/// One key expression.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Whose it is.
    pub device: Name,
    /// What it is about.
    pub topic: Topic,
    /// Whether it is the JSON twin.
    pub json: bool,
}

/// The text is no key of this program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Another program's key, or none of the table above.
    #[error("\"{0}\" is not a key of {ROOT}")]
    Unknown(String),
    /// A name in it cannot be.
    #[error("in the key \"{key}\": {error}")]
    Name {
        /// The key.
        key: String,
        /// What is wrong with the name.
        error: NameError,
    },
}

impl Topic {
    /// Whether results are also published as JSON under `<key>/json`.
    fn has_twin(&self) -> bool {
        match self {
            Self::Ask(_) | Self::Frame(_) | Self::FrameRaw(_) | Self::Alive => false,
            Self::Caption(_) | Self::CaptionPartial(_) | Self::State(_) => true,
            Self::Alert(_) | Self::Control(_) | Self::Status => true,
        }
    }

    /// Reads the parts behind the device.
    fn parse(parts: &[&str]) -> Result<Option<Self>, NameError> {
        Ok(Some(match parts {
            ["camera", name, "caption"] => Self::Caption(Name::part(name)?),
            ["camera", name, "caption", "partial"] => Self::CaptionPartial(Name::part(name)?),
            ["camera", name, "ask"] => Self::Ask(Name::part(name)?),
            ["camera", name, "frame"] => Self::Frame(Name::part(name)?),
            ["camera", name, "frame", "raw"] => Self::FrameRaw(Name::part(name)?),
            ["camera", name, "state"] => Self::State(Name::part(name)?),
            ["alert", name] => Self::Alert(Name::part(name)?),
            ["status"] => Self::Status,
            ["control", name] => Self::Control(Name::part(name)?),
            ["alive"] => Self::Alive,
            _ => return Ok(None),
        }))
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caption(name) => write!(f, "camera/{name}/caption"),
            Self::CaptionPartial(name) => write!(f, "camera/{name}/caption/partial"),
            Self::Ask(name) => write!(f, "camera/{name}/ask"),
            Self::Frame(name) => write!(f, "camera/{name}/frame"),
            Self::FrameRaw(name) => write!(f, "camera/{name}/frame/raw"),
            Self::State(name) => write!(f, "camera/{name}/state"),
            Self::Alert(name) => write!(f, "alert/{name}"),
            Self::Status => f.write_str("status"),
            Self::Control(name) => write!(f, "control/{name}"),
            Self::Alive => f.write_str("alive"),
        }
    }
}

impl Key {
    /// The key of a topic.
    pub fn new(device: Name, topic: Topic) -> Self {
        Self { device, topic, json: false }
    }

    /// The key of the JSON twin; itself where there is none.
    pub fn json(self) -> Self {
        Self { json: self.topic.has_twin(), ..self }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ROOT}/{}/{}{}", self.device, self.topic, if self.json { "/json" } else { "" })
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(key: &str) -> Result<Self, KeyError> {
        let unknown = || KeyError::Unknown(key.chars().take(200).collect());
        let named = |error| KeyError::Name { key: key.chars().take(200).collect(), error };
        let parts: Vec<&str> = key.split('/').take(8).collect();
        let [ROOT, device, rest @ ..] = parts.as_slice() else { return Err(unknown()) };
        let device = Name::part(device).map_err(named)?;
        if let Some(topic) = Topic::parse(rest).map_err(named)? {
            return Ok(Self::new(device, topic));
        }
        if let Some(("json", rest)) = rest.split_last().map(|(last, rest)| (*last, rest))
            && let Some(topic) = Topic::parse(rest).map_err(named)?
            && topic.has_twin()
        {
            return Ok(Self { device, topic, json: true });
        }
        Err(unknown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(name: &Name) -> Vec<Topic> {
        let with_name = [
            Topic::Caption,
            Topic::CaptionPartial,
            Topic::Ask,
            Topic::Frame,
            Topic::FrameRaw,
            Topic::State,
            Topic::Alert,
            Topic::Control,
        ];
        let mut topics: Vec<Topic> = with_name.iter().map(|topic| topic(name.clone())).collect();
        topics.extend([Topic::Status, Topic::Alive]);
        topics
    }

    #[test]
    fn every_key_survives_format_and_parse() {
        for (device, name) in [("robot-1", "front"), ("a.b", "json"), ("camera", "caption"), ("*", "*")] {
            let name = Name::part(name).unwrap();
            for topic in topics(&name) {
                let key = Key::new(Name::part(device).unwrap(), topic);
                for key in [key.clone(), key.json()] {
                    assert_eq!(key.to_string().parse(), Ok(key));
                }
            }
        }
    }

    #[test]
    fn keys_read_as_documented() {
        let keys: Vec<String> = topics(&Name::new("n").unwrap())
            .into_iter()
            .map(|topic| Key::new(Name::new("d").unwrap(), topic).json().to_string())
            .collect();
        let expected = [
            "mobilevlm/d/camera/n/caption/json",
            "mobilevlm/d/camera/n/caption/partial/json",
            "mobilevlm/d/camera/n/ask",
            "mobilevlm/d/camera/n/frame",
            "mobilevlm/d/camera/n/frame/raw",
            "mobilevlm/d/camera/n/state/json",
            "mobilevlm/d/alert/n/json",
            "mobilevlm/d/control/n/json",
            "mobilevlm/d/status/json",
            "mobilevlm/d/alive",
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn foreign_keys_are_refused() {
        for key in [
            "",
            "mobilevlm",
            "mobilevlm/d",
            "other/d/status",
            "mobilevlm/d/camera/n",
            "mobilevlm/d/alive/json",
        ] {
            assert_eq!(key.parse::<Key>(), Err(KeyError::Unknown(key.into())));
        }
        assert!(matches!(
            "mobilevlm//status".parse::<Key>(),
            Err(KeyError::Name { error: NameError::Empty, .. })
        ));
        let long = format!("mobilevlm/d/{}", "x/".repeat(100_000));
        assert!(long.parse::<Key>().unwrap_err().to_string().len() < 300);
    }

    #[test]
    fn names_cannot_change_a_key() {
        for good in ["front", "robot-1.local", "a@b", "\u{fc}ber", &"x".repeat(64)] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        assert_eq!(Name::new(""), Err(NameError::Empty));
        assert_eq!(Name::new("@adm"), Err(NameError::At("@adm".into())));
        assert_eq!(
            Name::new("\u{fc}".repeat(33)).unwrap_err(),
            NameError::Long { start: "\u{fc}".repeat(16), got: 66 }
        );
        for bad in ["a/b", "*", "a*", "$", "a#", "a?b", "a b", "a\n"] {
            assert!(matches!(Name::new(bad), Err(NameError::Character { .. })), "{bad:?}");
        }
    }
}
