//! Which camera a device node is, so that it is found again under another number.
//!
//! sysfs is read rather than the devices asked: to open a camera that another program uses can
//! disturb it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::camera::source::SourceError;

/// What stays of a camera when its number changes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    /// The driver's name for it.
    name: String,
    /// Its place among the nodes of its device: cameras have nodes for metadata too.
    index: String,
    /// Where it is connected: the device's folder in sysfs.
    place: PathBuf,
    /// What it is on USB.
    usb: Option<Usb>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Usb {
    vendor: String,
    product: String,
    /// Missing in cheap cameras.
    serial: Option<String>,
}

impl Identity {
    /// Whether it is the same make in the same role.
    fn is_alike(&self, other: &Self) -> bool {
        let make = |usb: &Option<Usb>| usb.as_ref().map(|usb| (usb.vendor.clone(), usb.product.clone()));
        self.name == other.name && self.index == other.index && make(&self.usb) == make(&other.usb)
    }

    /// Whether it is the same camera: by its serial number wherever it is connected, or else by where
    /// it is connected.
    fn is_same(&self, other: &Self) -> bool {
        self.is_alike(other)
            && match (self.serial(), other.serial()) {
                (Some(one), Some(two)) => one == two,
                _ => self.place == other.place,
            }
    }

    fn serial(&self) -> Option<&str> {
        self.usb.as_ref()?.serial.as_deref()
    }
}

/// The folders that tell of devices, so that a test can draw up its own.
#[derive(Clone, Debug)]
struct System {
    /// /dev
    nodes: PathBuf,
    /// /sys/class/video4linux
    class: PathBuf,
}

impl System {
    fn new() -> Self {
        Self { nodes: "/dev".into(), class: "/sys/class/video4linux".into() }
    }

    /// The camera that a node or a link to one is; `None` if there is none or sysfs tells nothing.
    fn identity(&self, path: &Path) -> Option<Identity> {
        let node = fs::canonicalize(path).ok()?;
        self.identity_of(node.file_name()?.to_str()?)
    }

    fn identity_of(&self, name: &str) -> Option<Identity> {
        let folder = self.class.join(name);
        let place = fs::canonicalize(folder.join("device")).ok()?;
        let usb = place.ancestors().find(|folder| folder.join("idVendor").exists()).and_then(|folder| {
            let serial = value(folder, "serial").filter(|serial| !serial.is_empty());
            Some(Usb { vendor: value(folder, "idVendor")?, product: value(folder, "idProduct")?, serial })
        });
        Some(Identity { name: value(&folder, "name")?, index: value(&folder, "index")?, place, usb })
    }

    /// Every camera that has a node, by the node's path.
    fn all(&self) -> BTreeMap<PathBuf, Identity> {
        let entries = fs::read_dir(&self.class).into_iter().flatten().flatten();
        let known = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let node = self.nodes.join(&name);
            node.exists().then_some((node, self.identity_of(&name)?))
        });
        known.collect()
    }
}

/// The content of a small file without the line's end.
fn value(folder: &Path, name: &str) -> Option<String> {
    Some(fs::read_to_string(folder.join(name)).ok()?.trim_end().to_owned())
}

/// Where a camera is. What it is, is noted when it is opened, and looked for when it is gone.
#[derive(Debug)]
pub(in crate::camera) struct Whereabouts {
    system: System,
    path: PathBuf,
    known: Option<Identity>,
}

impl Whereabouts {
    /// The camera at `path`, whichever it is.
    pub(in crate::camera) fn new(path: &Path) -> Self {
        Self { system: System::new(), path: path.to_owned(), known: None }
    }

    /// The path to open now: the configured one, or where the same camera is instead.
    ///
    /// Errors: another camera has taken the place of the one that was there.
    pub(in crate::camera) fn find(&self) -> Result<PathBuf, SourceError> {
        let path = self.path.clone();
        let Some(known) = &self.known else { return Ok(path) };
        let here = self.system.identity(&path);
        // A link says what it leads to: the same camera, or whatever is connected to one place.
        if here.as_ref().is_some_and(|here| known.is_same(here) || path.is_symlink()) {
            return Ok(path);
        }
        let all = self.system.all();
        if let Some((node, _)) = all.iter().find(|(_, other)| known.is_same(other)) {
            return Ok(node.clone());
        }
        match here {
            // Without a serial number nothing tells it from the one that was there.
            Some(here) if known.is_alike(&here) && known.serial().is_none() => Ok(path),
            Some(here) => Err(SourceError::Replaced { path, name: here.name }),
            // Opening it says why it is not there.
            None => Ok(path),
        }
    }

