//! The cable: USB/IP between the camera and the kernel's virtual host.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

/// Where a device is plugged into the virtual host.
const PORTS: &str = "/sys/devices/platform/vhci_hcd.0/attach";

/// A port of high speed, the device's number on the bus, and the speed.
const PORT: u32 = 0;
const DEVICE: u32 = 0x1_0002;
const HIGH_SPEED: u32 = 3;

/// How long the port may take to be free again after a device was pulled out.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of every message before its content.
const HEADER: usize = 48;

/// Bytes that the host may send along at most.
const MOST_BYTES: usize = 4096;

// Kinds of messages, and the errors that an answer can carry.
const SUBMIT: u32 = 1;
const UNLINK: u32 = 2;
const SUBMITTED: u32 = 3;
const UNLINKED: u32 = 4;
const BROKEN_PIPE: i32 = -32;
const CONNECTION_RESET: i32 = -104;

/// What the host wants. Sequence numbers name requests.
pub(crate) enum Request {
    /// Something of the camera itself.
    Control { sequence: u32, setup: [u8; 8], data: Vec<u8> },
    /// A part of a frame, as soon as there is one.
    Bulk { sequence: u32, length: usize },
    /// To wait for the request `victim` no longer.
    Unlink { sequence: u32, victim: u32 },
    /// Nothing more.
    Closed,
}

/// How a control request ends.
pub(crate) enum Completion {
    /// With bytes for the host.
    Answer(Vec<u8>),
    /// With bytes that the host sent.
    Sent(usize),
    /// The camera does not know the request.
    Refused,
}

/// A cable that is plugged in. Dropping it pulls it out.
pub(crate) struct Link {
    socket: UnixStream,
    /// Requests for parts of frames, and how many bytes they take.
    waiting: VecDeque<(u32, usize)>,
}

impl Link {
    /// Plugs the camera in. `hear` is told what the host wants until it returns false.
    pub(crate) fn attach(hear: impl Fn(Request) -> bool + Send + 'static) -> io::Result<Self> {
        let (socket, host) = UnixStream::pair()?;
        let line = format!("{PORT} {} {DEVICE} {HIGH_SPEED}", host.as_raw_fd());
        let start = Instant::now();
        while let Err(error) = fs::write(PORTS, &line) {
            if start.elapsed() > PATIENCE {
                return Err(error);
            }
            thread::sleep(Duration::from_millis(20));
        }
        let mut from_host = socket.try_clone()?;
        thread::spawn(move || {
            while let Ok(request) = read(&mut from_host) {
                let is_last = matches!(request, Request::Closed);
                if !hear(request) || is_last {
                    return;
                }
            }
        });
        Ok(Self { socket, waiting: VecDeque::new() })
    }

    /// Whether the host waits for a part of a frame.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Notes that the host waits for a part of a frame.
    pub(crate) fn wait(&mut self, sequence: u32, length: usize) {
        self.waiting.push_back((sequence, length));
    }

    /// Sends a part of a frame to the request that waits longest.
    pub(crate) fn deliver(&mut self, part: &[u8]) {
        let Some((sequence, length)) = self.waiting.pop_front() else { return };
        let part = &part[..part.len().min(length)];
        self.send(SUBMITTED, sequence, (0, part.len()), part);
    }

    /// Ends a control request.
    pub(crate) fn complete(&mut self, sequence: u32, completion: Completion) {
        match completion {
            Completion::Answer(bytes) => self.send(SUBMITTED, sequence, (0, bytes.len()), &bytes),
            Completion::Sent(count) => self.send(SUBMITTED, sequence, (0, count), &[]),
            Completion::Refused => self.send(SUBMITTED, sequence, (BROKEN_PIPE, 0), &[]),
        }
    }

    /// Gives up a request that waits.
    pub(crate) fn unlink(&mut self, sequence: u32, victim: u32) {
        let found = self.waiting.iter().position(|(waiting, _)| *waiting == victim);
        let status =
            if found.and_then(|index| self.waiting.remove(index)).is_some() { CONNECTION_RESET } else { 0 };
        self.send(UNLINKED, sequence, (status, 0), &[]);
    }

    fn send(&mut self, kind: u32, sequence: u32, (status, count): (i32, usize), bytes: &[u8]) {
        let head =
            [kind, sequence, 0, 0, 0, status as u32, count as u32, 0, 0, 0, 0, 0].map(u32::to_be_bytes);
        // A host that is gone says so to the reading side.
        let _ = self.socket.write_all(&[head.as_flattened(), bytes].concat());
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The kernel notices either way.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

/// Reads what the host wants; [`Request::Closed`] at the end.
///
/// Errors: only after the end.
fn read(socket: &mut UnixStream) -> io::Result<Request> {
    let mut head = [0; HEADER];
    match socket.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Request::Closed),
        result => result?,
    }
    let (words, _) = head.as_chunks::<4>();
    let word = |index: usize| u32::from_be_bytes(words[index]);
    let (kind, sequence, is_out, endpoint, length) =
        (word(0), word(1), word(3) == 0, word(4), word(6) as usize);
    let mut setup = [0; 8];
    setup.copy_from_slice(&head[40..]);
    match kind {
        SUBMIT if endpoint == 0 => {
            let mut data = vec![0; if is_out { length.min(MOST_BYTES) } else { 0 }];
            socket.read_exact(&mut data)?;
            Ok(Request::Control { sequence, setup, data })
        }
        SUBMIT => Ok(Request::Bulk { sequence, length }),
        UNLINK => Ok(Request::Unlink { sequence, victim: word(5) }),
        _ => Err(io::Error::other("an unknown message of the host")),
    }
}
