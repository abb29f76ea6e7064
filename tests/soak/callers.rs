//! Callers of all kinds, and what becomes of their questions.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use messages::{Answer, AnswerPiece, AskError, Question, Sampling};
use mobilevlmd::engine::{Ask, AskSender};
use tokio::sync::mpsc::{self, error::TryRecvError};

use super::asked::{Asked, FORMS, Kind, TEXTS, WRONG, brought};
use super::cameras::{Cameras, NAMES};
use crate::engine::Heard;
use crate::random::Random;

/// One arrival in so many is that of a crowd, which is more than may wait and be open together.
const CROWD_EVERY: u64 = 60;
const CROWD: usize = 48;

/// Conversations at once, and the turns of each.
const TALKS: usize = 4;
const TURNS: u32 = 6;

/// Everybody who asks.
pub(super) struct Callers {
    random: Random,
    asks: AskSender,
    pictures: Vec<Vec<u8>>,
    open: Vec<Open>,
    talks: Vec<Talk>,
    talks_seen: u32,
    arrivals: u64,
    /// Questions handed over or refused.
    pub(super) sent: u64,
    /// Callers who left before the end.
    pub(super) left: u64,
    /// Questions without an answer, by the kind of error.
    pub(super) refused: BTreeMap<&'static str, u64>,
    pub(super) answers: Vec<Answered>,
}

/// A question under way.
struct Open {
    asked: Asked,
    pieces: mpsc::Receiver<AnswerPiece>,
    heard: Heard,
    leaves_at: Option<Instant>,
}

/// A conversation.
struct Talk {
    number: u32,
    camera: usize,
    asked: u32,
    /// Whether its last question is under way.
    is_ending: bool,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) asked: Asked,
    pub(super) sequence: u64,
    pub(super) text: String,
    pub(super) truncated: bool,
    pub(super) generated: u32,
    pub(super) turns: u32,
}

impl Callers {
    /// Nobody has asked yet.
    pub(super) fn new(seed: u64, asks: AskSender) -> Self {
        Self {
            random: Random(seed),
            asks,
            pictures: brought(),
            open: Vec::new(),
            talks: Vec::new(),
            talks_seen: 0,
            arrivals: 0,
            sent: 0,
            left: 0,
            refused: BTreeMap::new(),
            answers: Vec::new(),
        }
    }

    /// The time to the next arrival.
    pub(super) fn pause(&mut self, mean: Duration) -> Duration {
        self.random.interval(mean)
    }

    /// Questions under way.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// What must be refused, one after the other.
    pub(super) fn doomed() -> impl Iterator<Item = Asked> {
        let wrong = (0..WRONG.len()).map(Kind::Wrong);
        wrong.chain([Kind::Numbered(u64::MAX), Kind::Hurried]).map(Asked::new)
    }

    /// Somebody comes, or many at once.
    pub(super) fn arrive(&mut self, cameras: &Cameras) {
        let count = if self.arrivals.is_multiple_of(CROWD_EVERY) { CROWD } else { 1 };
        self.arrivals += 1;
        for _ in 0..count {
            let asked = self.invent(cameras);
            self.ask(asked);
        }
    }

    fn invent(&mut self, cameras: &Cameras) -> Asked {
        let random = &mut self.random;
        let camera = random.below(NAMES.len() as u64) as usize;
        let newest = cameras.shown(camera) - 1;
        let mut pick = |count: usize| random.below(count as u64) as usize;
        let kind = match pick(32) {
            0..13 => Kind::Latest,
            13 => Kind::Stopped,
            14 | 15 => Kind::Fresh { from: newest },
            16 | 17 => Kind::Numbered(newest.saturating_sub((pick(2) * pick(12)) as u64)),
            18 | 19 => Kind::Brought(pick(self.pictures.len())),
            20..23 => Kind::Formed(pick(FORMS)),
            23..28 => return self.turn().unwrap_or_else(|| Asked::new(Kind::Latest)),
            28 => Kind::Hurried,
            29 | 30 => Kind::Leaving,
            _ => Kind::Wrong(pick(WRONG.len())),
        };
        let text = TEXTS[pick(TEXTS.len())];
        let is_long = random.one_in(16);
        let most = if is_long { 160 } else { 6 + random.below(20) as u32 };
        let asked = Asked::new(kind);
        let is_free = matches!(kind, Kind::Latest | Kind::Fresh { .. } | Kind::Formed(_) | Kind::Leaving);
        let sampling = match is_free && random.one_in(3) {
            true => Sampling { temperature: 0.9, top_p: 0.95, seed: random.below(1000) },
            false => asked.sampling,
        };
        let max_tokens = if is_free && !matches!(kind, Kind::Formed(_)) { most } else { asked.max_tokens };
        Asked { camera, text, sampling, max_tokens, ..asked }
    }

