//! The cameras of the emulated machine and the ways to break and mend them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use messages::CameraPhase;

use crate::random::Random;
use crate::subject::Subject;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a fault lasts that lets frames through.
const LASTING: Duration = Duration::from_millis(800);

/// The cameras by their place: the first two are vivid's, the third is on USB.
const USB: usize = 2;

/// What sysfs calls them.
const NAMES: [&str; 3] = ["vivid-000-vid-cap", "vivid-001-vid-cap", "Virtual USB camera"];

/// What can be broken. A number says which of vivid's cameras.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The driver loses every second frame.
    Lost(usize),
    /// The driver marks a frame as damaged.
    Damaged(usize),
    /// A buffer is refused while streaming.
    Queue(usize),
    /// Buffers are refused at the start that follows an error.
    Buffers(usize),
    /// The start itself is.
    Start(usize),
    /// The stream ends with an error.
    Fatal(usize),
    /// The driver refuses everything until all have closed the device.
    Disconnect(usize),
    /// The devices of vivid go away and come back.
    Unbind,
    /// The USB camera is pulled out and plugged in.
    Unplug,
    /// The same while somebody holds its number.
    Renumber,
    /// All are taken away and come back in another order.
    Shuffle,
    /// The USB camera sends nothing.
    Stall,
    /// The USB camera marks frames as damaged, and its driver drops them.
    UsbDamaged,
}

impl Fault {
    /// Any of them, the gentle ones as often as the others.
    pub(crate) fn pick(random: &mut Random) -> Self {
        let vivid = usize::from(random.one_in(2));
        match random.below(13) {
            0 => Self::Lost(vivid),
            1 => Self::Damaged(vivid),
            2 => Self::Queue(vivid),
            3 => Self::Buffers(vivid),
            4 => Self::Start(vivid),
            5 => Self::Fatal(vivid),
            6 => Self::Disconnect(vivid),
            7 => Self::Unbind,
            8 => Self::Unplug,
            9 => Self::Renumber,
            10 => Self::Shuffle,
            11 => Self::Stall,
            _ => Self::UsbDamaged,
        }
    }

    /// Whether the camera in this place is broken.
    pub(crate) fn concerns(self, index: usize) -> bool {
        match self {
            Self::Lost(vivid)
            | Self::Damaged(vivid)
            | Self::Queue(vivid)
            | Self::Buffers(vivid)
            | Self::Start(vivid)
            | Self::Fatal(vivid)
            | Self::Disconnect(vivid) => index == vivid,
            Self::Unbind => index != USB,
            Self::Shuffle => true,
            Self::Unplug | Self::Renumber | Self::Stall | Self::UsbDamaged => index == USB,
        }
    }

    /// Whether its stream ends and begins again.
    pub(crate) fn interrupts(self, index: usize) -> bool {
        self.concerns(index) && !matches!(self, Self::Lost(_) | Self::Damaged(_) | Self::UsbDamaged)
    }

    /// The phase that tells of it.
    pub(crate) fn phase(self) -> CameraPhase {
        match self {
            Self::Lost(_) | Self::Damaged(_) | Self::UsbDamaged => CameraPhase::Live,
            Self::Queue(_) | Self::Buffers(_) | Self::Start(_) | Self::Fatal(_) => CameraPhase::Failing,
            Self::Stall => CameraPhase::Stalled,
            Self::Disconnect(_) | Self::Unbind | Self::Unplug | Self::Renumber | Self::Shuffle => {
                CameraPhase::Gone
            }
        }
    }
}

/// The drivers, and the program that is the USB camera.
pub(crate) struct Rig {
    usb: Child,
}

impl Rig {
    /// Plugs the USB camera in and waits for all nodes.
    pub(crate) fn new() -> Self {
        let mut command = Command::new("usb-camera");
        let usb = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("usb-camera");
        let rig = Self { usb };
        for name in NAMES {
            await_node(name).expect("a camera");
        }
        rig
    }

