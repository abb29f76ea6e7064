//! Every message survives both formats, and no foreign bytes do harm.

use super::*;
use crate::{
    AlertEnd, AlertEvent, CameraPhase, CameraStatus, Captioning, Constraint, FrameChoice, FrameStamp,
    NewCaptioning, Rule, RulePhase, RuleStatus, Sampling, Session, SessionName, SessionState,
};

fn stamp() -> FrameStamp {
    FrameStamp { camera: "front".into(), sequence: 300, captured_at: 1_700_000_000_123_456_789 }
}

fn caption() -> Caption {
    let mut caption =
        Caption { text: "A red box \u{e9}.".into(), frame: stamp(), age_ms: 12.5, ..Caption::default() };
    caption.prompt_id = "scene".into();
    caption.tokens.prompt = 164;
    caption.timings.encode_ms = 640.25;
    caption
}

fn question(frame: FrameChoice) -> Question {
    Question {
        frame,
        max_tokens: 7,
        sampling: Sampling { temperature: 0.5, top_p: 0.9, seed: 3 },
        stop: vec!["\n".into(), "###".into()],
        session: Some(Session { name: "tour".into(), follow: true, end: false }),
        constraint: Some(Constraint::Choices(vec!["yes".into(), "no".into()])),
        ..Question::new("Is the door open?")
    }
}

fn caption_settings() -> CaptionSettings {
    let values = Captioning { camera: "front".into(), prompt: "Look.".into(), ..Captioning::default() };
    CaptionSettings { cameras: vec![values], revision: 3 }
}

fn caption_change() -> CaptionChange {
    let prompt = Some("What moves?".into());
    CaptionChange::Set(NewCaptioning { prompt, period_s: Some(0.5), ..NewCaptioning::default() })
}

fn status() -> Status {
    let camera = CameraStatus {
        state: CameraState {
            camera: "front".into(),
            phase: CameraPhase::Live,
            unchanged_since: Some(stamp().captured_at),
            ..CameraState::default()
        },
        frames: 900,
        ..CameraStatus::default()
    };
    let rule = RuleStatus {
        rule: "door".into(),
        camera: "front".into(),
        phase: RulePhase::Rising,
        p_yes: Some(0.75),
        ..RuleStatus::default()
    };
    Status {
        device: "robot".into(),
        temperature_c: Some(51.5),
        cameras: vec![camera],
        rules: vec![rule],
        ..Status::default()
    }
}

fn alert(event: AlertEvent) -> Alert {
    Alert {
        rule: "door".into(),
        question: "Is the door open?".into(),
        event,
        p_yes: 0.75,
        frame: stamp(),
        began: stamp(),
        ..Alert::default()
    }
}

fn rules() -> Vec<Rule> {
    vec![
        Rule::new("door", "Is the door open?"),
        Rule { cameras: vec!["front".into()], ..Rule::new("a", "b?") },
    ]
}

