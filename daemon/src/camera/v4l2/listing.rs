//! What V4L2 devices there are and what they offer.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::control::{Control, ControlKind};
use super::device::Device;
use super::negotiate::SizeRange;
use super::{Offer, offers, rates};

/// A device that captures, or that could not be asked.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceListing {
    /// Its node.
    pub path: PathBuf,
    /// Links that stay the same when devices are plugged in another order.
    pub stable_paths: Vec<PathBuf>,
    /// Name of the camera.
    pub card: String,
    /// Name of the driver.
    pub driver: String,
    /// Where it is connected.
    pub bus: String,
    /// What it offers.
    pub formats: Vec<FormatListing>,
    /// What can be set, by the names that the configuration takes.
    pub controls: Vec<ControlListing>,
    /// Why it could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A control of a device.
#[derive(Clone, Debug, Serialize)]
pub struct ControlListing {
    /// Its name.
    pub name: String,
    /// The values it takes, in words.
    pub range: String,
    /// The value in force, if it can be read.
    pub value: Option<i32>,
    /// The value it has at first, if it has values.
    pub default: Option<i32>,
    /// Whether it can be set.
    pub settable: bool,
    /// Whether it has an effect now.
    pub active: bool,
}

/// A format of a device.
#[derive(Clone, Debug, Serialize)]
pub struct FormatListing {
    /// Its name in four letters.
    pub fourcc: String,
    /// The driver's words for it.
    pub description: String,
    /// Whether its frames can be described.
    pub usable: bool,
    /// Its sizes; none if the driver does not tell.
    pub sizes: Vec<SizeListing>,
}

/// A size of a format, or a range of them.
#[derive(Clone, Debug, Serialize)]
pub struct SizeListing {
    /// Least pixels across.
    pub width: u32,
    /// Least pixels down.
    pub height: u32,
    /// Most pixels across.
    pub max_width: u32,
    /// Most pixels down.
    pub max_height: u32,
    /// Frames per second at the largest size; none if the driver does not tell.
    pub fps: Vec<f64>,
}

/// The devices of this machine that capture pictures, by number of their node.
pub fn list() -> Vec<DeviceListing> {
    let links = stable_paths();
    let mut nodes: Vec<(u32, PathBuf)> = Vec::new();
    for entry in fs::read_dir("/dev").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("video")?.parse().ok());
        nodes.extend(number.map(|number| (number, entry.path())));
    }
    nodes.sort();
    let listed = nodes.into_iter().filter_map(|(_, path)| {
        let stable_paths = links.get(&path).cloned().unwrap_or_default();
        listing(path, stable_paths)
    });
    listed.collect()
}

/// Asks a device; `None` if it does not capture.
fn listing(path: PathBuf, stable_paths: Vec<PathBuf>) -> Option<DeviceListing> {
    let failed = |error: std::io::Error| DeviceListing {
        path: path.clone(),
        stable_paths: stable_paths.clone(),
        card: String::new(),
        driver: String::new(),
        bus: String::new(),
        formats: Vec::new(),
        controls: Vec::new(),
        error: Some(error.to_string()),
    };
    let device = match Device::open(&path) {
        Ok(device) => device,
        Err(error) => return Some(failed(error)),
    };
    let capabilities = device.capabilities().ok()?;
    let kind = capabilities.kind()?;
    let offers = match offers(&device, kind) {
        Ok(offers) => offers,
        Err(error) => return Some(failed(error)),
    };
    Some(DeviceListing {
        formats: offers.iter().map(|offer| format_listing(&device, offer)).collect(),
        controls: device.controls().iter().map(|control| control_listing(&device, control)).collect(),
        path,
        stable_paths,
        card: capabilities.card,
        driver: capabilities.driver,
        bus: capabilities.bus,
        error: None,
    })
}

fn control_listing(device: &Device, control: &Control) -> ControlListing {
    let has_values = !matches!(control.kind, ControlKind::Button | ControlKind::Other);
    ControlListing {
        name: control.name.clone(),
        range: control.range(),
        value: device.control_value(control),
        default: has_values.then_some(control.default),
        settable: control.is_settable,
        active: control.is_active,
    }
}

fn format_listing(device: &Device, offer: &Offer) -> FormatListing {
    let size = |range: &SizeRange| SizeListing {
        width: range.least.0,
        height: range.least.1,
        max_width: range.most.0,
        max_height: range.most.1,
        fps: rates(device, offer.fourcc, range.most.0, range.most.1).iter().map(|rate| rate.fps()).collect(),
    };
    FormatListing {
        fourcc: offer.fourcc.to_string(),
        description: offer.description.clone(),
        usable: offer.layout.is_some(),
        sizes: offer.sizes.iter().map(size).collect(),
    }
}

/// Links below /dev/v4l by the node they lead to.
fn stable_paths() -> BTreeMap<PathBuf, Vec<PathBuf>> {
    let mut links: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for folder in ["/dev/v4l/by-id", "/dev/v4l/by-path"] {
        let mut found: Vec<_> = fs::read_dir(Path::new(folder)).into_iter().flatten().flatten().collect();
        found.sort_by_key(|entry| entry.file_name());
        for link in found {
            if let Ok(node) = fs::canonicalize(link.path()) {
                links.entry(node).or_default().push(link.path());
            }
        }
    }
    links
}
