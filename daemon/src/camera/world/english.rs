//! True captions of scenes, in one style for each way to ask for them.

use super::scene::{Group, Scene};
use super::things::{DoorState, Object, Side};

/// How a scene is described. The wording of the prompt decides it, so that one caption is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Style {
    /// One sentence.
    Sentence,
    /// What there is, one after the other.
    List,
    /// A sentence for each fact, with the sizes of the objects.
    Full,
}

impl Style {
    /// All styles.
    pub const ALL: [Self; 3] = [Self::Sentence, Self::List, Self::Full];

    /// What asks for a caption of this style.
    pub fn prompts(self) -> &'static [&'static str] {
        match self {
            Self::Sentence => &[
                "Describe the scene in one sentence.",
                "Describe the scene.",
                "Describe what you see in one sentence.",
                "Describe the image in one sentence.",
            ],
            Self::List => &[
                "What do you see?",
                "What can you see?",
                "What is in the picture?",
                "What is in the image?",
                "What is there?",
            ],
            Self::Full => &[
                "Describe the image.",
                "Describe the picture.",
                "Describe the image in detail.",
                "Describe everything you see.",
            ],
        }
    }

    /// The style that a prompt asks for; none for other questions.
    pub fn of_prompt(prompt: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|style| style.prompts().contains(&prompt))
    }
}

impl Scene {
    /// The whole scene in words: every object with its colour, how they stand to each other, the
    /// door, the person and the lamp.
    pub fn caption(&self, style: Style) -> String {
        let mut parts: Vec<String> = Vec::new();
        let groups: Vec<Group> = self.groups().collect();
        parts.extend(objects(&groups, style));
        parts.extend(self.door_state().map(|state| door(state, style)));
        parts.extend(self.person.and_then(|person| person.side()).map(|side| person(side, style)));
        parts.extend(self.lamp.map(|lamp| lamp_words(lamp.is_on(), style)));
        match style {
            _ if parts.is_empty() => "The scene is empty.".into(),
            Style::Sentence => format!("{}.", capital(&join(&parts))),
            Style::List => format!("I see {}.", join(&parts)),
            Style::Full => {
                let sentences: Vec<_> = parts.iter().map(|part| format!("{}.", capital(part))).collect();
                sentences.join(" ")
            }
        }
    }
}

/// All objects from left to right.
fn objects(groups: &[Group], style: Style) -> Option<String> {
    let phrases: Vec<_> = groups.iter().map(|group| phrase(group, style)).collect();
    Some(match (groups, style) {
        ([], _) => return None,
        ([_], Style::List) => phrases.concat(),
        ([Group { first, second: Some((relation, second)) }], _) => {
            format!("{} is {} {}", noun(first, style), relation.words(), noun(second, style))
        }
        ([_], _) => format!("there is {}", phrases.concat()),
        ([_, _], Style::List) => phrases.join(" left of "),
        ([_, _], _) => phrases.join(" is left of "),
        (_, Style::List) => format!("{} from left to right", join(&phrases)),
        _ => format!("from left to right there are {}", join(&phrases)),
    })
}

fn phrase(group: &Group, style: Style) -> String {
    let first = noun(&group.first, style);
    match &group.second {
        Some((relation, second)) => format!("{first} {} {}", relation.words(), noun(second, style)),
        None => first,
    }
}

/// The object with its colour, and with its size where the style says it.
fn noun(object: &Object, style: Style) -> String {
    match style {
        Style::Full => format!("a {} {} {}", object.size().word(), object.color.word(), object.shape.word()),
        _ => with_article(&format!("{} {}", object.color.word(), object.shape.word())),
    }
}

fn door(state: DoorState, style: Style) -> String {
    match style {
        Style::List => format!("{} door", with_article(state.word())),
        _ => format!("the door is {}", state.word()),
    }
}

fn person(side: Side, style: Style) -> String {
    match style {
        Style::Sentence => format!("a person is {}", side.words()),
        Style::List => format!("a person {}", side.words()),
        Style::Full => format!("a person stands {}", side.words()),
    }
}

fn lamp_words(is_on: bool, style: Style) -> String {
    let state = if is_on { "on" } else { "off" };
    match style {
        Style::List => format!("a lamp that is {state}"),
        _ => format!("the lamp is {state}"),
    }
}

/// With "a" or "an" before it.
pub(super) fn with_article(words: &str) -> String {
    let article = if words.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {words}")
}

/// With a capital letter at its beginning.
pub(super) fn capital(words: &str) -> String {
    let mut words = words.to_owned();
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    words
}

/// With commas, and "and" before the last.
fn join(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [part] => part.clone(),
        [parts @ .., last] => format!("{} and {last}", parts.join(", ")),
    }
}