    /// Notes which camera was opened. A serial number that another one has too says nothing.
    pub(in crate::camera) fn note(&mut self, opened: &Path) {
        let Some(mut identity) = self.system.identity(opened) else { return };
        let is_shared = || {
            let mut others = self.system.all().into_values();
            others.any(|other| other.place != identity.place && identity.is_same(&other))
        };
        if identity.serial().is_some()
            && is_shared()
            && let Some(usb) = &mut identity.usb
        {
            usb.serial = None;
        }
        self.known = Some(identity);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A machine with cameras that can be plugged in and out.
    struct Machine {
        root: PathBuf,
    }

    impl Machine {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("identity-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&root);
            for folder in ["dev", "class", "devices"] {
                fs::create_dir_all(root.join(folder)).unwrap();
            }
            Self { root }
        }

        fn node(&self, number: u32) -> PathBuf {
            self.root.join(format!("dev/video{number}"))
        }

        /// Plugs a USB camera into a port.
        fn plug(&self, number: u32, port: &str, serial: Option<&str>) {
            let device = self.root.join("devices").join(port);
            let interface = device.join("1:1.0");
            let class = self.root.join(format!("class/video{number}"));
            fs::create_dir_all(&interface).unwrap();
            fs::create_dir_all(&class).unwrap();
            for (name, value) in [("idVendor", "046d"), ("idProduct", "082d")] {
                fs::write(device.join(name), format!("{value}\n")).unwrap();
            }
            if let Some(serial) = serial {
                fs::write(device.join("serial"), format!("{serial}\n")).unwrap();
            }
            fs::write(class.join("name"), "HD Camera\n").unwrap();
            fs::write(class.join("index"), "0\n").unwrap();
            symlink(&interface, class.join("device")).unwrap();
            fs::write(self.node(number), "").unwrap();
        }

        fn unplug(&self, number: u32, port: &str) {
            fs::remove_dir_all(self.root.join(format!("class/video{number}"))).unwrap();
            fs::remove_dir_all(self.root.join("devices").join(port)).unwrap();
            fs::remove_file(self.node(number)).unwrap();
        }

        fn camera(&self, path: &Path) -> Whereabouts {
            let system = System { nodes: self.root.join("dev"), class: self.root.join("class") };
            Whereabouts { system, ..Whereabouts::new(path) }
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.root).unwrap();
        }
    }

    #[test]
    fn a_serial_number_is_found_at_any_port_under_any_number() {
        let machine = Machine::new("serial");
        machine.plug(0, "1-1", Some("A"));
        let mut camera = machine.camera(&machine.node(0));
        assert_eq!(camera.find().unwrap(), machine.node(0), "unknown: the configured path");
        camera.note(&machine.node(0));
        machine.unplug(0, "1-1");
        assert_eq!(camera.find().unwrap(), machine.node(0), "gone: opening it says so");
        machine.plug(3, "2-4", Some("A"));
        assert_eq!(camera.find().unwrap(), machine.node(3));
    }

    #[test]
    fn another_camera_under_its_number_is_not_taken_for_it() {
        let machine = Machine::new("replaced");
        machine.plug(0, "1-1", Some("A"));
        let mut camera = machine.camera(&machine.node(0));
        camera.note(&machine.node(0));
        machine.unplug(0, "1-1");
        machine.plug(0, "1-2", Some("B"));
        let error = camera.find().unwrap_err().to_string();
        assert!(error.contains("video0") && error.contains("HD Camera"), "{error}");
        machine.plug(1, "1-1", Some("A"));
        assert_eq!(camera.find().unwrap(), machine.node(1));
    }

    #[test]
    fn without_a_serial_number_the_port_tells_and_else_the_number() {
        let machine = Machine::new("port");
        machine.plug(0, "1-1", None);
        let mut camera = machine.camera(&machine.node(0));
        camera.note(&machine.node(0));
        machine.unplug(0, "1-1");
        machine.plug(1, "1-1", None);
        assert_eq!(camera.find().unwrap(), machine.node(1), "the same port");
        machine.unplug(1, "1-1");
        machine.plug(1, "1-2", None);
        assert_eq!(camera.find().unwrap(), machine.node(0), "another port: it could be any");
        machine.plug(0, "1-3", None);
        assert_eq!(camera.find().unwrap(), machine.node(0), "the configured number");
    }

    #[test]
    fn a_serial_number_that_two_cameras_have_is_not_trusted() {
        let machine = Machine::new("shared");
        machine.plug(0, "1-1", Some("0001"));
        machine.plug(1, "1-2", Some("0001"));
        let mut camera = machine.camera(&machine.node(0));
        camera.note(&machine.node(0));
        machine.unplug(0, "1-1");
        assert_eq!(camera.find().unwrap(), machine.node(0), "not the other one");
        machine.plug(2, "1-1", Some("0001"));
        assert_eq!(camera.find().unwrap(), machine.node(2));
    }

    #[test]
    fn a_link_is_believed_and_a_broken_one_is_not_needed() {
        let machine = Machine::new("link");
        machine.plug(0, "1-1", Some("A"));
        let link = machine.root.join("by-path");
        symlink(machine.node(0), &link).unwrap();
        let mut camera = machine.camera(&link);
        camera.note(&link);
        machine.unplug(0, "1-1");
        machine.plug(1, "1-7", Some("A"));
        assert_eq!(camera.find().unwrap(), machine.node(1), "the link leads nowhere");
        machine.plug(0, "1-1", Some("B"));
        assert_eq!(camera.find().unwrap(), link, "another camera where the link says");
    }
}
