//! Where everything stands during an era of a world: tried until nothing hides anything.

use super::backdrop::Backdrop;
use super::dice::Dice;
use super::scene::MAX_OBJECTS;
use super::things::{Bounds, Color, Door, Lamp, Person, Shape, Side, WIDTH};

/// Free space between things.
const GAP: f32 = 0.028;
/// Free space to the edges of the frame.
const EDGE: f32 = 0.035;
/// Least distance across between objects that stand side by side.
const BESIDE: f32 = 0.19;
/// Attempts before a thing is left out.
const ATTEMPTS: usize = 24;
/// Places tried for one thing in an attempt.
const PLACES: usize = 16;

/// What an object is wherever it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Member {
    pub(super) shape: Shape,
    pub(super) color: Color,
}

/// Where an object stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) x: f32,
    pub(super) y: f32,
    pub(super) height: f32,
    pub(super) tilt: f32,
    pub(super) depth: u8,
}

/// Where a person stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stand {
    pub(super) x: f32,
    pub(super) feet: f32,
    pub(super) height: f32,
}

/// What stands where it stands as long as the world lasts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fixtures<'a> {
    pub(super) backdrop: &'a Backdrop,
    pub(super) door: Option<Door>,
    pub(super) lamp: Option<Lamp>,
    pub(super) has_person: bool,
}

/// Where everything stands during an era.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Layout {
    pub(super) places: [Option<Place>; MAX_OBJECTS],
    pub(super) person: Option<Stand>,
    /// The object that stands in the doorway.
    pub(super) blocker: Option<usize>,
}

impl Layout {
    /// A layout for `cast`. Whoever finds no place is left out, the last ones first.
    pub(super) fn new(fixtures: &Fixtures<'_>, cast: &[Member], dice: &mut Dice) -> Self {
        for count in (0..=cast.len()).rev() {
            for _ in 0..ATTEMPTS {
                let mut table = Table::new(fixtures, cast, dice);
                if table.place_person().is_some() && table.place_objects(count).is_some() {
                    return table.layout;
                }
            }
        }
        Self::default()
    }
}

/// A layout in the making.
struct Table<'a> {
    fixtures: &'a Fixtures<'a>,
    cast: &'a [Member],
    dice: &'a mut Dice,
    layout: Layout,
    taken: [Option<Bounds>; 12],
    count: usize,
}

impl<'a> Table<'a> {
    fn new(fixtures: &'a Fixtures<'a>, cast: &'a [Member], dice: &'a mut Dice) -> Self {
        let mut table = Self { fixtures, cast, dice, layout: Layout::default(), taken: [None; 12], count: 0 };
        if let Some(door) = fixtures.door {
            let door = door.bounds();
            table.take(Bounds { bottom: door.bottom + 0.04, ..door });
        }
        if let Some(lamp) = fixtures.lamp {
            table.take(lamp.bounds());
            if let Some(post) = lamp.post_bounds() {
                table.take(post);
            }
        }
        table
    }

    fn take(&mut self, bounds: Bounds) {
        self.taken[self.count] = Some(bounds);
        self.count += 1;
    }

    fn is_free(&self, bounds: &Bounds) -> bool {
        bounds.is_in_frame(EDGE) && !self.taken.iter().flatten().any(|taken| taken.meets(bounds, GAP))
    }

    fn place_person(&mut self) -> Option<()> {
        if !self.fixtures.has_person {
            return Some(());
        }
        for _ in 0..PLACES {
            let x = match self.dice.pick(&Side::ALL) {
                Side::Left => self.dice.between(0.15, 0.45),
                Side::Middle => self.dice.between(0.575, 0.76),
                Side::Right => self.dice.between(0.885, WIDTH - 0.15),
            };
            let height = self.dice.between(0.48, 0.56);
            let feet = (self.fixtures.backdrop.horizon + self.dice.between(0.06, 0.2)).min(0.94);
            let bounds = Person { x, feet, height, stride: 0.0, clothes: 0 }.bounds();
            if self.is_free(&bounds) {
                self.take(bounds);
                self.layout.person = Some(Stand { x, feet, height });
                return Some(());
            }
        }
        None
    }

    /// Places the first `count` of the cast, alone and in pairs.
    fn place_objects(&mut self, count: usize) -> Option<()> {
        let mut order: [usize; MAX_OBJECTS] = std::array::from_fn(|index| index);
        let order = &mut order[..count];
        self.dice.shuffle(order);
        let mut left = &*order;
        while let Some((&first, rest)) = left.split_first() {
            left = rest;
            if self.stands_in_doorway(first) {
                continue;
            }
            match left.split_first() {
                Some((&second, rest)) if self.dice.chance(0.4) => {
                    self.place_pair(first, second)?;
                    left = rest;
                }
                _ => self.place_single(first)?,
            }
        }
        Some(())
    }

    /// Puts an object into the doorway now and then.
    fn stands_in_doorway(&mut self, index: usize) -> bool {
        let Some(door) = self.fixtures.door else { return false };
        if self.layout.blocker.is_some()
            || self.cast[index].color == Color::Black
            || !matches!(self.cast[index].shape, Shape::Ball | Shape::Box | Shape::Triangle)
            || !self.dice.chance(0.14)
            || !self.is_beside(door.x, 0.01)
        {
            return false;
        }
        let height = self.dice.between(0.255, 0.27);
        let x = door.x + self.dice.between(-0.01, 0.01);
        self.put(index, Place { x, y: door.base + 0.02 - 0.5 * height, height, tilt: 0.0, depth: 1 });
        self.layout.blocker = Some(index);
        true
    }

