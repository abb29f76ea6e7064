//! What a world is made of. Places and sizes are in heights of a frame of 4:3: x runs from 0 to 4/3,
//! y from 0 at the top to 1.

/// Width of a frame in heights; wider and narrower frames are stretched to it.
pub const WIDTH: f32 = 4.0 / 3.0;

/// What an object looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// A disc.
    Ball,
    /// A square.
    Box,
    /// A triangle that points up.
    Triangle,
    /// A star of five points.
    Star,
    /// A ring, wide enough for a small object inside a large one.
    Ring,
    /// A plus sign.
    Cross,
}

impl Shape {
    /// All shapes.
    pub const ALL: [Self; 6] = [Self::Ball, Self::Box, Self::Triangle, Self::Star, Self::Ring, Self::Cross];

    /// The shape in words.
    pub fn word(self) -> &'static str {
        ["ball", "box", "triangle", "star", "ring", "cross"][self as usize]
    }

    /// How far the shape of half height 1 reaches across and down, turned a little or not.
    pub(super) fn reach(self) -> f32 {
        match self {
            Self::Ball | Self::Ring => 1.0,
            Self::Box | Self::Star | Self::Cross => 1.1,
            Self::Triangle => 1.2,
        }
    }

    /// How far a point lies outside of the shape of half height 1 around the origin; negative inside.
    pub(super) fn distance(self, x: f32, y: f32) -> f32 {
        match self {
            Self::Ball => x.hypot(y) - 1.0,
            Self::Box => x.abs().max(y.abs()) - 0.9,
            Self::Triangle => (0.879_7 * x.abs() - 0.475_5 * (y + 1.0)).max(y - 0.85),
            Self::Star => star(x, y),
            Self::Ring => ((x * x + y * y).sqrt() - 0.5 * (1.0 + RING_HOLE)).abs() - 0.5 * (1.0 - RING_HOLE),
            Self::Cross => {
                let (x, y) = (x.abs(), y.abs());
                (x.max(y) - 0.95).max(x.min(y) - 0.31)
            }
        }
    }
}

/// Radius of the hole of a ring of radius 1.
pub(super) const RING_HOLE: f32 = 0.62;

/// A pentagram with its points at distance 1.1 is what lies within four of its five lines.
fn star(x: f32, y: f32) -> f32 {
    /// The directions away from the centre across the lines.
    const ACROSS: [(f32, f32); 5] = [
        (0.0, 1.0),
        (0.951_057, 0.309_017),
        (0.587_785, -0.809_017),
        (-0.587_785, -0.809_017),
        (-0.951_057, 0.309_017),
    ];
    let (mut largest, mut second) = (f32::MIN, f32::MIN);
    for (across_x, across_y) in ACROSS {
        let distance = across_x * x + across_y * y;
        second = second.max(distance.min(largest));
        largest = largest.max(distance);
    }
    second - 1.1 * 0.309_017
}

/// Colour of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Color {
    /// Red.
    Red,
    /// Orange.
    Orange,
    /// Yellow.
    Yellow,
    /// Green.
    Green,
    /// Blue.
    Blue,
    /// Purple.
    Purple,
    /// White.
    White,
    /// Black.
    Black,
}

impl Color {
    /// All colours.
    pub const ALL: [Self; 8] = [
        Self::Red,
        Self::Orange,
        Self::Yellow,
        Self::Green,
        Self::Blue,
        Self::Purple,
        Self::White,
        Self::Black,
    ];

    /// The colour in words.
    pub fn word(self) -> &'static str {
        ["red", "orange", "yellow", "green", "blue", "purple", "white", "black"][self as usize]
    }

    /// R, G, B in white light.
    pub(super) fn rgb(self) -> [f32; 3] {
        match self {
            Self::Red => [208.0, 28.0, 36.0],
            Self::Orange => [245.0, 128.0, 10.0],
            Self::Yellow => [246.0, 226.0, 30.0],
            Self::Green => [24.0, 148.0, 52.0],
            Self::Blue => [30.0, 76.0, 214.0],
            Self::Purple => [142.0, 44.0, 178.0],
            Self::White => [250.0, 250.0, 250.0],
            Self::Black => [18.0, 18.0, 20.0],
        }
    }
}

