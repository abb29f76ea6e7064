//! A USB camera made of software, for machines without one: a UVC device on the kernel's virtual USB
//! host (vhci_hcd), so that the real driver (uvcvideo) takes it for real and talks USB/IP with it.
//!
//! usage: usb-camera [SERIAL]     plugs itself in, then obeys the lines of its standard input:
//!
//! ```text
//! unplug, plug [SERIAL]      as by hand; the serial number stays if none is given
//! stall                      no more frames
//! damage                     frames whose header says that something went wrong
//! short                      a third of each frame
//! go                         whole frames again
//! ```

mod descriptors;
mod frames;
mod link;

use std::io::BufRead;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use descriptors::Probe;
use frames::{Fault, Frames};
use link::{Link, Request};

/// Events that wait for the camera at most.
const MOST_EVENTS: usize = 64;

/// What can happen to the camera.
enum Event {
    /// The host wants something of the device that was plugged in as this one.
    Request(u64, Request),
    /// A line of standard input; `None` at its end.
    Line(Option<String>),
}

/// The camera, plugged in or not.
struct Camera {
    events: SyncSender<Event>,
    serial: String,
    /// How often it was plugged in.
    plugged: u64,
    link: Option<Link>,
    probe: Probe,
    frames: Frames,
}

impl Camera {
    fn plug(&mut self) {
        self.plugged += 1;
        let (number, events) = (self.plugged, self.events.clone());
        // The camera may have ended.
        let hear = move |request| events.send(Event::Request(number, request)).is_ok();
        match Link::attach(hear) {
            Ok(link) => self.link = Some(link),
            Err(error) => println!("usb-camera: not plugged in: {error}"),
        }
        (self.probe, self.frames) = (Probe::default(), Frames::default());
    }

    /// Obeys a line. Returns whether to go on.
    fn obey(&mut self, line: &str) -> bool {
        println!("usb-camera: {line}");
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "plug" if self.link.is_none() => {
                if !rest.is_empty() {
                    self.serial = rest.into();
                }
                self.plug();
            }
            "unplug" => self.link = None,
            "stall" => self.frames.fault = Some(Fault::Stall),
            "damage" => self.frames.fault = Some(Fault::Damage),
            "short" => self.frames.fault = Some(Fault::Short),
            "go" => self.frames.fault = None,
            "quit" => return false,
            _ => println!("usb-camera: not understood"),
        }
        true
    }

    /// Does what the host wants.
    fn answer(&mut self, request: Request) {
        let Some(link) = &mut self.link else { return };
        match request {
            Request::Control { sequence, setup, data } => {
                if descriptors::is_stream_stop(&setup) {
                    self.frames.restart();
                }
                link.complete(sequence, descriptors::control(&setup, &data, &mut self.probe, &self.serial));
            }
            Request::Bulk { sequence, length } => link.wait(sequence, length),
            Request::Unlink { sequence, victim } => link.unlink(sequence, victim),
            Request::Closed => self.link = None,
        }
        self.deliver();
    }

    /// The time for another frame has come.
    fn tick(&mut self) {
        if self.link.as_ref().is_some_and(Link::is_waiting) {
            self.frames.next(self.probe.format());
            self.deliver();
        }
    }

    /// Hands out parts of a frame to whoever waits.
    fn deliver(&mut self) {
        while let Some(link) = self.link.as_mut().filter(|link| link.is_waiting())
            && let Some(part) = self.frames.take()
        {
            link.deliver(&part);
        }
    }
}

fn main() {
    let (events, inbox) = sync_channel(MOST_EVENTS);
    let lines = events.clone();
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.send(Event::Line(Some(line))).is_err() {
                return;
            }
        }
        // The camera may have ended.
        let _ = lines.send(Event::Line(None));
    });
    let serial = std::env::args().nth(1).unwrap_or_else(|| "SN0001".into());
    let (probe, frames) = (Probe::default(), Frames::default());
    let mut camera = Camera { events, serial, plugged: 0, link: None, probe, frames };
    camera.plug();
    let mut next = Instant::now();
    loop {
        match inbox.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(Event::Request(number, request)) if number == camera.plugged => camera.answer(request),
            // Of a device that is not there any more.
            Ok(Event::Request(..)) => {}
            Ok(Event::Line(Some(line))) if camera.obey(line.trim()) => {}
            Ok(Event::Line(_)) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                camera.tick();
                next = (next + camera.probe.interval()).max(Instant::now() - Duration::from_millis(100));
            }
        }
    }
}
