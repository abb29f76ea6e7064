//! The other end of the bus: what the `watch`, `ask`, `status` and `snapshot` commands do.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use messages::keys::{Key, Name, Topic};
use messages::{
    Alert, Answer, AnswerPiece, AskError, Caption, CaptionPiece, DecodeError, Format, FrameStamp, Message,
    Question, Status, decode, encode,
};
use zenoh::query::{ConsolidationMode, Reply, ReplyError};
use zenoh::sample::{Sample, SampleKind, SourceInfo};
use zenoh::{Session, Wait};
use zenoh_ext::{AdvancedSubscriberBuilderExt, HistoryConfig, Miss, RecoveryConfig};

use super::{BusError, session};

/// How long a daemon may take to answer what needs no thinking.
const PROMPT: Duration = Duration::from_secs(3);

/// How long after its deadline an answer is still waited for.
const GRACE: Duration = Duration::from_secs(5);

/// Results that may wait for the terminal.
const BACKLOG: usize = 256;

/// How a client reaches a daemon.
#[derive(Clone, Debug, clap::Args)]
pub struct Connect {
    /// Endpoint of the daemon or of a router
    #[arg(long, value_name = "ENDPOINT", default_value = "tcp/127.0.0.1:7447")]
    pub connect: String,
    /// A zenoh configuration file to use instead, for TLS or passwords
    #[arg(long, value_name = "FILE", conflicts_with = "connect")]
    pub zenoh_config: Option<PathBuf>,
    /// Name of the device; not needed where there is one only
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
}

