//! Draws scenes: the backdrop, the things from back to front, then light, blur and noise.

use image::RgbImage;

use super::backdrop::{Rgb, Surface};
use super::canvas::{Canvas, Paint, View};
use super::lens::Optics;
use super::scene::Scene;
use super::things::{Door, Lamp, Object, Person};
use crate::camera::frame;

const BLACK: Rgb = [34.0, 32.0, 38.0];
const FRAME: Rgb = [214.0, 208.0, 196.0];
const CRATE: Rgb = [206.0, 160.0, 104.0];
const CRATE_EDGE: Rgb = [118.0, 82.0, 46.0];
const SKIN: Rgb = [224.0, 178.0, 146.0];
const TROUSERS: Rgb = [56.0, 58.0, 74.0];
const CLOTHES: [Rgb; 3] = [[62.0, 104.0, 106.0], [112.0, 84.0, 96.0], [100.0, 102.0, 112.0]];
const LAMP_OFF: Rgb = [78.0, 76.0, 78.0];
const LAMP_ON: Rgb = [255.0, 248.0, 206.0];
const GLOW: Rgb = [84.0, 74.0, 40.0];

/// Width of the darker rim of objects, in halves of their height.
const RIM: f32 = 0.055;

/// Draws scenes and keeps the memory that it needs for the next.
#[derive(Debug, Default)]
pub struct Painter {
    optics: Optics,
    /// Which columns of a surface lie in its darker stripes.
    line: Vec<bool>,
}

impl Painter {
    /// Draws `scene` over `picture` as `width` by `height` pixels, at least 1 each. Allocates only
    /// when a picture is larger than all before.
    pub fn draw(&mut self, scene: &Scene, width: u32, height: u32, picture: &mut RgbImage) {
        frame::resize(picture, width.max(1), height.max(1));
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let view = View::new(width, height, scene.shake);
        let mut canvas = Canvas { width, height, rgb: picture, view };
        self.draw_backdrop(scene, &mut canvas);
        draw_things(scene, &mut canvas);
        self.optics.apply(scene, width, height, picture);
    }

    fn draw_backdrop(&mut self, scene: &Scene, canvas: &mut Canvas<'_>) {
        let backdrop = &scene.backdrop;
        let bytes = 3 * canvas.width;
        let split = (canvas.view.line(backdrop.horizon).round().max(0.0) as usize).min(canvas.height);
        let (upper, lower) = canvas.rgb.split_at_mut(split * bytes);
        for (surface, part) in [(&backdrop.upper, upper), (&backdrop.lower, lower)] {
            self.draw_surface(surface, canvas.width, part, &canvas.view);
        }
        if !backdrop.is_outdoors {
            // A skirting board makes the corner of wall and floor plain.
            let half = (super::things::WIDTH, 0.006);
            let color = backdrop.lower.top.map(|channel| 0.72 * channel);
            canvas.fill_box((0.5 * super::things::WIDTH, backdrop.horizon), half, Paint::flat(color));
        }
    }

    /// Fills the lines of `part` with a surface.
    fn draw_surface(&mut self, surface: &Surface, width: usize, part: &mut [u8], view: &View) {
        let bytes = 3 * width;
        let stripe = view.pixels(surface.stripe).max(1.0);
        self.line.clear();
        self.line.extend((0..width).map(|column| (column as f32 / stripe) as usize % 2 == 1));
        let lines = part.len() / bytes;
        let band = view.pixels(surface.band);
        let mut last = None;
        for index in 0..lines {
            let down = index as f32 / lines as f32;
            let is_seam = surface.band > 0.0 && (index as f32 % band) < 0.1 * band;
            let light = if is_seam { 0.9 } else { 1.0 };
            let color: Rgb = std::array::from_fn(|channel| {
                let (top, bottom) = (surface.top[channel], surface.bottom[channel]);
                light * (top + (bottom - top) * down)
            });
            let colors =
                [1.0, 1.0 - surface.contrast].map(|part| color.map(|channel| (part * channel) as u8));
            // Most lines are like the one before.
            if last == Some(colors) {
                part.copy_within((index - 1) * bytes..index * bytes, index * bytes);
                continue;
            }
            last = Some(colors);
            let pixels = part[index * bytes..(index + 1) * bytes].as_chunks_mut::<3>().0;
            for (pixel, is_dark) in pixels.iter_mut().zip(&self.line) {
                *pixel = colors[usize::from(*is_dark)];
            }
        }
    }
}

impl Scene {
    /// The scene as a picture of `width` by `height` pixels.
    pub fn render(&self, width: u32, height: u32) -> RgbImage {
        let mut picture = RgbImage::default();
        Painter::default().draw(self, width, height, &mut picture);
        picture
    }
}

fn draw_things(scene: &Scene, canvas: &mut Canvas<'_>) {
    if let Some(door) = &scene.door {
        draw_door(door, scene.backdrop.door, canvas);
    }
    if let Some(lamp) = &scene.lamp {
        draw_lamp(lamp, canvas);
    }
    if let Some(person) = &scene.person {
        draw_person(person, canvas);
    }
    for object in scene.objects() {
        draw_object(object, canvas);
    }
}

fn draw_object(object: &Object, canvas: &mut Canvas<'_>) {
    let half = 0.5 * object.height;
    let (sin, cos) = object.tilt.sin_cos();
    let reach = half * object.shape.reach();
    let paint = Paint { color: object.color.rgb(), shade: 0.06, rim: RIM * half };
    canvas.fill((object.x, object.y), (reach, reach), paint, |x, y| {
        let (x, y) = (x / half, y / half);
        half * object.shape.distance(cos * x + sin * y, cos * y - sin * x)
    });
}

