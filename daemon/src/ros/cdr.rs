//! CDR, the encoding of all ROS 2 messages: four bytes that name the encoding, then the fields in order.
//!
//! Messages are written little-endian and read in both byte orders. Text and bytes are borrowed
//! from what is read, so that reading allocates for sequences of messages alone, and for those only
//! as far as the bytes reach.

use std::borrow::Cow;
use std::fmt;

use byteorder::{BigEndian, LittleEndian};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::RosMessage;

/// Plain CDR, little-endian, no options.
const LITTLE_ENDIAN: [u8; 4] = [0, 1, 0, 0];

/// Bytes by which some writers fill the message up to a multiple of four.
const FILL: usize = 3;

/// Longest reason quoted in an error, in characters.
const REASON: usize = 200;

/// Why bytes are not the message they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CdrError {
    /// Not even the four bytes in front.
    #[error("{name}: {got} bytes are no CDR message; the first four name the encoding")]
    NoHeader {
        /// The type.
        name: String,
        /// How many bytes there are.
        got: usize,
    },
    /// Another encoding.
    #[error(
        "{name}: the encoding {id:#06x} is not plain CDR; send 0x0000 (big-endian) or 0x0001 (little-endian)"
    )]
    Encoding {
        /// The type.
        name: String,
        /// What the first two bytes name.
        id: u16,
    },
    /// The bytes end inside a field.
    #[error("{name}: cut short: {got} bytes end inside a field")]
    CutShort {
        /// The type.
        name: String,
        /// How many bytes there are.
        got: usize,
    },
    /// Bytes behind the last field.
    #[error("{name}: {rest} bytes are left over behind the last field; it may be another type")]
    LeftOver {
        /// The type.
        name: String,
        /// How many.
        rest: usize,
    },
    /// A field cannot be.
    #[error("{name}: {reason}")]
    Malformed {
        /// The type.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

/// The bytes of a message, the encoding in front.
pub fn encode<M: RosMessage + Serialize>(message: &M) -> Vec<u8> {
    let mut bytes = LITTLE_ENDIAN.to_vec();
    // The writer fails only on what no message has: sequences of unknown length.
    cdr_encoding::to_writer::<M, LittleEndian, _>(&mut bytes, message)
        .expect("every message can be written as CDR");
    bytes
}

/// The message in some bytes, which may come from anywhere.
///
/// Errors: another encoding, not this message, or bytes left over.
pub fn decode<'a, M: RosMessage + Deserialize<'a>>(bytes: &'a [u8]) -> Result<M, CdrError> {
    let name = || M::TYPE.ros_name();
    let got = bytes.len();
    let Some(([high, low, _, _], fields)) = bytes.split_first_chunk() else {
        return Err(CdrError::NoHeader { name: name(), got });
    };
    let read = match u16::from_be_bytes([*high, *low]) {
        0 => cdr_encoding::from_bytes::<M, BigEndian>(fields),
        1 => cdr_encoding::from_bytes::<M, LittleEndian>(fields),
        id => return Err(CdrError::Encoding { name: name(), id }),
    };
    let (message, used) = read.map_err(|error| match error {
        cdr_encoding::Error::Eof => CdrError::CutShort { name: name(), got },
        error => {
            CdrError::Malformed { name: name(), reason: error.to_string().chars().take(REASON).collect() }
        }
    })?;
    let rest = fields.len().saturating_sub(used);
    let is_fill = rest <= FILL && fields.len().is_multiple_of(4);
    if rest > 0 && !is_fill {
        return Err(CdrError::LeftOver { name: name(), rest });
    }
    Ok(message)
}

/// Text. On the wire its length counts the NUL at its end, and inside there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text<'a>(Cow<'a, str>);

impl<'a> Text<'a> {
    /// Text to send; a NUL inside becomes U+FFFD, because readers in C end there.
    pub fn new(text: &'a str) -> Self {
        if text.contains('\0') {
            return Self(text.replace('\0', "\u{fffd}").into());
        }
        Self(text.into())
    }

    /// What it says.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self(if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }.into())
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A string and a sequence of bytes begin alike; read as bytes it can be borrowed.
        deserializer.deserialize_bytes(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text with a NUL at its end")
    }

    fn visit_borrowed_bytes<E: de::Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        let text = match bytes.split_last() {
            // Some writers leave the NUL of an empty text away.
            None => bytes,
            Some((0, text)) => text,
            Some(_) => return Err(E::custom("a text has no NUL at its end")),
        };
        if text.contains(&0) {
            return Err(E::custom("a text has a NUL inside"));
        }
        let text = std::str::from_utf8(text).map_err(|error| E::custom(format!("a text: {error}")))?;
        Ok(Text(text.into()))
    }
}

