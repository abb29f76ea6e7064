//! Which unit of work comes next: a pure function of what is pending.
//!
//! Questions go first, by deadline; then the captions under way; then new pictures, round robin
//! over the cameras. A pass that is between two layers is finished before another one of its kind
//! begins, since there is scratch for one of each.

use std::time::Instant;

/// A question as the scheduler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QuestionView {
    /// Position in the list of questions.
    pub(super) index: usize,
    /// When its time is up.
    pub(super) deadline: Instant,
    /// What it needs.
    pub(super) need: Need,
}

/// What a question needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Its next unit, being between two layers of a pass.
    Layer,
    /// Its next unit.
    Unit,
    /// A picture to be encoded.
    Picture,
}

/// A camera as the scheduler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CameraView {
    /// Whether its caption is under way.
    pub(super) caption: Option<Caption>,
    /// Whether a frame waits to be described and its period has passed.
    pub(super) is_due: bool,
    /// When its last caption began.
    pub(super) last_start: Option<Instant>,
}

/// How far a caption is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caption {
    /// Between two layers of a pass.
    Layer,
    /// Between two passes.
    Unit,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The next unit of a question.
    Question(usize),
    /// Begin to encode the picture a question needs.
    PictureFor(usize),
    /// The next unit of the picture being encoded.
    Encode,
    /// The next unit of a camera's caption.
    Caption(usize),
    /// Begin to encode the newest frame of a camera.
    Describe(usize),
    /// Nothing to do.
    Wait,
}

/// Chooses the next unit. `encoding` tells whether a picture is being encoded.
pub(super) fn next(questions: &[QuestionView], cameras: &[CameraView], encoding: bool) -> Choice {
    let first = |need: Need| {
        questions.iter().filter(|question| question.need == need).min_by_key(|question| question.deadline)
    };
    if let Some(question) = first(Need::Layer).or_else(|| first(Need::Unit)) {
        return Choice::Question(question.index);
    }
    if let Some(question) = first(Need::Picture) {
        return if encoding { Choice::Encode } else { Choice::PictureFor(question.index) };
    }
    let oldest = |wanted: &dyn Fn(&CameraView) -> bool| {
        let candidates = cameras.iter().enumerate().filter(|(_, camera)| wanted(camera));
        candidates.min_by_key(|(_, camera)| camera.last_start).map(|(index, _)| index)
    };
    let caption = oldest(&|camera| camera.caption == Some(Caption::Layer))
        .or_else(|| oldest(&|camera| camera.caption == Some(Caption::Unit)));
    if let Some(camera) = caption {
        return Choice::Caption(camera);
    }
    if encoding {
        return Choice::Encode;
    }
    match oldest(&|camera| camera.is_due) {
        Some(camera) => Choice::Describe(camera),
        None => Choice::Wait,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn question(index: usize, seconds: u64, need: Need, now: Instant) -> QuestionView {
        QuestionView { index, deadline: now + Duration::from_secs(seconds), need }
    }

    const IDLE: CameraView = CameraView { caption: None, is_due: false, last_start: None };

    #[test]
    fn questions_go_before_captions_and_by_deadline() {
        let now = Instant::now();
        let busy = CameraView { caption: Some(Caption::Layer), is_due: true, last_start: Some(now) };
        let questions = [question(0, 9, Need::Unit, now), question(1, 3, Need::Unit, now)];
        assert_eq!(next(&questions, &[busy], true), Choice::Question(1));
    }

    #[test]
    fn a_pass_between_layers_is_finished_first() {
        let now = Instant::now();
        let questions = [question(0, 9, Need::Layer, now), question(1, 3, Need::Unit, now)];
        assert_eq!(next(&questions, &[IDLE], false), Choice::Question(0));
        let between = CameraView { caption: Some(Caption::Layer), ..IDLE };
        let waiting = CameraView { caption: Some(Caption::Unit), ..IDLE };
        assert_eq!(next(&[], &[waiting, between], false), Choice::Caption(1));
    }

    #[test]
    fn a_question_that_waits_for_a_picture_pushes_the_encoder_before_captions() {
        let now = Instant::now();
        let busy = CameraView { caption: Some(Caption::Unit), ..IDLE };
        let questions = [question(0, 9, Need::Picture, now)];
        assert_eq!(next(&questions, &[busy], true), Choice::Encode);
        assert_eq!(next(&questions, &[busy], false), Choice::PictureFor(0));
    }

    #[test]
    fn cameras_take_turns() {
        let now = Instant::now();
        let due = |ago| CameraView {
            caption: None,
            is_due: true,
            last_start: Some(now - Duration::from_secs(ago)),
        };
        assert_eq!(next(&[], &[due(1), due(5), due(3)], false), Choice::Describe(1));
        let never = CameraView { last_start: None, ..due(1) };
        assert_eq!(next(&[], &[due(9), never], false), Choice::Describe(1));
    }

    #[test]
    fn without_work_it_waits() {
        assert_eq!(next(&[], &[IDLE, IDLE], false), Choice::Wait);
        assert_eq!(next(&[], &[], false), Choice::Wait);
    }
}
