//! Questions about scenes with their answers.

use super::dice::Dice;
use super::english::{capital, with_article};
use super::scene::{Relation, Scene};
use super::things::{Color, DoorState, Object, Shape, Side, Size};
use super::wordings as ask;

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Category {
    /// The colour of an object.
    Color,
    /// The shape of an object.
    Shape,
    /// How many there are.
    Count,
    /// Where in the frame an object is.
    Position,
    /// How an object stands to something else.
    Relation,
    /// The doorway.
    Door,
    /// The person.
    Person,
    /// The lamp.
    Lamp,
    /// Whether something is there.
    Presence,
    /// The size of an object.
    Size,
}

impl Category {
    /// All categories.
    pub const ALL: [Self; 10] = [
        Self::Color,
        Self::Shape,
        Self::Count,
        Self::Position,
        Self::Relation,
        Self::Door,
        Self::Person,
        Self::Lamp,
        Self::Presence,
        Self::Size,
    ];

    /// The category in one word.
    pub fn word(self) -> &'static str {
        ["color", "shape", "count", "position", "relation", "door", "person", "lamp", "presence", "size"]
            [self as usize]
    }
}

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// What it is about.
    pub category: Category,
    /// The question.
    pub question: String,
    /// The answer.
    pub answer: String,
    /// For questions to be answered with yes or no: whether it is yes.
    pub yes: Option<bool>,
}

/// Share of scenes with a door, with a person and with a lamp.
const DOOR_SHARE: f32 = 0.6;
const PERSON_SHARE: f32 = 0.4;
const LAMP_SHARE: f32 = 0.55;

/// Numbers in words.
const NUMBERS: [&str; 5] = ["zero", "one", "two", "three", "four"];

/// Questions about a clear scene, one or more of each kind that it allows, chosen and worded by
/// `seed`. Yes and no are equally frequent.
pub fn exchanges(scene: &Scene, seed: u64) -> Vec<Exchange> {
    let mut asker = Asker { scene, dice: Dice::new(seed, 0), exchanges: Vec::new() };
    for object in scene.objects() {
        asker.ask_about(object);
    }
    asker.ask_relations();
    asker.ask_counts();
    asker.ask_presence();
    asker.ask_door();
    asker.ask_person();
    asker.ask_lamp();
    asker.exchanges
}

struct Asker<'a> {
    scene: &'a Scene,
    dice: Dice,
    exchanges: Vec<Exchange>,
}

