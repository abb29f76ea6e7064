//! What can be asked, in a form that is small enough to be kept.

use std::io::Cursor;

use image::ImageFormat;
use messages::{Answer, AskError, Constraint, FrameChoice, Question, Sampling, Session};
use mobilevlmd::camera::world::Scene;

use super::cameras::{NAMES, stamp};

/// Questions, some that the built-in model was trained on and some that it was not.
pub(super) const TEXTS: [&str; 8] = [
    "Is the door open?",
    "What color is the ball?",
    "How many objects are there?",
    "Is the lamp on or off?",
    "Describe the scene in one sentence.",
    "What is to the left of the door?",
    "Why?",
    "Tell me about everything that you can see, from the left to the right, one thing after the other.",
];

/// Questions that cannot be answered: the kind of the error.
pub(super) const WRONG: [&str; 5] =
    ["unknown_camera", "bad_request", "constraint", "too_long", "bad_request"];

/// Forms that an answer may have to have.
pub(super) const FORMS: usize = 3;

/// Ends an answer, and begins like the end of some that must have a form.
const BELL: &str = "doorbell";

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// The picture that is there.
    Latest,
    /// The same, up to a stop text.
    Stopped,
    /// A frame with this number or a later one, encoded first.
    Fresh {
        /// The newest frame when it was asked.
        from: u64,
    },
    /// The frame of this number.
    Numbered(u64),
    /// A picture brought along.
    Brought(usize),
    /// An answer of a form.
    Formed(usize),
    /// A turn of a conversation.
    Turn {
        /// Number of the conversation.
        talk: u32,
        /// Whether it moves on to a newer frame.
        follows: bool,
        /// Whether it is the last.
        ends: bool,
    },
    /// The end of a conversation, without a question.
    Silent {
        /// Number of the conversation.
        talk: u32,
    },
    /// An answer in less time than it takes.
    Hurried,
    /// An answer that the caller may not wait for.
    Leaving,
    /// Something that cannot be.
    Wrong(usize),
}

/// A question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) camera: usize,
    pub(super) kind: Kind,
    pub(super) text: &'static str,
    pub(super) sampling: Sampling,
    pub(super) max_tokens: u32,
}

impl Asked {
    /// A question of this kind about the first camera.
    pub(super) fn new(kind: Kind) -> Self {
        // Hot enough for a text without end.
        let temperature = if kind == Kind::Hurried { 50.0 } else { 0.0 };
        let max_tokens = match kind {
            Kind::Hurried => 200,
            // Enough for all forms.
            Kind::Formed(_) => 64,
            _ => 16,
        };
        let sampling = Sampling { temperature, ..Sampling::default() };
        Self { camera: 0, kind, text: TEXTS[0], sampling, max_tokens }
    }

    /// The camera asked about.
    pub(super) fn camera(&self) -> &'static str {
        if self.kind == Kind::Wrong(0) { "attic" } else { NAMES[self.camera] }
    }

    /// Texts that end the answer.
    pub(super) fn stop(&self) -> Vec<String> {
        match self.kind {
            Kind::Stopped => vec![" and".into(), "door".into()],
            Kind::Formed(_) => vec![BELL.into()],
            _ => Vec::new(),
        }
    }

    /// The question as the engine gets it; `pictures` are those that are brought.
    pub(super) fn question(&self, pictures: &[Vec<u8>]) -> Question {
        let Self { kind, text, sampling, max_tokens, .. } = *self;
        let stop = self.stop();
        let plain = Question { text: text.into(), sampling, max_tokens, stop, ..Question::default() };
        let session = |talk: u32, follow, end| Some(Session { name: format!("talk-{talk}"), follow, end });
        match kind {
            Kind::Latest | Kind::Stopped | Kind::Leaving | Kind::Wrong(0) => plain,
            Kind::Fresh { .. } => Question { frame: FrameChoice::Fresh, ..plain },
            Kind::Numbered(sequence) => Question { frame: FrameChoice::Sequence(sequence), ..plain },
            Kind::Brought(index) => {
                Question { frame: FrameChoice::Picture(pictures[index].clone()), ..plain }
            }
            Kind::Formed(index) => Question { constraint: Some(form(index)), ..plain },
            Kind::Turn { talk, follows, ends } => Question { session: session(talk, follows, ends), ..plain },
            Kind::Silent { talk } => {
                Question { text: String::new(), session: session(talk, false, true), ..plain }
            }
            Kind::Hurried => Question { deadline_ms: 2, ..plain },
            Kind::Wrong(1) => Question { text: " ".into(), ..plain },
            Kind::Wrong(2) => Question { constraint: Some(Constraint::Regex("(".into())), ..plain },
            Kind::Wrong(3) => Question { text: "why ".repeat(4000), ..plain },
            Kind::Wrong(_) => Question { frame: FrameChoice::Picture(b"no picture".to_vec()), ..plain },
        }
    }

    /// Whether a question of this kind may end with this error.
    pub(super) fn allows(&self, error: &AskError) -> bool {
        match (self.kind, error) {
            (_, AskError::Overloaded { retry_after_ms }) => *retry_after_ms > 0,
            (Kind::Wrong(index), error) => error.kind() == WRONG[index],
            (Kind::Hurried, AskError::Deadline { deadline_ms: 2 }) => true,
            (Kind::Numbered(_), AskError::NoFrame { .. }) => true,
            // On a machine in trouble.
            (Kind::Formed(_), AskError::Constraint { reason }) => reason.contains("too costly"),
            _ => false,
        }
    }

    /// Whether an answer is about what was asked.
    pub(super) fn check(&self, answer: &Answer) {
        let frame = &answer.frame;
        assert_eq!(frame.camera, NAMES[self.camera], "{self:?}");
        let is_right = match self.kind {
            Kind::Wrong(_) => false,
            Kind::Brought(_) | Kind::Silent { .. } => frame.sequence == 0,
            Kind::Fresh { from } => frame.sequence >= from,
            Kind::Numbered(sequence) => frame.sequence == sequence,
            _ => true,
        };
        let is_shown = !matches!(self.kind, Kind::Brought(_) | Kind::Silent { .. });
        assert!(
            is_right && (!is_shown || frame.captured_at == stamp(frame.sequence)),
            "{self:?}: {answer:?}"
        );
        assert!(answer.tokens.generated <= self.max_tokens, "{self:?}: {answer:?}");
    }
}

/// A form, of [`FORMS`].
pub(super) fn form(index: usize) -> Constraint {
    let choices = ["a door", "nothing", "a lamp and a door"];
    let schema = r#"{"type":"object","required":["open"],"additionalProperties":false,
        "properties":{"open":{"type":"boolean"}}}"#;
    match index {
        0 => Constraint::Choices(choices.map(str::to_owned).into()),
        1 => Constraint::Regex("(red|green|blue) (ball|door)".into()),
        _ => Constraint::JsonSchema(schema.into()),
    }
}

/// Pictures to bring along.
pub(super) fn brought() -> Vec<Vec<u8>> {
    let png = |seed| {
        let mut bytes = Vec::new();
        Scene::sample(seed).render(64, 48).write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
        bytes
    };
    [3, 4].map(png).into()
}