/// Height of an object in two classes with nothing between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Size {
    /// Up to a fifth of the frame.
    Small,
    /// A quarter of the frame and more.
    Large,
}

impl Size {
    /// All sizes.
    pub const ALL: [Self; 2] = [Self::Small, Self::Large];

    /// The size in words.
    pub fn word(self) -> &'static str {
        ["small", "large"][self as usize]
    }
}

/// Third of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The left third.
    Left,
    /// The middle.
    Middle,
    /// The right third.
    Right,
}

impl Side {
    /// All sides.
    pub const ALL: [Self; 3] = [Self::Left, Self::Middle, Self::Right];

    /// Where something is that is there, in words.
    pub fn words(self) -> &'static str {
        ["on the left", "in the middle", "on the right"][self as usize]
    }

    /// The side of a thing at `x`; none where one could argue.
    pub(super) fn at(x: f32) -> Option<Self> {
        match x / WIDTH {
            part if part <= 0.36 => Some(Self::Left),
            part if (0.41..=0.59).contains(&part) => Some(Self::Middle),
            part if part >= 0.64 => Some(Self::Right),
            _ => None,
        }
    }
}

/// A coloured shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Object {
    /// What it looks like.
    pub shape: Shape,
    /// Its colour.
    pub color: Color,
    /// Its centre, in heights of the frame from the left edge.
    pub x: f32,
    /// Its centre, in heights of the frame from the upper edge.
    pub y: f32,
    /// Its height, in heights of the frame.
    pub height: f32,
    /// Turn about its centre, in radians.
    pub(super) tilt: f32,
    /// Objects of greater depth number are drawn over those of smaller.
    pub(super) depth: u8,
}

impl Default for Object {
    fn default() -> Self {
        Self { shape: Shape::Ball, color: Color::Red, x: 0.0, y: 0.0, height: 0.0, tilt: 0.0, depth: 0 }
    }
}

impl Object {
    /// Its size in words' terms.
    pub fn size(&self) -> Size {
        if self.height < 0.225 { Size::Small } else { Size::Large }
    }

    /// Its third of the frame; none where one could argue.
    pub fn side(&self) -> Option<Side> {
        Side::at(self.x)
    }

    /// How far a point lies outside of it.
    pub(super) fn distance(&self, x: f32, y: f32) -> f32 {
        let (sin, cos) = self.tilt.sin_cos();
        let half = 0.5 * self.height;
        let (x, y) = ((x - self.x) / half, (y - self.y) / half);
        half * self.shape.distance(cos * x + sin * y, cos * y - sin * x)
    }

    /// The square around it.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds::around(self.x, self.y, 0.5 * self.height, 0.5 * self.height)
    }
}

/// What a doorway lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DoorState {
    /// The way is free.
    Open,
    /// The door is shut.
    Closed,
    /// The door is open, but something stands in it.
    Blocked,
}

impl DoorState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Open, Self::Closed, Self::Blocked];

    /// The state in words.
    pub fn word(self) -> &'static str {
        ["open", "closed", "blocked"][self as usize]
    }
}

/// A doorway in the wall.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Door {
    /// Its middle, in heights of the frame from the left edge.
    pub x: f32,
    /// Its threshold, in heights of the frame from the upper edge.
    pub base: f32,
    /// 0 when shut, 1 when wide open.
    pub openness: f32,
    /// How far the crate is that blocks it: 0 when it stands in the doorway, 1 when it is out of sight.
    pub crate_away: f32,
}

impl Door {
    /// Width with its frame.
    pub(super) const WIDTH: f32 = 0.27;
    /// Height with its frame.
    pub(super) const HEIGHT: f32 = 0.5;
    /// Thickness of the frame.
    pub(super) const RIM: f32 = 0.022;
    /// Side of the crate.
    pub(super) const CRATE: f32 = 0.2;

