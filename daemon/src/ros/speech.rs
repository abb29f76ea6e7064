//! Results and questions in the words of ROS 2.

use messages::{Alert, AlertEvent, AskError, Caption, FrameStamp, Question};

use super::cdr::{self, Text};
use super::message::{
    Classification, DiagnosticArray, DiagnosticStatus, Header, KeyValue, ObjectHypothesis, Time, Words,
};

/// What stands for the camera's name in the configured frame id.
const CAMERA: &str = "{camera}";

/// Longest question as a message, in bytes: the text, its mark and what CDR adds.
pub const QUESTION_BYTES: usize = 4096 + MARK_BYTES + 16;

/// Longest mark of a question in bytes, the `#` included.
const MARK_BYTES: usize = 33;

/// The coordinate frame of a camera, from a configured text in which `{camera}` is its name.
pub fn frame_id(pattern: &str, camera: &str) -> String {
    pattern.replace(CAMERA, camera)
}

/// A caption as text.
pub fn caption(caption: &Caption) -> Words<'_> {
    Words { data: Text::new(&caption.text) }
}

/// A caption with its capture time and everything else that is known of it.
pub fn stamped_caption<'a>(caption: &'a Caption, device: &'a str, frame_ids: &str) -> DiagnosticArray<'a> {
    let Caption { text, frame, age_ms, prompt_id, model_id, tokens, timings, truncated, unchanged_since } =
        caption;
    let value = |key: &'static str, value: String| KeyValue { key: Text::new(key), value: value.into() };
    let mut values = vec![
        value("sequence", frame.sequence.to_string()),
        value("age_ms", age_ms.to_string()),
        value("prompt_id", prompt_id.clone()),
        value("model_id", model_id.clone()),
        value("prompt_tokens", tokens.prompt.to_string()),
        value("cached_tokens", tokens.cached.to_string()),
        value("generated_tokens", tokens.generated.to_string()),
        value("queue_ms", timings.queue_ms.to_string()),
        value("preprocess_ms", timings.preprocess_ms.to_string()),
        value("encode_ms", timings.encode_ms.to_string()),
        value("prefill_ms", timings.prefill_ms.to_string()),
        value("decode_ms", timings.decode_ms.to_string()),
        value("truncated", truncated.to_string()),
    ];
    values.extend(unchanged_since.map(|nanos| value("unchanged_since", nanos.to_string())));
    let status = DiagnosticStatus {
        level: 0,
        name: Text::new(&frame.camera),
        message: Text::new(text),
        hardware_id: Text::new(device),
        values,
    };
    DiagnosticArray { header: header(frame, frame_ids), status: vec![status] }
}

/// An alert: the rule with the probability of yes while it lasts, nothing at its end.
pub fn alert<'a>(alert: &'a Alert, frame_ids: &str) -> Classification<'a> {
    let results = match alert.event {
        AlertEvent::Began => {
            vec![ObjectHypothesis { class_id: Text::new(&alert.rule), score: alert.p_yes.into() }]
        }
        AlertEvent::Ended(_) => Vec::new(),
    };
    Classification { header: header(&alert.frame, frame_ids), results }
}

fn header(frame: &FrameStamp, frame_ids: &str) -> Header<'static> {
    Header { stamp: Time::from_nanos(frame.captured_at), frame_id: frame_id(frame_ids, &frame.camera).into() }
}

/// What tells the answers to different askers apart: a question `#7 Is the door open?` is asked without its
/// `#7`, and everything said to it begins with `#7` and a space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark(String);

impl Mark {
    /// Cuts the mark off a question: `#`, 1 to 32 visible ASCII characters, white space.
    fn cut(text: &str) -> (Self, &str) {
        let Some((mark, rest)) = text.split_once(char::is_whitespace) else { return (Self::default(), text) };
        let is_mark = mark.len() > 1
            && mark.len() <= MARK_BYTES
            && mark.starts_with('#')
            && mark.bytes().all(|byte| byte.is_ascii_graphic());
        if is_mark { (Self(mark.into()), rest.trim_start()) } else { (Self::default(), text) }
    }

