//! Changes on the engine: pausing, other prompts, what was changed before the start.

use std::collections::BTreeMap;

use messages::{
    AlertEnd, AlertEvent, AskError, CaptionChange, NewCaptioning, RuleChange, SessionChange, SessionName,
};
use mobilevlmd::changes::Changes;

use crate::rules::{Rig, always};

fn set(new: NewCaptioning) -> CaptionChange {
    CaptionChange::Set(new)
}

fn paused(paused: bool) -> CaptionChange {
    set(NewCaptioning { paused: Some(paused), ..NewCaptioning::default() })
}

fn prompt(text: &str, id: &str) -> NewCaptioning {
    NewCaptioning { prompt: Some(text.into()), prompt_id: Some(id.into()), ..NewCaptioning::default() }
}

#[test]
fn a_paused_camera_is_left_alone_until_it_is_resumed() {
    let mut rig = Rig::new(vec![always("door", "Is the door open?")]);
    let first = rig.show(1);
    assert_eq!(rig.alert().event, AlertEvent::Began);
    while rig.caption().1.frame.sequence != first {}
    let settings = rig.change(paused(true)).expect("accepted");
    assert!(settings.cameras[0].paused && settings.revision == 1);
    assert_eq!(rig.alert().event, AlertEvent::Ended(AlertEnd::Paused));
    rig.show(2);
    rig.wait_for_rounds(5);
    let third = rig.show(3);
    assert_eq!(rig.change(paused(false)).expect("accepted").revision, 2);
    let (alerts, caption) = rig.caption();
    assert_eq!(caption.frame.sequence, third);
    let began = alerts.into_iter().next().unwrap_or_else(|| rig.alert());
    assert_eq!((began.event, began.frame.sequence), (AlertEvent::Began, third));
    assert_eq!(rig.report().engine.images, 2, "the second frame was left alone");
    rig.stop();
}

#[test]
fn another_prompt_is_asked_from_the_next_frame_on() {
    let mut rig = Rig::new(Vec::new());
    rig.show(1);
    assert_eq!(rig.caption().1.prompt_id, "scene");
    let settings = rig.change(set(prompt("What is there?", "list"))).expect("accepted");
    assert_eq!((settings.cameras[0].prompt.as_str(), settings.revision), ("What is there?", 1));
    rig.show(2);
    let listed = rig.caption().1;
    assert_eq!(listed.prompt_id, "list");
    rig.change(CaptionChange::Reset(Vec::new())).expect("accepted");
    rig.show(3);
    let described = rig.caption().1;
    assert_eq!(described.prompt_id, "scene");
    assert_ne!(described.tokens.prompt, listed.tokens.prompt, "the prompts are not equally long");
    // Three bytes, of which each is a token.
    for (change, kind) in [
        (set(prompt(&"\u{2603}".repeat(170), "long")), "too_long"),
        (set(NewCaptioning { max_tokens: Some(513), ..NewCaptioning::default() }), "too_long"),
        (set(NewCaptioning { cameras: vec!["attic".into()], ..prompt("a", "b") }), "unknown_camera"),
    ] {
        assert_eq!(rig.change(change).expect_err("refused").kind(), kind);
    }
    assert_eq!(rig.change(CaptionChange::Get).expect("told").revision, 2, "what is refused does not count");
    rig.stop();
}

#[test]
fn what_was_changed_before_the_start_holds() {
    let gone = NewCaptioning { paused: Some(true), ..NewCaptioning::default() };
    let changes = Changes {
        rules: Some(vec![always("dog", "Is there a dog?")]),
        captions: BTreeMap::from([("front".into(), prompt("What is there?", "list")), ("gone".into(), gone)]),
    };
    let mut rig = Rig::with_changes(vec![always("door", "Is the door open?")], changes);
    rig.show(1);
    assert_eq!(rig.alert().rule, "dog");
    let names = |rules: messages::Rules| rules.rules.into_iter().map(|rule| rule.name).collect::<Vec<_>>();
    assert_eq!(rig.change(RuleChange::Get).map(names), Ok(vec!["dog".to_owned()]));
    assert_eq!(rig.change(RuleChange::Reset).map(names), Ok(vec!["door".to_owned()]));
    rig.show(2);
    assert_eq!(rig.caption().1.prompt_id, "list");
    rig.stop();
}

#[test]
fn sessions_are_listed_and_ended() {
    let rig = Rig::new(Vec::new());
    assert_eq!(rig.change(SessionChange::Get).expect("told").sessions, []);
    let end = |camera: &str| SessionChange::End(SessionName { camera: camera.into(), name: "tour".into() });
    assert_eq!(rig.change(end("front")).expect("there is none to end").sessions, []);
    assert!(matches!(rig.change(end("attic")), Err(AskError::UnknownCamera { .. })));
    rig.stop();
}