    fn place_single(&mut self, index: usize) -> Option<()> {
        let tilt = self.dice.between(-0.2, 0.2);
        let height = self.height();
        let (x, y) = self.free_place(height, height, 0.0)?;
        self.take(Bounds::around(x, y, 0.5 * height, 0.5 * height));
        self.put(index, Place { x, y, height, tilt, depth: 1 });
        Some(())
    }

    fn place_pair(&mut self, first: usize, second: usize) -> Option<()> {
        let [a, b] = [first, second].map(|index| self.cast[index]);
        let differs = a.color != b.color;
        let is_solid = |shape| matches!(shape, Shape::Ball | Shape::Box);
        if b.shape == Shape::Ring && differs && self.dice.chance(0.6) {
            self.place_inside(first, second)
        } else if a.shape == Shape::Ring && differs && self.dice.chance(0.6) {
            self.place_inside(second, first)
        } else if is_solid(b.shape) && differs && self.dice.chance(0.6) {
            self.place_in_front(first, second)
        } else if is_solid(a.shape) && differs && self.dice.chance(0.6) {
            self.place_in_front(second, first)
        } else {
            self.place_above(first, second)
        }
    }

    fn place_inside(&mut self, inner: usize, ring: usize) -> Option<()> {
        let height = self.dice.between(0.345, 0.37);
        let (x, y) = self.free_place(height, height, 0.0)?;
        self.take(Bounds::around(x, y, 0.5 * height, 0.5 * height));
        self.put(ring, Place { x, y, height, tilt: 0.0, depth: 1 });
        let (dx, dy) = (self.dice.between(-0.006, 0.006), self.dice.between(-0.006, 0.006));
        let tilt = self.dice.between(-0.2, 0.2);
        self.put(inner, Place { x: x + dx, y: y + dy, height: 0.45 * height, tilt, depth: 2 });
        Some(())
    }

    fn place_in_front(&mut self, front: usize, back: usize) -> Option<()> {
        let large = self.dice.between(0.27, 0.3);
        let small = self.dice.between(0.165, 0.185);
        let sign = if self.dice.chance(0.5) { 1.0 } else { -1.0 };
        // The front's centre lies on the edge of the back.
        let (dx, dy) = (sign * 0.42 * large, 0.3 * large);
        let (width, height) = (large + 2.0 * 0.42 * large, large + 0.3 * large);
        let (x, y) = self.free_place(width, height, 0.5 * dx.abs())?;
        let (x, y) = (x - 0.5 * dx, y - 0.15 * large);
        self.take(Bounds::around(x, y, 0.5 * large, 0.5 * large));
        self.take(Bounds::around(x + dx, y + dy, 0.5 * small, 0.5 * small));
        self.put(back, Place { x, y, height: large, tilt: 0.0, depth: 1 });
        self.put(front, Place { x: x + dx, y: y + dy, height: small, tilt: 0.0, depth: 2 });
        Some(())
    }

    fn place_above(&mut self, upper: usize, lower: usize) -> Option<()> {
        let heights = [self.height(), self.height()];
        let gap = self.dice.between(0.035, 0.1);
        let height = heights[0] + gap + heights[1];
        let width = heights[0].max(heights[1]) + 0.028;
        let (x, y) = self.free_place(width, height, 0.014)?;
        let ys = [y - 0.5 * (height - heights[0]), y + 0.5 * (height - heights[1])];
        for (index, (height, y)) in [upper, lower].into_iter().zip(heights.into_iter().zip(ys)) {
            let x = x + self.dice.between(-0.014, 0.014);
            let tilt = self.dice.between(-0.2, 0.2);
            self.put(index, Place { x, y, height, tilt, depth: 1 });
        }
        self.take(Bounds::around(x, y, 0.5 * width, 0.5 * height));
        Some(())
    }

    /// The middle of a free rectangle that stands beside all placed objects; centres of objects in
    /// it are at most `reach` away from its own.
    fn free_place(&mut self, width: f32, height: f32, reach: f32) -> Option<(f32, f32)> {
        let (half_width, half_height) = (EDGE + 0.5 * width, EDGE + 0.5 * height);
        if half_width > 0.5 * WIDTH || half_height > 0.5 {
            return None;
        }
        (0..PLACES).find_map(|_| {
            let x = self.dice.between(half_width, WIDTH - half_width);
            let y = self.dice.between(half_height, 1.0 - half_height);
            let bounds = Bounds::around(x, y, 0.5 * width, 0.5 * height);
            (self.is_beside(x, reach) && self.is_free(&bounds)).then_some((x, y))
        })
    }

    fn is_beside(&self, x: f32, reach: f32) -> bool {
        self.layout.places.iter().flatten().all(|place| (place.x - x).abs() >= BESIDE + reach)
    }

    fn put(&mut self, index: usize, place: Place) {
        self.layout.places[index] = Some(place);
    }

    /// Small or large.
    fn height(&mut self) -> f32 {
        if self.dice.chance(0.5) { self.dice.between(0.16, 0.19) } else { self.dice.between(0.26, 0.3) }
    }
}
