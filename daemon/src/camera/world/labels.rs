//! What is to be seen where: one label for each cell of a grid over the frame.

use super::scene::Scene;
use super::things::{Bounds, Color, Door, DoorState, Lamp, Object, Shape, WIDTH};

/// What covers a place of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Label {
    /// Wall, floor, sky or meadow.
    Background,
    /// A coloured shape.
    Object(Shape, Color),
    /// The doorway in its state.
    Door(DoorState),
    /// The crate in the doorway.
    Crate,
    /// The person.
    Person,
    /// The lamp, on or off.
    Lamp(bool),
}

impl Label {
    /// Number of labels.
    pub const COUNT: usize = 8 + Shape::ALL.len() * Color::ALL.len();

    /// Number of this label, below [`Label::COUNT`].
    pub fn index(self) -> usize {
        match self {
            Self::Background => 0,
            Self::Door(state) => 1 + state as usize,
            Self::Crate => 4,
            Self::Person => 5,
            Self::Lamp(is_on) => 6 + usize::from(is_on),
            Self::Object(shape, color) => 8 + shape as usize * Color::ALL.len() + color as usize,
        }
    }
}

/// Where the middle of a thing is and how high it is, in heights of the frame from its upper left corner.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extent {
    /// Across.
    pub x: f32,
    /// Down.
    pub y: f32,
    /// Height of the thing.
    pub height: f32,
}

/// Points of a cell that are looked at, across and down.
const POINTS: [f32; 3] = [0.3, 0.5, 0.7];

impl Scene {
    /// What covers most of the middle of each cell of a grid over the frame, row by row.
    pub fn labels(&self, columns: usize, rows: usize) -> Vec<Label> {
        let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (column, row)));
        let label = |(column, row): (usize, usize)| {
            let points = POINTS.iter().flat_map(|across| POINTS.iter().map(move |down| (across, down)));
            let mut labels: [Label; 9] = [Label::Background; 9];
            for (label, (across, down)) in labels.iter_mut().zip(points) {
                let x = (column as f32 + across) / columns as f32 * WIDTH - self.shake.0;
                let y = (row as f32 + down) / rows as f32 - self.shake.1;
                *label = self.label_at(x, y);
            }
            most_frequent(labels)
        };
        cells.map(label).collect()
    }

    /// The object that a label of this scene means.
    pub fn object(&self, label: Label) -> Option<&Object> {
        let Label::Object(shape, color) = label else { return None };
        self.objects().iter().find(|object| (object.shape, object.color) == (shape, color))
    }

    /// Where the thing is that a label of this scene means.
    pub fn extent(&self, label: Label) -> Option<Extent> {
        let extent = |x, y, height| Some(Extent { x, y, height });
        match label {
            Label::Background => None,
            Label::Object(..) => self.object(label).and_then(|it| extent(it.x, it.y, it.height)),
            Label::Person => self.person.and_then(|it| extent(it.x, it.feet - 0.5 * it.height, it.height)),
            Label::Lamp(_) => self.lamp.and_then(|it| extent(it.x, Lamp::SHADE, 2.0 * Lamp::HALF)),
            Label::Crate => self.door.and_then(|it| extent(it.x + 0.01, it.crate_y(), Door::CRATE)),
            Label::Door(_) => {
                self.door.and_then(|it| extent(it.x, it.base - 0.5 * Door::HEIGHT, Door::HEIGHT))
            }
        }
    }

    /// What covers a place.
    pub(super) fn label_at(&self, x: f32, y: f32) -> Label {
        for object in self.objects().iter().rev() {
            if object.distance(x, y) < 0.0 {
                return Label::Object(object.shape, object.color);
            }
        }
        if self.person.is_some_and(|person| person.distance(x, y) < 0.0) {
            return Label::Person;
        }
        if let Some(lamp) = self.lamp.filter(|lamp| lamp.distance(x, y) < 0.0) {
            return Label::Lamp(lamp.is_on());
        }
        let Some((door, state)) = self.door.zip(self.door_state()) else { return Label::Background };
        let half = 0.5 * Door::CRATE;
        let crate_bounds = Bounds::around(door.x + 0.01, door.crate_y(), half, half);
        match () {
            () if door.crate_away < 1.0 && crate_bounds.distance(x, y) < 0.0 => Label::Crate,
            () if door.bounds().distance(x, y) < 0.0 => Label::Door(state),
            () => Label::Background,
        }
    }
}

/// The label that most of the points have; of equally frequent ones the first.
fn most_frequent(labels: [Label; 9]) -> Label {
    let count = |label: &Label| labels.iter().filter(|other| *other == label).count();
    let mut best = labels[4];
    for label in labels {
        if count(&label) > count(&best) {
            best = label;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_stands_where_its_thing_is() {
        for seed in 0..50 {
            let scene = Scene::sample(seed);
            let things = scene.objects().iter().map(|object| Label::Object(object.shape, object.color));
            for label in things.chain(scene.person.map(|_| Label::Person)) {
                let Extent { x, y, .. } = scene.extent(label).expect("it is there");
                let is_seen = scene.label_at(x, y) == label;
                // The middle of a ring is a hole, and something may stand in front.
                let is_ring = matches!(label, Label::Object(Shape::Ring, _));
                assert!(is_seen || is_ring || scene.label_at(x, y) != Label::Background, "{label:?}");
            }
            assert_eq!(scene.extent(Label::Background), None);
            assert_eq!(scene.extent(Label::Lamp(true)).is_some(), scene.lamp.is_some());
        }
    }

    #[test]
    fn every_label_has_its_number() {
        let objects = Shape::ALL.into_iter().flat_map(|shape| Color::ALL.map(|c| Label::Object(shape, c)));
        let doors = DoorState::ALL.map(Label::Door);
        let others = [Label::Background, Label::Crate, Label::Person, Label::Lamp(false), Label::Lamp(true)];
        let mut numbers: Vec<_> = objects.chain(doors).chain(others).map(Label::index).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..Label::COUNT).collect::<Vec<_>>());
    }
}
