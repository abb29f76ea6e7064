//! What is minimized beside surprise at the answers: surprise at what patches show, and at the words for
//! what visual tokens show.

use candle_core::{Device, Result, Tensor};
use candle_nn::{Linear, Module, VarBuilder, linear, loss::cross_entropy};
use mobilevlmd::camera::world::{Color, DoorState, Label, Shape};
use mobilevlmd::model::tokenizer::Tokenizer;

/// Of the patches that show nothing, one in this many is learned from.
const BACKGROUND: usize = 6;

/// Kinds of things a patch can show.
const KINDS: usize = 8 + Shape::ALL.len();

/// Reads off features what a patch shows. It is used in training only.
pub(super) struct Auxiliary {
    kind: Linear,
    color: Linear,
}

impl Auxiliary {
    pub(super) fn new(hidden: usize, parameters: &VarBuilder) -> Result<Self> {
        Ok(Self {
            kind: linear(hidden, KINDS, parameters.pp("kind"))?,
            color: linear(hidden, Color::ALL.len(), parameters.pp("color"))?,
        })
    }

    /// The loss of features `(patches, hidden)` that show `labels`.
    pub(super) fn loss(&self, features: &Tensor, labels: &[Label]) -> Result<Tensor> {
        let is_thing = |i: usize| labels[i] != Label::Background || i.is_multiple_of(BACKGROUND);
        let seen: Vec<usize> = (0..labels.len()).filter(|&i| is_thing(i)).collect();
        let kinds = seen.iter().map(|&i| (i, kind(labels[i])));
        let colors = seen.iter().filter_map(|&i| Some((i, color(labels[i])?)));
        let kind = surprise(&self.kind, features, kinds)?;
        kind + surprise(&self.color, features, colors)?
    }
}

/// Mean surprise of a reader at some rows.
fn surprise(
    reader: &impl Module,
    features: &Tensor,
    wanted: impl Iterator<Item = (usize, usize)>,
) -> Result<Tensor> {
    let (rows, classes): (Vec<u32>, Vec<u32>) = wanted.map(|(row, class)| (row as u32, class as u32)).unzip();
    if rows.is_empty() {
        return Tensor::new(0f32, &Device::Cpu);
    }
    let rows = features.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?;
    cross_entropy(&reader.forward(&rows)?, &Tensor::new(classes, &Device::Cpu)?)
}

/// Teaches visual tokens to resemble the words for what they show, so that the language model finds by
/// likeness what a question names. The reader is the embedding table itself.
pub(super) struct Naming {
    kinds: Tensor,      // ids of words for kinds
    attributes: Tensor, // ids of words for colours and states
    sides: Tensor,      // ids of words for where
}

/// Words for the thirds of a picture, across.
const SIDES: [&str; 3] = ["left", "middle", "right"];

/// Of the visual tokens that show nothing, one in this many is learned from.
const EMPTY: usize = 3;

impl Naming {
    pub(super) fn new(tokenizer: &Tokenizer) -> Result<Self> {
        let ids = |words: Vec<&str>| {
            let id = |word: &&str| tokenizer.encode(word).first().copied().unwrap_or_default();
            Tensor::new(words.iter().map(id).collect::<Vec<u32>>(), &Device::Cpu)
        };
        // What shows nothing resembles the piece that stands for no word.
        let things = ["", "door", "crate", "person", "lamp"];
        let kinds = things.into_iter().chain(Shape::ALL.map(Shape::word)).collect();
        let states = DoorState::ALL.map(DoorState::word).into_iter().chain(["off", "on"]);
        let attributes = states.chain(Color::ALL.map(Color::word)).collect();
        Ok(Self { kinds: ids(kinds)?, attributes: ids(attributes)?, sides: ids(SIDES.to_vec())? })
    }