    pub(super) fn bounds(&self) -> Bounds {
        let half = 0.5 * Self::HEIGHT;
        Bounds::around(self.x, self.base - half, 0.5 * Self::WIDTH, half)
    }

    /// Middle of the crate, from the upper edge of the frame.
    pub(super) fn crate_y(&self) -> f32 {
        self.base + 0.03 - 0.5 * Self::CRATE + self.crate_away * 0.7
    }
}

/// A person-like figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Person {
    /// Its middle, in heights of the frame from the left edge.
    pub x: f32,
    /// Its feet, in heights of the frame from the upper edge.
    pub feet: f32,
    /// Its height, in heights of the frame.
    pub height: f32,
    /// Swing of its limbs, from -1 to 1.
    pub(super) stride: f32,
    /// Which clothes it wears.
    pub(super) clothes: usize,
}

impl Person {
    /// Its third of the frame; none where one could argue.
    pub fn side(&self) -> Option<Side> {
        Side::at(self.x)
    }

    pub(super) fn bounds(&self) -> Bounds {
        let half = 0.5 * self.height;
        Bounds::around(self.x, self.feet - half, 0.4 * half, half)
    }

    /// How far a point lies outside of its trunk, legs and head taken together.
    pub(super) fn distance(&self, x: f32, y: f32) -> f32 {
        let half = 0.5 * self.height;
        Bounds::around(self.x, self.feet - half, 0.24 * half, half).distance(x, y)
    }
}

/// A lamp: it hangs from the ceiling of a room and stands on a post outdoors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lamp {
    /// Its middle, in heights of the frame from the left edge.
    pub x: f32,
    /// Light of it, from 0 (off) to 1 (on).
    pub glow: f32,
    /// Where the post stands; none hangs.
    pub(super) post: Option<f32>,
}

impl Lamp {
    /// Middle of the shade, from the upper edge of the frame.
    pub(super) const SHADE: f32 = 0.11;
    /// Half the height of the shade.
    pub(super) const HALF: f32 = 0.055;

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.glow > 0.5
    }

    /// What must stay free around the shade.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds { left: self.x - 0.1, top: -0.1, right: self.x + 0.1, bottom: Self::SHADE + Self::HALF + 0.01 }
    }

    /// How far a point lies outside of the shade.
    pub(super) fn distance(&self, x: f32, y: f32) -> f32 {
        Bounds::around(self.x, Self::SHADE, 0.07, Self::HALF).distance(x, y)
    }

    /// The post.
    pub(super) fn post_bounds(&self) -> Option<Bounds> {
        let bottom = self.post?;
        Some(Bounds { left: self.x - 0.012, top: Self::SHADE, right: self.x + 0.012, bottom })
    }
}

/// An upright rectangle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bounds {
    pub(super) left: f32,
    pub(super) top: f32,
    pub(super) right: f32,
    pub(super) bottom: f32,
}

impl Bounds {
    pub(super) fn around(x: f32, y: f32, half_width: f32, half_height: f32) -> Self {
        Self { left: x - half_width, top: y - half_height, right: x + half_width, bottom: y + half_height }
    }

    /// Whether less than `margin` is free between the two.
    pub(super) fn meets(&self, other: &Self, margin: f32) -> bool {
        self.left < other.right + margin
            && other.left < self.right + margin
            && self.top < other.bottom + margin
            && other.top < self.bottom + margin
    }

    /// Whether it lies in the frame, at least `margin` from the edges.
    pub(super) fn is_in_frame(&self, margin: f32) -> bool {
        self.left >= margin
            && self.right <= WIDTH - margin
            && self.top >= margin
            && self.bottom <= 1.0 - margin
    }

    /// How far a point lies outside of it.
    pub(super) fn distance(&self, x: f32, y: f32) -> f32 {
        (self.left - x).max(x - self.right).max(self.top - y).max(y - self.bottom)
    }
}
