//! Answers of a given form: which tokens may come next.
//!
//! A [`Grammars`] knows the vocabulary; it makes a [`Guide`] of a question's constraint. What the
//! model says begins with one space, which the grammar asks for and the text does not show: after
//! `ASSISTANT:` that is how answers were trained.

use std::fmt::Display;
use std::sync::{Arc, OnceLock};

use llguidance::api::{GrammarWithLexer, StopReason, TopLevelGrammar};
use llguidance::derivre::RegexBuilder;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory, regex_to_lark};
use messages::Constraint;
use serde_json::{Value, json};

use super::sampler::Mask;
use super::tokenizer::Tokenizer;

mod guided;

pub use guided::{Guided, Next};

/// Work the compiler may spend on the expressions of a constraint: tens of milliseconds.
const COMPILE_FUEL: u64 = 1_000_000;

/// Work one mask may cost: some milliseconds.
const MASK_FUEL: u64 = 50_000;

/// Memory of the expressions of one constraint: at most 2 kB per state.
const STATES: usize = 20_000;

/// Symbols of a grammar at most.
const SYMBOLS: usize = 50_000;

/// Longest reason that is passed on, in bytes.
const REASON_BYTES: usize = 300;

/// Why no answer can meet a constraint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// It makes no sense, or costs too much.
    #[error("the constraint cannot be used: {0}")]
    Invalid(String),
    /// It was sound, but following it costs too much.
    #[error("the constraint is too costly to follow: {0}")]
    TooCostly(String),
    /// Too many constraints are being followed or compiled.
    #[error("too many constrained questions are open")]
    Busy,
}

/// The vocabulary of a model, sorted for grammars when the first one is compiled.
pub struct Grammars {
    tokenizer: Arc<Tokenizer>,
    factory: OnceLock<Result<ParserFactory, ConstraintError>>,
}

impl Grammars {
    /// Grammars over the pieces of `tokenizer`.
    pub fn new(tokenizer: &Arc<Tokenizer>) -> Self {
        Self { tokenizer: tokenizer.clone(), factory: OnceLock::new() }
    }

    fn factory(&self) -> Result<&ParserFactory, ConstraintError> {
        self.factory.get_or_init(|| factory(&self.tokenizer)).as_ref().map_err(Clone::clone)
    }

    /// A guide through answers that meet `constraint`, which must have passed
    /// [`Constraint::check`]. It may take long: not for the thread of the engine.
    pub fn compile(&self, constraint: &Constraint) -> Result<Guide, ConstraintError> {
        let grammar = match constraint {
            Constraint::Choices(choices) => {
                let escaped: Vec<String> = choices.iter().map(|choice| escape(choice)).collect();
                expression(&escaped.join("|"))?
            }
            Constraint::Regex(regex) => expression(without_anchors(regex))?,
            Constraint::JsonSchema(schema) => json_grammar(schema)?,
        };
        let parser = self.factory()?.create_parser(grammar).map_err(invalid)?;
        let mut matcher = Matcher::new(Ok(parser));
        let mut mask = Mask::default();
        let allowed = matcher.compute_mask().map_err(invalid)?;
        mask.set(allowed.as_slice());
        Ok(Guide { matcher, mask })
    }
}

/// Sorts the pieces of a vocabulary.
fn factory(tokenizer: &Tokenizer) -> Result<ParserFactory, ConstraintError> {
    let pieces = tokenizer.piece_bytes();
    let info = TokRxInfo::new(pieces.len() as u32, tokenizer.eos());
    let env: TokEnv = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &pieces)));
    let slices = SlicedBiasComputer::general_slices();
    let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices).map_err(invalid)?;
    factory.quiet();
    let limits = factory.limits_mut();
    limits.initial_lexer_fuel = COMPILE_FUEL;
    limits.step_lexer_fuel = MASK_FUEL;
    limits.step_max_items = MASK_FUEL as usize;
    limits.max_lexer_states = STATES;
    limits.max_grammar_size = SYMBOLS;
    limits.verbose_errors = false;
    Ok(factory)
}

/// A way through a grammar: what was said, and what may be said next.
pub struct Guide {
    matcher: Matcher,
    mask: Mask,
}

impl Guide {
    /// The tokens that may come next; the end token among them if the answer may end here.
    pub fn mask(&self) -> &Mask {
        &self.mask
    }

    /// Goes on by a token that the mask allows, other than the end token. Returns whether anything
    /// may follow: if not, the answer is complete.
    pub fn advance(&mut self, id: u32) -> Result<bool, ConstraintError> {
        self.matcher.consume_token(id).map_err(costly)?;
        if self.matcher.is_stopped() {
            return self.ended();
        }
        match self.matcher.compute_mask() {
            Ok(allowed) => {
                self.mask.set(allowed.as_slice());
                Ok(true)
            }
            Err(_) if self.matcher.stop_reason() == StopReason::NoExtensionBias => Ok(false),
            Err(error) => Err(costly(error)),
        }
    }

    fn ended(&self) -> Result<bool, ConstraintError> {
        match self.matcher.stop_reason() {
            reason if reason.is_ok() => Ok(false),
            reason => Err(ConstraintError::TooCostly(reason.to_string())),
        }
    }
}

/// All of an answer matches `regex`.
fn expression(regex: &str) -> Result<TopLevelGrammar, ConstraintError> {
    // On its own first, so that nothing in it reaches beyond the brackets it is put in.
    RegexBuilder::new().mk_regex(regex).map_err(invalid)?;
    let grammar = format!("start: /\\x20(?:{})/", regex_to_lark(regex, ""));
    Ok(TopLevelGrammar::from_lark(grammar))
}

/// An answer is JSON on one line, with one space behind commas and colons.
fn json_grammar(schema: &str) -> Result<TopLevelGrammar, ConstraintError> {
    let mut schema = match serde_json::from_str(schema).map_err(invalid)? {
        Value::Bool(true) => json!({}),
        schema @ Value::Object(_) => schema,
        _ => return Err(invalid("a JSON schema is an object or true")),
    };
    schema["x-guidance"] =
        json!({ "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": " });
    let answer = GrammarWithLexer::from_lark("start: \" \" @json_schema".into());
    let schema = GrammarWithLexer::from_json_schema(schema);
    Ok(TopLevelGrammar { grammars: vec![answer, schema], max_tokens: None })
}

/// The expression that matches exactly `text`.
fn escape(text: &str) -> String {
    let escape = |letter: char| match letter {
        letter if letter.is_ascii_alphanumeric() || !letter.is_ascii() => letter.to_string(),
        letter => format!("\\x{:02X}", u32::from(letter)),
    };
    text.chars().map(escape).collect()
}

/// Without `^` and `$` around it: all of an answer has to match anyway.
fn without_anchors(regex: &str) -> &str {
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    match regex.strip_suffix('$') {
        Some(rest) if (rest.len() - rest.trim_end_matches('\\').len()).is_multiple_of(2) => rest,
        _ => regex,
    }
}

fn invalid(error: impl Display) -> ConstraintError {
    ConstraintError::Invalid(shorten(&error.to_string()))
}

fn costly(error: impl Display) -> ConstraintError {
    ConstraintError::TooCostly(shorten(&error.to_string()))
}

/// One line of a reason, the one that names the error, cut where it gets too long.
fn shorten(reason: &str) -> String {
    let named = reason.lines().find_map(|line| line.strip_prefix("error: "));
    let line = named.or_else(|| reason.lines().next()).unwrap_or_default();
    line[..line.floor_char_boundary(REASON_BYTES)].to_owned()
}

#[cfg(test)]
mod tests;
