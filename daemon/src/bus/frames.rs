//! Frames for other nodes: published at a configured rate while somebody listens, never waiting for him.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use messages::keys::{Key, Name, Topic};
use messages::{Format, FrameStamp, encode};
use tokio::sync::watch;
use tokio::task::block_in_place;
use zenoh::bytes::{Encoding, ZBytes};
use zenoh::pubsub::Publisher;
use zenoh::qos::{CongestionControl, Priority};
use zenoh::sample::SourceInfo;
use zenoh::shm::{GarbageCollect, PosixShmProviderBackend, ShmProvider, ShmProviderBuilder};
use zenoh::{Session, Wait};

use super::BusInputs;
use crate::camera::{Frame, PixelFormat, network};

/// How often a frame is looked for that is due.
const EAGER: Duration = Duration::from_millis(5);

/// How often it is seen whether somebody listens.
const IDLE: Duration = Duration::from_millis(100);

/// zenoh's name for the payload of a ROS 2 image.
const ROS_IMAGE: &str = "application/cdr;sensor_msgs/msg/Image";

/// The frames of a camera that other nodes may have.
#[derive(Clone, Debug, PartialEq)]
pub struct Feed {
    /// Name of the camera.
    pub camera: String,
    /// Frames per second at most; more than 0.
    pub fps: f64,
    /// Quality of pictures that are not JPEG already, 1 to 100.
    pub quality: u8,
}

/// Publishes the frames of all feeds.
pub(super) struct Feeder {
    session: Session,
    device: Name,
    inputs: Arc<dyn BusInputs>,
    /// Memory for frames as captured; without it they are not published.
    pool: Option<ShmProvider<PosixShmProviderBackend>>,
    lines: HashMap<String, Line>,
}

/// The publications of one camera.
struct Line {
    picture: Publisher<'static>,
    raw: Option<Publisher<'static>>,
    /// When the next frame is due.
    due: Instant,
    /// The frame published last.
    last: Option<u64>,
    /// Frames so far: receivers see by it what they miss.
    number: u32,
}

impl Feeder {
    /// Publishes frames as captured too, if `shared_bytes` are not 0: out of so much shared memory.
    pub(super) fn new(
        session: Session,
        device: Name,
        inputs: Arc<dyn BusInputs>,
        shared_bytes: usize,
    ) -> Self {
        let make = || ShmProviderBuilder::default_backend(shared_bytes).wait();
        let refused = |error: &zenoh::Error| {
            tracing::warn!(
                bytes = shared_bytes,
                %error,
                "no shared memory: frames are not published as captured; raise LimitMEMLOCK or lower \
                 bus.shared_memory_mib"
            );
        };
        let pool = if shared_bytes == 0 { None } else { make().inspect_err(refused).ok() };
        Self { session, device, inputs, pool, lines: HashMap::new() }
    }

    /// Publishes until the daemon stops.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            let pause = block_in_place(|| self.round(Instant::now()));
            if tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await.is_ok() {
                return;
            }
        }
    }

    /// Publishes every frame that is due. Returns when to look again.
    fn round(&mut self, now: Instant) -> Duration {
        let feeds = self.inputs.feeds();
        self.lines.retain(|camera, _| feeds.iter().any(|feed| feed.camera == *camera));
        let pauses = feeds.iter().map(|feed| match self.show(feed, now) {
            Ok(pause) => pause,
            Err(error) => {
                tracing::warn!(camera = feed.camera, %error, "frame not published");
                IDLE
            }
        });
        pauses.min().unwrap_or(IDLE)
    }

    /// Publishes the newest frame of a camera, if it is due, new, and wanted. Returns when to look again.
    fn show(&mut self, feed: &Feed, now: Instant) -> zenoh::Result<Duration> {
        if !self.lines.contains_key(&feed.camera) {
            let line = Line::declare(&self.session, &self.device, &feed.camera, self.pool.is_some())?;
            self.lines.insert(feed.camera.clone(), line);
        }
        let line = self.lines.get_mut(&feed.camera).expect("just declared");
        if now < line.due {
            return Ok((line.due - now).clamp(EAGER, IDLE));
        }
        let (picture, raw) = line.heard()?;
        if !picture && !raw {
            return Ok(IDLE);
        }
        let newest = self.inputs.frame(&feed.camera, None).filter(|frame| line.last != Some(frame.sequence));
        let Some(frame) = newest else { return Ok(EAGER) };
        // A beat that was missed is not made up for.
        let interval = Duration::from_secs_f64(1.0 / feed.fps.max(0.001));
        line.due = (line.due + interval).max(now);
        line.last = Some(frame.sequence);
        line.number = line.number.wrapping_add(1);
        let mut is_sent = true;
        if picture {
            line.put_picture(feed, &frame)?;
        }
        if raw && let Some(pool) = &self.pool {
            is_sent = line.put_raw(feed, &frame, pool)?;
        }
        self.inputs.count_sent(&feed.camera, is_sent);
        Ok(interval.clamp(EAGER, IDLE))
    }
}