    /// Text to whoever asked.
    pub fn say(&self, text: &str) -> Words<'static> {
        let text = if self.0.is_empty() { text.to_owned() } else { format!("{} {text}", self.0) };
        Words { data: text.into() }
    }

    /// The line that ends a question that has no answer.
    pub fn refuse(&self, error: &AskError) -> Words<'static> {
        self.say(&format!("error: {}: {error}", error.kind()))
    }
}

/// Reads a question, which may come from anywhere.
///
/// Errors: what is wrong with it, with the mark as far as it was understood.
pub fn question(bytes: &[u8]) -> Result<(Mark, Question), (Mark, AskError)> {
    let bad = |reason: String| (Mark::default(), AskError::BadRequest { reason });
    let words: Words<'_> = cdr::decode(bytes).map_err(|error| bad(error.to_string()))?;
    let (mark, text) = Mark::cut(words.data.as_str());
    let question = Question::new(text);
    match question.check() {
        Ok(()) => Ok((mark, question)),
        Err(error) => Err((mark, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use messages::AlertEnd;

    fn stamp() -> FrameStamp {
        FrameStamp { camera: "front".into(), sequence: 7, captured_at: 1_700_000_000_000_000_005 }
    }

    #[test]
    fn captions_carry_the_time_of_capture() {
        let given = Caption { text: "A box.".into(), frame: stamp(), truncated: true, ..Caption::default() };
        let said = stamped_caption(&given, "robot-1", "{camera}_optical");
        assert_eq!(said.header.stamp, Time { sec: 1_700_000_000, nanosec: 5 });
        assert_eq!(said.header.frame_id.as_str(), "front_optical");
        let [status] = said.status.as_slice() else { panic!("one text") };
        assert_eq!(status.message.as_str(), "A box.");
        assert_eq!((status.name.as_str(), status.hardware_id.as_str()), ("front", "robot-1"));
        let value = |key: &str| {
            let found = status.values.iter().find(|pair| pair.key.as_str() == key);
            found.map(|pair| pair.value.as_str().to_owned())
        };
        assert_eq!(value("sequence").as_deref(), Some("7"));
        assert_eq!(value("truncated").as_deref(), Some("true"));
        assert_eq!(value("unchanged_since"), None);
        assert_eq!(caption(&given).data.as_str(), "A box.");
    }

    #[test]
    fn alerts_name_the_rule_until_they_end() {
        let began = Alert { rule: "door".into(), frame: stamp(), p_yes: 0.75, ..Alert::default() };
        let said = alert(&began, "{camera}");
        assert_eq!(said.header.frame_id.as_str(), "front");
        assert_eq!(said.results, [ObjectHypothesis { class_id: Text::new("door"), score: 0.75 }]);
        let ended = Alert { event: AlertEvent::Ended(AlertEnd::Answer), ..began };
        assert_eq!(alert(&ended, "{camera}").results, []);
    }

    #[test]
    fn marks_come_back() {
        let read = |text: &str| {
            let (mark, question) = question(&cdr::encode(&Words { data: Text::new(text) })).unwrap();
            (mark.0.clone(), question.text, mark.say("Yes.").data.as_str().to_owned())
        };
        let expected = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(read("What is ahead?"), expected("", "What is ahead?", "Yes."));
        assert_eq!(read("#7  What is ahead?"), expected("#7", "What is ahead?", "#7 Yes."));
        let long = format!("#{} a", "x".repeat(33));
        for unmarked in ["# 7", "#", "7# a", "#7", &long, "#\u{fc} a"] {
            assert_eq!(read(unmarked), expected("", unmarked, "Yes."));
        }
    }

    #[test]
    fn bad_questions_get_a_line() {
        let line = |bytes: &[u8]| {
            let (mark, error) = question(bytes).unwrap_err();
            mark.refuse(&error).data.as_str().to_owned()
        };
        let words = |text: &str| cdr::encode(&Words { data: Text::new(text) });
        assert_eq!(line(&words(" ")), "error: bad_request: the question is empty");
        let long = line(&words(&format!("#a {}", "x".repeat(4097))));
        assert_eq!(long, "#a error: too_long: question text in bytes is 4097, at most 4096");
        assert!(line(b"hello").starts_with("error: bad_request: std_msgs/msg/String: the encoding 0x6865 "));
        let longest = words(&format!("#{} {}", "m".repeat(32), "x".repeat(4096)));
        assert!(longest.len() <= QUESTION_BYTES && question(&longest).is_ok());
    }
}