fn constraints() -> Vec<Constraint> {
    vec![
        Constraint::Choices(vec!["left".into(), "right".into()]),
        Constraint::Regex("[0-9]+".into()),
        Constraint::JsonSchema(r#"{"properties":{"count":{"type":"integer"}},"type":"object"}"#.into()),
    ]
}

fn errors() -> Vec<AskError> {
    vec![
        AskError::UnknownCamera { camera: "rear".into(), known: vec!["front".into()] },
        AskError::NoFrame { reason: "opening".into() },
        AskError::TooLong { what: "text in bytes".into(), got: 5000, limit: 4096 },
        AskError::Overloaded { retry_after_ms: 500 },
        AskError::Deadline { deadline_ms: 30_000 },
        AskError::Cancelled { reason: "the daemon is stopping".into() },
        AskError::Constraint { reason: "the expression is not closed".into() },
        AskError::BadRequest { reason: "the question is empty".into() },
        AskError::Internal { reason: "lost".into() },
        AskError::UnknownRule { rule: "cat".into(), known: vec!["dog".into()] },
    ]
}

/// Writes and reads a message in both formats and returns the bytes of both.
fn round_trip<M: Message + PartialEq + std::fmt::Debug>(message: &M) -> [Vec<u8>; 2] {
    [Format::Postcard, Format::Json].map(|format| {
        let bytes = encode(message, format);
        assert_eq!(&decode::<M>(&bytes, format).unwrap(), message);
        assert_eq!(M::format(&M::encoding(format)), Ok(format));
        bytes
    })
}

#[test]
fn every_message_survives_both_formats() {
    round_trip(&caption());
    round_trip(&CaptionPiece { frame: stamp(), index: 2, text: " box".into() });
    round_trip(&status());
    round_trip(&CameraState::default());
    for end in
        [AlertEnd::Answer, AlertEnd::CameraGone, AlertEnd::RuleChanged, AlertEnd::Stopping, AlertEnd::Paused]
    {
        round_trip(&alert(AlertEvent::Ended(end)));
    }
    round_trip(&alert(AlertEvent::Began));
    round_trip(&Rules { rules: rules(), revision: 3 });
    round_trip(&RuleChange::Reset);
    round_trip(&caption_settings());
    round_trip(&caption_change());
    round_trip(&CaptionChange::Reset(vec!["front".into()]));
    let session = SessionState { camera: "front".into(), name: "tour".into(), turns: 3, is_busy: true };
    round_trip(&SessionList { sessions: vec![session] });
    round_trip(&SessionChange::End(SessionName { camera: "front".into(), name: "tour".into() }));
    round_trip(&RuleChange::Get);
    round_trip(&RuleChange::Set(rules()));
    round_trip(&RuleChange::Add(rules().remove(1)));
    round_trip(&RuleChange::Remove("door".into()));
    round_trip(&Answer { text: "Yes.".into(), frame: stamp(), ..Answer::default() });
    round_trip(&AnswerPiece::Text { index: 1, text: "Yes".into() });
    round_trip(&AnswerPiece::Final(Answer::default()));
    for error in errors() {
        round_trip(&error);
        round_trip(&AnswerPiece::Error(error));
    }
    for frame in [
        FrameChoice::Latest,
        FrameChoice::Fresh,
        FrameChoice::Sequence(5),
        FrameChoice::Picture((0..=255).collect()),
    ] {
        round_trip(&question(frame));
    }
    for constraint in constraints() {
        round_trip(&Question { constraint: Some(constraint), ..question(FrameChoice::Latest) });
    }
}

#[test]
fn pictures_cost_their_bytes_in_postcard_and_are_base64_in_json() {
    let [postcard, json] = round_trip(&question(FrameChoice::Picture(vec![0xff; 10_000])));
    assert!(postcard.len() < 10_100, "{}", postcard.len());
    assert!(json.len() < 13_600, "{}", json.len());
}

#[test]
fn json_questions_are_friendly() {
    let parse = |json: &str| decode::<Question>(json.as_bytes(), Format::Json);
    assert_eq!(parse(r#"{"text": "What?"}"#), Ok(Question::new("What?")));
    let frame = |json: &str| {
        parse(&format!(r#"{{"text": "What?", "frame": {json}}}"#)).map(|question| question.frame)
    };
    assert_eq!(frame(r#""latest""#), Ok(FrameChoice::Latest));
    assert_eq!(frame(r#""fresh""#), Ok(FrameChoice::Fresh));
    assert_eq!(frame(r#"{"sequence": 5}"#), Ok(FrameChoice::Sequence(5)));
    assert_eq!(frame(r#"{"picture": "/9j/"}"#), Ok(FrameChoice::Picture(vec![0xff, 0xd8, 0xff])));
    let asked = parse(
        r#"{"text": "What?", "session": {"name": "a"}, "constraint": {"json_schema": {"type": "null"}}}"#,
    );
    let session = Some(Session { name: "a".into(), ..Session::default() });
    let constraint = Some(Constraint::JsonSchema(r#"{"type":"null"}"#.into()));
    assert_eq!(asked, Ok(Question { session, constraint, ..Question::new("What?") }));

    let reason = |json: &str| parse(json).unwrap_err().to_string();
    assert!(reason("{}").contains("missing field `text`"));
    assert!(reason(r#"{"text": "a", "txet": 1}"#).contains("unknown field `txet`"));
    assert!(reason(r#"{"text": "a", "frame": "newest"}"#).contains("unknown variant `newest`"));
    assert!(reason(r#"{"text": "a", "frame": {"picture": "%"}}"#).contains("base64"));
    assert!(reason(r#"{"text": "a"} x"#).contains("trailing characters at line 1 column 15"));
}

#[test]
fn foreign_encodings_are_named() {
    assert_eq!(Question::encoding(Format::Postcard), "application/postcard;question@1");
    assert_eq!(Question::format("application/json;charset=utf-8"), Ok(Format::Json));
    for other in
        ["", "application/postcard", "application/postcard;caption@1", "application/postcard;question@2"]
    {
        let message = Question::format(other).unwrap_err().to_string();
        assert!(message.contains(&format!("\"{other}\"")), "{message}");
    }
}

#[test]
fn length_is_checked_first_and_reasons_are_short() {
    let long = vec![b'['; Question::MAX_BYTES + 1];
    let error = decode::<Question>(&long, Format::Json).unwrap_err();
    assert_eq!(error, DecodeError::TooLong { name: "question", got: long.len(), limit: Question::MAX_BYTES });
    let quoted = format!(r#"{{"text": "a", "{}": 1}}"#, "x".repeat(100_000));
    assert!(decode::<Question>(quoted.as_bytes(), Format::Json).unwrap_err().to_string().len() < 400);
    let deep = vec![b'['; 100_000];
    assert!(decode::<Question>(&deep, Format::Json).is_err());
}

#[test]
fn left_over_and_missing_bytes_are_refused() {
    let mut bytes = encode(&caption(), Format::Postcard);
    bytes.push(0);
    let message = decode::<Caption>(&bytes, Format::Postcard).unwrap_err().to_string();
    assert_eq!(message, "malformed caption (postcard): 1 bytes left over at the end");
    for end in 0..bytes.len() - 1 {
        assert!(decode::<Caption>(&bytes[..end], Format::Postcard).is_err(), "{end} bytes");
    }
}

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Overwrites, inserts, removes or cuts, a few times over.
fn mutate(bytes: &mut Vec<u8>, state: &mut u64) {
    for _ in 0..random(state) % 4 + 1 {
        let at = random(state) as usize % (bytes.len() + 1);
        let value = [random(state) as u8, 0xff, 0x80, b'"'][random(state) as usize % 4];
        match random(state) % 4 {
            0 => bytes.insert(at, value),
            1 => bytes.truncate(at.max(1)),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            _ if at < bytes.len() => bytes[at] = value,
            _ => bytes.push(value),
        }
    }
}

/// Whatever still decodes must be a sound message: it survives its own round trip as bytes.
fn hostile<M: Message>(good: &M, state: &mut u64) {
    for format in [Format::Postcard, Format::Json] {
        let bytes = encode(good, format);
        for _ in 0..3000 {
            let mut bytes = bytes.clone();
            mutate(&mut bytes, state);
            if let Ok(message) = decode::<M>(&bytes, format) {
                let once = encode(&message, Format::Postcard);
                let again =
                    decode::<M>(&once, Format::Postcard).expect("what was read can be written and read");
                assert_eq!(encode(&again, Format::Postcard), once);
            }
        }
    }
}

#[test]
fn mutated_bytes_do_no_harm() {
    let state = &mut 2024;
    hostile(&caption(), state);
    hostile(&status(), state);
    hostile(&alert(AlertEvent::Ended(AlertEnd::Answer)), state);
    hostile(&RuleChange::Set(rules()), state);
    hostile(&Rules { rules: rules(), revision: 3 }, state);
    hostile(&caption_settings(), state);
    hostile(&caption_change(), state);
    hostile(&question(FrameChoice::Picture(vec![7; 40])), state);
    for constraint in constraints() {
        hostile(&Question { constraint: Some(constraint), ..question(FrameChoice::Latest) }, state);
    }
    hostile(&AnswerPiece::Final(Answer { text: "Yes.".into(), frame: stamp(), ..Answer::default() }), state);
    for error in errors() {
        hostile(&error, state);
    }
}

#[test]
fn claimed_lengths_are_not_believed() {
    // A text, a stop list and a picture that claim 2^60 bytes in a payload of a few.
    let huge = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
    let mut text = huge.to_vec();
    text.extend([b'a'; 16]);
    assert!(decode::<Question>(&text, Format::Postcard).is_err());
    let mut picture = vec![1, b'a', 3];
    picture.extend(huge);
    picture.extend([0; 16]);
    assert!(decode::<Question>(&picture, Format::Postcard).is_err());
    let whole = encode(&Question::new("a"), Format::Postcard);
    // Without the bytes that stand for no stop text, no session and no constraint.
    let mut stops = whole[..whole.len() - 3].to_vec();
    stops.extend(huge);
    stops.extend([0; 16]);
    assert!(decode::<Question>(&stops, Format::Postcard).is_err());
}
