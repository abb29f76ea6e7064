//! `mobilevlmd cameras`: lists V4L2 devices, formats, sizes, rates and controls, or tries one source.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use image::RgbImage;
use messages::{CameraPhase, CameraState, CameraStatus};
use serde::Serialize;

use super::Failure;
use crate::camera::v4l2::{self, ControlListing, DeviceListing, FormatListing, SizeListing};
use crate::camera::{self, CameraHandle, ControlValue, Fps, Frame, Network, Wake};
use crate::config::CameraConfig;

/// Lists V4L2 devices, formats, sizes, rates and controls, or tries one source of frames
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON: one object, or with --try one object per line
    #[arg(long)]
    json: bool,
    /// Capture from this source, written as in the configuration, and say how it goes
    #[arg(long = "try", value_name = "SOURCE")]
    source: Option<String>,
    #[command(flatten)]
    trial: Trial,
}

/// How a source is tried.
#[derive(Debug, clap::Args)]
struct Trial {
    /// Wanted pixels across
    #[arg(long, default_value_t = 0, requires = "source")]
    width: u32,
    /// Wanted pixels down
    #[arg(long, default_value_t = 0, requires = "source")]
    height: u32,
    /// Wanted frames per second
    #[arg(long, default_value_t = 0.0, requires = "source")]
    fps: f64,
    /// Set this control first, as in --control brightness=7
    #[arg(long = "control", value_name = "NAME=VALUE", requires = "source")]
    controls: Vec<String>,
    /// Frames to look at
    #[arg(long, default_value_t = 30, requires = "source")]
    frames: u64,
    /// Longest time to wait for them
    #[arg(long, default_value_t = 20.0, requires = "source")]
    seconds: f64,
    /// Write the last frame here as JPEG
    #[arg(long, value_name = "FILE", requires = "source")]
    save: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.source {
        Some(source) => try_source(source, &args.trial, args.json),
        None => {
            let devices = v4l2::list();
            if args.json {
                say!("{}", serde_json::to_string(&devices)?);
            } else {
                let mut text = String::new();
                write_devices(&mut text, &devices)?;
                print!("{text}");
            }
            Ok(())
        }
    }
}

fn write_devices(out: &mut String, devices: &[DeviceListing]) -> fmt::Result {
    if devices.is_empty() {
        return writeln!(
            out,
            "no V4L2 capture devices on this machine (none of /dev/video*); the sources file:PATH and \
             test: need none"
        );
    }
    for (i, device) in devices.iter().enumerate() {
        if i > 0 {
            writeln!(out)?;
        }
        match &device.error {
            Some(error) => writeln!(out, "v4l2:{}  {error}", device.path.display())?,
            None => writeln!(
                out,
                "v4l2:{}  {} ({}, {})",
                device.path.display(),
                device.card,
                device.driver,
                device.bus
            )?,
        }
        for path in &device.stable_paths {
            writeln!(out, "  also v4l2:{}", path.display())?;
        }
        for format in &device.formats {
            write_format(out, format)?;
        }
        for control in &device.controls {
            write_control(out, control)?;
        }
    }
    Ok(())
}

fn write_format(out: &mut String, format: &FormatListing) -> fmt::Result {
    let note = if format.usable { "" } else { ", not understood" };
    writeln!(out, "  {:<4}  {}{note}", format.fourcc, format.description)?;
    if !format.usable {
        return Ok(());
    }
    for SizeListing { width, height, max_width, max_height, fps } in &format.sizes {
        write!(out, "        {width}x{height}")?;
        if (width, height) != (max_width, max_height) {
            write!(out, " to {max_width}x{max_height}")?;
        }
        let fps: Vec<_> = fps.iter().map(|&fps| Fps(fps).to_string()).collect();
        writeln!(out, "{}{}", if fps.is_empty() { "" } else { " at " }, fps.join(", "))?;
    }
    Ok(())
}

fn write_control(out: &mut String, control: &ControlListing) -> fmt::Result {
    write!(out, "  control {}", control.name)?;
    if let Some(value) = control.value {
        write!(out, " = {value}")?;
    }
    write!(out, "  ({}", control.range)?;
    if let Some(default) = control.default {
        write!(out, "; default {default}")?;
    }
    let notes = [(!control.settable, "; read only"), (!control.active, "; without effect now")];
    let notes: String = notes.iter().filter(|(is_so, _)| *is_so).map(|(_, note)| *note).collect();
    writeln!(out, "{notes})")
}