    /// The next question of a conversation, if there is one that goes on.
    fn turn(&mut self) -> Option<Asked> {
        let random = &mut self.random;
        if self.talks.len() < TALKS && (self.talks.is_empty() || random.one_in(3)) {
            let camera = random.below(NAMES.len() as u64) as usize;
            self.talks_seen += 1;
            self.talks.push(Talk { number: self.talks_seen, camera, asked: 0, is_ending: false });
        }
        let mut going: Vec<_> = self.talks.iter_mut().filter(|talk| !talk.is_ending).collect();
        if going.is_empty() {
            return None;
        }
        let talk = going.swap_remove(random.below(going.len() as u64) as usize);
        talk.asked += 1;
        talk.is_ending = talk.asked >= TURNS;
        let turn = Kind::Turn { talk: talk.number, follows: random.one_in(8), ends: talk.is_ending };
        let text = TEXTS[random.below(TEXTS.len() as u64) as usize];
        Some(Asked { camera: talk.camera, text, ..Asked::new(turn) })
    }

    /// Ends the conversations that go on.
    pub(super) fn end_talks(&mut self) {
        for Talk { number, camera, .. } in std::mem::take(&mut self.talks) {
            self.ask(Asked { camera, ..Asked::new(Kind::Silent { talk: number }) });
        }
    }

    /// Asks one question.
    pub(super) fn ask(&mut self, asked: Asked) {
        let (reply, pieces) = mpsc::channel(64);
        let question: Question = asked.question(&self.pictures);
        let arrived = Instant::now();
        self.sent += 1;
        match self.asks.send(Ask { camera: asked.camera().into(), question, arrived, reply }) {
            Ok(()) => {
                let stays = Duration::from_micros(self.random.below(20_000));
                let leaves_at = matches!(asked.kind, Kind::Leaving).then(|| arrived + stays);
                self.open.push(Open { asked, pieces, heard: Heard::default(), leaves_at });
            }
            Err(error) => self.end(asked, Err(error)),
        }
    }

    /// Hears what was said to everybody.
    pub(super) fn listen(&mut self) {
        let now = Instant::now();
        for index in (0..self.open.len()).rev() {
            let open = &mut self.open[index];
            let is_over = loop {
                match open.pieces.try_recv() {
                    Ok(piece) => open.heard.hear(piece),
                    Err(error) => break error == TryRecvError::Disconnected,
                }
            };
            if is_over {
                let Open { asked, heard, .. } = self.open.swap_remove(index);
                self.end(asked, heard.end());
            } else if open.leaves_at.is_some_and(|at| at <= now) {
                self.open.swap_remove(index);
                self.left += 1;
            }
        }
    }

    /// The one end of a question.
    fn end(&mut self, asked: Asked, end: Result<Answer, AskError>) {
        if let Kind::Turn { talk, ends: true, .. } = asked.kind {
            match end {
                Ok(_) => self.talks.retain(|known| known.number != talk),
                // It is ended by another question.
                Err(_) => {
                    let known = self.talks.iter_mut().filter(|known| known.number == talk);
                    known.for_each(|known| known.is_ending = false);
                }
            }
        }
        match end {
            Ok(answer) => {
                asked.check(&answer);
                let Answer { frame, text, truncated, tokens, turns, .. } = answer;
                let (sequence, generated) = (frame.sequence, tokens.generated);
                self.answers.push(Answered { asked, sequence, text, truncated, generated, turns });
            }
            Err(error) => {
                assert!(asked.allows(&error), "{asked:?}: {error:?}");
                *self.refused.entry(error.kind()).or_default() += 1;
            }
        }
    }
}