impl Asker<'_> {
    /// Adds a question in one of its wordings, in which the names in braces are replaced.
    fn add(&mut self, category: Category, wordings: &[&str], names: &[(&str, &str)], answer: &str) {
        let mut question = self.dice.pick(wordings).to_owned();
        for (name, words) in names {
            question = question.replace(name, words);
        }
        let answer = format!("{}.", capital(answer));
        self.exchanges.push(Exchange { category, question, answer, yes: None });
    }

    /// Adds a question to be answered with yes or no.
    fn add_yes_no(&mut self, category: Category, wordings: &[&str], names: &[(&str, &str)], yes: bool) {
        self.add(category, wordings, names, if yes { "yes" } else { "no" });
        if let Some(last) = self.exchanges.last_mut() {
            last.yes = Some(yes);
        }
    }

    fn number_of(&self, fits: impl Fn(&Object) -> bool) -> usize {
        self.scene.objects().iter().filter(|object| fits(object)).count()
    }

    /// Words that mean this object only.
    fn name(&mut self, object: &Object) -> String {
        let (color, shape) = (object.color.word(), object.shape.word());
        if self.number_of(|other| other.shape == object.shape) == 1 && self.dice.chance(0.4) {
            return shape.into();
        }
        if self.number_of(|other| other.color == object.color) == 1 && self.dice.chance(0.15) {
            return format!("{color} object");
        }
        format!("{color} {shape}")
    }

    /// Another colour than this, mostly one that is to be seen.
    fn other_color(&mut self, color: Color) -> Color {
        let seen: Vec<_> =
            self.scene.objects().iter().map(|object| object.color).filter(|seen| *seen != color).collect();
        if !seen.is_empty() && self.dice.chance(0.6) {
            return self.dice.pick(&seen);
        }
        let others =
            Color::ALL.map(|other| if other == color { Color::ALL[(color as usize + 1) % 8] } else { other });
        self.dice.pick(&others)
    }

    /// Another shape than this, mostly one that is to be seen.
    fn other_shape(&mut self, shape: Shape) -> Shape {
        let seen: Vec<_> =
            self.scene.objects().iter().map(|object| object.shape).filter(|seen| *seen != shape).collect();
        if !seen.is_empty() && self.dice.chance(0.6) {
            return self.dice.pick(&seen);
        }
        let others =
            Shape::ALL.map(|other| if other == shape { Shape::ALL[(shape as usize + 1) % 6] } else { other });
        self.dice.pick(&others)
    }

    /// Colour, shape, position and size of an object.
    fn ask_about(&mut self, object: &Object) {
        let (color, shape) = (object.color.word(), object.shape.word());
        if self.number_of(|other| other.shape == object.shape) == 1 {
            self.add(Category::Color, ask::COLOR, &[("{}", shape)], color);
            let yes = self.dice.chance(0.5);
            let asked = if yes { object.color } else { self.other_color(object.color) };
            self.add_yes_no(Category::Color, ask::IS_COLOR, &[("{}", shape), ("{c}", asked.word())], yes);
        }
        if self.number_of(|other| other.color == object.color) == 1 {
            self.add(Category::Shape, ask::SHAPE, &[("{c}", color)], &with_article(shape));
            let yes = self.dice.chance(0.5);
            let asked = if yes { object.shape } else { self.other_shape(object.shape) };
            self.add_yes_no(Category::Shape, ask::IS_SHAPE, &[("{c}", color), ("{}", asked.word())], yes);
        }
        if let Some(side) = object.side() {
            let name = self.name(object);
            self.add(Category::Position, ask::WHERE, &[("{}", &name)], side.words());
            self.ask_side(Category::Position, &name, side);
        }
        let (size, name) = (object.size(), self.name(object));
        self.add(Category::Size, ask::SIZE, &[("{}", &name)], size.word());
        let asked = self.dice.pick(&Size::ALL);
        let names = [("{}", name.as_str()), ("{s}", asked.word())];
        self.add_yes_no(Category::Size, ask::IS_SIZE, &names, asked == size);
    }

    /// Whether what has this name is on a side.
    fn ask_side(&mut self, category: Category, name: &str, side: Side) {
        let yes = self.dice.chance(0.5);
        let asked = if yes { side } else { Side::ALL[(side as usize + 1 + self.dice.below(2)) % 3] };
        self.add_yes_no(category, ask::IS_SIDE, &[("{}", name), ("{s}", asked.words())], yes);
    }

    /// How pairs of objects stand to each other.
    fn ask_relations(&mut self) {
        let objects = self.scene.objects();
        if objects.len() < 2 {
            return;
        }
        for _ in 0..objects.len() {
            let first = self.dice.below(objects.len());
            let second = (first + 1 + self.dice.below(objects.len() - 1)) % objects.len();
            let (first, second) = (&objects[first], &objects[second]);
            let Some(relation) = Scene::relation(first, second) else { continue };
            let names = [self.name(first), self.name(second)];
            self.ask_relation(relation, &names);
            self.ask_what_stands(relation, first, second);
        }
        self.ask_beside_fixtures();
    }

    fn ask_relation(&mut self, relation: Relation, [first, second]: &[String; 2]) {
        let yes = self.dice.chance(0.5);
        let asked = if yes {
            relation
        } else if self.dice.chance(0.7) {
            relation.reversed()
        } else {
            self.other_relation(relation)
        };
        let names = [("{1}", first.as_str()), ("{2}", second.as_str()), ("{r}", asked.words())];
        self.add_yes_no(Category::Relation, ask::IS_RELATED, &names, yes);
        let answer = format!("{} the {second}", relation.words());
        self.add(Category::Relation, ask::HOW_RELATED, &names, &answer);
        if matches!(relation, Relation::LeftOf | Relation::RightOf) {
            let side = if relation == Relation::LeftOf { "left" } else { "right" };
            self.add(Category::Relation, ask::LEFT_OR_RIGHT, &names, side);
        }
    }

    /// A relation that surely does not hold where `relation` does.
    fn other_relation(&mut self, relation: Relation) -> Relation {
        match relation {
            Relation::Inside | Relation::Around => self.dice.pick(&[Relation::LeftOf, Relation::RightOf]),
            Relation::InFrontOf | Relation::Behind => self.dice.pick(&[Relation::Inside, Relation::Around]),
            _ => self.dice.pick(&[Relation::Inside, Relation::InFrontOf, Relation::Behind]),
        }
    }

    /// What stands in a relation to an object, where only one thing does.
    fn ask_what_stands(&mut self, relation: Relation, first: &Object, second: &Object) {
        let others = self.scene.objects().iter().filter(|object| *object != second);
        let is_single = match relation {
            // Something higher that is nearly above would be an argument.
            Relation::Above | Relation::Below => {
                others.filter(|other| (other.x - second.x).abs() < 0.3).count() == 1
            }
            _ => others.filter(|other| Scene::relation(other, second) == Some(relation)).count() == 1,
        };
        if is_single {
            let name = self.name(second);
            let answer = with_article(&format!("{} {}", first.color.word(), first.shape.word()));
            let names = [("{2}", name.as_str()), ("{r}", relation.words())];
            self.add(Category::Relation, ask::WHAT_STANDS, &names, &answer);
        }
    }

    /// Whether an object is left or right of the door or the person.
    fn ask_beside_fixtures(&mut self) {
        let objects = self.scene.objects();
        let object = &objects[self.dice.below(objects.len())];
        let door = self.scene.door.map(|door| ("door", door.x));
        let person = self.scene.person.map(|person| ("person", person.x));
        for (fixture, x) in [door, person].into_iter().flatten() {
            let distance = x - object.x;
            if distance.abs() < 0.2 {
                continue;
            }
            let relation = self.dice.pick(&[Relation::LeftOf, Relation::RightOf]);
            let yes = (relation == Relation::LeftOf) == (distance > 0.0);
            let name = self.name(object);
            let names = [("{1}", name.as_str()), ("{2}", fixture), ("{r}", relation.words())];
            self.add_yes_no(Category::Relation, ask::IS_RELATED, &names, yes);
        }
    }

    /// Whether one could argue about the number of objects of a shape: a crate is a box to some.
    fn is_arguable(&self, shape: Shape) -> bool {
        shape == Shape::Box && self.scene.door.is_some_and(|door| door.crate_away < 1.0)
    }

    fn ask_counts(&mut self) {
        let count = self.scene.objects().len();
        self.add(Category::Count, ask::HOW_MANY, &[("{}", "objects")], NUMBERS[count]);
        let shape = self.seen_or(0.6, |object| object.shape, &Shape::ALL);
        let number = self.number_of(|object| object.shape == shape);
        let plural = match shape {
            Shape::Box | Shape::Cross => format!("{}es", shape.word()),
            _ => format!("{}s", shape.word()),
        };
        if !self.is_arguable(shape) {
            self.add(Category::Count, ask::HOW_MANY, &[("{}", &plural)], NUMBERS[number]);
        }
        let color = self.seen_or(0.6, |object| object.color, &Color::ALL);
        let number = self.number_of(|object| object.color == color);
        let plural = format!("{} objects", color.word());
        self.add(Category::Count, ask::HOW_MANY, &[("{}", &plural)], NUMBERS[number]);
        if count >= 2 {
            let yes = self.dice.chance(0.5);
            let asked = if yes { count } else { 2 + (count - 2 + 1 + self.dice.below(2)) % 3 };
            self.add_yes_no(Category::Count, ask::ARE_THERE, &[("{}", NUMBERS[asked])], yes);
        }
    }

    /// A property of an object with probability `part`, otherwise any.
    fn seen_or<T: Copy>(&mut self, part: f32, property: impl Fn(&Object) -> T, all: &[T]) -> T {
        let seen: Vec<_> = self.scene.objects().iter().map(property).collect();
        if !seen.is_empty() && self.dice.chance(part) { self.dice.pick(&seen) } else { self.dice.pick(all) }
    }

    fn ask_presence(&mut self) {
        let objects = self.scene.objects();
        for _ in 0..2 {
            let yes = self.dice.chance(0.5);
            let seen = (!objects.is_empty()).then(|| self.dice.pick(objects));
            let asked = match seen {
                Some(object) if yes => Some((object.color, object.shape)),
                None if yes => None,
                Some(object) if self.dice.chance(0.5) => Some((self.other_color(object.color), object.shape)),
                Some(object) => Some((object.color, self.other_shape(object.shape))),
                None => Some((self.dice.pick(&Color::ALL), self.dice.pick(&Shape::ALL))),
            };
            let Some((color, shape)) = asked else { continue };
            if yes || self.number_of(|object| (object.color, object.shape) == (color, shape)) == 0 {
                let name = with_article(&format!("{} {}", color.word(), shape.word()));
                self.add_yes_no(Category::Presence, ask::IS_THERE, &[("{}", &name)], yes);
            }
        }
        let yes = self.dice.chance(0.5);
        let shape = self.seen_or(if yes { 1.0 } else { 0.0 }, |object| object.shape, &Shape::ALL);
        if (self.number_of(|object| object.shape == shape) > 0) == yes && !self.is_arguable(shape) {
            self.add_yes_no(Category::Presence, ask::IS_THERE, &[("{}", &with_article(shape.word()))], yes);
        }
        let yes = self.dice.chance(0.5);
        let color = self.seen_or(if yes { 1.0 } else { 0.0 }, |object| object.color, &Color::ALL);
        if (self.number_of(|object| object.color == color) > 0) == yes {
            let name = with_article(&format!("{} object", color.word()));
            self.add_yes_no(Category::Presence, ask::IS_THERE, &[("{}", &name)], yes);
        }
        let fixtures = [
            ("a door", self.scene.door.is_some(), DOOR_SHARE),
            ("a person", self.scene.person.is_some(), PERSON_SHARE),
            ("a lamp", self.scene.lamp.is_some(), LAMP_SHARE),
        ];
        // How often each is there: the more frequent answer is asked for less often.
        for (name, yes, share) in fixtures {
            let share = if yes { share } else { 1.0 - share };
            if self.dice.chance(0.4 / share) {
                self.add_yes_no(Category::Presence, ask::IS_THERE, &[("{}", name)], yes);
            }
        }
    }

    fn ask_door(&mut self) {
        let Some(state) = self.scene.door_state() else { return };
        self.add(Category::Door, ask::DOOR, &[], state.word());
        let yes = self.dice.chance(0.5);
        let asked = match state {
            _ if yes => state,
            // A blocked door stands open too.
            DoorState::Blocked => DoorState::Closed,
            _ => DoorState::ALL[(state as usize + 1 + self.dice.below(2)) % 3],
        };
        self.add_yes_no(Category::Door, ask::IS_DOOR, &[("{}", asked.word())], yes);
        let is_open = state == DoorState::Open;
        if is_open || self.dice.chance(0.5) {
            self.add_yes_no(Category::Door, ask::CAN_PASS, &[], is_open);
        }
        if state == DoorState::Blocked {
            let blocker = self
                .scene
                .blocker()
                .map_or("crate".into(), |object| format!("{} {}", object.color.word(), object.shape.word()));
            self.add(Category::Door, ask::WHAT_BLOCKS, &[], &with_article(&blocker));
        }
    }

    fn ask_person(&mut self) {
        let is_there = self.scene.person.is_some();
        if is_there || self.dice.chance(PERSON_SHARE / (1.0 - PERSON_SHARE)) {
            self.add_yes_no(Category::Person, ask::ANYONE, &[], is_there);
        }
        let Some(side) = self.scene.person.and_then(|person| person.side()) else { return };
        self.add(Category::Person, ask::WHERE, &[("{}", "person")], side.words());
        self.ask_side(Category::Person, "person", side);
    }

    fn ask_lamp(&mut self) {
        let Some(lamp) = self.scene.lamp else { return };
        let word = |is_on| if is_on { "on" } else { "off" };
        self.add(Category::Lamp, ask::LAMP, &[], word(lamp.is_on()));
        let asked = self.dice.chance(0.5);
        self.add_yes_no(Category::Lamp, ask::IS_LAMP, &[("{}", word(asked))], asked == lamp.is_on());
    }
}