    /// The loss of visual tokens `(pictures * (side / 2)^2, hidden)` whose patches, `side` in a row, show
    /// `labels`; `embedding` is `(vocabulary, hidden)`.
    pub(super) fn loss(
        &self,
        visual: &Tensor,
        embedding: &Tensor,
        labels: &[Label],
        side: usize,
    ) -> Result<Tensor> {
        let shown = pooled(labels, side);
        let is_thing = |i: &usize| shown[*i] != Label::Background || i.is_multiple_of(EMPTY);
        let kinds = (0..shown.len()).filter(is_thing).map(|i| (i, kind_word(shown[i])));
        let attributes = (0..shown.len()).filter_map(|i| Some((i, attribute_word(shown[i])?)));
        let kind = surprise(&Table(embedding.index_select(&self.kinds, 0)?), visual, kinds)?;
        kind + surprise(&Table(embedding.index_select(&self.attributes, 0)?), visual, attributes)?
    }

    /// The loss of the same tokens as words for where their things are.
    pub(super) fn places(
        &self,
        visual: &Tensor,
        embedding: &Tensor,
        labels: &[Label],
        side: usize,
    ) -> Result<Tensor> {
        let half = side / 2;
        let shown = pooled(labels, side);
        let things = (0..shown.len()).filter(|&i| shown[i] != Label::Background);
        let sides = things.map(|i| (i, i % half * SIDES.len() / half));
        surprise(&Table(embedding.index_select(&self.sides, 0)?), visual, sides)
    }
}

/// Rows of the embedding table as a reader.
struct Table(Tensor);

impl Module for Table {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.0.t()?)
    }
}

/// What two by two patches show together: the thing that most of them show, if any.
fn pooled(labels: &[Label], side: usize) -> Vec<Label> {
    let half = side / 2;
    let token = |i: usize| {
        let (picture, row, column) = (i / (half * half), i / half % half, i % half);
        let first = picture * side * side + 2 * row * side + 2 * column;
        let patches = [first, first + 1, first + side, first + side + 1].map(|at| labels[at]);
        let count = |label: &Label| {
            let alike = patches.iter().filter(|other| *other == label).count();
            (*label != Label::Background, alike)
        };
        patches.into_iter().max_by_key(count).unwrap_or(Label::Background)
    };
    (0..labels.len() / 4).map(token).collect()
}

/// Place of a label's kind among the words for kinds.
fn kind_word(label: Label) -> usize {
    match label {
        Label::Background => 0,
        Label::Door(_) => 1,
        Label::Crate => 2,
        Label::Person => 3,
        Label::Lamp(_) => 4,
        Label::Object(shape, _) => 5 + shape as usize,
    }
}

/// Place of a label's colour or state among the words for them.
fn attribute_word(label: Label) -> Option<usize> {
    match label {
        Label::Background | Label::Crate | Label::Person => None,
        Label::Door(state) => Some(state as usize),
        Label::Lamp(is_on) => Some(DoorState::ALL.len() + usize::from(is_on)),
        Label::Object(_, color) => Some(DoorState::ALL.len() + 2 + color as usize),
    }
}

fn kind(label: Label) -> usize {
    match label {
        Label::Object(shape, _) => 8 + shape as usize,
        other => other.index(),
    }
}

fn color(label: Label) -> Option<usize> {
    match label {
        Label::Object(_, color) => Some(color as usize),
        _ => None,
    }
}

// `kind` counts on the numbers of labels that are no objects.
const _: () = assert!(DoorState::ALL.len() == 3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visual_token_shows_what_most_of_its_patches_show() {
        let mut labels = vec![Label::Background; 32];
        let red = Label::Object(Shape::ALL[0], Color::ALL[0]);
        labels[16 + 5] = Label::Person;
        labels[16 + 6] = red;
        labels[16 + 7] = red;
        labels[16 + 2] = Label::Lamp(true);
        let shown = pooled(&labels, 4);
        assert_eq!(shown[..5], [[Label::Background; 4].as_slice(), &[Label::Person]].concat());
        assert_eq!(shown[5..], [red, Label::Background, Label::Background]);
    }
}