    /// Names and sources of the cameras.
    pub(crate) fn sources(&self) -> [(&'static str, String); 3] {
        let source = |name| format!("v4l2:{}", node(name).expect("a camera").display());
        [("front", source(NAMES[0])), ("rear", source(NAMES[1])), ("side", source(NAMES[2]))]
    }

    /// Breaks something, waits, and mends it. Returns the moment from which on it can be used again.
    ///
    /// Errors: the fault could not be brought about, or had no effect.
    pub(crate) fn break_and_mend(
        &mut self,
        fault: Fault,
        pause: Duration,
        subjects: &[Subject],
    ) -> Result<Instant, String> {
        match fault {
            Fault::Lost(vivid) => {
                control(vivid, "percentage_of_dropped_buffers=50")?;
                thread::sleep(LASTING);
                control(vivid, "percentage_of_dropped_buffers=0")?;
                count(&subjects[vivid], "lost", |status| status.lost)?;
            }
            Fault::Damaged(vivid) => {
                control(vivid, "inject_v4l2_buf_flag_error=1")?;
                count(&subjects[vivid], "damaged", |status| status.damaged)?;
            }
            Fault::Queue(vivid) => control(vivid, "inject_vidioc_qbuf_error=1")?,
            Fault::Buffers(vivid) => {
                control(vivid, "inject_vidioc_reqbufs_error=1")?;
                control(vivid, "inject_fatal_streaming_error=1")?;
            }
            Fault::Start(vivid) => {
                control(vivid, "inject_vidioc_streamon_error=1")?;
                control(vivid, "inject_fatal_streaming_error=1")?;
            }
            Fault::Fatal(vivid) => control(vivid, "inject_fatal_streaming_error=1")?,
            Fault::Disconnect(vivid) => control(vivid, "disconnect=1")?,
            Fault::Unbind => {
                driver("unbind")?;
                thread::sleep(pause);
                driver("bind")?;
            }
            Fault::Unplug => {
                self.usb("unplug")?;
                thread::sleep(pause);
                self.usb("plug")?;
                await_node(NAMES[USB])?;
            }
            Fault::Renumber => {
                let old = node(NAMES[USB]).ok_or("no USB camera")?;
                let held = fs::File::open(&old).map_err(|error| error.to_string())?;
                self.usb("unplug")?;
                thread::sleep(pause);
                self.usb("plug")?;
                let new = await_node(NAMES[USB])?;
                if new == old {
                    return Err(format!("{} has its number again", new.display()));
                }
                drop(held);
            }
            Fault::Shuffle => {
                driver("unbind")?;
                self.usb("unplug")?;
                thread::sleep(pause);
                self.usb("plug")?;
                await_node(NAMES[USB])?;
                driver("bind")?;
            }
            Fault::Stall => {
                self.usb("stall")?;
                let stalled = subjects[USB].wait_for(CameraPhase::Stalled, PATIENCE);
                thread::sleep(pause);
                self.usb("go")?;
                stalled.ok_or("no stall")?;
            }
            Fault::UsbDamaged => {
                self.usb("damage")?;
                thread::sleep(LASTING);
                self.usb("go")?;
                count(&subjects[USB], "lost", |status| status.lost)?;
            }
        }
        Ok(Instant::now())
    }

    /// Gives the USB camera an order.
    fn usb(&mut self, order: &str) -> Result<(), String> {
        let stdin = self.usb.stdin.as_mut().ok_or("no USB camera")?;
        writeln!(stdin, "{order}").map_err(|error| format!("usb-camera: {error}"))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // It ends with its input.
        self.usb.stdin = None;
        let _ = self.usb.wait();
    }
}

/// Waits until a counter has grown since the cycle began.
fn count(
    subject: &Subject,
    what: &str,
    counter: impl Fn(&messages::CameraStatus) -> u64,
) -> Result<(), String> {
    let start = Instant::now();
    loop {
        let (now, before) = subject.counters();
        if counter(&now) > counter(before) {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            return Err(format!("no frame is counted as {what}: {now:?}"));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The node of a camera, whatever its number is now.
fn node(name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir("/sys/class/video4linux").ok()?.flatten();
    let found = entries.map(|entry| entry.path()).find(|folder| {
        let value = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
        value("name").starts_with(name) && value("index").trim_end() == "0"
    });
    let node = Path::new("/dev").join(found?.file_name()?);
    node.exists().then_some(node)
}

fn await_node(name: &str) -> Result<PathBuf, String> {
    let start = Instant::now();
    loop {
        match node(name) {
            Some(node) => return Ok(node),
            None if start.elapsed() > PATIENCE => return Err(format!("no node of {name}")),
            None => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Sets a control of one of vivid's cameras.
fn control(vivid: usize, setting: &str) -> Result<(), String> {
    let node = node(NAMES[vivid]).ok_or("no camera of vivid")?;
    let mut command = Command::new("v4l2-ctl");
    command.arg("-d").arg(&node).arg("-c").arg(setting).stdout(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        result => Err(format!("{setting} of {}: {result:?}", node.display())),
    }
}

/// Unbinds or binds vivid.
fn driver(action: &str) -> Result<(), String> {
    let file = format!("/sys/bus/platform/drivers/vivid/{action}");
    fs::write(&file, "vivid.0").map_err(|error| format!("{file}: {error}"))
}
