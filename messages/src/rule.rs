//! Alert rules: what is watched for, and how the list is changed while the daemon runs.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::AskError;
use crate::keys::Name;

/// Most rules of a daemon.
pub const MAX_RULES: usize = 32;

/// Longest question of a rule in bytes. Its tokens are computed again for every picture.
const QUESTION_BYTES: usize = 512;

/// Most cameras that a rule can name.
const CAMERAS: usize = 64;

/// Longest duration in seconds: a day.
const LONGEST_S: f64 = 86400.0;

/// A yes-or-no question that is put to every new picture. Its alert begins while the answer is yes
/// and ends when it is not any more. In JSON everything but `name` and `question` may be left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Name on the bus.
    pub name: String,
    /// Names of the cameras that are watched; empty watches all.
    pub cameras: Vec<String>,
    /// The question, to be answered by yes or no.
    pub question: String,
    /// Probability of yes, among yes and no, from which on the alert begins, over 0 and at most 1.
    pub threshold: f64,
    /// Probability of yes below which the alert ends, from 0 to `threshold`.
    pub release_threshold: f64,
    /// Seconds of capture time for which the answer must stay at or above `threshold`.
    pub min_duration_s: f64,
    /// Seconds after the end of an alert in which no other one begins.
    pub cool_down_s: f64,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            name: String::new(),
            cameras: Vec::new(),
            question: String::new(),
            threshold: 0.6,
            release_threshold: 0.4,
            min_duration_s: 0.0,
            cool_down_s: 5.0,
        }
    }
}

/// Why a rule cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct RuleError {
    /// The field that is wrong.
    pub field: &'static str,
    /// What is wrong with it, and what is accepted.
    pub problem: String,
}

impl Rule {
    /// A rule for all cameras, everything else by default.
    pub fn new(name: impl Into<String>, question: impl Into<String>) -> Self {
        Self { name: name.into(), question: question.into(), ..Self::default() }
    }

    /// Whether a camera is watched.
    pub fn watches(&self, camera: &str) -> bool {
        self.cameras.is_empty() || self.cameras.iter().any(|name| name == camera)
    }

    /// Checks everything that can be checked without the model and the cameras.
    pub fn check(&self) -> Result<(), RuleError> {
        let refuse = |field, problem: String| Err(RuleError { field, problem });
        if self.name.is_empty() {
            return refuse("name", "missing: every rule needs a name".into());
        }
        if let Err(error) = Name::new(&self.name) {
            return refuse("name", error.to_string());
        }
        match self.question.len() {
            _ if self.question.trim().is_empty() => return refuse("question", "missing".into()),
            bytes if bytes > QUESTION_BYTES => {
                let problem = format!("{bytes} bytes long, at most {QUESTION_BYTES} are accepted");
                return refuse("question", problem);
            }
            _ => {}
        }
        self.check_cameras()?;
        let ranges = [
            ("threshold", self.threshold, f64::MIN_POSITIVE, 1.0, "over 0, at most 1"),
            ("release_threshold", self.release_threshold, 0.0, self.threshold, "0 to threshold"),
            ("min_duration_s", self.min_duration_s, 0.0, LONGEST_S, "0 to 86400"),
            ("cool_down_s", self.cool_down_s, 0.0, LONGEST_S, "0 to 86400"),
        ];
        for (field, value, least, most, expected) in ranges {
            // Not-a-number lies in no range.
            if !(least..=most).contains(&value) {
                return refuse(field, format!("{value} is not accepted, expected {expected}"));
            }
        }
        Ok(())
    }

    fn check_cameras(&self) -> Result<(), RuleError> {
        let refuse = |problem| Err(RuleError { field: "cameras", problem });
        if self.cameras.len() > CAMERAS {
            return refuse(format!("{} names, at most {CAMERAS} are accepted", self.cameras.len()));
        }
        let mut seen = HashSet::new();
        for camera in &self.cameras {
            if let Err(error) = Name::new(camera) {
                return refuse(error.to_string());
            }
            if !seen.insert(camera) {
                return refuse(format!("\"{camera}\" stands there twice"));
            }
        }
        Ok(())
    }

