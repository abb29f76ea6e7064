//! The message types of ROS 2 that pass through here, field by field.

use serde::{Deserialize, Serialize};

use super::cdr::{Bytes, Text};
use super::{RosMessage, RosType};

const NANOS: u64 = 1_000_000_000;

/// `builtin_interfaces/msg/Time`: since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time {
    /// Seconds.
    pub sec: i32,
    /// Nanoseconds, below a second.
    pub nanosec: u32,
}

impl Time {
    /// From nanoseconds since the Unix epoch. The type ends in 2038; later times are its last second.
    pub fn from_nanos(nanos: u64) -> Self {
        Self {
            sec: i32::try_from(nanos / NANOS).unwrap_or(i32::MAX),
            nanosec: u32::try_from(nanos % NANOS).unwrap_or(0),
        }
    }

    /// Nanoseconds since the Unix epoch; `None` before it, at zero, and if the nanoseconds are a second or more.
    pub fn nanos(self) -> Option<u64> {
        let sec = u64::try_from(self.sec).ok()?;
        let nanosec = u64::from(self.nanosec);
        (nanosec < NANOS && (sec, nanosec) != (0, 0)).then(|| sec * NANOS + nanosec)
    }
}

/// `std_msgs/msg/Header`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header<'a> {
    /// When what the message is about was the case.
    pub stamp: Time,
    /// The coordinate frame it is in.
    #[serde(borrow)]
    pub frame_id: Text<'a>,
}

/// `std_msgs/msg/String`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words<'a> {
    /// The text.
    #[serde(borrow)]
    pub data: Text<'a>,
}

impl RosMessage for Words<'_> {
    const TYPE: RosType = RosType {
        package: "std_msgs",
        name: "String",
        hash: "RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18",
    };
}

/// `sensor_msgs/msg/Image`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image<'a> {
    /// Capture time and coordinate frame.
    #[serde(borrow)]
    pub header: Header<'a>,
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
    /// How pixels are stored, such as `rgb8`.
    pub encoding: Text<'a>,
    /// 1 if numbers longer than a byte are big-endian.
    pub is_bigendian: u8,
    /// Bytes from one row to the next.
    pub step: u32,
    /// The rows.
    pub data: Bytes<'a>,
}

impl RosMessage for Image<'_> {
    const TYPE: RosType = RosType {
        package: "sensor_msgs",
        name: "Image",
        hash: "RIHS01_d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47",
    };
}

/// `sensor_msgs/msg/CompressedImage`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompressedImage<'a> {
    /// Capture time and coordinate frame.
    #[serde(borrow)]
    pub header: Header<'a>,
    /// Names the file format, such as `jpeg`, with more around it from some writers.
    pub format: Text<'a>,
    /// The file.
    pub data: Bytes<'a>,
}

impl RosMessage for CompressedImage<'_> {
    const TYPE: RosType = RosType {
        package: "sensor_msgs",
        name: "CompressedImage",
        hash: "RIHS01_15640771531571185e2efc8a100baf923961a4d15d5569652e6cb6691e8e371a",
    };
}

/// `vision_msgs/msg/ObjectHypothesis`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ObjectHypothesis<'a> {
    /// What it may be.
    #[serde(borrow)]
    pub class_id: Text<'a>,
    /// How likely it is, from 0 to 1.
    pub score: f64,
}

/// `vision_msgs/msg/Classification`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Classification<'a> {
    /// Capture time and coordinate frame of the picture.
    #[serde(borrow)]
    pub header: Header<'a>,
    /// What the picture may show.
    pub results: Vec<ObjectHypothesis<'a>>,
}

impl RosMessage for Classification<'_> {
    const TYPE: RosType = RosType {
        package: "vision_msgs",
        name: "Classification",
        hash: "RIHS01_f74db28d0eaef3afb78f48bf2161cd709a1383a0309d3454383b25be11345143",
    };
}

/// `diagnostic_msgs/msg/KeyValue`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue<'a> {
    /// What it is.
    #[serde(borrow)]
    pub key: Text<'a>,
    /// Its value, as text.
    pub value: Text<'a>,
}

/// `diagnostic_msgs/msg/DiagnosticStatus`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiagnosticStatus<'a> {
    /// 0 is well.
    pub level: u8,
    /// What the message is about.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// The text.
    pub message: Text<'a>,
    /// Whose it is.
    pub hardware_id: Text<'a>,
    /// More about it.
    pub values: Vec<KeyValue<'a>>,
}

/// `diagnostic_msgs/msg/DiagnosticArray`: of the types that every ROS 2 installation has, the one with a
/// header, a text, and room for names and values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiagnosticArray<'a> {
    /// Capture time and coordinate frame.
    #[serde(borrow)]
    pub header: Header<'a>,
    /// The texts.
    pub status: Vec<DiagnosticStatus<'a>>,
}

impl RosMessage for DiagnosticArray<'_> {
    const TYPE: RosType = RosType {
        package: "diagnostic_msgs",
        name: "DiagnosticArray",
        hash: "RIHS01_5a8a36efb05fb25070fa0fb3810290c0e6cd4862b54a8fb975a1ee8dc55a333e",
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_nanoseconds() {
        for nanos in [1, 999_999_999, NANOS, 1_790_000_000_123_456_789] {
            assert_eq!(Time::from_nanos(nanos).nanos(), Some(nanos));
        }
        assert_eq!(Time::from_nanos(u64::MAX).sec, i32::MAX);
        for time in [Time::default(), Time { sec: -1, nanosec: 0 }, Time { sec: 1, nanosec: 1_000_000_000 }] {
            assert_eq!(time.nanos(), None, "{time:?}");
        }
    }
}
