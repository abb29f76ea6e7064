//! What happens in a world and when. Time runs in acts of [`ACT`] seconds: changes come at the
//! beginning, each at its own moment, then everything rests. Every few acts an era begins, for which
//! all things find new places. Everything follows from the seed and the number of the act, so that
//! any moment can be asked for at once.

use super::backdrop::{Backdrop, Lens, Light};
use super::dice::{Dice, mix};
use super::layout::{Fixtures, Layout, Member, Place, Stand};
use super::scene::{MAX_OBJECTS, Scene};
use super::things::{Color, Door, DoorState, Lamp, Object, Person, Shape, WIDTH};

/// Seconds from one set of changes to the next.
const ACT: f64 = 8.0;
/// Acts of an era.
const ERA: u64 = 3;
/// Acts that are looked through for the next event.
const FORESIGHT: u64 = 1000;

/// Seconds after which the time stands still: thirty million years.
const LAST: f64 = 1e15;

/// When a kind of change begins and ends, in seconds of its act.
const OBJECTS: (f64, f64) = (0.0, 2.0);
const PERSON: (f64, f64) = (1.0, 3.0);
const DOOR: (f64, f64) = (3.0, 4.0);
const LAMP: (f64, f64) = (4.5, 4.6);

/// Streams of random numbers. The first is such that the world of the default camera has everything.
const CAST: u64 = 10;
const LAYOUT: u64 = 2;
const PRESENCE: u64 = 3;
const DOOR_STATE: u64 = 4;
const LAMP_STATE: u64 = 5;
const PERSON_PRESENCE: u64 = 6;
const SAMPLE: u64 = 7;

