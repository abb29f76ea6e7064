//! Frames that other nodes publish on the bus, `zenoh:KEY`: the newest one that arrived is the next.

mod clock;
mod payload;

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use messages::keys::{Key, Name, Topic};
use messages::{Format, FrameStamp, decode};
use zenoh::pubsub::Subscriber;
use zenoh::sample::Sample;
use zenoh::session::EntityGlobalId;
use zenoh::{Session, Wait};

use super::frame::Frame;
use super::latest::{Latest, Wake};
use super::source::{Delivery, FrameSource, SourceError};
use crate::wall_clock;
use clock::Clock;

pub(crate) use payload::write_ros;
pub use payload::{ImageError, MAX_BYTES, PayloadError, frame_of, read};

/// How long an opening waits for a frame before it says that there is none.
const FIRST: Duration = Duration::from_millis(200);

/// How long the bus is asked who is there.
const ASKING: Duration = Duration::from_millis(500);

/// Bytes of the attachment that rmw_zenoh sends along: sequence, time, length of the id, id.
const ROS_ATTACHMENT: usize = 33;

/// The bus as cameras reach it. Commands that run without a bus have none.
#[derive(Clone, Debug, Default)]
pub struct Network(Option<Session>);

impl Network {
    /// The bus of an open session.
    pub fn of(session: Session) -> Self {
        Self(Some(session))
    }

    /// No bus: cameras on it cannot be opened.
    pub fn none() -> Self {
        Self(None)
    }
}

/// A camera's subscription. It outlasts the openings of the source, so that the newest frame is at hand
/// when the source is opened again.
pub(super) struct Mailbox {
    key: String,
    /// Expected time between frames; 0 if nothing is known.
    interval: Duration,
    network: Network,
    subscription: Option<(Arc<Inbox>, Subscriber<()>)>,
}

impl Mailbox {
    /// A mailbox for frames under `key` that come `fps` times a second; 0 if that is not known.
    pub(super) fn new(key: &str, fps: f64, network: &Network) -> Self {
        let interval = if fps > 0.0 { Duration::from_secs_f64(1.0 / fps.max(0.001)) } else { Duration::ZERO };
        Self { key: key.to_owned(), interval, network: network.clone(), subscription: None }
    }

    /// Opens the source, if frames come.
    pub(super) fn open(&mut self) -> Result<Box<dyn FrameSource>, SourceError> {
        let failed =
            |error: &dyn Display| SourceError::Bus { key: self.key.clone(), reason: error.to_string() };
        let Some(session) = &self.network.0 else { return Err(SourceError::NoBus(self.key.clone())) };
        if self.subscription.is_none() {
            let inbox = Arc::new(Inbox::new());
            let arriving = inbox.clone();
            let subscriber =
                session.declare_subscriber(self.key.clone()).callback(move |sample| arriving.put(sample));
            self.subscription = Some((inbox, subscriber.wait().map_err(|error| failed(&error))?));
        }
        let (inbox, _) = self.subscription.as_ref().expect("just subscribed");
        if !inbox.wait(FIRST) {
            return Err(SourceError::Silent { key: self.key.clone(), reason: absence(session, &self.key) });
        }
        let source = NetworkSource {
            what: inbox.describe(),
            key: self.key.clone(),
            interval: self.interval,
            inbox: inbox.clone(),
            clock: Clock::default(),
        };
        Ok(Box::new(source))
    }
}

/// Why no frames come, as far as the bus tells.
fn absence(session: &Session, key: &str) -> String {
    let info = session.info();
    if info.peers_zid().wait().chain(info.routers_zid().wait()).next().is_none() {
        return "no other node is connected".into();
    }
    // Of a daemon like this one it is known whether it is there.
    if let Ok(Key { device, topic: Topic::Frame(_) | Topic::FrameRaw(_), .. }) = key.parse::<Key>() {
        let alive = Key::new(device.clone(), Topic::Alive).to_string();
        let replies = session.liveliness().get(alive).timeout(ASKING).wait();
        return match replies.is_ok_and(|replies| replies.into_iter().next().is_some()) {
            false if device == Name::any() => "no device is there".into(),
            false => format!("device \"{device}\" is not there"),
            true => format!(
                "device \"{device}\" is there, but its camera is not live, publish_fps is not set or the link is down"
            ),
        };
    }
    "no node sends any".into()
}

/// A frame as it came.
struct Arrival {
    sample: Sample,
    at: Instant,
    /// Nanoseconds since the Unix epoch.
    at_wall: u64,
}

/// The newest arrival and what was missed before it.
struct Inbox {
    newest: Latest<Arrival>,
    wake: Wake,
    numbers: Mutex<Numbers>,
}

impl Inbox {
    fn new() -> Self {
        let wake = Wake::default();
        Self { newest: Latest::new(wake.clone()), wake, numbers: Mutex::default() }
    }

    /// Runs on a thread of zenoh.
    fn put(&self, sample: Sample) {
        self.numbers().see(number(&sample));
        let arrival = Arrival { sample, at: Instant::now(), at_wall: wall_clock::now() };
        if self.newest.put(arrival) {
            self.numbers().lost += 1;
        }
    }

    /// Waits for an arrival; whether there is one.
    fn wait(&self, most: Duration) -> bool {
        let deadline = Instant::now() + most;
        while !self.newest.has_new() && Instant::now() < deadline {
            self.wake.wait_until(deadline);
        }
        self.newest.has_new()
    }

