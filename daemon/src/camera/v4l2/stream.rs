//! A running capture: a ring of buffers shared with the driver.

use std::io;
use std::time::{Duration, Instant};

use super::device::{Device, Filled, Format, Kind, Ready};
use super::fourcc::{FourCc, understood};
use super::mapping::Mapping;
use super::negotiate::{Mode, Rate};
use crate::camera::frame::{Frame, PixelFormat, check_size};
use crate::camera::source::{Delivery, SourceError};
use crate::wall_clock;

/// Buffers of the ring. The driver fills one while another is copied; two more bridge a pause of
/// this thread.
const BUFFERS: u32 = 4;

/// A running capture.
pub(super) struct Stream {
    device: Device,
    kind: Kind,
    format: Format,
    layout: PixelFormat,
    rate: Option<Rate>,
    /// The planes of each buffer.
    buffers: Vec<Vec<Mapping>>,
    clock: Clock,
    last_sequence: Option<u32>,
}

impl Stream {
    /// Sets the mode, maps the buffers and starts.
    pub(super) fn start(device: Device, kind: Kind, mode: Mode) -> Result<Self, SourceError> {
        let path = device.path().to_owned();
        let failed = |what| move |error| SourceError::io(&path.clone(), what, error);
        let format = device.set_format(kind, mode.fourcc, mode.size).map_err(failed.clone()("set format"))?;
        let layout = check(&format).map_err(failed.clone()("set format"))?;
        let rate = match mode.rate {
            Some(rate) => device.set_rate(kind, rate).map_err(failed.clone()("set rate"))?,
            None => None,
        };
        let count = device.request_buffers(kind, BUFFERS).map_err(failed.clone()("request buffers"))?;
        let buffers = map_buffers(&device, kind, count).map_err(failed.clone()("map buffers"))?;
        let mut stream =
            Self { device, kind, format, layout, rate, buffers, clock: Clock::now(), last_sequence: None };
        for index in 0..count {
            stream.device.queue(kind, index).map_err(failed.clone()("queue buffer"))?;
        }
        stream.device.stream_on(kind).map_err(failed("start streaming"))?;
        stream.clock = Clock::now();
        Ok(stream)
    }

    /// Format by name.
    pub(super) fn fourcc(&self) -> FourCc {
        self.format.fourcc
    }

    /// Pixels across and down.
    pub(super) fn size(&self) -> (u32, u32) {
        self.format.size
    }

    /// The rate in force, if the driver tells.
    pub(super) fn rate(&self) -> Option<Rate> {
        self.rate.filter(|rate| rate.fps() > 0.0)
    }

    /// Waits at most `wait` for a frame.
    pub(super) fn next_frame(&mut self, frame: &mut Frame, wait: Duration) -> Result<Delivery, SourceError> {
        let failed = |what, error| SourceError::io(self.device.path(), what, error);
        if self.device.poll(wait).map_err(|error| failed("wait for a frame", error))? == Ready::No {
            return Ok(Delivery::Nothing);
        }
        let filled = self.device.dequeue(self.kind).map_err(|error| failed("take a frame", error))?;
        let Some(filled) = filled else {
            return Ok(Delivery::Nothing);
        };
        let planes = self.buffers.get(filled.index as usize).ok_or_else(|| {
            failed("take a frame", io::Error::other("the driver named a buffer that does not exist"))
        })?;
        if !filled.is_damaged {
            self.fill(frame, &filled, planes);
        }
        self.device.queue(self.kind, filled.index).map_err(|error| failed("return a buffer", error))?;
        let lost = self.gap(filled.sequence);
        if filled.is_damaged {
            return Ok(Delivery::Damaged("the driver marked the frame as damaged".into()));
        }
        Ok(Delivery::Frame { lost })
    }

    /// Copies a filled buffer.
    fn fill(&self, frame: &mut Frame, filled: &Filled, planes: &[Mapping]) {
        (frame.captured, frame.captured_at) = self.clock.at(filled.monotonic);
        (frame.width, frame.height) = self.format.size;
        (frame.format, frame.color) = (self.layout, self.format.color);
        frame.stride = if self.layout == PixelFormat::Mjpeg { 0 } else { self.format.strides[0] };
        frame.bytes.clear();
        if let [plane] = planes {
            let used = filled.used[0];
            return plane.append_to(used.start as usize..used.end as usize, &mut frame.bytes);
        }
        for (i, (plane, used)) in planes.iter().zip(&filled.used).enumerate() {
            let (lines, target_stride) = plane_shape(&self.format, self.layout, i);
            let source = LinesOf {
                plane,
                start: used.start as usize,
                end: used.end as usize,
                stride: self.format.strides.get(i).map_or(target_stride, |&stride| stride as usize),
            };
            source.append(lines, target_stride, &mut frame.bytes);
        }
    }

    /// Frames lost before the one with this number of the driver.
    fn gap(&mut self, sequence: u32) -> u64 {
        let last = self.last_sequence.replace(sequence);
        last.map_or(0, |last| frames_between(last, sequence))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Closing the device stops it too; a device that is gone cannot be stopped.
        let _ = self.device.stream_off(self.kind);
    }
}

/// Frames between two numbers of a driver. Numbers that stand still or run backwards say nothing.
fn frames_between(last: u32, sequence: u32) -> u64 {
    let step = sequence.wrapping_sub(last);
    if step < 1 << 31 { u64::from(step.saturating_sub(1)) } else { 0 }
}

