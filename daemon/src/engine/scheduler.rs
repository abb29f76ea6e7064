//! Which unit of work comes next, and who shares a pass: pure functions of the clock, what waits and
//! what runs.
//!
//! Work comes in units: a block of the vision tower, some layers of a pass, a whole pass where it is
//! short. A long pass has units in which its sequences board it, units of layers, and units in which
//! they hear what follows, a few at a time. Pictures are encoded one at a time. Passes run in two
//! lanes, so that one can wait while the other runs: [`Lane::Urgent`] carries questions,
//! [`Lane::Steady`] rules and captions.
//!
//! * Questions go first, by deadline; then rules; then captions, round robin over the cameras; then
//!   new pictures, the camera that waited longest first.
//! * All questions share their passes, and whatever else is decoding rides along: weights are read
//!   once for all. A short pass of rules and captions that is under way is finished before questions
//!   decode on, so that the next pass carries all of them.
//! * Pictures that questions wait for take turns with the passes of other questions.
//! * Work that is owed, because its camera was not described for too long, takes turns with
//!   questions unit by unit.
//!
//! From this follow the bounds that the simulation checks. A question whose picture is in the cache
//! waits for the unit under way, and then for the pass of questions under way, if there is one, and
//! the steps before it by deadline; each of their units may be followed by one unit of owed work. A
//! caption begins at most the time it is owed in plus the work of all other owed captions and
//! pictures after the one before it, each taking twice as long as alone.

use std::time::Instant;

/// Who work is done for, in the order of their turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// A caller waits.
    Question,
    /// A rule on a picture.
    Rule,
    /// The description of a picture.
    Caption,
}

/// A pass under way, or to be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Questions, and what decodes beside them.
    Urgent,
    /// Rules and captions.
    Steady,
}

/// A running sequence as the scheduler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JobView {
    /// Who it is for.
    pub(super) class: Class,
    /// The earliest of its class goes first: the deadline of a question, or when the sequence was in
    /// a pass last.
    pub(super) turn: Instant,
    /// From this time on it takes turns with questions.
    pub(super) owed_at: Option<Instant>,
    /// Rows it has to compute: what is left of its prompt, or its newest token.
    pub(super) rows: usize,
    /// Whether these are of its prompt.
    pub(super) is_prompt: bool,
    /// Rows it would add behind them to have a draft verified.
    pub(super) draft: usize,
    /// The pass that carries it.
    pub(super) lane: Option<Lane>,
}

/// A question that needs a picture encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WantView {
    /// Position in the list of questions.
    pub(super) question: usize,
    /// When its time is up.
    pub(super) deadline: Instant,
}

/// A camera as the scheduler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CameraView {
    /// Whether a frame waits to be described and may be.
    pub(super) is_due: bool,
    /// When its last picture began.
    pub(super) last_start: Option<Instant>,
    /// From this time on its picture takes turns with questions.
    pub(super) owed_at: Option<Instant>,
}

/// The picture being encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PictureView {
    /// From this time on it takes turns with questions.
    pub(super) owed_at: Option<Instant>,
}

/// What went before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turns {
    /// The last unit for questions was one of a pass, not of a picture.
    pub(super) was_pass: bool,
    /// The last unit was not for questions.
    pub(super) was_steady: bool,
}

/// All that the choice depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    /// The time.
    pub(super) now: Instant,
    /// Running sequences.
    pub(super) jobs: &'a [JobView],
    /// Questions that need pictures.
    pub(super) wants: &'a [WantView],
    /// The cameras.
    pub(super) cameras: &'a [CameraView],
    /// The picture being encoded.
    pub(super) picture: Option<PictureView>,
    /// What went before.
    pub(super) turns: Turns,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// The next layers of the pass in a lane.
    Continue(Lane),
    /// A new pass in a lane that has none, with those whom [`share`] names.
    Begin(Lane),
    /// The next part of the picture being encoded.
    Encode,
    /// Begin to encode the picture that a question needs.
    PictureFor(usize),
    /// Begin to encode the newest frame of a camera.
    Describe(usize),
    /// Nothing to do.
    Wait,
}

/// Units that may go by before the first pass of a question that has all it needs, where passes of
/// questions take up to `pass` units: the pass under way, one unit of a picture for another question
/// and one short pass of others, each followed by one unit of owed work.
pub(super) fn patience(pass: usize) -> usize {
    2 * (pass + 2)
}

/// Chooses the next unit, and tells what the view after it has as [`View::turns`].
pub(super) fn next(view: &View<'_>) -> (Unit, Turns) {
    let steady = |unit| (unit, Turns { was_steady: true, ..view.turns });
    match (for_questions(view), for_others(view)) {
        (Some(_), Some(unit)) if !view.turns.was_steady && is_owed(view) => steady(unit),
        (Some(chosen), _) => chosen,
        (None, Some(unit)) => steady(unit),
        (None, None) => (Unit::Wait, view.turns),
    }
}