    /// What the newest arrival shows, in words.
    fn describe(&self) -> String {
        let Some(arrival) = self.newest.newest() else { return "nothing yet".into() };
        let mut frame = Frame::empty();
        match open_payload(&arrival.sample, &mut frame) {
            Ok(_) => {
                let format = format!("{:?}", frame.format).to_ascii_uppercase();
                format!("{format} {}x{}", frame.width, frame.height)
            }
            Err(error) => error.to_string(),
        }
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who numbered a frame.
#[derive(Clone, Debug, PartialEq)]
enum Origin {
    /// A publisher of zenoh.
    Zenoh(EntityGlobalId),
    /// A publisher of ROS 2.
    Ros([u8; 16]),
}

/// Counts frames that did not arrive.
#[derive(Debug, Default)]
struct Numbers {
    last: Option<(Origin, u64)>,
    /// Frames missed since somebody asked.
    lost: u64,
}

impl Numbers {
    fn see(&mut self, number: Option<(Origin, u64)>) {
        let (Some((origin, number)), Some((last_origin, last))) = (&number, &self.last) else {
            self.last = number;
            return;
        };
        // A number that does not grow is that of a publisher that began again.
        if origin == last_origin && number > last {
            self.lost = self.lost.saturating_add(number - last - 1);
        }
        self.last = Some((origin.clone(), *number));
    }
}

/// The number a publisher gave to a frame.
fn number(sample: &Sample) -> Option<(Origin, u64)> {
    if let Some(source) = sample.source_info() {
        return Some((Origin::Zenoh(*source.source_id()), source.source_sn().into()));
    }
    let (number, _, id) = ros_attachment(sample)?;
    Some((Origin::Ros(id), number))
}

/// Number, time of publication and publisher that a node of ROS 2 attaches.
fn ros_attachment(sample: &Sample) -> Option<(u64, u64, [u8; 16])> {
    let attachment = sample.attachment().filter(|bytes| bytes.len() == ROS_ATTACHMENT)?.to_bytes();
    let number = i64::from_le_bytes(*attachment.first_chunk()?);
    let time = i64::from_le_bytes(*attachment[8..].first_chunk()?);
    let id = *attachment[17..].first_chunk()?;
    (attachment[16] == 16).then_some((number.try_into().ok()?, time.try_into().ok()?, id))
}

/// When a frame was captured, as its publisher says beside the payload: nanoseconds since the Unix epoch.
fn attached_time(sample: &Sample) -> Option<u64> {
    let attachment = sample.attachment()?;
    if let Some((_, time, _)) = ros_attachment(sample) {
        return Some(time);
    }
    let stamp: FrameStamp = decode(&attachment.to_bytes(), Format::Json).ok()?;
    Some(stamp.captured_at)
}

/// Writes the picture of a sample into `frame`. Returns the capture time that comes with it.
fn open_payload(sample: &Sample, frame: &mut Frame) -> Result<Option<u64>, PayloadError> {
    let payload = sample.payload();
    if payload.len() > MAX_BYTES {
        return Err(PayloadError::TooLong { got: payload.len() });
    }
    let inside = read(&payload.to_bytes(), &sample.encoding().to_string(), frame)?;
    let beside = || attached_time(sample).or_else(|| published(sample));
    Ok(inside.or_else(beside))
}

/// When zenoh took a sample in, if its nodes stamp samples.
fn published(sample: &Sample) -> Option<u64> {
    let time = sample.timestamp()?.get_time().to_duration();
    u64::try_from(time.as_nanos()).ok()
}

/// An open mailbox.
struct NetworkSource {
    what: String,
    key: String,
    interval: Duration,
    inbox: Arc<Inbox>,
    clock: Clock,
}

impl FrameSource for NetworkSource {
    fn describe(&self) -> String {
        format!("zenoh:{}, {}", self.key, self.what)
    }

    fn interval(&self) -> Duration {
        self.interval
    }

    fn next_frame(&mut self, frame: &mut Frame, wait: Duration) -> Result<Delivery, SourceError> {
        if !self.inbox.wait(wait) {
            return Ok(Delivery::Nothing);
        }
        let Some(arrival) = self.inbox.newest.take_new() else { return Ok(Delivery::Nothing) };
        let lost = std::mem::take(&mut self.inbox.numbers().lost);
        let stamp = match open_payload(&arrival.sample, frame) {
            Ok(stamp) => stamp,
            Err(error) => return Ok(Delivery::Damaged(error.to_string())),
        };
        let (captured_at, doubt) = self.clock.captured_at(stamp, arrival.at_wall);
        if let Some(doubt) = doubt {
            tracing::warn!(key = self.key, "{doubt}");
        }
        let age = Duration::from_nanos(arrival.at_wall.saturating_sub(captured_at));
        frame.captured_at = captured_at;
        frame.captured = arrival.at.checked_sub(age).unwrap_or(arrival.at);
        Ok(Delivery::Frame { lost })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_for_each_publisher() {
        let (a, b) = (Origin::Ros([1; 16]), Origin::Ros([2; 16]));
        let mut numbers = Numbers::default();
        let story = [(&a, 5, 0), (&a, 6, 0), (&a, 9, 2), (&b, 40, 2), (&b, 41, 2), (&a, 1, 2), (&a, 0, 2)];
        for (origin, number, lost) in story {
            numbers.see(Some((origin.clone(), number)));
            assert_eq!(numbers.lost, lost, "after {number}");
        }
        numbers.see(Some((a.clone(), u64::MAX)));
        numbers.see(None);
        numbers.see(Some((a, 3)));
        assert_eq!(numbers.lost, u64::MAX);
    }
}