fn draw_door(door: &Door, color: Rgb, canvas: &mut Canvas<'_>) {
    let (half_width, half_height) = (0.5 * Door::WIDTH, 0.5 * Door::HEIGHT);
    let middle = door.base - half_height;
    canvas.fill_box((door.x, middle), (half_width, half_height), Paint::flat(FRAME));
    let inner = (half_width - Door::RIM, half_height - 0.5 * Door::RIM);
    let center = (door.x, middle + 0.5 * Door::RIM);
    canvas.fill_box(center, inner, Paint { color: BLACK, shade: 0.15, rim: 0.0 });
    // The leaf hangs on the left and turns away until it is seen from its edge.
    let leaf = inner.0 * (1.0 - 0.84 * door.openness);
    let leaf_x = door.x - inner.0 + leaf;
    let dark = color.map(|channel| channel * (1.0 - 0.2 * door.openness));
    canvas.fill_box((leaf_x, center.1), (leaf, inner.1), Paint { color: dark, shade: 0.05, rim: 0.0 });
    if door.openness < 0.5 {
        let panel = Paint::flat(color.map(|channel| 0.8 * channel));
        for y in [center.1 - 0.45 * inner.1, center.1 + 0.45 * inner.1] {
            canvas.fill_box((leaf_x, y), (0.62 * leaf, 0.3 * inner.1), panel);
        }
        let knob = (leaf_x + 0.82 * leaf, center.1);
        canvas.fill(knob, (0.014, 0.014), Paint::flat(FRAME), |x, y| x.hypot(y) - 0.014);
    }
    if door.crate_away < 1.0 {
        draw_crate((door.x + 0.01, door.crate_y()), canvas);
    }
}

fn draw_crate(center: (f32, f32), canvas: &mut Canvas<'_>) {
    let half = 0.5 * Door::CRATE;
    canvas.fill_box(center, (half, half), Paint::flat(CRATE_EDGE));
    canvas.fill_box(center, (half - 0.016, half - 0.016), Paint { color: CRATE, shade: 0.06, rim: 0.0 });
    canvas.fill(center, (half, half), Paint::flat(CRATE_EDGE), |x, y| {
        (0.707 * (x - y).abs() - 0.012).max(x.abs().max(y.abs()) - half)
    });
}

fn draw_lamp(lamp: &Lamp, canvas: &mut Canvas<'_>) {
    let pole = Paint::flat(LAMP_OFF.map(|channel| 0.8 * channel));
    match lamp.post {
        Some(base) => {
            let half = 0.5 * (base - Lamp::SHADE);
            canvas.fill_box((lamp.x, Lamp::SHADE + half), (0.009, half), pole);
        }
        None => canvas.fill_box((lamp.x, 0.5 * Lamp::SHADE), (0.005, 0.5 * Lamp::SHADE), pole),
    }
    if lamp.glow > 0.0 {
        canvas.add_glow((lamp.x, Lamp::SHADE + 0.02), 0.24, GLOW.map(|channel| channel * lamp.glow));
    }
    let color =
        std::array::from_fn(|channel| LAMP_OFF[channel] + (LAMP_ON[channel] - LAMP_OFF[channel]) * lamp.glow);
    canvas.fill((lamp.x, Lamp::SHADE), (0.09, Lamp::HALF), Paint::flat(color), shade_distance);
}

/// How far a point lies outside of a lamp's shade, which is wider below.
fn shade_distance(x: f32, y: f32) -> f32 {
    let half = 0.06 + 0.45 * y;
    (0.91 * (x.abs() - half)).max(y.abs() - Lamp::HALF)
}

fn draw_person(person: &Person, canvas: &mut Canvas<'_>) {
    let height = person.height;
    let at = |x: f32, y: f32| (person.x + x * height, person.feet - y * height);
    let swing = 0.07 * person.stride;
    let clothes = CLOTHES[person.clothes % CLOTHES.len()];
    let limbs = [
        ((0.04, 0.46), (0.07 + swing, 0.02), 0.045, TROUSERS),
        ((-0.04, 0.46), (-0.07 - swing, 0.02), 0.045, TROUSERS),
        ((0.09, 0.74), (0.16 - swing, 0.48), 0.033, clothes),
        ((-0.09, 0.74), (-0.16 + swing, 0.48), 0.033, clothes),
        ((0.0, 0.72), (0.0, 0.5), 0.085, clothes),
    ];
    for (from, to, thickness, color) in limbs {
        draw_limb(at(from.0, from.1), at(to.0, to.1), thickness * height, color, canvas);
    }
    let head = 0.088 * height;
    canvas.fill(at(0.0, 0.912), (head, head), Paint { color: SKIN, shade: 0.05, rim: 0.0 }, |x, y| {
        x.hypot(y) - head
    });
}

/// A line with round ends.
fn draw_limb(from: (f32, f32), to: (f32, f32), thickness: f32, color: Rgb, canvas: &mut Canvas<'_>) {
    let middle = (0.5 * (from.0 + to.0), 0.5 * (from.1 + to.1));
    let (ax, ay) = (0.5 * (to.0 - from.0), 0.5 * (to.1 - from.1));
    let square = (ax * ax + ay * ay).max(1e-9);
    let half = (ax.abs() + thickness, ay.abs() + thickness);
    canvas.fill(middle, half, Paint::flat(color), |x, y| {
        let along = ((x * ax + y * ay) / square).clamp(-1.0, 1.0);
        (x - along * ax).hypot(y - along * ay) - thickness
    });
}
