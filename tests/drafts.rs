//! Drafts change how fast texts are written, never what is written.

use messages::{Answer, AskError, Question, Sampling};

use crate::engine::{Rig, collect, question};

fn rig(drafts: bool) -> Rig {
    Rig::with(|options| {
        options.caption.drafts = drafts;
        options.caption.max_tokens = 24;
        // Every frame is described, changed or not.
        options.caption.change_threshold = 0.0;
    })
}

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What is said on the same frames and to the same questions, some of whose callers leave.
fn said(drafts: bool, seed: u64) -> (Vec<String>, messages::DraftStatus) {
    let (mut rig, mut state) = (rig(drafts), seed);
    let mut said = Vec::new();
    for _ in 0..16 {
        // Few different frames, so that some come again.
        rig.show((random(&mut state) % 3) as u8 * 60);
        if random(&mut state).is_multiple_of(4) {
            drop(rig.ask("front", ask(&mut state)));
        }
        said.push(rig.caption().text);
        for _ in 0..random(&mut state) % 3 {
            let answer: Result<Answer, AskError> = collect(rig.ask("front", ask(&mut state)));
            said.push(answer.unwrap().text);
        }
    }
    let status = rig.engine.progress().report().engine.drafts;
    (said, status)
}

fn ask(state: &mut u64) -> Question {
    let text = ["What is there?", "Who is there?", "Is it dark?"][(random(state) % 3) as usize];
    let temperature = if random(state).is_multiple_of(4) { 1.0 } else { 0.0 };
    let sampling = Sampling { temperature, seed: random(state) % 5, ..Sampling::default() };
    Question { sampling, max_tokens: 16, ..question(text) }
}

#[test]
fn captions_and_answers_are_the_same_with_and_without_drafts() {
    let mut accepted = 0;
    for seed in 0..2 {
        let (with, drafts) = said(true, seed);
        let (without, none) = said(false, seed);
        assert_eq!(with, without, "seed {seed}");
        assert_eq!((none.proposed, none.accepted), (0, 0));
        assert!(drafts.accepted <= drafts.proposed && drafts.passes < none.passes, "{drafts:?} {none:?}");
        accepted += drafts.accepted;
    }
    assert!(accepted > 50, "too few drafts were right to show anything: {accepted}");
}

#[test]
fn a_frame_that_comes_again_takes_few_passes() {
    let mut rig = rig(true);
    let passes = |rig: &Rig| rig.engine.progress().report().engine.drafts.passes;
    let mut spent = Vec::new();
    let mut texts = Vec::new();
    for _ in 0..6 {
        rig.show(90);
        let before = passes(&rig);
        texts.push(rig.caption().text);
        // The figures follow the caption's job, which is closed before it is published.
        spent.push(passes(&rig) - before);
    }
    assert!(texts.iter().all(|text| *text == texts[0]));
    assert!(spent[0] > 8 && spent[5] <= 2, "{spent:?}");
}
