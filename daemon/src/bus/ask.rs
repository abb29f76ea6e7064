//! Questions: each query gets exactly one final reply or one error reply.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use messages::keys::{Key, Name, Topic};
use messages::{Answer, AnswerPiece, AskError, DecodeError, Format, Message, Question, decode, encode};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::block_in_place;
use zenoh::bytes::{Encoding, ZBytes};
use zenoh::query::{Query, Queryable};
use zenoh::{Session, Wait};

use super::BusInputs;
use super::counts::{Counts, Refusals};
use super::present::Present;
use super::query::{matching, unknown_camera};
use crate::engine::{Ask, AskSender};

/// Pieces the engine may be ahead of the caller.
const PIECES: usize = 256;

/// The engine ends a question at its deadline by itself; this much later the bus does.
const GRACE: Duration = Duration::from_secs(1);

/// Longest deadline a caller may set.
const LONGEST_DEADLINE: Duration = Duration::from_secs(600);

/// Takes questions in and watches over them until their end.
pub(super) struct Desk {
    pub(super) device: Name,
    pub(super) inputs: Arc<dyn BusInputs>,
    pub(super) asks: AskSender,
    pub(super) deadline: Duration,
    /// One permit per question that may be open.
    pub(super) in_flight: Arc<Semaphore>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) present: Present,
    pub(super) counts: Arc<Counts>,
    pub(super) refusals: Refusals,
    pub(super) runtime: Handle,
}

/// A question that the engine has taken.
pub(super) struct Open {
    deadline: Duration,
    arrived: Instant,
    pieces: mpsc::Receiver<AnswerPiece>,
}

impl Desk {
    /// Listens on every camera name, so that an unknown one is answered too.
    pub(super) async fn declare(self: Arc<Self>, session: &Session) -> zenoh::Result<Queryable<()>> {
        let key = Key::new(self.device.clone(), Topic::Ask(Name::any()));
        session.declare_queryable(key.to_string()).callback(move |query| self.receive(query)).await
    }

    /// Runs on a thread of zenoh: it hands over and returns.
    fn receive(self: &Arc<Self>, query: Query) {
        let arrived = Instant::now();
        self.counts.asked();
        let caller = Caller::new(query);
        let desk = self.clone();
        let place = match self.place() {
            Ok(place) => place,
            Err(error) => return self.refusals.send(move || desk.refuse(&caller, &error)),
        };
        self.runtime.spawn(async move {
            let outcome = match desk.hand_over(&caller, arrived) {
                Ok((key, mut open)) => {
                    let outcome = desk.relay(&caller, &key, &mut open).await;
                    outcome.map(|answer| (key, answer))
                }
                Err(error) => Err(error),
            };
            block_in_place(|| match outcome {
                Ok((key, answer)) => {
                    desk.note(Ok(&answer));
                    caller.finish(&key, answer);
                }
                Err(error) => desk.refuse(&caller, &error),
            });
            drop(place);
        });
    }

    /// A place among the questions that may be open, until it is dropped.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, AskError> {
        if *self.stop.borrow() {
            return Err(stopping());
        }
        self.in_flight.clone().try_acquire_owned().map_err(|_| self.asks.refuse())
    }

    /// Counts the end of a question.
    pub(super) fn note(&self, outcome: Result<&Answer, &AskError>) {
        match outcome {
            Ok(_) => self.counts.answered(),
            Err(error) => self.counts.failed(error),
        }
    }

    /// The end of a question that has no answer.
    fn refuse(&self, caller: &Caller, error: &AskError) {
        self.note(Err(error));
        caller.refuse(error);
    }

    /// Reads and checks the question, finds the camera and gives both to the engine. With the open question
    /// comes the key of the camera asked, as all replies have it.
    fn hand_over(&self, caller: &Caller, arrived: Instant) -> Result<(String, Open), AskError> {
        let question = caller.question()?;
        question.check()?;
        let cameras = self.inputs.cameras();
        let named = matching(&caller.query, &self.device, &cameras, Topic::Ask);
        let (camera, key) = match named.as_slice() {
            [] => return Err(unknown_camera(&caller.query, &cameras)),
            [(camera, key)] => (*camera, key.to_string()),
            several => {
                let names: Vec<&str> = several.iter().map(|(name, _)| *name).collect();
                let reason = format!("one camera at a time: the key names {}", names.join(", "));
                return Err(AskError::BadRequest { reason });
            }
        };
        Ok((key, self.open(camera, question, arrived)?))
    }

    /// Gives a checked question to the engine.
    pub(super) fn open(&self, camera: &str, question: Question, arrived: Instant) -> Result<Open, AskError> {
        let deadline = match question.deadline_ms {
            0 => self.deadline,
            ms => Duration::from_millis(ms.into()).min(LONGEST_DEADLINE),
        };
        let (reply, pieces) = mpsc::channel(PIECES);
        self.asks.send(Ask { camera: camera.into(), question, arrived, reply })?;
        Ok(Open { deadline, arrived, pieces })
    }

    async fn relay(&self, caller: &Caller, key: &str, open: &mut Open) -> Result<Answer, AskError> {
        let left = self.present.clone().left(&caller.query);
        self.pass_on(open, left, |index, text| caller.piece(key, index, text)).await
    }

    /// Passes pieces on until the end of the question, whatever that is. It ends when `left` does, too.
    pub(super) async fn pass_on(
        &self,
        open: &mut Open,
        left: impl Future<Output = ()>,
        mut piece_to: impl FnMut(u32, String),
    ) -> Result<Answer, AskError> {
        let mut stop = self.stop.clone();
        let stopped = stop.wait_for(|&stop| stop);
        let late = tokio::time::sleep_until((open.arrived + open.deadline + GRACE).into());
        tokio::pin!(stopped, late, left);
        loop {
            let piece = tokio::select! {
                biased;
                piece = open.pieces.recv() => piece,
                _ = &mut stopped => return Err(stopping()),
                () = &mut left => return Err(AskError::Cancelled { reason: "the caller left".into() }),
                () = &mut late => {
                    let deadline_ms = u32::try_from(open.deadline.as_millis()).unwrap_or(u32::MAX);
                    return Err(AskError::Deadline { deadline_ms });
                }
            };
            match piece {
                Some(AnswerPiece::Text { index, text }) => block_in_place(|| piece_to(index, text)),
                Some(AnswerPiece::Final(answer)) => return Ok(answer),
                Some(AnswerPiece::Error(error)) => return Err(error),
                None if *self.stop.borrow() => return Err(stopping()),
                None => return Err(AskError::Internal { reason: "the engine gave the question up".into() }),
            }
        }
    }
}

