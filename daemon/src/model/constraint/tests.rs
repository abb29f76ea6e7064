//! Constraints hold, and hostile ones are refused in little time and memory.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use messages::Sampling;

use super::*;
use crate::model::files::TokenizerSource;
use crate::model::sampler::Sampler;

fn tokenizer(name: &str) -> Arc<Tokenizer> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/tokenizer"));
    let source = TokenizerSource::SentencePiece(path.join(name).join("tokenizer.model"));
    Arc::new(Tokenizer::from_source(&source).unwrap())
}

fn choices(choices: &[&str]) -> Constraint {
    Constraint::Choices(choices.iter().map(|&choice| choice.to_owned()).collect())
}

fn regex(regex: &str) -> Constraint {
    Constraint::Regex(regex.into())
}

fn schema(schema: &str) -> Constraint {
    Constraint::JsonSchema(schema.into())
}

/// What a model without sense says: random logits, whatever the mask allows. `None` if it does not
/// come to an end within `limit` tokens.
fn babble(tokenizer: &Tokenizer, mut guide: Guide, sampling: Sampling, limit: usize) -> Option<String> {
    let mut sampler = Sampler::new(sampling);
    let mut state = sampling.seed;
    let mut logits = vec![0.0f32; tokenizer.vocabulary_size()];
    let mut decoder = tokenizer.inner_decoder();
    let mut text = String::new();
    for _ in 0..limit {
        for logit in &mut logits {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *logit = (state >> 40) as f32 / (1 << 20) as f32;
        }
        let id = sampler.sample_masked(&logits, guide.mask()).expect("something is allowed");
        if id != tokenizer.eos() {
            text.push_str(decoder.push(id));
            if guide.advance(id).expect("a cheap constraint") {
                continue;
            }
        }
        text.push_str(decoder.finish());
        return Some(text.strip_prefix(' ').expect("one space before the answer").to_owned());
    }
    None
}

/// Checks that all kinds of sampling end in a text that `is_met` accepts.
fn check(constraint: &Constraint, is_met: impl Fn(&str) -> bool) {
    for name in ["mini", "full"] {
        let tokenizer = tokenizer(name);
        let grammars = Grammars::new(&tokenizer);
        for seed in 0..6 {
            let (temperature, top_p) = ([0.0, 1.0, 50.0][seed as usize % 3], [0.0, 0.3][seed as usize % 2]);
            let guide = grammars.compile(constraint).expect("a sound constraint");
            let text = babble(&tokenizer, guide, Sampling { temperature, top_p, seed }, 400).expect("an end");
            assert!(is_met(&text), "{name}, {constraint:?}, seed {seed}: {text:?}");
        }
    }
}

#[test]
fn answers_are_one_of_the_choices() {
    let these = ["yes", "no", "red car", "red", "\u{e9}t\u{e9} (\u{4f60})", "a|b", "\\d+ \"x\"\n/", " pad "];
    check(&choices(&these), |text| these.contains(&text));
    check(&choices(&["only"]), |text| text == "only");
}

#[test]
fn answers_match_the_whole_expression() {
    check(&regex("^[0-9]{3}$"), |text| text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit()));
    check(&regex("a/b\\\\|(c|d)\\$"), |text| ["a/b\\", "c$", "d$"].contains(&text));
    check(&regex("(?i)stop|\u{4f60}\u{597d}?"), |text| {
        text.eq_ignore_ascii_case("stop") || ["\u{4f60}", "\u{4f60}\u{597d}"].contains(&text)
    });
}

