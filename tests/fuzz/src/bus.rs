//! Foreign bytes from the bus, one function for each decoder: nothing panics, and what is read can be written and
//! read again. Each tells whether the bytes were accepted.

use messages::keys::Key;
use messages::{
    Alert, Answer, AnswerPiece, AskError, CameraState, Caption, CaptionChange, CaptionPiece, CaptionSettings,
    Captioning, Format, FrameStamp, Holder, Message, Question, Rule, RuleChange, Rules, SessionChange,
    SessionList, Status, decode, encode,
};

/// Reads a message, and reads again what is written of it.
fn read<M: Message>(bytes: &[u8], format: Format) -> Option<M> {
    let message = decode::<M>(bytes, format).ok()?;
    let once = encode(&message, Format::Postcard);
    let again = decode::<M>(&once, Format::Postcard).expect("what was read can be written and read");
    assert_eq!(encode(&again, Format::Postcard), once);
    Some(message)
}

/// Readers of every message that goes out, as clients have them.
const MESSAGES: [fn(&[u8], Format) -> bool; 13] = [
    is::<Caption>,
    is::<CaptionPiece>,
    is::<Alert>,
    is::<AnswerPiece>,
    is::<Answer>,
    is::<AskError>,
    is::<Rules>,
    is::<CaptionSettings>,
    is::<SessionList>,
    is::<CameraState>,
    is::<FrameStamp>,
    is::<Holder>,
    is::<Status>,
];

fn is<M: Message>(bytes: &[u8], format: Format) -> bool {
    read::<M>(bytes, format).is_some()
}

/// Messages in postcard.
pub(super) fn postcard(bytes: &[u8]) -> bool {
    MESSAGES.iter().fold(false, |is_any, is| is(bytes, Format::Postcard) | is_any)
}

/// Messages in JSON. What is no JSON at all is given to one reader, since to all it is the same.
pub(super) fn json(bytes: &[u8]) -> bool {
    if serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_err() {
        return MESSAGES[bytes.len() % MESSAGES.len()](bytes, Format::Json);
    }
    MESSAGES.iter().fold(false, |is_any, is| is(bytes, Format::Json) | is_any)
}

/// Questions in both formats: checking says yes or no, nothing else.
pub(super) fn question(bytes: &[u8]) -> bool {
    let read = [Format::Postcard, Format::Json].map(|format| {
        let question = read::<Question>(bytes, format);
        question.is_some_and(|question| {
            let _ = question.check();
            true
        })
    });
    read.contains(&true)
}

/// Changes in both formats: applying gives what there is then, which can be read by whoever asked.
pub(super) fn control(bytes: &[u8]) -> bool {
    let cameras = ["front".to_owned(), "rear".to_owned()];
    let rules = [Rule::new("door", "Is the door open?")];
    let values = cameras.clone().map(|camera| Captioning {
        camera,
        prompt: "Look.".into(),
        prompt_id: "scene".into(),
        max_tokens: 48,
        ..Captioning::default()
    });
    let mut is_read = false;
    for format in [Format::Postcard, Format::Json] {
        if let Some(change) = read::<RuleChange>(bytes, format) {
            is_read = true;
            if let Ok(rules) = change.apply(&rules, &rules, &cameras) {
                Rule::check_all(&rules).expect("what is accepted is sound");
                let rules = encode(&Rules { rules, revision: 1 }, format);
                decode::<Rules>(&rules, format).expect("the state can be read");
            }
        }
        if let Some(change) = read::<CaptionChange>(bytes, format) {
            is_read = true;
            if let Ok(cameras) = change.apply(&values, &values) {
                cameras.iter().for_each(|values| values.check().expect("what is accepted is sound"));
                let settings = encode(&CaptionSettings { cameras, revision: 1 }, format);
                decode::<CaptionSettings>(&settings, format).expect("the state can be read");
            }
        }
        is_read |= read::<SessionChange>(bytes, format).is_some();
    }
    is_read
}

/// Keys and names of encodings.
pub(super) fn key(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let is_encoding = [Question::format(text), Caption::format(text), RuleChange::format(text)];
    let key = text.parse::<Key>();
    if let Ok(key) = &key {
        assert_eq!(key.to_string(), text);
    }
    key.is_ok() || is_encoding.iter().any(Result::is_ok)
}
