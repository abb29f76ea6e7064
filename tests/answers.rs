//! Constraints and sampling on the engine.

use messages::{Answer, AskError, Constraint, Question, Sampling};

use crate::engine::{Rig, collect, question};

fn answer(rig: &Rig, question: Question) -> Result<Answer, AskError> {
    collect(rig.ask("front", question))
}

fn constrained(constraint: Constraint) -> Question {
    Question { constraint: Some(constraint), max_tokens: 200, ..question("What is there?") }
}

fn choices(choices: &[&str]) -> Constraint {
    Constraint::Choices(choices.iter().map(|&choice| choice.to_owned()).collect())
}

#[test]
fn constrained_answers_have_their_form_with_every_kind_of_sampling() {
    let mut rig = Rig::new();
    rig.show(60);
    rig.caption();
    let these = ["a door", "a door that is open", "nothing", "  two \n lines"];
    for (seed, temperature, top_p) in
        [(0, 0.0, 0.0), (1, 1.0, 0.0), (2, 30.0, 0.0), (3, 1.0, 0.2), (3, 1.0, 0.2)]
    {
        let sampling = Sampling { temperature, top_p, seed };
        let ask = |constraint| answer(&rig, Question { sampling, ..constrained(constraint) }).unwrap();
        let chosen = ask(choices(&these));
        assert!(these.contains(&chosen.text.as_str()) && !chosen.truncated, "{chosen:?}");
        let number = ask(Constraint::Regex("[0-9]{1,4} cars?".into()));
        let digits = number.text.strip_suffix('s').unwrap_or(&number.text).strip_suffix(" car");
        assert!(digits.is_some_and(|digits| digits.parse::<u32>().is_ok()), "{number:?}");
        let schema = r#"{"type":"object","required":["open"],"additionalProperties":false,
            "properties":{"open":{"type":"boolean"}}}"#;
        let object = ask(Constraint::JsonSchema(schema.into()));
        assert!(["{\"open\": true}", "{\"open\": false}"].contains(&object.text.as_str()), "{object:?}");
    }
}

#[test]
fn a_seed_fixes_the_answer_and_greedy_needs_none() {
    let mut rig = Rig::new();
    rig.show(60);
    rig.caption();
    let ask = |seed, temperature| {
        let sampling = Sampling { temperature, seed, ..Sampling::default() };
        let form = Some(Constraint::Regex("[a-z]{12}".into()));
        let free = Question { sampling, max_tokens: 12, ..question("What is there?") };
        let bound = Question { sampling, max_tokens: 200, constraint: form, ..question("What is there?") };
        [free, bound].map(|question| answer(&rig, question).unwrap().text)
    };
    assert_eq!(ask(5, 1.5), ask(5, 1.5));
    assert_ne!(ask(5, 1.5), ask(6, 1.5));
    assert_eq!(ask(5, 0.0), ask(6, 0.0));
}

#[test]
fn an_answer_that_is_cut_before_it_has_its_form_says_so() {
    let mut rig = Rig::new();
    rig.show(60);
    rig.caption();
    let long = || Constraint::Regex("(?:ab){60}".into());
    let short = answer(&rig, Question { max_tokens: 3, ..constrained(long()) }).unwrap();
    assert!(short.truncated && short.tokens.generated == 3, "{short:?}");
    let stopped = answer(&rig, Question { stop: vec!["bab".into()], ..constrained(long()) }).unwrap();
    assert!(stopped.truncated, "{stopped:?}");
    assert_eq!(stopped.text, "a");
    let whole = answer(&rig, constrained(long())).unwrap();
    assert_eq!((whole.text.as_str(), whole.truncated), ("ab".repeat(60).as_str(), false));
    // The text that ends an answer elsewhere is text like any other here.
    let end = answer(&rig, constrained(choices(&["x</s>y"]))).unwrap();
    assert_eq!((end.text.as_str(), end.truncated), ("x</s>y", false));
}

#[test]
fn a_constraint_without_sense_is_refused_before_any_work() {
    let mut rig = Rig::new();
    rig.show(60);
    rig.caption();
    let before = rig.engine.progress().report();
    for constraint in [
        Constraint::Regex("(".into()),
        Constraint::JsonSchema("{".into()),
        Constraint::JsonSchema(r#"{"type": "nonsense"}"#.into()),
    ] {
        let fresh = Question { frame: messages::FrameChoice::Fresh, ..constrained(constraint.clone()) };
        let error = answer(&rig, fresh).unwrap_err();
        assert_eq!(error.kind(), "constraint", "{constraint:?}: {error}");
    }
    let after = rig.engine.progress().report();
    assert_eq!(after.engine.images, before.engine.images);
    assert_eq!(after.cache.positions_computed, before.cache.positions_computed);
}
