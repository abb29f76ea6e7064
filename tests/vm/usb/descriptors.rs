//! What the camera tells the host of itself, by the USB Video Class 1.0: MJPEG and YUYV pictures of one
//! size at three rates through a bulk endpoint.

use std::time::Duration;

use crate::link::Completion;

/// Pixels across and down.
pub(crate) const WIDTH: u16 = 320;
pub(crate) const HEIGHT: u16 = 240;

/// Bytes of a transfer at most, its header included.
pub(crate) const PAYLOAD: usize = 16384;

/// Times from frame to frame in units of 100 ns.
const INTERVALS: [u32; 3] = [333_333, 666_666, 1_000_000];

/// Bytes of an uncompressed picture.
const PICTURE: u32 = WIDTH as u32 * HEIGHT as u32 * 2;

/// The camera's formats, by their numbers in the descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Number 1.
    Mjpeg,
    /// Number 2.
    Yuyv,
}

/// The settings that host and camera agree on before frames are sent, as they are sent.
pub(crate) struct Probe([u8; 26]);

impl Default for Probe {
    fn default() -> Self {
        let mut probe = Self([0; 26]);
        probe.settle();
        probe
    }
}

impl Probe {
    /// Makes the host's wishes possible.
    fn settle(&mut self) {
        let bytes = &mut self.0;
        bytes[2] = bytes[2].clamp(1, 2);
        bytes[3] = 1;
        let wanted = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let interval = INTERVALS.into_iter().find(|interval| *interval >= wanted).unwrap_or(INTERVALS[2]);
        bytes[4..8].copy_from_slice(&interval.to_le_bytes());
        bytes[18..22].copy_from_slice(&PICTURE.to_le_bytes());
        bytes[22..26].copy_from_slice(&(PAYLOAD as u32).to_le_bytes());
    }

    /// The format in force.
    pub(crate) fn format(&self) -> Format {
        if self.0[2] == 1 { Format::Mjpeg } else { Format::Yuyv }
    }

    /// The time from frame to frame.
    pub(crate) fn interval(&self) -> Duration {
        let bytes = &self.0;
        Duration::from_nanos(100 * u64::from(u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]])))
    }
}

/// Whether the host ends the stream: it clears the halt of the bulk endpoint.
pub(crate) fn is_stream_stop(setup: &[u8; 8]) -> bool {
    (setup[0], setup[1]) == (0x02, 1)
}

/// Answers a control request: eight bytes that say what is wanted, and bytes sent along.
pub(crate) fn control(setup: &[u8; 8], data: &[u8], probe: &mut Probe, serial: &str) -> Completion {
    let [kind, request, low, high, index, _, ..] = *setup;
    let length = usize::from(u16::from_le_bytes([setup[6], setup[7]]));
    let answer = match (kind, request) {
        // Standard requests: descriptors, status, configuration.
        (0x80, 6) => match high {
            1 => DEVICE.to_vec(),
            2 => configuration(),
            3 if low == 0 => vec![4, 3, 9, 4],
            3 => string(["Example", "Virtual USB camera", serial][usize::from(low - 1).min(2)]),
            _ => return Completion::Refused,
        },
        (0x80..=0x82, 0) => vec![0, 0],
        (0x80, 8) => vec![1],
        (0x00..=0x02, _) => return Completion::Sent(data.len()),
        // Class requests to the streaming interface: set, and get the current, least, most and default values.
        (0x21, 1) if index == 1 => {
            let wanted = data.len().min(26);
            probe.0[..wanted].copy_from_slice(&data[..wanted]);
            probe.settle();
            return Completion::Sent(data.len());
        }
        (0xa1, 0x81..=0x83 | 0x87) if index == 1 => probe.0.to_vec(),
        (0xa1, 0x85) => vec![26, 0],
        (0xa1, 0x86) => vec![3],
        _ => return Completion::Refused,
    };
    Completion::Answer(answer[..answer.len().min(length)].to_vec())
}

const DEVICE: [u8; 18] = [18, 1, 0, 2, 0xef, 2, 1, 64, 0x09, 0x12, 1, 0, 0, 1, 1, 2, 3, 1];

/// A descriptor: its length and its content.
fn descriptor(parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    [&[content.len() as u8 + 1], &content[..]].concat()
}

fn configuration() -> Vec<u8> {
    let body = [
        // The two interfaces belong together.
        descriptor(&[&[0x0b, 0, 2, 0x0e, 3, 0, 0]]),
        descriptor(&[&[4, 0, 0, 0, 0x0e, 1, 0, 0]]),
        video_control(),
        descriptor(&[&[4, 1, 0, 1, 0x0e, 2, 0, 0]]),
        video_streaming(),
        // Bulk, to the host, 512 bytes a packet.
        descriptor(&[&[5, 0x81, 2, 0, 2, 0]]),
    ]
    .concat();
    let total = (body.len() as u16 + 9).to_le_bytes();
    [descriptor(&[&[2], &total, &[2, 1, 0, 0x80, 50]]), body].concat()
}

/// The camera as a chain of an input and an output.
fn video_control() -> Vec<u8> {
    let input = descriptor(&[&[0x24, 2, 1, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0]]);
    let output = descriptor(&[&[0x24, 3, 2, 1, 1, 0, 1, 0]]);
    let total = (13 + input.len() as u16 + output.len() as u16).to_le_bytes();
    let clock = 48_000_000u32.to_le_bytes();
    [descriptor(&[&[0x24, 1, 0, 1], &total, &clock, &[1, 1]]), input, output].concat()
}

/// Formats, sizes and rates.
fn video_streaming() -> Vec<u8> {
    const COLOUR: &[u8] = &[0x24, 0x0d, 1, 1, 4];
    const YUY2: &[u8] = b"YUY2\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71";
    let formats = [
        descriptor(&[&[0x24, 6, 1, 1, 1, 1, 0, 0, 0, 0]]),
        frame(7),
        descriptor(&[COLOUR]),
        descriptor(&[&[0x24, 4, 2, 1], YUY2, &[16, 1, 0, 0, 0, 0]]),
        frame(5),
        descriptor(&[COLOUR]),
    ]
    .concat();
    let total = (15 + formats.len() as u16).to_le_bytes();
    [descriptor(&[&[0x24, 1, 2], &total, &[0x81, 0, 2, 0, 0, 0, 1, 0, 0]]), formats].concat()
}

/// The size and the rates of a format.
fn frame(kind: u8) -> Vec<u8> {
    let rates = [5u32, 30].map(|fps| (PICTURE * 8 * fps).to_le_bytes());
    let intervals = INTERVALS.map(u32::to_le_bytes);
    let size = [WIDTH.to_le_bytes(), HEIGHT.to_le_bytes()];
    descriptor(&[
        &[0x24, kind, 1, 0],
        size.as_flattened(),
        rates.as_flattened(),
        &PICTURE.to_le_bytes(),
        &intervals[0],
        &[INTERVALS.len() as u8],
        intervals.as_flattened(),
    ])
}

fn string(text: &str) -> Vec<u8> {
    let units: Vec<_> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    descriptor(&[&[3], &units])
}