/// A world of moving things: what its camera sees is a function of the seed and the time.
#[derive(Clone, Copy, Debug)]
pub struct World {
    seed: u64,
    cast: [Member; MAX_OBJECTS],
    count: usize,
    /// Open and without a crate.
    door: Option<Door>,
    /// Switched off.
    lamp: Option<Lamp>,
    has_person: bool,
    clothes: usize,
    backdrop: Backdrop,
    light: Light,
    lens: Lens,
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    /// When it can be seen that something changes, in seconds.
    pub begins: f64,
    /// From when on it has happened, in seconds.
    pub at: f64,
    /// What happens.
    pub what: Happening,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Happening {
    /// The door has a new state.
    Door(DoorState),
    /// The lamp is switched on (true) or off.
    Lamp(bool),
    /// The person comes.
    PersonCame,
    /// The person leaves.
    PersonLeft,
    /// An object comes.
    ObjectCame(Shape, Color),
    /// An object leaves.
    ObjectLeft(Shape, Color),
    /// All things that stay go to new places.
    Moved,
}

impl World {
    /// The world of a seed.
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed, CAST);
        let backdrop = Backdrop::new(&mut dice);
        let door = (!backdrop.is_outdoors && dice.chance(0.83)).then(|| Door {
            x: dice.between(0.2, WIDTH - 0.2),
            base: backdrop.horizon + 0.01,
            openness: 1.0,
            crate_away: 1.0,
        });
        let lamp = dice.chance(0.55).then(|| lamp(&backdrop, door, &mut dice)).flatten();
        let has_person = dice.chance(0.5);
        let mut cast = [Member { shape: Shape::Ball, color: Color::Red }; MAX_OBJECTS];
        let count = dice.weighted(&[0.04, 0.16, 0.34, 0.32, 0.14]);
        for index in 0..count {
            cast[index] = loop {
                let member = Member { shape: dice.pick(&Shape::ALL), color: dice.pick(&Color::ALL) };
                if !cast[..index].contains(&member) {
                    break member;
                }
            };
        }
        let clothes = dice.below(3);
        let (light, lens) = (Light::new(&mut dice), Lens::new(&mut dice));
        Self { seed, cast, count, door, lamp, has_person, clothes, backdrop, light, lens }
    }

    /// What the camera sees `seconds` after the beginning. Times before it are taken as 0.
    pub fn at(&self, seconds: f64) -> Scene {
        let seconds = moment(seconds);
        let act = (seconds / ACT) as u64;
        let within = seconds - act as f64 * ACT;
        let (before, now) = (self.state(act.saturating_sub(1)), self.state(act));
        let mut scene = Scene {
            objects: [Object::default(); MAX_OBJECTS],
            count: 0,
            door: self.door_between(&before, &now, progress(within, DOOR)),
            person: self.person_between(&before, &now, within, seconds),
            lamp: self.lamp_between(&before, &now, progress(within, LAMP)),
            backdrop: self.backdrop,
            light: self.light,
            lens: self.lens,
            shake: self.lens.offset(seconds),
            noise: mix(self.seed ^ seconds.to_bits()),
        };
        let part = progress(within, OBJECTS);
        for index in 0..self.count {
            if let Some(object) = self.object_between(index, &before, &now, part, seconds) {
                scene.objects[scene.count] = object;
                scene.count += 1;
            }
        }
        scene.objects[..scene.count].sort_by_key(|object| object.depth);
        scene
    }

    /// What happens after the moment `after`, in the order of its ends. The list has an end only in
    /// worlds where nothing ever happens, after about two hours of nothing.
    pub fn events(&self, after: f64) -> impl Iterator<Item = Event> {
        let first = (moment(after) / ACT) as u64;
        let world = *self;
        let mut act = first.max(1);
        let mut quiet = 0;
        let mut found: Vec<Event> = Vec::new();
        std::iter::from_fn(move || {
            while found.is_empty() && quiet < FORESIGHT {
                found = world.events_of(act);
                found.retain(|event| event.at > after);
                found.reverse();
                quiet = if found.is_empty() { quiet + 1 } else { 0 };
                act += 1;
            }
            found.pop()
        })
    }

    /// The next that happens after the moment `after`.
    pub fn next_event(&self, after: f64) -> Option<Event> {
        self.events(after).next()
    }

    /// The first moment at `after` or later when everything rests.
    pub fn next_rest(&self, after: f64) -> f64 {
        let after = moment(after);
        let act = (after / ACT).floor();
        after.max(act * ACT + LAMP.1)
    }

    /// The changes of an act, in the order of their ends.
    fn events_of(&self, act: u64) -> Vec<Event> {
        let (before, now) = (self.state(act - 1), self.state(act));
        let mut events = Vec::new();
        let mut add = |(begins, ends): (f64, f64), what| {
            let start = act as f64 * ACT;
            events.push(Event { begins: start + begins, at: start + ends, what });
        };
        if before.era != now.era {
            add(OBJECTS, Happening::Moved);
        }
        for index in 0..self.count {
            let Member { shape, color } = self.cast[index];
            match (before.object(index).is_some(), now.object(index).is_some()) {
                (false, true) => add(OBJECTS, Happening::ObjectCame(shape, color)),
                (true, false) => add(OBJECTS, Happening::ObjectLeft(shape, color)),
                _ => {}
            }
        }
        match (before.person().is_some(), now.person().is_some()) {
            (false, true) => add(PERSON, Happening::PersonCame),
            (true, false) => add(PERSON, Happening::PersonLeft),
            _ => {}
        }
        if self.door.is_some() && before.door() != now.door() {
            add(DOOR, Happening::Door(now.door()));
        }
        if self.lamp.is_some() && before.lamp_is_on != now.lamp_is_on {
            add(LAMP, Happening::Lamp(now.lamp_is_on));
        }
        events
    }

    /// What an act comes to.
    fn state(&self, act: u64) -> State {
        let era = act / ERA;
        let fixtures = Fixtures {
            backdrop: &self.backdrop,
            door: self.door,
            lamp: self.lamp,
            has_person: self.has_person,
        };
        let mut dice = Dice::new(self.seed ^ mix(era), LAYOUT);
        let layout = Layout::new(&fixtures, &self.cast[..self.count], &mut dice);
        let draw = |stream: u64, which: u64, acts: u64| {
            Dice::new(self.seed ^ mix(((act + which) / acts) << 3 | which), stream)
        };
        let is_there = std::array::from_fn(|index| !draw(PRESENCE, index as u64, 2).chance(0.12));
        let door = draw(DOOR_STATE, 0, 2).pick(&DoorState::ALL);
        let lamp_is_on = draw(LAMP_STATE, 1, 2).chance(0.5);
        let person_is_there = draw(PERSON_PRESENCE, 0, 3).chance(0.8);
        State { era, layout, is_there, door, lamp_is_on, person_is_there }
    }

    fn object_between(
        &self,
        index: usize,
        before: &State,
        now: &State,
        part: f32,
        seconds: f64,
    ) -> Option<Object> {
        let (from, to) =
            ends(before.object(index), now.object(index), |place| Place { x: exit(place.x), ..place })?;
        let sway = |rate: f64| 0.005 * (rate * seconds + index as f64).sin() as f32;
        let mix = |from: f32, to: f32| from + (to - from) * part;
        let object = Object {
            shape: self.cast[index].shape,
            color: self.cast[index].color,
            x: mix(from.x, to.x) + sway(1.3),
            y: mix(from.y, to.y) + sway(1.7),
            height: mix(from.height, to.height),
            tilt: mix(from.tilt, to.tilt),
            depth: to.depth,
        };
        let bounds = object.bounds();
        (bounds.right > 0.0 && bounds.left < WIDTH).then_some(object)
    }

    fn person_between(&self, before: &State, now: &State, within: f64, seconds: f64) -> Option<Person> {
        let (from, to) = ends(before.person(), now.person(), |stand| Stand { x: exit(stand.x), ..stand })?;
        let part = progress(within, PERSON);
        let mix = |from: f32, to: f32| from + (to - from) * part;
        let walks = part < 1.0 && from.x != to.x;
        let stride = if walks { (8.0 * seconds).sin() as f32 } else { 0.25 * (0.9 * seconds).sin() as f32 };
        let person = Person {
            x: mix(from.x, to.x),
            feet: mix(from.feet, to.feet),
            height: mix(from.height, to.height),
            stride,
            clothes: self.clothes,
        };
        let bounds = person.bounds();
        (bounds.right > 0.0 && bounds.left < WIDTH).then_some(person)
    }

    fn door_between(&self, before: &State, now: &State, part: f32) -> Option<Door> {
        let door = self.door?;
        let openness = |state: &State| if state.door() == DoorState::Closed { 0.0 } else { 1.0 };
        let away = |state: &State| if state.has_crate() { 0.0 } else { 1.0 };
        let mix = |from: f32, to: f32| if from == to { to } else { from + (to - from) * part };
        // The crate comes through an open door only.
        let (opens, comes) = (mix(openness(before), openness(now)), mix(away(before), away(now)));
        Some(Door { openness: opens, crate_away: comes, ..door })
    }

    fn lamp_between(&self, before: &State, now: &State, part: f32) -> Option<Lamp> {
        let lamp = self.lamp?;
        let glow = |state: &State| if state.lamp_is_on { 1.0 } else { 0.0 };
        let (from, to) = (glow(before), glow(now));
        Some(Lamp { glow: if from == to { to } else { from + (to - from) * part }, ..lamp })
    }
}

