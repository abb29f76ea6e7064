//! Waits that end early: when a device node or a link to it appears, and when the camera is to stop.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Where nodes and their links appear. The folders of links come and go with the devices.
const DEVICE_FOLDERS: [&str; 4] = ["/dev", "/dev/v4l", "/dev/v4l/by-id", "/dev/v4l/by-path"];

/// New entries, and new permissions: those of a node are set some time after it appeared.
const EVENTS: u32 = libc::IN_CREATE | libc::IN_MOVED_TO | libc::IN_ATTRIB;

/// A file is there when it was written. A device is closed after every attempt in vain, which must not be
/// the reason for the next one.
const FILE_EVENTS: u32 = EVENTS | libc::IN_CLOSE_WRITE;

/// Bytes of an event before its name.
const HEADER: usize = size_of::<libc::inotify_event>();

/// Pause after an error that no other wait would end.
const PAUSE: Duration = Duration::from_millis(10);

/// Notices when what a camera waits for may have appeared.
#[derive(Debug)]
pub(in crate::camera) struct Hotplug {
    inotify: File,
    folders: Vec<PathBuf>,
    /// Name of the path that is waited for.
    wanted: OsString,
    is_device: bool,
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::camera) enum Woken {
    /// The camera is to stop.
    Stop,
    /// What it waits for may be there now.
    News,
    /// The time is over.
    Time,
}

impl Hotplug {
    /// Begins to look out for `path`. Below /dev any camera's node or link is worth a look, since a
    /// device may come back under another name.
    ///
    /// Errors: the system's limit of descriptors or of watches.
    pub(in crate::camera) fn new(path: &Path) -> io::Result<Self> {
        // SAFETY: the call takes no pointer.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let inotify = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let is_device = path.starts_with("/dev");
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let mut folders = vec![parent.unwrap_or(Path::new(".")).to_owned()];
        if is_device {
            folders.extend(DEVICE_FOLDERS.map(PathBuf::from));
        }
        let wanted = path.file_name().unwrap_or_default().to_owned();
        let hotplug = Self { inotify, folders, wanted, is_device };
        hotplug.watch();
        Ok(hotplug)
    }

    /// Watches every folder that is there; to watch one twice changes nothing.
    fn watch(&self) {
        let events = if self.is_device { EVENTS } else { FILE_EVENTS };
        for folder in &self.folders {
            let Ok(path) = CString::new(folder.as_os_str().as_bytes()) else { continue };
            // Without the watch a camera is found a little later.
            // SAFETY: the path is a string with a zero at its end that outlives the call.
            let _ = unsafe { libc::inotify_add_watch(self.inotify.as_raw_fd(), path.as_ptr(), events) };
        }
    }

    /// Reads what happened by now. Whether any of it matters.
    fn has_news(&mut self) -> bool {
        let mut events = [0; 4096];
        let mut has_news = false;
        // Nothing more to read is an error too.
        while let Ok(count @ 1..) = self.inotify.read(&mut events) {
            has_news |= names(&events[..count]).any(|name| self.concerns(name));
        }
        if has_news {
            self.watch();
        }
        has_news
    }

    /// Whether the entry may be what is waited for. Lost events have no name.
    fn concerns(&self, name: &OsStr) -> bool {
        let bytes = name.as_bytes();
        let is_camera = || {
            let starts = [&b"video"[..], b"v4l", b"by-"].iter().any(|start| bytes.starts_with(start));
            starts || bytes.windows(12).any(|part| part == b"-video-index")
        };
        name == self.wanted || name.is_empty() || self.is_device && is_camera()
    }
}

/// The names in events as the kernel writes them: a header whose last four bytes say how many bytes
/// of name follow, filled with zeros.
fn names(mut events: &[u8]) -> impl Iterator<Item = &OsStr> {
    std::iter::from_fn(move || {
        let (header, rest) = events.split_at_checked(HEADER)?;
        let length = u32::from_ne_bytes(*header.last_chunk()?) as usize;
        let (name, rest) = rest.split_at_checked(length)?;
        events = rest;
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(length);
        Some(OsStr::from_bytes(&name[..end]))
    })
}

