//! Conversations: coherent for as long as they last, within their memory.

use messages::{Answer, AskError, FrameChoice, Question, Session};

use crate::engine::{Rig, collect, question};

/// An engine whose sessions may keep `percent` of the cache.
fn rig(percent: u32) -> Rig {
    let mut rig = Rig::with(|options| {
        options.question.session_kv_percent = percent;
        options.question.sessions = 2;
        options.caption.max_tokens = 4;
        options.caption.change_threshold = 0.0;
    });
    rig.show(60);
    rig.caption();
    rig
}

fn within(name: &str, text: &str) -> Question {
    let session = Some(Session { name: name.into(), ..Session::default() });
    Question { session, ..question(text) }
}

fn answer(rig: &Rig, question: Question) -> Result<Answer, AskError> {
    collect(rig.ask("front", question))
}

/// A question of its own for every turn, some long and some short.
fn words(turn: usize) -> String {
    format!("{} {turn}?", ["What", "Where is the small red", "Is it", "And the one behind the"][turn % 4])
}

#[test]
fn fifty_turns_equal_those_computed_from_nothing() {
    // One keeps its positions from turn to turn; the other computes all turns every time.
    let (keeping, computing) = (rig(50), rig(0));
    let pages = keeping.engine.progress().report().cache.pages;
    let (mut dropped, mut before) = (0, 0);
    for turn in 0..50 {
        let ask = || Question { max_tokens: 4 + (turn as u32 * 5) % 9, ..within("a", &words(turn)) };
        let (kept, computed) = (answer(&keeping, ask()).unwrap(), answer(&computing, ask()).unwrap());
        assert_eq!(kept.text, computed.text, "turn {turn}");
        assert_eq!(kept.turns, computed.turns, "turn {turn}");
        assert_eq!(kept.tokens.prompt, computed.tokens.prompt, "turn {turn}");
        assert_eq!(computed.recomputed, turn > 0, "turn {turn}");
        let lost = turn > 0 && kept.turns < before + 1;
        assert_eq!(kept.recomputed, lost, "turn {turn}: {} turns after {before}", kept.turns);
        let new = kept.tokens.prompt - kept.tokens.cached;
        assert!(lost || new < 40, "turn {turn}: {new} positions were computed");
        (dropped, before) = (dropped + u32::from(lost), kept.turns);
        // The camera's frame, the system prompt, and what sessions may keep.
        let used = keeping.engine.progress().report().cache.pages_used;
        assert!(used <= pages / 2 + 30, "turn {turn}: {used} of {pages} pages");
    }
    assert!(dropped >= 2, "the context was never full");
}

#[test]
fn a_session_stays_with_its_frame_unless_it_follows() {
    let mut rig = rig(50);
    let first = answer(&rig, within("a", "What is there?")).unwrap();
    rig.show(200);
    rig.caption();
    let bound = answer(&rig, within("a", "And now?")).unwrap();
    assert_eq!((bound.frame.sequence, bound.turns, bound.recomputed), (first.frame.sequence, 1, false));
    let follow = Session { name: "a".into(), follow: true, end: false };
    let asked = Question { session: Some(follow), frame: FrameChoice::Latest, ..question("And here?") };
    let moved = answer(&rig, asked).unwrap();
    assert_eq!((moved.frame.sequence, moved.turns, moved.recomputed), (first.frame.sequence + 1, 2, true));
    let stays = answer(&rig, within("a", "Still there?")).unwrap();
    assert_eq!((stays.frame.sequence, stays.turns, stays.recomputed), (moved.frame.sequence, 3, false));
}

#[test]
fn what_was_not_kept_is_computed_again_on_the_same_frame() {
    let run = |percent| {
        let mut rig = rig(percent);
        let mut texts = vec![answer(&rig, within("a", "What is there?")).unwrap()];
        rig.show(200);
        rig.caption();
        texts.push(answer(&rig, within("a", "And left of it?")).unwrap());
        texts.push(answer(&rig, within("a", "And right of it?")).unwrap());
        texts
    };
    let (kept, gone) = (run(50), run(0));
    for (turn, (kept, gone)) in kept.iter().zip(&gone).enumerate() {
        assert_eq!((&kept.text, &kept.frame), (&gone.text, &gone.frame), "turn {turn}");
        assert_eq!((kept.recomputed, gone.recomputed), (false, turn > 0), "turn {turn}");
    }
}

#[test]
fn a_picture_brought_along_is_talked_about_too() {
    let mut png = Vec::new();
    let picture = image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8 * 6, y as u8 * 8, 90]));
    picture.write_to(&mut std::io::Cursor::new(&mut png), image::ImageFormat::Png).unwrap();
    let run = |percent| {
        let rig = rig(percent);
        let brought = Question { frame: FrameChoice::Picture(png.clone()), ..within("p", "What is it?") };
        let first = answer(&rig, brought).unwrap();
        let second = answer(&rig, within("p", "What else?")).unwrap();
        assert_eq!((second.frame.sequence, second.turns), (0, 1));
        assert_eq!(second.frame, first.frame);
        [first.text, second.text]
    };
    assert_eq!(run(50), run(0));
}

#[test]
fn callers_end_sessions_and_questions_of_one_session_take_turns() {
    let rig = rig(50);
    let asked: Vec<_> = (0..3).map(|turn| rig.ask("front", within("a", &words(turn)))).collect();
    let turns: Vec<u32> = asked.into_iter().map(|pieces| collect(pieces).unwrap().turns).collect();
    assert_eq!(turns, [0, 1, 2]);
    let end = Session { name: "a".into(), end: true, ..Session::default() };
    let last = answer(&rig, Question { session: Some(end.clone()), ..question("Bye?") }).unwrap();
    assert_eq!(last.turns, 3);
    assert_eq!(answer(&rig, within("a", "Who?")).unwrap().turns, 0);
    let silent = answer(&rig, Question { session: Some(end), ..Question::new("") }).unwrap();
    assert_eq!((silent.text.as_str(), silent.tokens.generated), ("", 0));
    assert_eq!(rig.engine.progress().report().engine.sessions, 0);
    assert_eq!(answer(&rig, within("a", "Who?")).unwrap().turns, 0);
    // Of three sessions two have a place: the one idle longest gives way.
    for (name, want) in [("b", 0), ("c", 0), ("b", 1), ("a", 0), ("b", 2), ("c", 0)] {
        assert_eq!(answer(&rig, within(name, "Who?")).unwrap().turns, want, "{name}");
    }
}
