//! What can be seen at one moment, and how its objects stand to each other.

use super::backdrop::{Backdrop, Lens, Light};
use super::things::{Bounds, Door, DoorState, Lamp, Object, Person, RING_HOLE, Shape, Size};

/// Most objects of a scene.
pub const MAX_OBJECTS: usize = 4;

/// Free space between things in a clear scene.
const GAP: f32 = 0.01;
/// Free space between things and the edges of a clear scene.
const EDGE: f32 = 0.015;
/// Least distance across of two objects one of which is left of the other.
const BESIDE: f32 = 0.16;
/// Most distance across of two objects one of which is above the other.
const STACKED: f32 = 0.06;

/// What can be seen at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scene {
    pub(super) objects: [Object; MAX_OBJECTS],
    pub(super) count: usize,
    /// The doorway, if there is one.
    pub door: Option<Door>,
    /// The person, if there is one.
    pub person: Option<Person>,
    /// The lamp, if there is one.
    pub lamp: Option<Lamp>,
    pub(super) backdrop: Backdrop,
    pub(super) light: Light,
    pub(super) lens: Lens,
    /// How far the shaking camera has moved the picture, in heights of the frame.
    pub(super) shake: (f32, f32),
    /// Number of the noise.
    pub(super) noise: u64,
}

/// How one object stands to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    /// Its centre is farther left.
    LeftOf,
    /// Its centre is farther right.
    RightOf,
    /// Straight above, nearly in line.
    Above,
    /// Straight below, nearly in line.
    Below,
    /// In the hole of a ring.
    Inside,
    /// A ring around an object.
    Around,
    /// Hides a part of the other.
    InFrontOf,
    /// Partly hidden by the other.
    Behind,
}

impl Relation {
    /// The relation in words, to stand before the other object.
    pub fn words(self) -> &'static str {
        match self {
            Self::LeftOf => "left of",
            Self::RightOf => "right of",
            Self::Above => "above",
            Self::Below => "below",
            Self::Inside => "inside",
            Self::Around => "around",
            Self::InFrontOf => "in front of",
            Self::Behind => "behind",
        }
    }

    /// The same seen from the other object.
    pub fn reversed(self) -> Self {
        match self {
            Self::LeftOf => Self::RightOf,
            Self::RightOf => Self::LeftOf,
            Self::Above => Self::Below,
            Self::Below => Self::Above,
            Self::Inside => Self::Around,
            Self::Around => Self::Inside,
            Self::InFrontOf => Self::Behind,
            Self::Behind => Self::InFrontOf,
        }
    }
}

/// An object alone, or two that stand in a closer relation than beside each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// The object alone, above, inside or in front.
    pub first: Object,
    /// The relation of the first to a second.
    pub second: Option<(Relation, Object)>,
}

impl Scene {
    /// The coloured shapes, from back to front.
    pub fn objects(&self) -> &[Object] {
        &self.objects[..self.count]
    }

    /// The same scene through a camera of `factor` times the noise.
    pub fn with_noise(mut self, factor: f32) -> Self {
        self.lens.noise *= factor;
        self
    }

    /// What the doorway lets through; none without a doorway.
    pub fn door_state(&self) -> Option<DoorState> {
        let door = self.door?;
        Some(if door.openness < 0.5 {
            DoorState::Closed
        } else if door.crate_away < 0.5 || self.blocker().is_some() {
            DoorState::Blocked
        } else {
            DoorState::Open
        })
    }

    /// The object that stands in the doorway.
    pub fn blocker(&self) -> Option<&Object> {
        let door = self.door?;
        self.objects().iter().find(|object| stands_in(object, &door))
    }

    /// How the first object stands to the second; none where one could argue.
    pub fn relation(first: &Object, second: &Object) -> Option<Relation> {
        let (dx, dy) = (second.x - first.x, second.y - first.y);
        if let Some(closer) = closer(first, second) {
            return Some(closer);
        }
        if let Some(closer) = closer(second, first) {
            return Some(closer.reversed());
        }
        if first.bounds().meets(&second.bounds(), GAP) {
            return None;
        }
        match () {
            () if dx.abs() <= STACKED && dy > 0.0 => Some(Relation::Above),
            () if dx.abs() <= STACKED => Some(Relation::Below),
            () if dx >= BESIDE => Some(Relation::LeftOf),
            () if dx <= -BESIDE => Some(Relation::RightOf),
            () => None,
        }
    }