/// Waits at most `time`. `stop` is the end of a pipe that closes when the camera is to stop.
pub(in crate::camera) fn wait(stop: impl AsFd, mut hotplug: Option<&mut Hotplug>, time: Duration) -> Woken {
    let start = Instant::now();
    loop {
        let left = time.saturating_sub(start.elapsed());
        let seen = poll(stop.as_fd(), hotplug.as_ref().map(|hotplug| hotplug.inotify.as_fd()), left);
        match seen {
            Ok((true, _)) => return Woken::Stop,
            Ok((false, true)) if hotplug.as_mut().is_some_and(|hotplug| hotplug.has_news()) => {
                return Woken::News;
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => thread::sleep(left.min(PAUSE)),
        }
        if start.elapsed() >= time {
            return Woken::Time;
        }
    }
}

/// Which of two descriptors have something to read or are closed at the other end.
fn poll(first: BorrowedFd<'_>, second: Option<BorrowedFd<'_>>, wait: Duration) -> io::Result<(bool, bool)> {
    // The kernel leaves out entries with a negative descriptor.
    let second = second.map_or(-1, |second| second.as_raw_fd());
    let mut entries =
        [first.as_raw_fd(), second].map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    // Rounded up, so that the last part of a wait is not spent in a busy loop.
    let millis = i32::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    // SAFETY: the pointer is to as many valid entries as the count says.
    match unsafe { libc::poll(entries.as_mut_ptr(), 2, millis) } {
        0.. => Ok((entries[0].revents != 0, entries[1].revents != 0)),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A folder of this test's own.
    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("hotplug-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn what_appears_while_nobody_looks_ends_the_next_wait() {
        let folder = folder("appears");
        let (stop, _held) = io::pipe().unwrap();
        let mut hotplug = Hotplug::new(&folder.join("camera")).unwrap();
        std::fs::write(folder.join("other"), "").unwrap();
        assert_eq!(wait(&stop, Some(&mut hotplug), Duration::from_millis(5)), Woken::Time);
        std::fs::write(folder.join("part"), "").unwrap();
        std::fs::rename(folder.join("part"), folder.join("camera")).unwrap();
        assert_eq!(wait(&stop, Some(&mut hotplug), LONG), Woken::News);
        assert_eq!(wait(&stop, Some(&mut hotplug), Duration::from_millis(5)), Woken::Time);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn new_permissions_are_news() {
        let folder = folder("permissions");
        std::fs::write(folder.join("camera"), "").unwrap();
        let (stop, _held) = io::pipe().unwrap();
        let mut hotplug = Hotplug::new(&folder.join("camera")).unwrap();
        let permissions = std::fs::metadata(folder.join("camera")).unwrap().permissions();
        std::fs::set_permissions(folder.join("camera"), permissions).unwrap();
        assert_eq!(wait(&stop, Some(&mut hotplug), LONG), Woken::News);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_device_that_was_opened_and_closed_is_no_news() {
        let (stop, _held) = io::pipe().unwrap();
        let mut hotplug = Hotplug::new(Path::new("/dev/null")).unwrap();
        drop(std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap());
        assert_eq!(wait(&stop, Some(&mut hotplug), Duration::from_millis(5)), Woken::Time);
    }

    #[test]
    fn the_order_to_stop_ends_any_wait() {
        let (stop, held) = io::pipe().unwrap();
        assert_eq!(wait(&stop, None, Duration::ZERO), Woken::Time);
        let waiting = thread::spawn(move || wait(&stop, None, LONG));
        drop(held);
        assert_eq!(waiting.join().unwrap(), Woken::Stop);
    }

    #[test]
    fn cameras_under_any_name_are_worth_a_look_and_other_devices_are_not() {
        let hotplug = Hotplug::new(Path::new("/dev/robot/front")).unwrap();
        for name in ["front", "video12", "v4l", "by-path", "usb-046d_C920-video-index0", ""] {
            assert!(hotplug.concerns(OsStr::new(name)), "{name}");
        }
        for name in ["rear", "sda1", "usb-046d_C920-event", "ttyUSB0"] {
            assert!(!hotplug.concerns(OsStr::new(name)), "{name}");
        }
        let file = Hotplug::new(Path::new("picture.jpg")).unwrap();
        assert!(file.concerns(OsStr::new("picture.jpg")) && !file.concerns(OsStr::new("video0")));
    }

    #[test]
    fn names_are_read_from_events_of_any_length() {
        let event = |name: &[u8], length: u32| [&[0; HEADER - 4], &length.to_ne_bytes()[..], name].concat();
        let events = [event(b"video0\0\0", 8), event(b"", 0), event(b"abcd", 4)].concat();
        assert_eq!(names(&events).collect::<Vec<_>>(), ["video0", "", "abcd"]);
        assert_eq!(names(&events[..events.len() - 1]).count(), 2);
        assert_eq!(names(&event(b"ab", 99)).count(), 0);
    }
}
