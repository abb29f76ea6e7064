//! Whether captions and answers are right.

use super::questions::Exchange;
use super::scene::{Relation, Scene};
use super::things::{Color, DoorState, Object, Shape, Side, Size};

/// How many of some things are right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The right ones.
    pub right: usize,
    /// All.
    pub total: usize,
}

impl Tally {
    /// Counts one more.
    pub fn count(&mut self, is_right: bool) {
        self.right += usize::from(is_right);
        self.total += 1;
    }

    /// Counts those of another tally too.
    pub fn add(&mut self, other: Self) {
        self.right += other.right;
        self.total += other.total;
    }
}

/// What a caption is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Whether everything said is true, nothing is missing, and all of it is understood.
    pub exact: bool,
    /// The colours of the scene's objects.
    pub color: Tally,
    /// The shapes of the scene's objects.
    pub shape: Tally,
    /// The number of objects.
    pub count: Tally,
    /// How objects stand to each other, as far as said.
    pub relation: Tally,
    /// The state of the door, or that there is none.
    pub door: Tally,
    /// The place of the person, or that there is none.
    pub person: Tally,
    /// The state of the lamp, or that there is none.
    pub lamp: Tally,
}

/// Judges a caption of any style.
pub fn judge_caption(scene: &Scene, text: &str) -> Judgement {
    let claims = Claims::read(text);
    let mut judgement = Judgement::default();
    let sizes_are_right = match_objects(scene, &claims, &mut judgement);
    judgement.count.count(claims.mentions.len() == scene.objects().len());
    judge_relations(scene, &claims, &mut judgement.relation);
    let person = scene.person.and_then(|person| person.side());
    judge_fixture(scene.door_state(), &claims.doors, &mut judgement.door);
    judge_fixture(person, &claims.persons, &mut judgement.person);
    judge_fixture(scene.lamp.map(|lamp| lamp.is_on()), &claims.lamps, &mut judgement.lamp);
    let is_empty =
        scene.objects().is_empty() && scene.door.is_none() && scene.person.is_none() && scene.lamp.is_none();
    let Judgement { color, shape, count, relation, door, person, lamp, .. } = judgement;
    let tallies = [color, shape, count, relation, door, person, lamp];
    judgement.exact = claims.is_understood
        && claims.says_empty == is_empty
        && sizes_are_right
        && tallies.iter().all(|tally| tally.right == tally.total);
    judgement
}

/// Judges an answer: articles, capitals and punctuation do not matter.
pub fn judge_answer(exchange: &Exchange, text: &str) -> bool {
    let plain = |text: &str| -> Vec<String> {
        let mut words = words(text);
        words.retain(|word| !matches!(word.as_str(), "," | "." | "a" | "an" | "the" | "it" | "is"));
        words
    };
    let (wanted, got) = (plain(&exchange.answer), plain(text));
    match exchange.yes {
        Some(_) => got.first() == wanted.first(),
        None => got == wanted,
    }
}

/// An object as a caption names it.
#[derive(Clone, Copy, Debug)]
struct Mention {
    size: Option<Size>,
    color: Color,
    shape: Shape,
}

/// What a caption says.
#[derive(Debug, Default)]
struct Claims {
    mentions: Vec<Mention>,
    /// Indexes into the mentions.
    relations: Vec<(usize, Relation, usize)>,
    /// The mentions stand from left to right.
    is_ordered: bool,
    doors: Vec<DoorState>,
    persons: Vec<Side>,
    lamps: Vec<bool>,
    says_empty: bool,
    is_understood: bool,
}

const RELATIONS: [(&[&str], Relation); 8] = [
    (&["left", "of"], Relation::LeftOf),
    (&["right", "of"], Relation::RightOf),
    (&["above"], Relation::Above),
    (&["below"], Relation::Below),
    (&["inside"], Relation::Inside),
    (&["around"], Relation::Around),
    (&["in", "front", "of"], Relation::InFrontOf),
    (&["behind"], Relation::Behind),
];