impl Scene {
    /// A still of the world of `seed` at a moment when the scene is clear. Seeds below 2^32 are for
    /// training, seeds from 2^32 up for judging.
    pub fn sample(seed: u64) -> Self {
        let world = World::new(seed);
        let mut dice = Dice::new(seed, SAMPLE);
        for _ in 0..64 {
            let seconds = f64::from(dice.between(0.0, 48.0 * ACT as f32));
            let scene = world.at(seconds);
            if scene.is_clear() {
                return scene;
            }
        }
        world.at(world.next_rest(0.0))
    }
}

/// What an act comes to.
#[derive(Clone, Copy, Debug)]
struct State {
    era: u64,
    layout: Layout,
    is_there: [bool; MAX_OBJECTS],
    door: DoorState,
    lamp_is_on: bool,
    person_is_there: bool,
}

impl State {
    fn object(&self, index: usize) -> Option<Place> {
        self.layout.places[index].filter(|_| self.is_there[index])
    }

    fn person(&self) -> Option<Stand> {
        self.layout.person.filter(|_| self.person_is_there)
    }

    /// The state of the door with what stands in it: an object takes the place of the crate, and
    /// where one may stand the door is never shut.
    fn door(&self) -> DoorState {
        match self.layout.blocker {
            Some(index) if self.is_there[index] => DoorState::Blocked,
            Some(_) => DoorState::Open,
            None => self.door,
        }
    }

    fn has_crate(&self) -> bool {
        self.layout.blocker.is_none() && self.door == DoorState::Blocked
    }
}

/// Where a lamp finds its place.
fn lamp(backdrop: &Backdrop, door: Option<Door>, dice: &mut Dice) -> Option<Lamp> {
    let post = backdrop.is_outdoors.then(|| backdrop.horizon + dice.between(0.05, 0.15));
    (0..16).find_map(|_| {
        let lamp = Lamp { x: dice.between(0.15, WIDTH - 0.15), glow: 0.0, post };
        let is_free = door.is_none_or(|door| !door.bounds().meets(&lamp.bounds(), 0.028));
        is_free.then_some(lamp)
    })
}

/// The way of something from one act to the next; `exit` gives its place out of sight.
fn ends<T: Copy>(before: Option<T>, now: Option<T>, exit: impl Fn(T) -> T) -> Option<(T, T)> {
    match (before, now) {
        (Some(from), Some(to)) => Some((from, to)),
        (Some(from), None) => Some((from, exit(from))),
        (None, Some(to)) => Some((exit(to), to)),
        (None, None) => None,
    }
}

/// The nearer place out of sight, across.
fn exit(x: f32) -> f32 {
    if x < 0.5 * WIDTH { -0.3 } else { WIDTH + 0.3 }
}

/// A time that worlds have: nonsense is the beginning.
fn moment(seconds: f64) -> f64 {
    if seconds.is_finite() { seconds.clamp(0.0, LAST) } else { 0.0 }
}

/// How far a change has come at a moment of its act, from 0 to 1, with soft ends.
fn progress(within: f64, (begins, ends): (f64, f64)) -> f32 {
    let part = ((within - begins) / (ends - begins)).clamp(0.0, 1.0) as f32;
    part * part * (3.0 - 2.0 * part)
}
