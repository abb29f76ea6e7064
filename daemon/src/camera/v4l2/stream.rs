//! A running capture: a ring of buffers shared with the driver.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::device::{Device, Filled, Format, Kind, Ready};
use super::fourcc::{FourCc, understood};
use super::mapping::{Access, Mapping};
use super::negotiate::{Mode, Rate};
use super::{Memory, Setup};
use crate::camera::frame::{Frame, PixelFormat, check_size};
use crate::camera::source::{Delivery, SourceError};

use kernels::pixels::Color;

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
    color: Color,
    rate: Option<Rate>,
    /// The planes of each buffer.
    buffers: Vec<Vec<Mapping>>,
    clock: Clock,
    last_sequence: Option<u32>,
    /// Frames lost since the last one that was delivered.
    lost: u64,
}

impl Stream {
    /// Sets the mode and the controls, maps the buffers and starts.
    pub(super) fn start(device: Device, kind: Kind, mode: &Mode, setup: &Setup) -> Result<Self, SourceError> {
        let path = device.path().to_owned();
        let at = path.clone();
        let failed = |what| move |error| SourceError::io(&at.clone(), what, error);
        let format = device.set_format(kind, mode.fourcc, mode.size).map_err(failed.clone()("set format"))?;
        let layout = check(&format).map_err(failed.clone()("set format"))?;
        let rate = match mode.rate {
            Some(rate) => device.set_rate(kind, rate).map_err(failed.clone()("set rate"))?,
            None => None,
        };
        // Behind the format, since some drivers start over with it.
        device
            .set_controls(&setup.tuning.controls)
            .map_err(|error| SourceError::Control { path: path.clone(), problem: error.to_string() })?;
        let count = device.request_buffers(kind, BUFFERS).map_err(failed.clone()("request buffers"))?;
        let buffers =
            map_buffers(&device, kind, count, setup.memory).map_err(failed.clone()("map buffers"))?;
        let color = Color { yuv: format.color.yuv, sensor: setup.tuning.sensor(format.color.is_linear) };
        let (clock, last_sequence, lost) = (Clock::now(), None, 0);
        let mut stream =
            Self { device, kind, format, layout, color, rate, buffers, clock, last_sequence, lost };
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
        let ready = self.device.poll(wait).map_err(|error| failed("wait for a frame", error))?;
        if ready == Ready::No {
            return Ok(Delivery::Nothing);
        }
        let filled = self.device.dequeue(self.kind).map_err(|error| failed("take a frame", error))?;
        let Some(filled) = filled else {
            return match ready {
                // Asking again at once would only keep the processor busy.
                Ready::Trouble => Err(failed(
                    "wait for a frame",
                    io::Error::other("the driver reports trouble but no cause"),
                )),
                _ => Ok(Delivery::Nothing),
            };
        };
        let planes = self.buffers.get(filled.index as usize).ok_or_else(|| {
            failed("take a frame", io::Error::other("the driver named a buffer that does not exist"))
        })?;
        if !filled.is_damaged {
            let announce = |access| planes.iter().try_for_each(|plane| plane.announce(access));
            announce(Access::Begins).map_err(|error| failed("read a buffer", error))?;
            self.fill(frame, &filled, planes);
            announce(Access::Ends).map_err(|error| failed("read a buffer", error))?;
        }
        self.device.queue(self.kind, filled.index).map_err(|error| failed("return a buffer", error))?;
        self.count_gap(filled.sequence);
        if filled.is_damaged {
            return Ok(Delivery::Damaged("the driver marked the frame as damaged".into()));
        }
        Ok(Delivery::Frame { lost: std::mem::take(&mut self.lost) })
    }

    /// Copies a filled buffer.
    fn fill(&self, frame: &mut Frame, filled: &Filled, planes: &[Mapping]) {
        (frame.captured, frame.captured_at) = self.clock.at(filled.monotonic);
        (frame.width, frame.height) = self.format.size;
        (frame.format, frame.color) = (self.layout, self.color);
        // Some drivers leave it to the reader.
        let stride = self.format.strides[0];
        frame.stride = match self.layout {
            PixelFormat::Mjpeg => 0,
            layout if stride == 0 => layout.least_stride(self.format.size.0),
            _ => stride,
        };
        frame.bytes.clear();
        if let [plane] = planes {
            let used = filled.used[0];
            return plane.append_to(used.start as usize..used.end as usize, &mut frame.bytes);
        }
        for (i, (plane, used)) in planes.iter().zip(&filled.used).enumerate() {
            let (height, stride) = (self.format.size.1 as usize, frame.stride as usize);
            let (lines, target_stride) = self.layout.plane_shape(i, height, stride);
            let source = LinesOf {
                plane,
                start: used.start as usize,
                end: used.end as usize,
                stride: self.format.strides.get(i).map_or(target_stride, |&stride| stride as usize),
            };
            source.append(lines, target_stride, &mut frame.bytes);
        }
    }

    /// Counts the frames lost before the one with this number of the driver.
    fn count_gap(&mut self, sequence: u32) {
        let last = self.last_sequence.replace(sequence);
        self.lost += last.map_or(0, |last| frames_between(last, sequence));
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

/// Maps the planes of each buffer.
fn map_buffers(device: &Device, kind: Kind, count: u32, memory: Memory) -> io::Result<Vec<Vec<Mapping>>> {
    if count < 2 {
        return Err(io::Error::other(format!("the driver has {count} buffers, two are needed")));
    }
    let map = |index| {
        let planes = device.query_buffer(kind, index)?;
        match memory {
            Memory::Mapped => planes.into_iter().map(|plane| device.map(plane)).collect(),
            Memory::Exported => {
                let exported = export(device, kind, index, planes.len())?;
                let lengths = planes.iter().map(|plane| plane.length);
                exported.into_iter().zip(lengths).map(|(fd, length)| Mapping::of_export(fd, length)).collect()
            }
        }
    };
    (0..count).map(map).collect()
}

/// Descriptors of the planes of a buffer, for devices that read frames without a copy.
fn export(device: &Device, kind: Kind, index: u32, planes: usize) -> io::Result<Vec<OwnedFd>> {
    (0..planes as u32).map(|plane| device.export(kind, index, plane)).collect()
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
}