impl Claims {
    fn read(text: &str) -> Self {
        let words = words(text);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut claims = Self { is_understood: true, ..Self::default() };
        let mut reader = Reader { words: &words };
        while !reader.words.is_empty() {
            if !claims.read_next(&mut reader) {
                claims.is_understood = false;
                reader.words = &reader.words[1..];
            }
        }
        claims
    }

    /// Reads one statement or a word without meaning; false when the next word is neither.
    fn read_next(&mut self, reader: &mut Reader<'_>) -> bool {
        if reader.skip(&["from", "left", "to", "right"]) {
            self.is_ordered = true;
            return true;
        }
        if reader.skip(&["the", "scene", "is", "empty"]) {
            self.says_empty = true;
            return true;
        }
        self.read_objects(reader)
            || reader.any(Reader::door).map(|state| self.doors.push(state)).is_some()
            || reader.any(Reader::person).map(|side| self.persons.push(side)).is_some()
            || reader.any(Reader::lamp).map(|is_on| self.lamps.push(is_on)).is_some()
            || FILLERS.iter().any(|filler| reader.skip(filler))
    }

    /// Reads an object and how it stands to others: "a red ball above a box is left of a star".
    fn read_objects(&mut self, reader: &mut Reader<'_>) -> bool {
        let first = self.mentions.len();
        let Some(mention) = reader.any(Reader::object) else { return false };
        self.mentions.push(mention);
        while let Some((relation, mention)) = reader.any(Reader::related) {
            let (last, next) = (self.mentions.len() - 1, self.mentions.len());
            // Beside something stand all that were named before, the rest says it of the last.
            let is_beside = matches!(relation, Relation::LeftOf | Relation::RightOf);
            let from = if is_beside { first } else { last };
            self.relations.extend((from..=last).map(|index| (index, relation, next)));
            self.mentions.push(mention);
        }
        true
    }
}

/// Words that say nothing alone.
const FILLERS: [&[&str]; 6] = [&["there", "is"], &["there", "are"], &["i", "see"], &["and"], &[","], &["."]];

/// The words that are still to be read.
#[derive(Clone, Copy)]
struct Reader<'a> {
    words: &'a [&'a str],
}

impl Reader<'_> {
    /// Goes on behind `words` if they come next.
    fn skip(&mut self, words: &[&str]) -> bool {
        let is_next = self.words.starts_with(words);
        if is_next {
            self.words = &self.words[words.len()..];
        }
        is_next
    }

    /// Goes on behind what `read` finds, or stays.
    fn any<T>(&mut self, read: impl Fn(&mut Self) -> Option<T>) -> Option<T> {
        let start = *self;
        let found = read(self);
        if found.is_none() {
            *self = start;
        }
        found
    }

    fn word<T: Copy>(&mut self, choices: &[T], word: impl Fn(T) -> &'static str) -> Option<T> {
        let next = *self.words.first()?;
        let found = choices.iter().copied().find(|choice| word(*choice) == next)?;
        self.words = &self.words[1..];
        Some(found)
    }

    fn article(&mut self) {
        let _ = self.skip(&["a"]) || self.skip(&["an"]) || self.skip(&["the"]);
    }

    fn object(&mut self) -> Option<Mention> {
        self.article();
        let size = self.word(&[Size::Small, Size::Large], Size::word);
        let color = self.word(&Color::ALL, Color::word)?;
        let shape = self.word(&Shape::ALL, Shape::word)?;
        Some(Mention { size, color, shape })
    }

    fn related(&mut self) -> Option<(Relation, Mention)> {
        let _ = self.skip(&["is"]);
        let (_, relation) = RELATIONS.iter().find(|(words, _)| self.skip(words))?;
        Some((*relation, self.object()?))
    }

    fn door(&mut self) -> Option<DoorState> {
        self.article();
        let before = self.word(&DoorState::ALL, DoorState::word);
        if !self.skip(&["door"]) && !self.skip(&["doorway"]) {
            return None;
        }
        if before.is_some() {
            return before;
        }
        let _ = self.skip(&["is"]);
        self.word(&DoorState::ALL, DoorState::word)
    }

    fn person(&mut self) -> Option<Side> {
        self.article();
        if !self.skip(&["person"]) {
            return None;
        }
        let _ = self.skip(&["is"]) || self.skip(&["stands"]);
        Side::ALL.into_iter().find(|side| {
            let words: Vec<_> = side.words().split(' ').collect();
            self.skip(&words)
        })
    }

    fn lamp(&mut self) -> Option<bool> {
        self.article();
        if !self.skip(&["lamp"]) {
            return None;
        }
        let _ = self.skip(&["that"]);
        let _ = self.skip(&["is"]);
        self.word(&[true, false], |is_on| if is_on { "on" } else { "off" })
    }
}