/// What a trial tells, one JSON object each.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Told<'a> {
    State(&'a CameraState),
    Frame(&'a Look),
    Status(&'a CameraStatus),
}

/// What a frame looks like.
#[derive(Clone, Debug, Serialize)]
struct Look {
    sequence: u64,
    captured_at: u64,
    age_ms: f64,
    format: String,
    width: u32,
    height: u32,
    bytes: usize,
    /// Mean of red, green and blue: a covered lens shows.
    mean_rgb: [f64; 3],
    /// The same in the middle of each eighth of the picture, left to right: test patterns show.
    bars_rgb: [[f64; 3]; 8],
}

impl Look {
    fn at(frame: &Frame, picture: &RgbImage) -> Self {
        let (width, height) = picture.dimensions();
        Self {
            sequence: frame.sequence,
            captured_at: frame.captured_at,
            age_ms: frame.captured.elapsed().as_secs_f64() * 1e3,
            format: format!("{:?}", frame.format),
            width,
            height,
            bytes: frame.bytes.len(),
            mean_rgb: mean_of(picture, 0..width),
            bars_rgb: bars_of(picture),
        }
    }
}

/// Means of the middle halves of eight bars.
fn bars_of(picture: &RgbImage) -> [[f64; 3]; 8] {
    let width = picture.width();
    [0, 1, 2, 3, 4, 5, 6, 7].map(|i| {
        let (start, end) = ((4 * i + 1) * width / 32, (4 * i + 3) * width / 32);
        mean_of(picture, start..end.max(start + 1).min(width))
    })
}

/// Mean of red, green and blue over columns of a picture, to a tenth.
fn mean_of(picture: &RgbImage, columns: Range<u32>) -> [f64; 3] {
    let mut sums = [0u64; 3];
    for line in picture.chunks_exact(3 * picture.width().max(1) as usize) {
        for pixel in line[3 * columns.start as usize..3 * columns.end as usize].as_chunks::<3>().0 {
            for (sum, &value) in sums.iter_mut().zip(pixel) {
                *sum += u64::from(value);
            }
        }
    }
    let pixels = f64::from(columns.len().max(1) as u32) * f64::from(picture.height().max(1));
    sums.map(|sum| (sum as f64 / pixels * 10.0).round() / 10.0)
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [red, green, blue] = self.mean_rgb;
        write!(
            f,
            "frame {}: {} {}x{}, {} bytes, {:.1} ms old, mean colour {red:.0} {green:.0} {blue:.0}",
            self.sequence, self.format, self.width, self.height, self.bytes, self.age_ms
        )
    }
}

/// Captures from a source for a while.
fn try_source(source: &str, trial: &Trial, json: bool) -> Result<(), Failure> {
    let config = CameraConfig {
        name: "trial".into(),
        source: source.into(),
        width: trial.width,
        height: trial.height,
        fps: trial.fps,
        controls: trial.controls.iter().map(|text| control(text)).collect::<Result<_, _>>()?,
        ..CameraConfig::default()
    };
    let wake = Wake::default();
    let (told, states) = sync_channel(16);
    let rung = wake.clone();
    let camera = camera::spawn(&config, &Network::none(), wake.clone(), move |state| {
        // Too many changes at once, or nobody there any more: the last state is in the status too.
        let _ = told.try_send(state);
        rung.ring();
    })?;
    let deadline = Instant::now() + Duration::try_from_secs_f64(trial.seconds).unwrap_or(Duration::MAX / 4);
    let seen = look(&camera, &states, &wake, (trial.frames, deadline), json)?;
    let status = camera.status();
    tell(&Told::Status(&status), json);
    if let (Some(path), Some(frame)) = (&trial.save, camera.latest.newest()) {
        std::fs::write(path, frame.jpeg(90)?)
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    }
    let is_enough = seen >= trial.frames || (status.state.phase == CameraPhase::Ended && seen > 0);
    let reason =
        if status.state.reason.is_empty() { String::new() } else { format!(": {}", status.state.reason) };
    let missed = || Failure::new(format!("{seen} of {} frames came in time{reason}", trial.frames));
    is_enough.then_some(()).ok_or_else(missed)
}

/// A control and its value, as in `brightness=7`.
fn control(text: &str) -> Result<(String, ControlValue), Failure> {
    let expected = || Failure::new(format!("--control {text}: write NAME=VALUE, as in brightness=7"));
    let (name, value) = text.split_once('=').ok_or_else(expected)?;
    let value = match (value.parse(), value.parse()) {
        (Ok(number), _) => ControlValue::Number(number),
        (_, Ok(switch)) => ControlValue::Switch(switch),
        _ => ControlValue::Item(value.to_owned()),
    };
    Ok((name.to_owned(), value))
}

/// Looks at frames until there were enough, the time is over or the source has ended. Returns
/// how many were seen.
fn look(
    camera: &CameraHandle,
    states: &Receiver<CameraState>,
    wake: &Wake,
    (frames, deadline): (u64, Instant),
    json: bool,
) -> Result<u64, Failure> {
    let mut picture = RgbImage::default();
    let mut seen = 0;
    let mut next_line = Instant::now();
    while seen < frames && Instant::now() < deadline {
        wake.wait_until(deadline);
        for state in states.try_iter() {
            tell(&Told::State(&state), json);
        }
        if let Some(frame) = camera.latest.take_new() {
            if let Err(error) = frame.rgb_into(&mut picture) {
                camera.count_damaged();
                eprintln!("frame {}: {error}", frame.sequence);
                continue;
            }
            seen += 1;
            let now = Instant::now();
            if json || now >= next_line || seen == frames {
                tell(&Told::Frame(&Look::at(&frame, &picture)), json);
                next_line = now + Duration::from_secs(1);
            }
        } else if camera.status().state.phase == CameraPhase::Ended {
            break;
        }
    }
    Ok(seen)
}

fn tell(told: &Told<'_>, json: bool) {
    if json {
        // These structures have no keys or numbers that JSON cannot hold.
        say!("{}", serde_json::to_string(told).unwrap_or_default());
        return;
    }
    match told {
        Told::State(CameraState { phase, reason, .. }) => {
            say!("{}{reason}", phase_prefix(*phase, reason.is_empty()));
        }
        Told::Frame(look) => say!("{look}"),
        Told::Status(status) => say!(
            "{}: {} frames, {:.1} per second, {} lost by the driver, {} damaged",
            status.source,
            status.frames,
            status.frames_per_second,
            status.lost,
            status.damaged
        ),
    }
}

fn phase_prefix(phase: CameraPhase, is_alone: bool) -> String {
    let name = format!("{phase:?}").to_lowercase();
    if is_alone { name } else { format!("{name}: ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(formats: Vec<FormatListing>, error: Option<&str>) -> DeviceListing {
        DeviceListing {
            path: "/dev/video0".into(),
            stable_paths: vec!["/dev/v4l/by-id/usb-a-b".into()],
            card: "A camera".into(),
            driver: "uvcvideo".into(),
            bus: "usb-1".into(),
            formats,
            controls: vec![ControlListing {
                name: "power_line_frequency".into(),
                range: "one of 0 \"Disabled\", 1 \"50 Hz\"".into(),
                value: Some(1),
                default: Some(0),
                settable: true,
                active: false,
            }],
            error: error.map(Into::into),
        }
    }

    fn written(devices: &[DeviceListing]) -> String {
        let mut text = String::new();
        write_devices(&mut text, devices).unwrap();
        text
    }

    #[test]
    fn a_machine_without_cameras_is_told_plainly() {
        let text = written(&[]);
        assert!(text.starts_with("no V4L2 capture devices"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn devices_are_listed_with_sizes_and_rates() {
        let one =
            SizeListing { width: 640, height: 480, max_width: 640, max_height: 480, fps: vec![30.0, 7.5] };
        let range = SizeListing { width: 16, height: 16, max_width: 1920, max_height: 1080, fps: vec![] };
        let format = |fourcc: &str, usable, sizes| FormatListing {
            fourcc: fourcc.into(),
            description: "words".into(),
            usable,
            sizes,
        };
        let formats =
            vec![format("YUYV", true, vec![one, range.clone()]), format("H264", false, vec![range])];
        let text = written(&[listing(formats, None)]);
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "v4l2:/dev/video0  A camera (uvcvideo, usb-1)",
                "  also v4l2:/dev/v4l/by-id/usb-a-b",
                "  YUYV  words",
                "        640x480 at 30, 7.5",
                "        16x16 to 1920x1080",
                "  H264  words, not understood",
                "  control power_line_frequency = 1  (one of 0 \"Disabled\", 1 \"50 Hz\"; default 0; without effect now)",
            ]
        );
    }

    #[test]
    fn controls_of_the_command_line_are_those_of_the_configuration() {
        for (text, want) in [
            ("brightness=-7", ControlValue::Number(-7)),
            ("white_balance_automatic=false", ControlValue::Switch(false)),
            ("power_line_frequency=50 Hz", ControlValue::Item("50 Hz".into())),
        ] {
            let (name, value) = control(text).unwrap();
            assert_eq!((format!("{name}="), value), (text[..=text.find('=').unwrap()].to_owned(), want));
        }
        assert!(control("brightness").is_err());
    }

    #[test]
    fn bars_are_looked_at_in_their_middle() {
        for width in [64, 40, 8] {
            let picture = RgbImage::from_fn(width, 2, |x, _| image::Rgb([(x * 8 / width) as u8, 9, 9]));
            let want = [0, 1, 2, 3, 4, 5, 6, 7].map(|i| [f64::from(i), 9.0, 9.0]);
            assert_eq!(bars_of(&picture), want, "{width}");
            assert_eq!(mean_of(&picture, 0..width), [3.5, 9.0, 9.0]);
        }
        assert_eq!(bars_of(&RgbImage::from_pixel(1, 1, image::Rgb([7; 3]))), [[7.0; 3]; 8]);
    }

    #[test]
    fn a_device_that_cannot_be_opened_is_listed_with_the_reason() {
        let text = written(&[listing(Vec::new(), Some("permission denied"))]);
        assert!(text.starts_with("v4l2:/dev/video0  permission denied\n"), "{text}");
    }
}