/// Whether the format that the driver settled on can be used.
fn check(format: &Format) -> io::Result<PixelFormat> {
    let layout = understood(format.fourcc)
        .ok_or_else(|| io::Error::other(format!("the driver insists on {}", format.fourcc)))?;
    check_size(format.size.0, format.size.1).map_err(io::Error::other)?;
    if format.strides.is_empty() {
        return Err(io::Error::other("the driver describes no plane"));
    }
    Ok(layout.format)
}

fn map_buffers(device: &Device, kind: Kind, count: u32) -> io::Result<Vec<Vec<Mapping>>> {
    if count < 2 {
        return Err(io::Error::other(format!("the driver has {count} buffers, two are needed")));
    }
    let map = |index| device.query_buffer(kind, index)?.into_iter().map(|plane| device.map(plane)).collect();
    (0..count).map(map).collect()
}

/// Lines of plane `index` of a frame, and bytes from one to the next in [`Frame::bytes`].
fn plane_shape(format: &Format, layout: PixelFormat, index: usize) -> (usize, usize) {
    let (height, stride) = (format.size.1 as usize, format.strides[0] as usize);
    match (layout, index) {
        (_, 0) => (height, stride),
        (PixelFormat::Yu12, _) => (height.div_ceil(2), stride.div_ceil(2)),
        _ => (height.div_ceil(2), stride),
    }
}

/// Lines in a mapped plane.
struct LinesOf<'a> {
    plane: &'a Mapping,
    start: usize,
    end: usize,
    stride: usize,
}

impl LinesOf<'_> {
    /// Appends `lines` lines, each cut or filled to `target_stride` bytes. Lines that are missing
    /// are left out, so that the frame is found to be short.
    fn append(&self, lines: usize, target_stride: usize, out: &mut Vec<u8>) {
        let end = self.end.min(self.plane.len());
        if self.stride == target_stride {
            let whole = self.start + lines.saturating_mul(self.stride);
            return self.plane.append_to(self.start..whole.min(end), out);
        }
        for line in 0..lines {
            let from = self.start + line * self.stride;
            let to = (from + self.stride.min(target_stride)).min(end);
            if from >= to {
                return;
            }
            let filled = out.len() + target_stride;
            self.plane.append_to(from..to, out);
            out.resize(filled, 0);
        }
    }
}

/// Relates the monotonic clock of drivers to this process's clock and to wall time, once per
/// stream, so that a step of the wall clock never disturbs the order of frames.
struct Clock {
    monotonic: Duration,
    instant: Instant,
    wall: u64,
}

impl Clock {
    fn now() -> Self {
        // In this order, so that a pause in between makes frames older and never younger.
        Self { instant: Instant::now(), wall: wall_clock::now(), monotonic: monotonic_now() }
    }

    /// The moment `monotonic`, or now if it is unknown or in the future.
    fn at(&self, monotonic: Option<Duration>) -> (Instant, u64) {
        let now = monotonic_now();
        let time = monotonic.filter(|time| *time <= now).unwrap_or(now);
        match time.checked_sub(self.monotonic) {
            Some(since) => (self.instant + since, self.wall.saturating_add(since.as_nanos() as u64)),
            None => {
                let before = self.monotonic.saturating_sub(time);
                let instant = self.instant.checked_sub(before).unwrap_or(self.instant);
                (instant, self.wall.saturating_sub(before.as_nanos() as u64))
            }
        }
    }
}

/// The clock that drivers stamp frames with.
fn monotonic_now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a valid structure; the clock exists on every Linux, so the call
    // cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_in_the_numbers_are_lost_frames() {
        for (last, next, lost) in
            [(0, 1, 0), (4, 7, 2), (u32::MAX, 0, 0), (u32::MAX, 3, 3), (5, 5, 0), (9, 2, 0)]
        {
            assert_eq!(frames_between(last, next), lost, "from {last} to {next}");
        }
    }

    #[test]
    fn stamps_keep_their_distance_to_the_start_of_the_stream() {
        let clock =
            Clock { monotonic: Duration::from_millis(5), instant: Instant::now(), wall: 1_000_000_000 };
        let (instant, wall) = clock.at(Some(Duration::from_millis(7)));
        assert_eq!(instant - clock.instant, Duration::from_millis(2));
        assert_eq!(wall, 1_002_000_000);
        let (_, wall) = clock.at(Some(Duration::from_millis(4)));
        assert_eq!(wall, 999_000_000);
    }

    #[test]
    fn stamps_from_the_future_are_not_believed() {
        let clock = Clock::now();
        let (instant, _) = clock.at(Some(monotonic_now() + Duration::from_secs(3600)));
        assert!(instant <= Instant::now());
    }

    #[test]
    fn separate_planes_follow_the_layout_of_one() {
        let format = Format {
            fourcc: FourCc(*b"YM12"),
            size: (7, 5),
            color: Default::default(),
            strides: vec![9, 8, 8],
        };
        let shapes = [0, 1, 2].map(|plane| plane_shape(&format, PixelFormat::Yu12, plane));
        assert_eq!(shapes, [(5, 9), (3, 5), (3, 5)]);
        assert_eq!(plane_shape(&format, PixelFormat::Nv12, 1), (3, 9));
    }
}
