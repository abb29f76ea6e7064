//! What a patch or a visual token shows, as far as words and numbers can say it.

use mobilevlmd::camera::world::{Label, Scene, Side, Size, WIDTH};

/// What is to be seen at a place of the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thing {
    /// Its kind with its colour or state.
    pub label: Label,
    /// Small or large, of objects.
    pub size: Option<Size>,
    /// Its third of the frame, where nobody could argue.
    pub side: Option<Side>,
    /// Its middle, across and down, and its height; in numbers about as large as one.
    pub place: [f32; 3],
}

impl Thing {
    /// A place with nothing on it.
    pub const NOTHING: Self = Self { label: Label::Background, size: None, side: None, place: [0.0; 3] };

    /// What `label` means in `scene`.
    pub fn new(scene: &Scene, label: Label) -> Self {
        let Some(extent) = scene.extent(label) else { return Self::NOTHING };
        let object = scene.object(label);
        let person = scene.person.filter(|_| label == Label::Person);
        let half = 0.5 * WIDTH;
        Self {
            label,
            size: object.map(|object| object.size()),
            side: object.and_then(|object| object.side()).or(person.and_then(|person| person.side())),
            place: [extent.x / half - 1.0, (extent.y - 0.5) / half, 4.0 * (extent.height - 0.225)],
        }
    }

    /// Whether there is anything.
    pub fn is_there(&self) -> bool {
        self.label != Label::Background
    }
}

/// The things that four patches of a visual token show, each with how many of them show it; pictures
/// have `side` patches in a row.
pub fn pooled(things: &[Thing], side: usize) -> impl Iterator<Item = [Thing; 4]> {
    let half = side / 2;
    (0..things.len() / 4).map(move |i| {
        let (picture, row, column) = (i / (half * half), i / half % half, i % half);
        let first = picture * side * side + 2 * row * side + 2 * column;
        [first, first + 1, first + side, first + side + 1].map(|at| things[at])
    })
}

/// The thing that most of four patches show, if any shows one.
pub fn foremost(patches: [Thing; 4]) -> Thing {
    let weight = |thing: &Thing| {
        let alike = patches.iter().filter(|other| other.label == thing.label).count();
        (thing.is_there(), alike)
    };
    patches.into_iter().max_by_key(weight).unwrap_or(Thing::NOTHING)
}

#[cfg(test)]
mod tests {
    use mobilevlmd::camera::world::{Color, Shape};

    use super::*;

    #[test]
    fn a_visual_token_shows_what_most_of_its_patches_show() {
        let mut things = vec![Thing::NOTHING; 32];
        let thing = |label| Thing { label, ..Thing::NOTHING };
        let red = thing(Label::Object(Shape::ALL[0], Color::ALL[0]));
        things[16 + 5] = thing(Label::Person);
        things[16 + 6] = red;
        things[16 + 7] = red;
        things[16 + 2] = thing(Label::Lamp(true));
        let shown: Vec<_> = pooled(&things, 4).map(foremost).collect();
        assert_eq!(shown[..5], [[Thing::NOTHING; 4].as_slice(), &[thing(Label::Person)]].concat());
        assert_eq!(shown[5..], [red, Thing::NOTHING, Thing::NOTHING]);
    }

    #[test]
    fn a_thing_is_where_its_scene_says() {
        let scene = (0..).map(Scene::sample).find(|scene| scene.objects().len() == 2).expect("there is one");
        for object in scene.objects() {
            let thing = Thing::new(&scene, Label::Object(object.shape, object.color));
            assert_eq!((thing.size, thing.side), (Some(object.size()), object.side()));
            assert!(thing.is_there() && thing.place.iter().all(|number| number.abs() < 2.0));
        }
    }
}
