//! Nodes of ROS 2: the bytes, keys and tokens they know, as others make them.

use mobilevlmd::config::{BusConfig, Ros2Config};
use mobilevlmd::ros::cdr::{self, Bytes, Text};
use mobilevlmd::ros::message::{
    Classification, CompressedImage, DiagnosticArray, DiagnosticStatus, Header, Image, KeyValue,
    ObjectHypothesis, Time, Words,
};
use mobilevlmd::ros::{RosMessage, speech};
use serde::{Deserialize, Serialize};

use super::fake::{CAMERA, DEVICE, Daemon, free_endpoint};
use super::python;
use crate::allocation;
use crate::hostile::mutations::{Numbers, damaged};

/// Damages of each message.
const ROUNDS: usize = 20_000;

fn served(ros2: Ros2Config, layout: &str) {
    let endpoint = free_endpoint();
    let config = BusConfig { listen: vec![endpoint.clone()], ..BusConfig::default() };
    let ros2 = Ros2Config { domain_id: 7, frame_id: "{camera}_optical".into(), ..ros2 };
    let daemon = Daemon::with_ros(config, ros2, endpoint, 3);
    python::run(&["bus/ros_node.py", &daemon.endpoint, layout, DEVICE, CAMERA]);
    daemon.stop();
}

#[test]
fn nodes_with_rmw_zenoh_are_served() {
    served(Ros2Config { rmw_zenoh: "jazzy".into(), ..Ros2Config::default() }, "jazzy");
}

#[test]
fn nodes_of_humble_are_served_beside_a_bridge() {
    let ros2 = Ros2Config { rmw_zenoh: "humble".into(), bridge: "humble".into(), ..Ros2Config::default() };
    served(ros2, "humble");
}

#[test]
fn nodes_behind_a_bridge_are_served() {
    served(Ros2Config { bridge: "jazzy".into(), ..Ros2Config::default() }, "bridge");
}

/// A message and how it is read.
struct Sample {
    bytes: Vec<u8>,
    /// Reads any bytes as this type and, if they are such a message, writes it again.
    again: fn(&[u8]) -> Option<Vec<u8>>,
}

fn again<'a, M: RosMessage + Serialize + Deserialize<'a>>(bytes: &'a [u8]) -> Option<Vec<u8>> {
    cdr::decode::<M>(bytes).ok().map(|message| cdr::encode(&message))
}

/// The same in `ros_messages.py`, in the same order.
fn samples() -> Vec<Sample> {
    let header =
        Header { stamp: Time { sec: 1_700_000_000, nanosec: 5 }, frame_id: Text::new("front_optical") };
    let early = Header { stamp: Time { sec: -1, nanosec: 999_999_999 }, frame_id: Text::default() };
    let words = |text| Sample {
        bytes: cdr::encode(&Words { data: Text::new(text) }),
        again: |bytes| again::<Words<'_>>(bytes),
    };
    let image = Image {
        header: header.clone(),
        height: 1,
        width: 2,
        encoding: Text::new("rgb8"),
        is_bigendian: 0,
        step: 6,
        data: Bytes(&[0, 1, 2, 3, 4, 5]),
    };
    let compressed =
        CompressedImage { header: early.clone(), format: Text::new("jpeg"), data: Bytes(&[255, 216, 0]) };
    let hypothesis = |class_id, score| ObjectHypothesis { class_id: Text::new(class_id), score };
    let classification = |header: &Header<'static>, results| Sample {
        bytes: cdr::encode(&Classification { header: header.clone(), results }),
        again: |bytes| again::<Classification<'_>>(bytes),
    };
    let pair = |key, value| KeyValue { key: Text::new(key), value: Text::new(value) };
    let status = DiagnosticStatus {
        level: 0,
        name: Text::new("front"),
        message: Text::new("A red box."),
        hardware_id: Text::new("robot-1"),
        values: vec![pair("sequence", "7"), pair("", "")],
    };
    let failed = DiagnosticStatus { level: 2, ..DiagnosticStatus::default() };
    let diagnostics = DiagnosticArray { header: header.clone(), status: vec![status, failed] };
    vec![
        words(""),
        words("A red box moves."),
        words("\u{fc}ber \u{2603}"),
        Sample { bytes: cdr::encode(&image), again: |bytes| again::<Image<'_>>(bytes) },
        Sample { bytes: cdr::encode(&compressed), again: |bytes| again::<CompressedImage<'_>>(bytes) },
        classification(&header, vec![hypothesis("door", 0.75), hypothesis("", -1.5)]),
        classification(&early, Vec::new()),
        Sample { bytes: cdr::encode(&diagnostics), again: |bytes| again::<DiagnosticArray<'_>>(bytes) },
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn others_write_and_read_the_same_bytes() {
    let samples: Vec<String> = samples().iter().map(|sample| hex(&sample.bytes)).collect();
    let mut arguments = vec!["bus/ros_cdr.py"];
    arguments.extend(samples.iter().map(String::as_str));
    let output = python::run(&arguments);
    let lines: Vec<&str> = output.lines().collect();
    let (bytes, hashes) = lines.split_at(samples.len());
    assert_eq!(bytes, samples);
    let types =
        [Words::TYPE, Image::TYPE, CompressedImage::TYPE, Classification::TYPE, DiagnosticArray::TYPE];
    assert_eq!(hashes, types.map(|kind| format!("{} {}", kind.ros_name(), kind.hash)));
}

#[test]
fn damaged_messages_are_endured() {
    for (seed, Sample { bytes, again }) in (1..).zip(samples()) {
        assert_eq!(again(&bytes).as_deref(), Some(&*bytes));
        let (mut numbers, mut accepted) = (Numbers(seed), 0);
        for _ in 0..ROUNDS {
            let foreign = damaged(&bytes, bytes.len(), &mut numbers);
            let (read, tally) = allocation::during(|| again(&foreign));
            assert!(tally.bytes <= 4096 + 32 * foreign.len(), "{tally:?} for {} bytes", foreign.len());
            if let Some(written) = read {
                accepted += 1;
                assert_eq!(again(&written).as_deref(), Some(&*written), "{}", hex(&foreign));
            }
            if let Ok((_, question)) = speech::question(&foreign) {
                question.check().expect("questions are checked when they are read");
            }
        }
        assert!(accepted < ROUNDS, "the damages miss");
    }
}