/// A sequence of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Bytes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ros::message::{
        Classification, CompressedImage, Header, Image, ObjectHypothesis, Time, Words,
    };

    const HELLO: [u8; 14] = [0, 1, 0, 0, 6, 0, 0, 0, b'h', b'e', b'l', b'l', b'o', 0];

    fn words(bytes: &[u8]) -> Result<Words<'_>, CdrError> {
        decode(bytes)
    }

    #[test]
    fn a_text_reads_as_documented() {
        let message = Words { data: Text::new("hello") };
        assert_eq!(encode(&message), HELLO);
        assert_eq!(words(&HELLO).unwrap(), message);
        assert!(matches!(words(&HELLO).unwrap().data.0, Cow::Borrowed(_)));
        let empty = [0, 1, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(encode(&Words::default()), empty);
        for empty in [&empty[..], &[0, 1, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(words(empty).unwrap(), Words::default());
        }
    }

    #[test]
    fn fields_are_aligned_from_behind_the_header() {
        let classification = Classification {
            header: Header { stamp: Time { sec: 1, nanosec: 2 }, frame_id: Text::new("f") },
            results: vec![ObjectHypothesis { class_id: Text::new("abc"), score: 0.5 }],
        };
        #[rustfmt::skip]
        let bytes = [
            0, 1, 0, 0,
            1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, b'f', 0, 0, 0,
            1, 0, 0, 0, 4, 0, 0, 0, b'a', b'b', b'c', 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0xe0, 0x3f,
        ];
        assert_eq!(encode(&classification), bytes);
        assert_eq!(decode::<Classification<'_>>(&bytes).unwrap(), classification);
    }

    #[test]
    fn pictures_are_borrowed() {
        let pixels = [1, 2, 3, 4, 5, 6];
        let image = Image {
            header: Header { stamp: Time { sec: -1, nanosec: 7 }, frame_id: Text::new("camera") },
            height: 1,
            width: 2,
            encoding: Text::new("rgb8"),
            is_bigendian: 0,
            step: 6,
            data: Bytes(&pixels),
        };
        let bytes = encode(&image);
        let read: Image<'_> = decode(&bytes).unwrap();
        assert_eq!(read, image);
        assert!(bytes.as_ptr_range().contains(&read.data.0.as_ptr()));
        let compressed =
            CompressedImage { format: Text::new("jpeg"), data: Bytes(&pixels), ..Default::default() };
        assert_eq!(decode::<CompressedImage<'_>>(&encode(&compressed)).unwrap(), compressed);
    }

    #[test]
    fn big_endian_is_read() {
        let bytes = [0, 0, 0, 0, 0, 0, 0, 3, b'o', b'k', 0];
        assert_eq!(words(&bytes).unwrap().data.as_str(), "ok");
    }

    #[test]
    fn a_message_may_be_filled_up_to_four_bytes() {
        let filled = [&HELLO[..], &[0, 0]].concat();
        assert_eq!(words(&filled).unwrap().data.as_str(), "hello");
        for rest in [1, 3, 4, 6] {
            let bytes = [&HELLO[..], &vec![0; rest]].concat();
            assert!(
                matches!(words(&bytes), Err(CdrError::LeftOver { rest: got, .. }) if got == rest),
                "{rest}"
            );
        }
    }

    #[test]
    fn foreign_bytes_are_refused() {
        for end in 0..HELLO.len() {
            let error = words(&HELLO[..end]).unwrap_err();
            let is_named = match end {
                0..4 => matches!(error, CdrError::NoHeader { .. }),
                _ => matches!(error, CdrError::CutShort { .. }),
            };
            assert!(is_named, "{end}: {error}");
        }
        let changed = |at: usize, value: u8| {
            let mut bytes = HELLO;
            bytes[at] = value;
            words(&bytes).unwrap_err()
        };
        assert!(matches!(changed(1, 3), CdrError::Encoding { id: 3, .. }));
        assert!(matches!(changed(0, 1), CdrError::Encoding { id: 0x101, .. }));
        assert!(matches!(changed(7, 0xff), CdrError::CutShort { .. }));
        for (at, value) in [(13, b'!'), (9, 0), (9, 0xff)] {
            assert!(matches!(changed(at, value), CdrError::Malformed { .. }), "{at}");
        }
    }

    #[test]
    fn a_sequence_that_claims_too_much_is_refused() {
        let header = [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        let bytes = [&header[..], &u32::MAX.to_le_bytes(), &[0; 64]].concat();
        assert!(matches!(decode::<Classification<'_>>(&bytes), Err(CdrError::CutShort { .. })));
    }

    #[test]
    fn nul_never_goes_out() {
        assert_eq!(Text::new("a\0b").as_str(), "a\u{fffd}b");
        assert_eq!(Text::from("a\0b".to_string()).as_str(), "a\u{fffd}b");
    }
}