/// Why a client gets nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is there.
    #[error("no daemon answers at {at}; start one with `mobilevlmd run` or name another with --connect")]
    NoDaemon {
        /// Where it was looked for.
        at: String,
    },
    /// The device named is not there.
    #[error("no device \"{device}\" at {at}; there are: {}", found.join(", "))]
    NoDevice {
        /// Its name.
        device: String,
        /// Where it was looked for.
        at: String,
        /// The devices that are there.
        found: Vec<String>,
    },
    /// Several devices and no choice.
    #[error("several devices at {at}: {}; choose one with --device", found.join(", "))]
    Several {
        /// Where they are.
        at: String,
        /// Their names.
        found: Vec<String>,
    },
    /// A name that cannot be.
    #[error("{0}")]
    Name(#[from] messages::keys::NameError),
    /// The user may look, but not ask.
    #[error("questions to \"{device}\" are not let through from here: take the configuration of an operator")]
    NotAllowed {
        /// The device asked.
        device: String,
    },
    /// The daemon refused.
    #[error("{}: {error}", error.kind())]
    Refused {
        /// Its reason.
        error: AskError,
    },
    /// Nobody replied.
    #[error("the daemon is gone")]
    Gone,
    /// The daemon said nothing.
    #[error("the daemon gave no answer within {} s", .0.as_secs_f32())]
    Silence(Duration),
    /// The daemon speaks another version.
    #[error("the daemon's answer is not understood: {0}; are both of one version?")]
    Decode(#[from] DecodeError),
    /// The connection cannot be made.
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl From<zenoh::Error> for ClientError {
    fn from(error: zenoh::Error) -> Self {
        Self::Bus(error.into())
    }
}

/// What a watcher sees.
#[derive(Clone, Debug)]
pub enum Seen {
    /// A finished caption.
    Caption(Caption),
    /// Part of a caption being written.
    Piece(CaptionPiece),
    /// An alert that began or ended.
    Alert(Alert),
    /// So many captions or alerts were lost on the way.
    Missed(u32),
    /// The daemon is gone; it is waited for.
    Gone,
    /// The daemon is there again.
    Back,
}

/// A connection to one device.
pub struct Client {
    session: Session,
    device: Name,
}

impl Client {
    /// Connects and finds the device.
    ///
    /// Errors: nobody there, or several devices and none named.
    pub fn connect(connect: &Connect) -> Result<Self, ClientError> {
        let wanted = connect.device.as_deref().map(Name::new).transpose()?;
        let (config, at) = match &connect.zenoh_config {
            Some(file) => {
                let hint = "or it refuses the user, password or certificate there, as its journal would say";
                (session::from_file(file)?, format!("the endpoints of {} ({hint})", file.display()))
            }
            None => (session::of_client(&connect.connect)?, connect.connect.clone()),
        };
        let session = zenoh::open(config).wait().map_err(|error| {
            tracing::debug!(%error, "not connected");
            ClientError::NoDaemon { at: at.clone() }
        })?;
        let mut found = devices(&session)?;
        let device = match wanted {
            _ if found.is_empty() => return Err(ClientError::NoDaemon { at }),
            Some(device) if found.contains(&device) => device,
            None if found.len() == 1 => found.remove(0),
            wanted => {
                let found = found.iter().map(Name::to_string).collect();
                return Err(match wanted {
                    Some(device) => ClientError::NoDevice { device: device.to_string(), at, found },
                    None => ClientError::Several { at, found },
                });
            }
        };
        Ok(Self { session, device })
    }

    /// Name of the device.
    pub fn device(&self) -> &str {
        self.device.as_str()
    }

    /// Asks a question; `piece` is given the text as it comes.
    ///
    /// Errors: the daemon's typed error, or none of its answers within the deadline and a little more.
    pub fn ask(
        &self,
        camera: &str,
        question: &Question,
        mut piece: impl FnMut(&str),
    ) -> Result<Answer, ClientError> {
        let wait = match question.deadline_ms {
            0 => Duration::from_secs(600),
            ms => Duration::from_millis(ms.into()) + GRACE,
        };
        let key = self.key(Topic::Ask(Name::new(camera)?));
        let replies = self
            .session
            .get(key)
            .payload(encode(question, Format::Postcard))
            .encoding(Question::encoding(Format::Postcard))
            .consolidation(ConsolidationMode::None)
            // So that the daemon notices if this process ends.
            .source_info(SourceInfo::new(self.session.id(), 0))
            .timeout(wait)
            .wait()?;
        let mut has_begun = false;
        while let Ok(reply) = replies.recv() {
            match read(accepted(reply, wait)?)? {
                AnswerPiece::Text { text, .. } => {
                    has_begun = true;
                    piece(&text);
                }
                AnswerPiece::Final(answer) => return Ok(answer),
                AnswerPiece::Error(error) => return Err(ClientError::Refused { error }),
            }
        }
        // What is not let through has no reply at all.
        match has_begun || self.status().is_err() {
            true => Err(ClientError::Gone),
            false => Err(ClientError::NotAllowed { device: self.device.to_string() }),
        }
    }

    /// The daemon as it is now.
    pub fn status(&self) -> Result<Status, ClientError> {
        read(self.one(self.key(Topic::Status))?)
    }

    /// A frame as JPEG: the newest, or one still held.
    pub fn snapshot(
        &self,
        camera: &str,
        sequence: Option<u64>,
    ) -> Result<(Vec<u8>, FrameStamp), ClientError> {
        let key = self.key(Topic::Frame(Name::new(camera)?));
        let selector = sequence.map_or(key.clone(), |number| format!("{key}?sequence={number}"));
        let sample = self.one(selector)?;
        let stamp = sample.attachment().map(|stamp| stamp.to_bytes()).unwrap_or_default();
        Ok((sample.payload().to_bytes().into_owned(), decode(&stamp, Format::Json)?))
    }

    /// Gives `seen` every caption and alert, of one camera or of all, until it has enough. Pieces are
    /// for whoever shows them as they come. A daemon that goes is waited for.
    ///
    /// Errors: the daemon has no such camera, or is another version when it comes back.
    pub fn watch(
        &self,
        camera: Option<&str>,
        pieces: bool,
        mut seen: impl FnMut(Seen) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        let name = camera.map_or(Ok(Name::any()), Name::new)?;
        // An unknown camera would stay silent for ever.
        self.one(self.key(Topic::State(name.clone())))?;
        let (sender, receiver) = std::sync::mpsc::sync_channel(BACKLOG);
        let (other, third, presence) = (sender.clone(), sender.clone(), sender.clone());
        let (missed_alerts, missed_captions) = (sender.clone(), sender.clone());
        // What was said last comes first.
        let kept = |topic| {
            let subscriber = self.session.declare_subscriber(self.key(topic));
            let history = HistoryConfig::default().max_samples(1).detect_late_publishers();
            subscriber.history(history).recovery(RecoveryConfig::default().heartbeat())
        };
        let alerts = kept(Topic::Alert(Name::any()))
            .callback(move |sample| drop(third.send(read(sample).map(Seen::Alert))))
            .wait()?;
        let captions = kept(Topic::Caption(name.clone()))
            .callback(move |sample| drop(sender.send(read(sample).map(Seen::Caption))))
            .wait()?;
        // With so many lost that this finds no room, the number is of no use either.
        let miss =
            |sender: SyncSender<_>| move |miss: Miss| drop(sender.try_send(Ok(Seen::Missed(miss.nb()))));
        alerts.sample_miss_listener().callback(miss(missed_alerts)).background().wait()?;
        captions.sample_miss_listener().callback(miss(missed_captions)).background().wait()?;
        let tell = move |token: Sample| {
            let seen = if token.kind() == SampleKind::Put { Seen::Back } else { Seen::Gone };
            drop(presence.send(Ok(seen)));
        };
        let alive = self.session.liveliness().declare_subscriber(self.key(Topic::Alive));
        let _alive = alive.callback(tell).wait()?;
        let _pieces = if pieces {
            let pieces = self.session.declare_subscriber(self.key(Topic::CaptionPartial(name)));
            Some(pieces.callback(move |sample| drop(other.try_send(read(sample).map(Seen::Piece)))).wait()?)
        } else {
            None
        };
        let mut is_there = true;
        loop {
            let next = match receiver.recv_timeout(PROMPT) {
                Ok(next) => next?,
                // A quiet camera is fine; whether the daemon is there is asked if nothing told.
                Err(_) if self.status().is_ok() => Seen::Back,
                Err(_) => Seen::Gone,
            };
            let now_there = !matches!(next, Seen::Gone);
            let (was_there, is_presence) = (is_there, matches!(next, Seen::Back | Seen::Gone));
            is_there = now_there;
            let is_other =
                camera.is_some_and(|camera| matches!(&next, Seen::Alert(alert) if camera != alert.camera()));
            let news = (was_there != now_there).then_some(if now_there { Seen::Back } else { Seen::Gone });
            let next = (!is_presence && !is_other).then_some(next);
            for one in news.into_iter().chain(next) {
                if seen(one).is_break() {
                    return Ok(());
                }
            }
        }
    }

    fn key(&self, topic: Topic) -> String {
        Key::new(self.device.clone(), topic).to_string()
    }

    /// The first reply to a query that needs no thinking.
    fn one(&self, selector: String) -> Result<Sample, ClientError> {
        let replies = self.session.get(selector).timeout(PROMPT).wait()?;
        match replies.recv() {
            Ok(reply) => accepted(reply, PROMPT),
            Err(_) => Err(ClientError::Gone),
        }
    }
}

/// Devices that say they are alive.
fn devices(session: &Session) -> Result<Vec<Name>, ClientError> {
    let key = Key::new(Name::any(), Topic::Alive).to_string();
    let replies = session.liveliness().get(key).timeout(PROMPT).wait()?;
    let device = |reply: &Reply| reply.result().ok()?.key_expr().parse::<Key>().ok().map(|key| key.device);
    let mut devices: Vec<Name> = replies.iter().filter_map(|reply| device(&reply)).collect();
    devices.sort();
    devices.dedup();
    Ok(devices)
}

/// The sample of a reply, or the error in it.
fn accepted(reply: Reply, wait: Duration) -> Result<Sample, ClientError> {
    reply.into_result().map_err(|error| refused(&error, wait))
}

fn refused(error: &ReplyError, wait: Duration) -> ClientError {
    let decoded = AskError::format(&error.encoding().to_string())
        .and_then(|format| decode::<AskError>(&error.payload().to_bytes(), format));
    match decoded {
        Ok(error) => ClientError::Refused { error },
        // zenoh's own word for it.
        Err(_) if error.payload().to_bytes().as_ref() == b"Timeout" => ClientError::Silence(wait),
        Err(error) => ClientError::Decode(error),
    }
}

/// The message of a sample.
fn read<M: Message>(sample: Sample) -> Result<M, ClientError> {
    let format = M::format(&sample.encoding().to_string())?;
    Ok(decode(&sample.payload().to_bytes(), format)?)
}
