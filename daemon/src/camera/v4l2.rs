//! Cameras behind Video4Linux: what they offer, and a stream of their frames.
//!
//! `device` has one method per ioctl, `control` those of controls, `negotiate` chooses format, size
//! and rate, `stream` runs the ring of mapped buffers, `hotplug` and `identity` find a camera that was
//! lost.

mod device;
mod control;
mod color;
mod fourcc;
mod hotplug;
mod identity;
mod listing;
mod mapping;
mod negotiate;
mod stream;

pub use fourcc::FourCc;
pub(super) use fourcc::{name_of, pixel_format};
pub(super) use hotplug::{Hotplug, Woken, wait};
pub(super) use identity::Whereabouts;
pub use listing::{ControlListing, DeviceListing, FormatListing, SizeListing, list};

use std::path::Path;
use std::time::Duration;

use device::{Device, Kind};
use fourcc::understood;
use negotiate::{Offer, Rate, choose};
use stream::Stream;

use super::frame::Frame;
use super::pace::Fps;
use super::source::{Delivery, FrameSource, SourceError, Wanted};
use super::tuning::Tuning;

/// How the bytes of a frame come here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// The device's buffers are mapped.
    #[default]
    Mapped,
    /// They are exported as DMABUF descriptors, as a GPU would read them, and these are mapped.
    Exported,
}

/// What is done when a device is opened, beside choosing a mode.
#[derive(Clone, Debug, Default)]
pub(super) struct Setup {
    pub(super) tuning: Tuning,
    pub(super) memory: Memory,
}

/// A V4L2 device as a camera.
pub(super) struct V4l2Source {
    stream: Stream,
    description: String,
    interval: Duration,
}

impl V4l2Source {
    /// Opens the device, chooses a mode, sets the controls and starts the stream.
    pub(super) fn open(
        path: &Path,
        format: Option<FourCc>,
        wanted: Wanted,
        setup: &Setup,
    ) -> Result<Self, SourceError> {
        let device = Device::open(path).map_err(|error| match error.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => SourceError::Denied(path.to_owned()),
            Some(libc::ENODEV) => SourceError::Absent(path.to_owned()),
            _ => SourceError::io(path, "open", error),
        })?;
        let not_capture = || SourceError::NotCapture(path.to_owned());
        let capabilities = device.capabilities().map_err(|_| not_capture())?;
        let kind = capabilities.kind().ok_or_else(not_capture)?;
        let mut offers =
            offers(&device, kind).map_err(|error| SourceError::io(path, "list formats", error))?;
        let offered = || offered_formats(&offers);
        let no_format = |offered: String| SourceError::NoFormat { path: path.to_owned(), offered };
        if let Some(format) = format {
            let all = offered();
            offers.retain(|offer| offer.fourcc == format);
            if offers.is_empty() {
                return Err(no_format(format!("{all}, not {format}")));
            }
        }
        let mode = choose(&offers, wanted, |fourcc, (width, height)| rates(&device, fourcc, width, height))
            .ok_or_else(|| no_format(offered_formats(&offers)))?;
        let stream = Stream::start(device, kind, &mode, setup)?;
        let rate = stream.rate();
        let at_rate = rate.map_or_else(String::new, |rate| format!(" at {} fps", Fps(rate.fps())));
        let (width, height) = stream.size();
        let reason = match format {
            Some(_) => "the format asked for",
            None => mode.reason.as_str(),
        };
        let exported = if setup.memory == Memory::Exported { ", read through DMABUF" } else { "" };
        let description = format!(
            "{} ({}), {} {width}x{height}{at_rate}{exported} ({reason})",
            path.display(),
            capabilities.card,
            stream.fourcc(),
        );
        let interval =
            rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(1.0 / rate.fps().max(0.01)));
        Ok(Self { stream, description, interval })
    }
}

impl FrameSource for V4l2Source {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn interval(&self) -> Duration {
        self.interval
    }

    fn next_frame(&mut self, frame: &mut Frame, wait: Duration) -> Result<Delivery, SourceError> {
        self.stream.next_frame(frame, wait)
    }
}

/// Formats and sizes of a device, those that are not understood included.
fn offers(device: &Device, kind: Kind) -> std::io::Result<Vec<Offer>> {
    let mut offers = Vec::new();
    for index in 0..MOST_ENTRIES {
        let Some(format) = device.format_at(kind, index)? else {
            break;
        };
        let sizes = (0..MOST_ENTRIES).map_while(|index| device.size_at(format.fourcc, index).ok().flatten());
        offers.push(Offer {
            fourcc: format.fourcc,
            layout: understood(format.fourcc),
            description: format.description,
            sizes: sizes.collect(),
        });
    }
    Ok(offers)
}

/// Rates of a format at a size.
fn rates(device: &Device, fourcc: FourCc, width: u32, height: u32) -> Vec<Rate> {
    (0..MOST_ENTRIES)
        .map_while(|index| device.rate_at(fourcc, (width, height), index).ok().flatten())
        .flatten()
        .collect()
}

/// Most entries of any list of a driver: one that never ends its list is not followed for ever.
const MOST_ENTRIES: u32 = 256;

/// Names for an error message, the first ones of a long list.
fn offered_formats(offers: &[Offer]) -> String {
    const SHOWN: usize = 12;
    let mut names: Vec<_> = offers.iter().take(SHOWN).map(|offer| offer.fourcc.to_string()).collect();
    match offers.len() {
        0 => names.push("nothing".into()),
        count if count > SHOWN => names.push(format!("{} more", count - SHOWN)),
        _ => {}
    }
    names.join(", ")
}