/// The words in small letters; commas and full stops are words.
fn words(text: &str) -> Vec<String> {
    let spaced = text.to_ascii_lowercase().replace(',', " , ").replace('.', " . ");
    spaced.split_whitespace().map(str::to_owned).collect()
}

/// Finds for each object of the scene the mention that fits best and counts what is right. Returns
/// whether all sizes are, as far as they are mentioned.
fn match_objects(scene: &Scene, claims: &Claims, judgement: &mut Judgement) -> bool {
    let fits: [fn(&Object, &Mention) -> bool; 4] = [
        |object, mention| object.shape == mention.shape && object.color == mention.color,
        |object, mention| object.shape == mention.shape,
        |object, mention| object.color == mention.color,
        |_, _| true,
    ];
    let mut is_matched = vec![false; claims.mentions.len()];
    let mut matched = [None; super::scene::MAX_OBJECTS];
    for fit in fits {
        for (object, matched) in scene.objects().iter().zip(&mut matched).filter(|(_, m)| m.is_none()) {
            let mut mentions = claims.mentions.iter().enumerate();
            let found = mentions.find(|(index, mention)| !is_matched[*index] && fit(object, mention));
            if let Some((index, mention)) = found {
                is_matched[index] = true;
                *matched = Some(*mention);
            }
        }
    }
    let mut sizes_are_right = true;
    for (object, mention) in scene.objects().iter().zip(matched) {
        judgement.color.count(mention.is_some_and(|mention| mention.color == object.color));
        judgement.shape.count(mention.is_some_and(|mention| mention.shape == object.shape));
        let size = mention.and_then(|mention| mention.size);
        sizes_are_right &= size.is_none_or(|size| size == object.size());
    }
    sizes_are_right
}

/// Counts the relations that are said. Two objects or more without any count as one that is wrong.
fn judge_relations(scene: &Scene, claims: &Claims, tally: &mut Tally) {
    let object = |index: usize| {
        let mention: &Mention = &claims.mentions[index];
        scene.objects().iter().find(|object| (object.color, object.shape) == (mention.color, mention.shape))
    };
    let holds = |first: usize, relation: Relation, second: usize| {
        let objects = object(first).zip(object(second));
        objects.is_some_and(|(first, second)| Scene::relation(first, second) == Some(relation))
    };
    for &(first, relation, second) in &claims.relations {
        tally.count(holds(first, relation, second));
    }
    if claims.is_ordered {
        let said = |first, second| claims.relations.iter().any(|&(a, _, b)| (a, b) == (first, second));
        for second in 1..claims.mentions.len() {
            for first in (0..second).filter(|&first| !said(first, second)) {
                tally.count(holds(first, Relation::LeftOf, second));
            }
        }
    }
    if tally.total == 0 && scene.objects().len() >= 2 {
        tally.count(false);
    }
}

/// Counts one thing that is there or not, and is to be mentioned once or not at all.
fn judge_fixture<T: PartialEq>(there: Option<T>, said: &[T], tally: &mut Tally) {
    match (there, said) {
        (None, []) => {}
        (Some(there), [said]) => tally.count(*said == there),
        _ => tally.count(false),
    }
}