#[test]
fn answers_are_json_that_the_schema_allows() {
    let door = r#"{"type": "object", "additionalProperties": false, "required": ["open", "people"],
        "properties": {"people": {"type": "integer", "minimum": 0, "maximum": 99},
        "open": {"enum": ["yes", "no", null]}}}"#;
    check(&schema(door), |text| {
        let value: Value = serde_json::from_str(text).expect("JSON");
        value["people"].as_u64().is_some_and(|people| people < 100)
            && [json!("yes"), json!("no"), Value::Null].contains(&value["open"])
            && value.as_object().is_some_and(|object| object.len() == 2)
    });
    let list = r##"{"type": "array", "maxItems": 3, "items": {"$ref": "#/$defs/d"},
        "$defs": {"d": {"type": "boolean"}}}"##;
    check(&schema(list), |text| {
        serde_json::from_str::<Vec<bool>>(text).is_ok_and(|list| list.len() <= 3) && !text.contains('\n')
    });
}

#[test]
fn anchors_are_taken_off_where_they_are_anchors() {
    for (regex, want) in
        [("^a$", "a"), ("a\\$", "a\\$"), ("a\\\\$", "a\\\\"), ("$", ""), ("^", ""), ("a^b", "a^b")]
    {
        assert_eq!(without_anchors(regex), want);
    }
}