    /// Checks a whole list: every rule, their number and that no two have one name. The error comes
    /// with the place of the rule in the list.
    pub fn check_all(rules: &[Self]) -> Result<(), (usize, RuleError)> {
        let refuse = |index, problem| Err((index, RuleError { field: "name", problem }));
        let mut names = HashSet::new();
        for (index, rule) in rules.iter().enumerate() {
            if index == MAX_RULES {
                return refuse(index, format!("one rule too many, at most {MAX_RULES} are accepted"));
            }
            rule.check().map_err(|error| (index, error))?;
            if !names.insert(&rule.name) {
                return refuse(index, format!("\"{}\" names two rules, give each its own", rule.name));
            }
        }
        Ok(())
    }
}

/// What is to be done with the list of rules. The answer is the [`Rules`] there are then. In JSON
/// `"get"`, `{"set": [RULE, ...]}`, `{"add": RULE}`, `{"remove": "<name>"}` or `"reset"`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleChange {
    /// Nothing: only the answer is wanted.
    #[default]
    Get,
    /// The whole list is replaced. Rules that do not change keep their state.
    Set(Vec<Rule>),
    /// One more rule.
    Add(Rule),
    /// The rule of this name goes; its alerts end.
    Remove(String),
    /// The list is as the configuration has it.
    Reset,
}

impl RuleChange {
    /// The list after the change. `configured` is the list of the configuration, `known` are the cameras
    /// there are.
    ///
    /// Errors: a bad rule, too many, a name that is taken or unknown, an unknown camera.
    pub fn apply(self, rules: &[Rule], configured: &[Rule], known: &[String]) -> Result<Vec<Rule>, AskError> {
        let mut changed = rules.to_vec();
        match self {
            Self::Get => return Ok(changed),
            Self::Set(rules) => changed = rules,
            Self::Reset => changed = configured.to_vec(),
            Self::Add(rule) => changed.push(rule),
            Self::Remove(name) => {
                let Some(index) = changed.iter().position(|rule| rule.name == name) else {
                    let known = rules.iter().map(|rule| rule.name.clone()).collect();
                    let rule = name.chars().take(64).collect();
                    return Err(AskError::UnknownRule { rule, known });
                };
                changed.remove(index);
            }
        }
        if changed.len() > MAX_RULES {
            let what = "number of rules".into();
            return Err(AskError::TooLong { what, got: changed.len() as u64, limit: MAX_RULES as u64 });
        }
        Rule::check_all(&changed)
            .map_err(|(index, error)| AskError::BadRequest { reason: format!("rule[{index}].{error}") })?;
        for camera in changed.iter().flat_map(|rule| &rule.cameras) {
            if !known.contains(camera) {
                return Err(AskError::UnknownCamera { camera: camera.clone(), known: known.to_vec() });
            }
        }
        Ok(changed)
    }
}

