//! Foreign payloads and keys: nothing panics, and what is read can be written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use messages::keys::Key;
use messages::{
    Alert, AnswerPiece, AskError, CameraState, Caption, CaptionChange, CaptionPiece, CaptionSettings, Format, Message,
    Question, RuleChange, Rules, SessionChange, SessionList, Status,
    decode, encode,
};

fn read<M: Message>(bytes: &[u8]) {
    for format in [Format::Postcard, Format::Json] {
        if let Ok(message) = decode::<M>(bytes, format) {
            let once = encode(&message, Format::Postcard);
            let again = decode::<M>(&once, Format::Postcard).expect("what was read can be written and read");
            assert_eq!(encode(&again, Format::Postcard), once);
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    read::<Question>(bytes);
    read::<AnswerPiece>(bytes);
    read::<AskError>(bytes);
    read::<Caption>(bytes);
    read::<CaptionPiece>(bytes);
    read::<CameraState>(bytes);
    read::<Status>(bytes);
    read::<Alert>(bytes);
    read::<Rules>(bytes);
    read::<RuleChange>(bytes);
    read::<CaptionChange>(bytes);
    read::<CaptionSettings>(bytes);
    read::<SessionChange>(bytes);
    read::<SessionList>(bytes);
    if let Ok(question) = decode::<Question>(bytes, Format::Json) {
        // Checking says yes or no, nothing else.
        let _ = question.check();
    }
    if let Ok(change) = decode::<RuleChange>(bytes, Format::Json) {
        // Applying gives a list or says why not.
        let _ = change.apply(&[], &[]);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Question::format(text);
        if let Ok(key) = text.parse::<Key>() {
            assert_eq!(key.to_string(), text);
        }
    }
});