#[test]
fn constraints_that_make_no_sense_are_refused() {
    let grammars = Grammars::new(&tokenizer("mini"));
    for constraint in [
        regex("a)|(?:b"),
        regex("(a"),
        regex("a{2,1}"),
        regex("(a)\\1"),
        regex("a(?=b)"),
        regex("a\\b"),
        regex("[z-a]"),
        regex("[^\\x00-\\u{10FFFF}]"),
        schema("{"),
        schema("false"),
        schema("[]"),
        schema("3"),
        schema(r#"{"type": "nonsense"}"#),
        schema(r#"{"type": "string", "pattern": "("}"#),
        schema(r#"{"allOf": [{"type": "string"}, {"type": "integer"}]}"#),
        schema(r##"{"$ref": "#/nowhere"}"##),
        schema(r#"{"$ref": "https://example.org/schema.json"}"#),
        schema(r#"{"type": "object", "x-guidance": {"lenient": true}, "not": {"type": "string"}}"#),
    ] {
        match grammars.compile(&constraint) {
            Err(ConstraintError::Invalid(reason)) => {
                assert!(!reason.is_empty() && reason.len() <= REASON_BYTES, "{constraint:?}: {reason}");
                assert!(!reason.contains("panic"), "{constraint:?}: {reason}");
            }
            Err(error) => panic!("{constraint:?}: {error}"),
            Ok(_) => panic!("{constraint:?} was accepted"),
        }
    }
}

/// Constraints that are meant to cost much.
fn hostile() -> Vec<Constraint> {
    let nested = |open: &str, close: &str, depth| format!("{}a{}", open.repeat(depth), close.repeat(depth));
    let mut bomb = String::from(r#"{"$defs": {"#);
    for level in 0..30 {
        let next = format!(r##"{{"$ref": "#/$defs/d{}"}}"##, level + 1);
        bomb += &format!(r#""d{level}": {{"allOf": [{next}, {next}]}}, "#);
    }
    bomb += r##""d30": {"anyOf": [{"type": "object"}, {"type": "array"}]}}, "$ref": "#/$defs/d0"}"##;
    let one = |i| format!(r#"{{"type": "object", "properties": {{"p{i}": {{}}}}}}"#);
    let wide = format!(r#"{{"anyOf": [{}]}}"#, (0..60).map(one).collect::<Vec<_>>().join(", "));
    vec![
        regex(&nested("(", ")", 1000)),
        regex(&nested("(", ")*", 600)),
        regex(&nested("(?:", "){1,9}", 200)),
        regex("((a{1000}){1000}){1000}"),
        regex("(.*a){30}.*"),
        regex("(a?){500}a{500}"),
        regex(&"[\\w\\W]?".repeat(250)),
        regex("\\p{L}{500}\\w{1000}"),
        regex(&"a|".repeat(1000)),
        regex("(?:.*[ab]){0,60}(?:.{20}[cd]){60}"),
        schema(&nested(r#"{"items":"#, "}", 2000).replace('a', "{}")),
        schema(&nested(r#"{"items":"#, "}", 120).replace(":a", ":{}")),
        schema(&bomb),
        schema(&format!(r#"{{"allOf": [{wide}, {wide}, {wide}]}}"#)),
        schema(r#"{"type": "array", "minItems": 1000000000}"#),
        schema(r#"{"type": "array", "maxItems": 4000000000}"#),
        schema(r#"{"type": "string", "minLength": 1000000000}"#),
        schema(r#"{"type": "string", "pattern": "^(.*a){30}$", "maxLength": 100000}"#),
        schema(r#"{"type": "object", "minProperties": 1000000}"#),
        schema(r#"{"type": "number", "multipleOf": 1e-300, "minimum": -1e300}"#),
        schema(r##"{"$ref": "#"}"##),
        schema(r##"{"type": "array", "minItems": 1, "items": {"$ref": "#"}}"##),
    ]
}

/// What may follow, as soon as that is known.
fn following(guided: &mut Guided) -> Result<&Next, ConstraintError> {
    while guided.following()?.is_none() {}
    guided.following().map(|next| next.expect("known"))
}

/// Each is refused, or followed to an end: of the answer, of the patience, or of what a step may cost.
#[test]
fn hostile_constraints_are_refused_or_followed() {
    let tokenizer = tokenizer("mini");
    let grammars = Arc::new(Grammars::new(&tokenizer));
    let mut refused = 0;
    for constraint in hostile() {
        let (ready, done) = mpsc::sync_channel(1);
        let ring = move || {
            let _ = ready.send(());
        };
        let mut guided = Guided::begin(&grammars, constraint, ring).expect("a place");
        done.recv_timeout(Duration::from_secs(60)).expect("it is compiled or refused");
        let mut sampler = Sampler::new(Sampling { temperature: 1.0, ..Sampling::default() });
        let logits = vec![0.0; tokenizer.vocabulary_size()];
        for step in 0..20 {
            let id = match following(&mut guided) {
                Ok(Next::Tokens(mask)) => sampler.sample_masked(&logits, mask).expect("something is allowed"),
                Ok(Next::Nothing) => break,
                Err(ConstraintError::Invalid(_)) if step == 0 => {
                    refused += 1;
                    break;
                }
                Err(ConstraintError::TooCostly(_)) if step > 0 => break,
                Err(error) => panic!("step {step}: {error}"),
            };
            if id == tokenizer.eos() {
                break;
            }
            guided.advance(id);
        }
    }
    assert!(refused >= 5, "{refused}");
}

#[test]
fn a_guide_on_its_own_thread_gives_the_same_masks() {
    let tokenizer = tokenizer("full");
    let grammars = Arc::new(Grammars::new(&tokenizer));
    let constraint = regex("[a-c]{2,5} dogs?");
    let mut guide = grammars.compile(&constraint).unwrap();
    let mut guided = Guided::begin(&grammars, constraint, || {}).unwrap();
    let mut sampler = Sampler::new(Sampling { temperature: 1.0, seed: 3, ..Sampling::default() });
    let logits = vec![0.0; tokenizer.vocabulary_size()];
    loop {
        let Next::Tokens(mask) = following(&mut guided).unwrap() else { panic!("complete too early") };
        assert_eq!(mask, guide.mask());
        let id = sampler.sample_masked(&logits, mask).unwrap();
        if id == tokenizer.eos() {
            break;
        }
        guided.advance(id);
        if !guide.advance(id).unwrap() {
            assert!(matches!(following(&mut guided), Ok(Next::Nothing)));
            break;
        }
    }
}

#[test]
fn a_refused_constraint_tells_through_the_thread() {
    let grammars = Arc::new(Grammars::new(&tokenizer("mini")));
    let mut guided = Guided::begin(&grammars, regex("("), || {}).unwrap();
    assert!(matches!(following(&mut guided), Err(ConstraintError::Invalid(_))));
    drop(Guided::begin(&grammars, regex("a+"), || {}).unwrap());
}