impl Line {
    fn declare(session: &Session, device: &Name, camera: &str, has_raw: bool) -> zenoh::Result<Self> {
        let name = Name::new(camera)?;
        let publisher = |topic| {
            let key = Key::new(device.clone(), topic).to_string();
            // Captions and answers go before frames.
            let publisher = session.declare_publisher(key).congestion_control(CongestionControl::Drop);
            publisher.priority(Priority::DataLow).wait()
        };
        let raw = has_raw.then(|| publisher(Topic::FrameRaw(name.clone()))).transpose()?;
        let picture = publisher(Topic::Frame(name))?;
        Ok(Self { picture, raw, due: Instant::now(), last: None, number: 0 })
    }

    /// Whether somebody listens to pictures, and to frames as captured.
    fn heard(&self) -> zenoh::Result<(bool, bool)> {
        Ok((is_heard(&self.picture)?, self.raw.as_ref().map_or(Ok(false), is_heard)?))
    }

    fn put_picture(&self, feed: &Feed, frame: &Frame) -> zenoh::Result<()> {
        self.put(&self.picture, frame.jpeg(feed.quality)?.into(), Encoding::IMAGE_JPEG, (feed, frame))
    }

    /// Copies a frame into shared memory; `false` if all of that is with readers still.
    fn put_raw(
        &self,
        feed: &Feed,
        frame: &Frame,
        pool: &ShmProvider<PosixShmProviderBackend>,
    ) -> zenoh::Result<bool> {
        let Some(publisher) = &self.raw else { return Ok(true) };
        let (head, encoding) = match network::write_ros(&feed.camera, frame) {
            Some(head) => (head, ROS_IMAGE.into()),
            None if frame.format == PixelFormat::Mjpeg => (Vec::new(), Encoding::IMAGE_JPEG),
            None => return Ok(false),
        };
        let length = head.len() + frame.bytes.len();
        let Ok(mut memory) = pool.alloc(length).with_policy::<GarbageCollect>().wait() else {
            return Ok(false);
        };
        let (front, back) = memory.split_at_mut(head.len());
        front.copy_from_slice(&head);
        back.copy_from_slice(&frame.bytes);
        self.put(publisher, memory.into(), encoding, (feed, frame)).map(|()| true)
    }

    fn put(
        &self,
        publisher: &Publisher<'_>,
        payload: ZBytes,
        encoding: Encoding,
        (feed, frame): (&Feed, &Frame),
    ) -> zenoh::Result<()> {
        publisher
            .put(payload)
            .encoding(encoding)
            .attachment(stamp(&feed.camera, frame))
            .source_info(SourceInfo::new(publisher.id(), self.number))
            .wait()
    }
}

fn is_heard(publisher: &Publisher<'_>) -> zenoh::Result<bool> {
    Ok(publisher.matching_status().wait()?.matching())
}

/// What a frame's attachment says of it: a [`FrameStamp`] as JSON.
pub(super) fn stamp(camera: &str, frame: &Frame) -> Vec<u8> {
    let stamp =
        FrameStamp { camera: camera.into(), sequence: frame.sequence, captured_at: frame.captured_at };
    encode(&stamp, Format::Json)
}
