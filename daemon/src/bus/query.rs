//! What the daemon tells when asked: status, states of cameras, pictures.

use std::sync::Arc;

use messages::keys::{Key, Name, Topic};
use messages::{AskError, CameraState, Format, Message, Status, encode};
use tokio::runtime::Handle;
use tokio::task::block_in_place;
use zenoh::bytes::Encoding;
use zenoh::query::{Query, Queryable};
use zenoh::{Session, Wait};

use super::BusInputs;
use super::counts::{Counts, Places, Refusals};
use super::frames::stamp;

/// Requests answered at once; more are refused.
pub(super) const AT_ONCE: usize = 8;

/// Quality of pictures that are not JPEG already, 1 to 100.
const QUALITY: u8 = 90;

/// Shows the daemon to whoever looks.
pub(super) struct Window {
    pub(super) device: Name,
    pub(super) inputs: Arc<dyn BusInputs>,
    pub(super) places: Arc<Places>,
    pub(super) counts: Arc<Counts>,
    pub(super) refusals: Refusals,
    pub(super) runtime: Handle,
}

type Show = fn(&Window, &Query) -> Result<(), AskError>;

impl Window {
    /// Declares everything that can be looked at.
    pub(super) async fn declare(self: &Arc<Self>, session: &Session) -> zenoh::Result<Vec<Queryable<()>>> {
        let key = |topic| Key::new(self.device.clone(), topic);
        let shown: [(Key, Show); 5] = [
            (key(Topic::Status), Self::status),
            (key(Topic::Status).json(), Self::status),
            (key(Topic::State(Name::any())), Self::state),
            (key(Topic::State(Name::any())).json(), Self::state),
            (key(Topic::Frame(Name::any())), Self::frame),
        ];
        let mut declared = Vec::new();
        for (key, show) in shown {
            let window = self.clone();
            let queryable =
                session.declare_queryable(key.to_string()).callback(move |query| window.receive(query, show));
            declared.push(queryable.await?);
        }
        Ok(declared)
    }

    /// Runs on a thread of zenoh: it hands over and returns.
    fn receive(self: &Arc<Self>, query: Query, show: Show) {
        let window = self.clone();
        let place = match self.places.take() {
            Ok(place) => place,
            Err(error) => return self.refusals.send(move || window.refuse(&query, &error)),
        };
        self.runtime.spawn(async move {
            block_in_place(|| match show(&window, &query) {
                Ok(()) => window.counts.request(true),
                Err(error) => window.refuse(&query, &error),
            });
            drop(place);
        });
    }

    fn refuse(&self, query: &Query, error: &AskError) {
        self.counts.request(false);
        refuse(query, error);
    }

    fn status(&self, query: &Query) -> Result<(), AskError> {
        let key = Key::new(self.device.clone(), Topic::Status);
        let key = if asks_twin(query) { key.json() } else { key };
        reply(query, &key, &Status { bus: self.counts.figures(), ..self.inputs.status() });
        Ok(())
    }

    fn state(&self, query: &Query) -> Result<(), AskError> {
        let cameras = self.inputs.cameras();
        let twin = asks_twin(query);
        let mut found = false;
        for state in &cameras {
            let Ok(name) = Name::new(&state.camera) else { continue };
            let key = Key::new(self.device.clone(), Topic::State(name));
            let key = if twin { key.json() } else { key };
            if intersects(query, &key) {
                found = true;
                reply(query, &key, state);
            }
        }
        if found { Ok(()) } else { Err(unknown_camera(query, &cameras)) }
    }

    fn frame(&self, query: &Query) -> Result<(), AskError> {
        let sequence = match query.parameters().get("sequence") {
            None => None,
            Some(number) => Some(number.parse().map_err(|_| AskError::BadRequest {
                reason: format!("sequence={:.40}: a whole number from 0 is expected", number),
            })?),
        };
        let cameras = self.inputs.cameras();
        let named = matching(query, &self.device, &cameras, Topic::Frame);
        if named.is_empty() {
            return Err(unknown_camera(query, &cameras));
        }
        for (camera, key) in named {
            let frame =
                self.inputs.frame(camera, sequence).ok_or_else(|| no_frame(camera, &cameras, sequence))?;
            let jpeg = frame.jpeg(QUALITY).map_err(|error| AskError::Internal {
                reason: format!("frame {} of camera \"{camera}\": {error}", frame.sequence),
            })?;
            let reply = query.reply(key.to_string(), jpeg).encoding(Encoding::IMAGE_JPEG);
            log(reply.attachment(stamp(camera, &frame)).wait());
        }
        Ok(())
    }
}

/// The cameras a query names, each with its key.
pub(super) fn matching<'a>(
    query: &Query,
    device: &Name,
    cameras: &'a [CameraState],
    topic: fn(Name) -> Topic,
) -> Vec<(&'a str, Key)> {
    let key = |camera: &'a CameraState| {
        let name = Name::new(&camera.camera).ok()?;
        Some((camera.camera.as_str(), Key::new(device.clone(), topic(name))))
    };
    cameras.iter().filter_map(key).filter(|(_, key)| intersects(query, key)).collect()
}

/// The error for a query that names no camera there is.
pub(super) fn unknown_camera(query: &Query, cameras: &[CameraState]) -> AskError {
    let asked = query.key_expr().as_str();
    let camera = match asked.parse::<Key>().map(|key| key.topic) {
        Ok(Topic::Ask(name) | Topic::Frame(name) | Topic::State(name)) => name.to_string(),
        _ => asked.split('/').nth(3).unwrap_or(asked).chars().take(64).collect(),
    };
    AskError::UnknownCamera { camera, known: cameras.iter().map(|camera| camera.camera.clone()).collect() }
}

fn no_frame(camera: &str, cameras: &[CameraState], sequence: Option<u64>) -> AskError {
    let reason = match (sequence, cameras.iter().find(|state| state.camera == camera)) {
        (Some(number), _) => {
            format!("frame {number} of camera \"{camera}\" is not held any more, or not yet there")
        }
        (None, Some(state)) if !state.reason.is_empty() => {
            format!("camera \"{camera}\" has delivered none yet: {}", state.reason)
        }
        (None, _) => format!("camera \"{camera}\" has delivered none yet"),
    };
    AskError::NoFrame { reason }
}

fn intersects(query: &Query, key: &Key) -> bool {
    zenoh::key_expr::KeyExpr::new(key.to_string()).is_ok_and(|key| query.key_expr().intersects(&key))
}

/// Whether a query is about the JSON twin of a key.
fn asks_twin(query: &Query) -> bool {
    query.key_expr().as_str().ends_with("/json")
}

/// Replies in the format of the key, or in JSON if the query is in JSON.
pub(super) fn reply<M: Message>(query: &Query, key: &Key, message: &M) {
    let wants_json =
        query.encoding().is_some_and(|encoding| encoding.to_string().starts_with("application/json"));
    let format = if key.json || wants_json { Format::Json } else { Format::Postcard };
    log(query.reply(key.to_string(), encode(message, format)).encoding(M::encoding(format)).wait());
}

/// Replies with an error.
pub(super) fn refuse(query: &Query, error: &AskError) {
    log(query.reply_err(encode(error, Format::Json)).encoding(AskError::encoding(Format::Json)).wait());
}

/// A reply that cannot be sent has nobody to go to.
pub(super) fn log(sent: zenoh::Result<()>) {
    if let Err(error) = sent {
        tracing::debug!(%error, "a reply was not sent");
    }
}