/// The next unit that a question needs.
fn for_questions(view: &View<'_>) -> Option<(Unit, Turns)> {
    let turns = |was_pass| Turns { was_pass, was_steady: false };
    if is_under_way(view, Lane::Urgent) {
        return Some((Unit::Continue(Lane::Urgent), turns(true)));
    }
    let ready = || view.jobs.iter().filter(|job| job.class == Class::Question);
    let is_ready = ready().next().is_some();
    if let Some(want) = view.wants.iter().min_by_key(|want| want.deadline)
        && (!is_ready || view.turns.was_pass)
    {
        let unit = if view.picture.is_some() { Unit::Encode } else { Unit::PictureFor(want.question) };
        return Some((unit, turns(false)));
    }
    if !is_ready {
        return None;
    }
    let steady = || view.jobs.iter().filter(|job| job.lane == Some(Lane::Steady));
    let is_short = steady().all(|job| !job.is_prompt && job.draft == 0);
    if steady().next().is_some() && is_short && !ready().any(|job| job.is_prompt) {
        return Some((Unit::Continue(Lane::Steady), Turns { was_steady: true, ..view.turns }));
    }
    Some((Unit::Begin(Lane::Urgent), turns(true)))
}

/// The next unit that a rule, a caption or a camera needs.
fn for_others(view: &View<'_>) -> Option<Unit> {
    if is_under_way(view, Lane::Steady) {
        return Some(Unit::Continue(Lane::Steady));
    }
    if view.jobs.iter().any(|job| job.class != Class::Question && job.lane.is_none()) {
        return Some(Unit::Begin(Lane::Steady));
    }
    if view.picture.is_some() {
        return Some(Unit::Encode);
    }
    let due = view.cameras.iter().enumerate().filter(|(_, camera)| camera.is_due);
    due.min_by_key(|(_, camera)| camera.last_start).map(|(index, _)| Unit::Describe(index))
}

fn is_under_way(view: &View<'_>, lane: Lane) -> bool {
    view.jobs.iter().any(|job| job.lane == Some(lane))
}

/// Whether something that does not ride with questions has waited for too long.
fn is_owed(view: &View<'_>) -> bool {
    let owed = |at: Option<Instant>| at.is_some_and(|at| at <= view.now);
    view.jobs.iter().any(|job| owed(job.owed_at) && job.lane != Some(Lane::Urgent))
        || view.picture.is_some_and(|picture| owed(picture.owed_at))
        || view.cameras.iter().any(|camera| camera.is_due && owed(camera.owed_at))
}

/// What one pass can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Rows.
    pub(super) rows: usize,
    /// Rows whose logits are wanted.
    pub(super) sampled: usize,
    /// Sequences.
    pub(super) sequences: usize,
}

/// Rows that take little longer than one, since reading the weights is what takes the time.
const CHEAP_ROWS: usize = 8;

/// What a sequence brings into a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// Position in the list of running sequences.
    pub(super) job: usize,
    /// The first of its rows.
    pub(super) rows: usize,
    /// Rows of its draft behind them.
    pub(super) draft: usize,
}

/// Fills `shares` with those who share a new pass in `lane`.
///
/// Who decodes brings one row. Prompts fill what is left, in equal parts if they do not all fit.
/// Drafts come last; beside questions those of others must cost next to nothing.
pub(super) fn share(view: &View<'_>, lane: Lane, room: Room, shares: &mut Vec<Share>) {
    let is_owed = |job: &JobView| job.owed_at.is_some_and(|at| at <= view.now);
    let joins = |job: &JobView| match (lane, job.class) {
        _ if job.lane.is_some() => false,
        (Lane::Urgent, Class::Question) => true,
        (Lane::Urgent, _) => !job.is_prompt && !is_owed(job),
        (Lane::Steady, class) => class != Class::Question,
    };
    shares.clear();
    let candidates = view.jobs.iter().enumerate().filter(|(_, job)| joins(job));
    shares.extend(candidates.map(|(job, _)| Share { job, rows: 0, draft: 0 }));
    let rank = |share: &Share| {
        let job = &view.jobs[share.job];
        (job.class, job.turn, share.job)
    };
    shares.sort_unstable_by_key(rank);
    shares.truncate(room.sampled.min(room.sequences).min(room.rows));
    shares.sort_unstable_by_key(|share| (view.jobs[share.job].is_prompt, rank(share)));
    let decoding = shares.iter().take_while(|share| !view.jobs[share.job].is_prompt).count();
    let (tokens, prompts) = shares.split_at_mut(decoding);
    tokens.iter_mut().for_each(|share| share.rows = 1);
    let mut left = room.rows - decoding;
    let part = (left / prompts.len().max(1)).max(1);
    for most in [part, usize::MAX] {
        for share in prompts.iter_mut() {
            let more = (view.jobs[share.job].rows - share.rows).min(most).min(left);
            share.rows += more;
            left -= more;
        }
    }
    let mut sampled = room.sampled - shares.len();
    for share in shares.iter_mut() {
        let job = &view.jobs[share.job];
        if share.rows < job.rows {
            continue;
        }
        share.draft = job.draft.min(left).min(sampled);
        if lane == Lane::Urgent && job.class != Class::Question {
            share.draft = share.draft.min(CHEAP_ROWS.saturating_sub(room.rows - left));
        }
        left -= share.draft;
        sampled -= share.draft;
    }
    shares.retain(|share| share.rows > 0);
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod simulation;