    /// The objects from left to right. Of two in line the upper comes first, then what is inside of
    /// the other, then what is in front.
    pub fn groups(&self) -> impl Iterator<Item = Group> {
        let mut groups: [Option<Group>; MAX_OBJECTS] = [None; MAX_OBJECTS];
        let mut count = 0;
        let mut is_placed = [false; MAX_OBJECTS];
        for (index, object) in self.objects().iter().enumerate() {
            if is_placed[index] {
                continue;
            }
            let mut group = Group { first: *object, second: None };
            for (other, is_placed) in self.objects().iter().zip(&mut is_placed).skip(index + 1) {
                match Self::relation(object, other) {
                    _ if *is_placed || group.second.is_some() => continue,
                    Some(closer @ (Relation::Above | Relation::Inside | Relation::InFrontOf)) => {
                        group.second = Some((closer, *other));
                    }
                    Some(closer @ (Relation::Below | Relation::Around | Relation::Behind)) => {
                        group = Group { first: *other, second: Some((closer.reversed(), *object)) };
                    }
                    _ => continue,
                }
                *is_placed = true;
            }
            groups[count] = Some(group);
            count += 1;
        }
        groups[..count].sort_by(|a, b| middle(a).total_cmp(&middle(b)));
        groups.into_iter().flatten()
    }

    /// Whether all that can be said of the scene can be seen: nothing stands in the way of anything,
    /// leaves the frame, or is halfway between two states.
    pub fn is_clear(&self) -> bool {
        self.objects_are_clear() && self.fixtures_are_clear()
    }

    fn objects_are_clear(&self) -> bool {
        let objects = self.objects();
        objects.iter().enumerate().all(|(index, object)| {
            let others = || objects.iter().enumerate().filter(move |(other, _)| *other != index);
            let closer = others()
                .filter_map(|(_, other)| Self::relation(object, other))
                .filter(|relation| !matches!(relation, Relation::LeftOf | Relation::RightOf));
            object.bounds().is_in_frame(EDGE)
                && (object.height < 0.2 || object.height > 0.25)
                && others().all(|(_, other)| Self::relation(object, other).is_some())
                && others().all(|(_, other)| (object.shape, object.color) != (other.shape, other.color))
                && closer.count() <= 1
        })
    }

    fn fixtures_are_clear(&self) -> bool {
        let door = self.door.map(|door| door.bounds());
        let lamp = self.lamp.map(|lamp| lamp.bounds());
        let person = self.person.map(|person| person.bounds());
        let fixed: [Option<Bounds>; 4] = [door, lamp, person, self.lamp.and_then(|lamp| lamp.post_bounds())];
        let fixed = || fixed.iter().flatten();
        let is_free = |object: &Object| {
            let stands = self.door.is_some_and(|door| stands_in(object, &door));
            let bounds = object.bounds();
            fixed().filter(|other| !(stands && Some(**other) == door)).all(|other| !bounds.meets(other, GAP))
        };
        let is_apart = |a: Option<Bounds>, b: Option<Bounds>| a.zip(b).is_none_or(|(a, b)| !a.meets(&b, GAP));
        self.objects().iter().all(is_free)
            && is_apart(door, person)
            && is_apart(door, lamp)
            && is_apart(person, lamp)
            && self.door_is_clear()
            && self.lamp.is_none_or(|lamp| lamp.glow == 0.0 || lamp.glow == 1.0)
            && self.person.is_none_or(|person| person.side().is_some())
            && person.is_none_or(|person| person.is_in_frame(EDGE))
    }

    fn door_is_clear(&self) -> bool {
        let Some(door) = self.door else { return true };
        let at_rest = |part: f32| part == 0.0 || part == 1.0;
        at_rest(door.openness)
            && at_rest(door.crate_away)
            && (door.openness == 1.0 || door.crate_away == 1.0 && self.blocker().is_none())
            && (door.crate_away == 1.0 || self.blocker().is_none())
    }
}

/// Whether an object stands in the doorway.
fn stands_in(object: &Object, door: &Door) -> bool {
    (object.x - door.x).abs() < 0.05
        && (object.y + 0.5 * object.height - door.base).abs() < 0.06
        && object.size() == Size::Large
}

/// Inside or in front, if that is how the first stands to the second.
fn closer(first: &Object, second: &Object) -> Option<Relation> {
    let distance = (second.x - first.x).hypot(second.y - first.y);
    let (near, far) = (0.5 * first.height, 0.5 * second.height);
    if second.shape == Shape::Ring && distance + 1.1 * near < RING_HOLE * far && first.depth > second.depth {
        return Some(Relation::Inside);
    }
    let keeps_both = matches!(second.shape, Shape::Ball | Shape::Box)
        && first.color != second.color
        && first.size() == Size::Small
        && second.size() == Size::Large;
    let reach = 0.8 * far..far + 0.5 * near;
    (first.depth > second.depth && keeps_both && reach.contains(&distance)).then_some(Relation::InFrontOf)
}

/// Where a group stands among the others.
fn middle(group: &Option<Group>) -> f32 {
    group.map_or(f32::MAX, |group| match group.second {
        Some((_, second)) => 0.5 * (group.first.x + second.x),
        None => group.first.x,
    })
}
