//! What an answer must look like.

use serde::{Deserialize, Serialize};

use crate::AskError;

/// Most choices, and the longest of them in bytes.
const CHOICES: usize = 64;
const CHOICE_BYTES: usize = 256;

/// Longest regular expression in bytes.
const REGEX_BYTES: usize = 2048;

/// Longest JSON schema in bytes.
const SCHEMA_BYTES: usize = 16_384;

/// What an answer must look like. In JSON `{"choices": ["yes", "no"]}`, `{"regex": "[0-9]+"}` or
/// `{"json_schema": {"type": "object"}}`.
///
/// An answer meets it from its first letter to its last, or is marked as truncated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constraint {
    /// One of these texts: 1 to 64, each 1 to 256 bytes.
    Choices(Vec<String>),
    /// The whole answer matches this regular expression of at most 2048 bytes, in the syntax of
    /// RE2 and of Rust: no references back, no looking around.
    Regex(String),
    /// The answer is JSON, on one line, that this schema allows: JSON text of at most 16384 bytes.
    JsonSchema(#[serde(with = "schema")] String),
}

impl Constraint {
    /// Checks the sizes. Whether the constraint can be met at all is found out where the model is.
    ///
    /// Errors: nothing to choose from, or something too long.
    pub fn check(&self) -> Result<(), AskError> {
        let at_most = |what: &str, got: usize, limit: usize| {
            let too_long = AskError::TooLong { what: what.into(), got: got as u64, limit: limit as u64 };
            if got > limit { Err(too_long) } else { Ok(()) }
        };
        match self {
            Self::Choices(choices) => {
                at_most("number of choices", choices.len(), CHOICES)?;
                for choice in choices {
                    at_most("choice in bytes", choice.len(), CHOICE_BYTES)?;
                }
                if choices.is_empty() || choices.iter().any(String::is_empty) {
                    let reason = "choices are 1 to 64 texts, none of them empty".into();
                    return Err(AskError::Constraint { reason });
                }
                Ok(())
            }
            Self::Regex(regex) => at_most("regular expression in bytes", regex.len(), REGEX_BYTES),
            Self::JsonSchema(schema) => at_most("JSON schema in bytes", schema.len(), SCHEMA_BYTES),
        }
    }
}

/// JSON text in binary formats, the JSON itself in text formats.
mod schema {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    pub(super) fn serialize<S: Serializer>(schema: &str, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable()
            && let Ok(schema @ (Value::Object(_) | Value::Bool(_))) = serde_json::from_str(schema)
        {
            return schema.serialize(serializer);
        }
        serializer.serialize_str(schema)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        if !deserializer.is_human_readable() {
            return String::deserialize(deserializer);
        }
        Ok(match Value::deserialize(deserializer)? {
            Value::String(text) => text,
            schema => schema.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        let kind = |constraint: Constraint| constraint.check().map_err(|error| error.kind());
        let choices = |count: usize, bytes| kind(Constraint::Choices(vec!["x".repeat(bytes); count]));
        assert_eq!([choices(1, 1), choices(64, 256)], [Ok(()); 2]);
        assert_eq!([choices(65, 1), choices(1, 257)], [Err("too_long"); 2]);
        assert_eq!([choices(0, 1), choices(2, 0)], [Err("constraint"); 2]);
        let text = |bytes| " ".repeat(bytes);
        assert_eq!(kind(Constraint::Regex(text(2048))), Ok(()));
        assert_eq!(kind(Constraint::Regex(text(2049))), Err("too_long"));
        assert_eq!(kind(Constraint::JsonSchema(text(16_384))), Ok(()));
        assert_eq!(kind(Constraint::JsonSchema(text(16_385))), Err("too_long"));
    }

    #[test]
    fn schemas_are_json_in_json() {
        for (schema, json) in [
            (r#"{"type":"integer"}"#, r#"{"json_schema":{"type":"integer"}}"#),
            ("true", r#"{"json_schema":true}"#),
            ("not json", r#"{"json_schema":"not json"}"#),
            ("\"text\"", r#"{"json_schema":"\"text\""}"#),
        ] {
            let constraint = Constraint::JsonSchema(schema.into());
            assert_eq!(serde_json::to_string(&constraint).unwrap(), json);
            assert_eq!(serde_json::from_str::<Constraint>(json).unwrap(), constraint);
        }
    }
}