fn stopping() -> AskError {
    AskError::Cancelled { reason: "the daemon is stopping".into() }
}

/// How the caller wrote the question and wants the replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The words alone.
    Text,
    /// A message.
    Message(Format),
}

impl Form {
    fn of(encoding: Option<&Encoding>) -> Result<Self, DecodeError> {
        let encoding = encoding.map_or(Cow::Borrowed(""), Cow::from);
        match encoding.split(';').next() {
            None | Some("" | "text/plain" | "zenoh/string" | "zenoh/bytes") => Ok(Self::Text),
            _ => Question::format(&encoding).map(Self::Message),
        }
    }
}

/// Whoever asked.
struct Caller {
    query: Query,
    form: Result<Form, DecodeError>,
}

impl Caller {
    fn new(query: Query) -> Self {
        let form = Form::of(query.encoding());
        Self { query, form }
    }

    /// The question, not yet checked.
    fn question(&self) -> Result<Question, AskError> {
        let form = self.form.clone()?;
        let empty = ZBytes::new();
        let payload = self.query.payload().unwrap_or(&empty);
        // Before the bytes are joined to one piece.
        if payload.len() > Question::MAX_BYTES {
            let what = "question in bytes".into();
            return Err(AskError::TooLong {
                what,
                got: payload.len() as u64,
                limit: Question::MAX_BYTES as u64,
            });
        }
        let bytes = payload.to_bytes();
        match form {
            Form::Message(format) => Ok(decode(&bytes, format)?),
            Form::Text => match std::str::from_utf8(&bytes) {
                Ok(text) => Ok(Question::new(text)),
                Err(error) => {
                    Err(AskError::BadRequest { reason: format!("the question is not UTF-8: {error}") })
                }
            },
        }
    }

    /// How replies are written; words if the question's own form is not understood.
    fn form(&self) -> Form {
        self.form.clone().unwrap_or(Form::Text)
    }

    /// Sends new text.
    fn piece(&self, key: &str, index: u32, text: String) {
        let sent = match self.form() {
            Form::Text => self.query.reply(key, text).encoding(Encoding::TEXT_PLAIN).wait(),
            Form::Message(format) => {
                let piece = AnswerPiece::Text { index, text };
                self.query.reply(key, encode(&piece, format)).encoding(AnswerPiece::encoding(format)).wait()
            }
        };
        log(sent);
    }

    /// Ends with an answer.
    fn finish(&self, key: &str, answer: Answer) {
        let sent = match self.form() {
            Form::Text => {
                let attachment = encode(&answer, Format::Json);
                self.query
                    .reply(key, answer.text)
                    .encoding(Encoding::TEXT_PLAIN)
                    .attachment(attachment)
                    .wait()
            }
            Form::Message(format) => {
                let piece = AnswerPiece::Final(answer);
                self.query.reply(key, encode(&piece, format)).encoding(AnswerPiece::encoding(format)).wait()
            }
        };
        log(sent);
    }

    /// Ends with an error.
    fn refuse(&self, error: &AskError) {
        tracing::debug!(key = %self.query.key_expr(), kind = error.kind(), %error, "question refused");
        log(match self.form() {
            Form::Text => {
                let message = format!("{}: {error}", error.kind());
                self.query.reply_err(message).encoding(Encoding::TEXT_PLAIN).wait()
            }
            Form::Message(format) => {
                self.query.reply_err(encode(error, format)).encoding(AskError::encoding(format)).wait()
            }
        });
    }
}

/// A reply that cannot be sent has nobody to go to.
fn log(sent: zenoh::Result<()>) {
    if let Err(error) = sent {
        tracing::debug!(%error, "a reply was not sent");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_choose_the_form() {
        let form = |encoding: &str| Form::of(Some(&Encoding::from(encoding)));
        assert_eq!(Form::of(None), Ok(Form::Text));
        assert_eq!(Form::of(Some(&Encoding::default())), Ok(Form::Text));
        assert_eq!(form("text/plain;charset=utf-8"), Ok(Form::Text));
        assert_eq!(form("zenoh/string"), Ok(Form::Text));
        assert_eq!(form("application/json"), Ok(Form::Message(Format::Json)));
        assert_eq!(form("application/postcard;question@1"), Ok(Form::Message(Format::Postcard)));
        assert!(form("application/postcard;question@99").is_err());
        assert!(form("image/jpeg").is_err());
    }
}