/// The rules of a daemon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// In the order in which they are evaluated.
    pub rules: Vec<Rule>,
    /// Changes since the daemon started: of two states the one with the higher number is newer.
    pub revision: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Rule {
        Rule::new("door", "Is the door open?")
    }

    fn field(change: impl FnOnce(&mut Rule)) -> Option<&'static str> {
        let mut rule = rule();
        change(&mut rule);
        rule.check().err().map(|error| error.field)
    }

    #[test]
    fn every_field_is_checked() {
        type Change = fn(&mut Rule);
        let cases: [(Change, Option<&str>); 17] = [
            (|_| (), None),
            (|r| r.name.clear(), Some("name")),
            (|r| r.name = "a/b".into(), Some("name")),
            (|r| r.question = " \n".into(), Some("question")),
            (|r| r.question = "x".repeat(512), None),
            (|r| r.question = "x".repeat(513), Some("question")),
            (|r| r.cameras = vec!["a".into(), "b".into()], None),
            (|r| r.cameras = vec!["a".into(), "a".into()], Some("cameras")),
            (|r| r.cameras = vec!["*".into()], Some("cameras")),
            (|r| r.cameras = (0..65).map(|i| format!("c{i}")).collect(), Some("cameras")),
            (|r| r.threshold = 0.0, Some("threshold")),
            (|r| r.threshold = f64::NAN, Some("threshold")),
            (|r| r.threshold = 1.01, Some("threshold")),
            (|r| r.release_threshold = r.threshold, None),
            (|r| r.release_threshold = 0.61, Some("release_threshold")),
            (|r| r.min_duration_s = -1.0, Some("min_duration_s")),
            (|r| r.cool_down_s = f64::INFINITY, Some("cool_down_s")),
        ];
        for (number, (change, expected)) in cases.into_iter().enumerate() {
            assert_eq!(field(change), expected, "case {number}");
        }
    }

    #[test]
    fn rules_watch_the_cameras_they_name_or_all() {
        assert!(rule().watches("front"));
        let one = Rule { cameras: vec!["rear".into()], ..rule() };
        assert!(one.watches("rear") && !one.watches("front"));
    }

    #[test]
    fn changes_give_the_new_list_or_say_why_not() {
        let (known, old) = (["front".to_owned()], [rule(), Rule::new("dog", "Is there a dog?")]);
        let names = |change: RuleChange| {
            let rules = change.apply(&old, &old[..1], &known).map_err(|error| error.kind())?;
            Ok(rules.into_iter().map(|rule| rule.name).collect::<Vec<_>>().join(" "))
        };
        let named = |name: &str| Rule { name: name.into(), ..rule() };
        let many = |count: usize| (0..count).map(|i| named(&i.to_string())).collect();
        let on = |camera: &str| Rule { cameras: vec![camera.into()], ..named("new") };
        for (change, expected) in [
            (RuleChange::Get, Ok("door dog")),
            (RuleChange::Set(Vec::new()), Ok("")),
            (RuleChange::Set(vec![named("a"), named("b")]), Ok("a b")),
            (RuleChange::Set(vec![named("a"), named("a")]), Err("bad_request")),
            (RuleChange::Set(many(33)), Err("too_long")),
            (RuleChange::Add(on("front")), Ok("door dog new")),
            (RuleChange::Add(on("attic")), Err("unknown_camera")),
            (RuleChange::Add(named("door")), Err("bad_request")),
            (RuleChange::Add(named("a b")), Err("bad_request")),
            (RuleChange::Remove("door".into()), Ok("dog")),
            (RuleChange::Reset, Ok("door")),
            (RuleChange::Remove("cat".into()), Err("unknown_rule")),
        ] {
            assert_eq!(names(change.clone()), expected.map(str::to_owned), "{change:?}");
        }
        assert!(RuleChange::Set(many(32)).apply(&old, &old, &known).is_ok());
        let bad =
            RuleChange::Add(Rule { threshold: 2.0, ..named("new") }).apply(&old, &old, &known).unwrap_err();
        assert_eq!(bad.to_string(), "rule[2].threshold: 2 is not accepted, expected over 0, at most 1");
    }

    #[test]
    fn scripts_write_changes_as_documented() {
        let parse = |json: &str| serde_json::from_str::<RuleChange>(json).map_err(|error| error.to_string());
        assert_eq!(parse(r#""get""#), Ok(RuleChange::Get));
        let added = r#"{"add": {"name": "door", "question": "Is the door open?"}}"#;
        assert_eq!(parse(added), Ok(RuleChange::Add(rule())));
        assert_eq!(parse(r#"{"remove": "door"}"#), Ok(RuleChange::Remove("door".into())));
        assert_eq!(parse(r#"{"set": []}"#), Ok(RuleChange::Set(Vec::new())));
        assert!(parse(r#"{"add": {"nmae": "door"}}"#).unwrap_err().contains("unknown field `nmae`"));
    }
}
