//! A guide on a thread of its own: it compiles and computes masks while the model runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use messages::Constraint;

use super::{ConstraintError, Grammars, Guide};
use crate::model::sampler::Mask;

/// Guides at once: a constraint that takes long to compile holds no more than its own thread.
const GUIDES: usize = 16;

/// Room for expressions nested as deeply as their length allows. Untouched stack costs nothing.
const STACK: usize = 64 << 20;

/// The longest that a mask may take. They take milliseconds, so this is met on a machine in trouble
/// only.
const MASK_TIME: Duration = Duration::from_secs(2);

/// The longest wait for a mask at a stretch.
const WAIT: Duration = Duration::from_millis(2);

/// The wait that is shorter than a pass of the model, and longer than most masks take.
const SHORT_TIME: Duration = Duration::from_millis(1);

static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// What may follow.
#[derive(Debug)]
pub enum Next {
    /// One of these tokens.
    Tokens(Mask),
    /// Nothing: the answer is complete.
    Nothing,
}

type Turn = Result<Next, ConstraintError>;

/// A [`Guide`] at work on its own thread, which ends when this is dropped.
#[derive(Debug)]
pub struct Guided {
    /// Chosen tokens, each with its mask, whose memory is used again.
    chosen: SyncSender<(u32, Mask)>,
    turns: Receiver<Turn>,
    next: Option<Next>,
    error: Option<ConstraintError>,
    /// When the last token was chosen, or the compiled constraint was first found missing.
    since: Option<Instant>,
}

impl Guided {
    /// Begins to compile `constraint`; `ring` is called when that is done.
    pub fn begin(
        grammars: &Arc<Grammars>,
        constraint: Constraint,
        ring: impl FnOnce() + Send + 'static,
    ) -> Result<Self, ConstraintError> {
        let place = Place::take()?;
        let (chosen, to_follow) = sync_channel(1);
        let (turn, turns) = sync_channel(1);
        let grammars = grammars.clone();
        let work = move || {
            let _place = place;
            let (first, guide) = match grammars.compile(&constraint) {
                Ok(guide) => (Ok(Next::Tokens(guide.mask().clone())), Some(guide)),
                Err(error) => (Err(error), None),
            };
            // A caller who left needs no answer.
            let is_heard = turn.send(first).is_ok();
            ring();
            if let Some(guide) = guide.filter(|_| is_heard) {
                follow(guide, &to_follow, &turn);
            }
        };
        let thread = thread::Builder::new().name("guide".into()).stack_size(STACK);
        thread.spawn(work).map_err(|_| ConstraintError::Busy)?;
        Ok(Self { chosen, turns, next: None, error: None, since: None })
    }

    /// Whether the constraint is compiled. Does not wait.
    pub fn is_ready(&mut self) -> Result<bool, ConstraintError> {
        if self.next.is_none() {
            match self.turns.try_recv() {
                Ok(turn) => self.next = Some(turn?),
                Err(TryRecvError::Empty) => return Ok(false),
                Err(TryRecvError::Disconnected) => return Err(stopped()),
            }
        }
        Ok(true)
    }

    /// What may follow. Waits a little if it is still being computed; `None` if it is not known then.
    pub fn following(&mut self) -> Result<Option<&Next>, ConstraintError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        if self.next.is_none() {
            let since = *self.since.get_or_insert_with(Instant::now);
            match self.turns.recv_timeout(WAIT) {
                Ok(turn) => self.next = Some(turn?),
                Err(RecvTimeoutError::Timeout) if since.elapsed() < MASK_TIME => return Ok(None),
                Err(RecvTimeoutError::Timeout) => return Err(super::costly("a step took too long")),
                Err(RecvTimeoutError::Disconnected) => return Err(stopped()),
            }
        }
        Ok(self.next.as_ref())
    }

    /// Whether nothing may follow. Waits only as long as most masks take: `false` may also mean that
    /// this is not known yet.
    pub fn is_complete(&mut self) -> bool {
        if self.next.is_none() {
            match self.turns.recv_timeout(SHORT_TIME) {
                Ok(Ok(next)) => self.next = Some(next),
                Ok(Err(error)) => self.error = Some(error),
                // The next wait tells.
                Err(_) => {}
            }
        }
        matches!(self.next, Some(Next::Nothing))
    }

    /// Goes on by a token, one that [`Guided::following`] allowed and that is not the end token.
    pub fn advance(&mut self, id: u32) {
        self.since = Some(Instant::now());
        if let Some(Next::Tokens(mask)) = self.next.take() {
            // The other side takes one token for each turn it gives, so there is room; if it is
            // gone, the next turn tells.
            let _ = self.chosen.try_send((id, mask));
        }
    }
}

/// Gives a turn for every token chosen.
fn follow(mut guide: Guide, chosen: &Receiver<(u32, Mask)>, turns: &SyncSender<Turn>) {
    while let Ok((id, mut mask)) = chosen.recv() {
        let turn = guide.advance(id).map(|goes_on| {
            if !goes_on {
                return Next::Nothing;
            }
            mask.clone_from(guide.mask());
            Next::Tokens(mask)
        });
        if turns.send(turn).is_err() {
            return;
        }
    }
}

fn stopped() -> ConstraintError {
    super::costly("its computation broke off")
}

/// One of the places for a thread.
struct Place;

impl Place {
    fn take() -> Result<Self, ConstraintError> {
        let more = |running: usize| (running < GUIDES).then_some(running + 1);
        match RUNNING.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => Ok(Self),
            Err(_) => Err(ConstraintError::Busy),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::AcqRel);
    }
}
