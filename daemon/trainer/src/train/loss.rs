//! What is minimized beside surprise at the answers: surprise at what patches show.

use candle_core::{Device, Result, Tensor};
use candle_nn::{Init, VarBuilder, loss::cross_entropy};
use mobilevlmd::camera::world::{Color, DoorState, Label, Shape};

use crate::thing::Thing;

/// Of the patches that show nothing, one in this many is learned from.
const BACKGROUND: usize = 6;

/// Kinds of things a patch can show.
const KINDS: usize = 8 + Shape::ALL.len();

/// Reads off features what a patch shows. It is used in training only.
pub(super) struct Auxiliary {
    kind: Tensor,  // (kinds, hidden)
    color: Tensor, // (colours, hidden)
}

impl Auxiliary {
    pub(super) fn new(hidden: usize, parameters: &VarBuilder) -> Result<Self> {
        let init = Init::Randn { mean: 0.0, stdev: 1.0 / (hidden as f64).sqrt() };
        let table = |name, classes| parameters.get_with_hints((classes, hidden), name, init);
        Ok(Self { kind: table("kind.weight", KINDS)?, color: table("color.weight", Color::ALL.len())? })
    }

    /// The loss of features `(patches, hidden)` that show `things`.
    pub(super) fn loss(&self, features: &Tensor, things: &[Thing]) -> Result<Tensor> {
        let is_learned = |i: &usize| things[*i].is_there() || i.is_multiple_of(BACKGROUND);
        let kinds = (0..things.len()).filter(is_learned).map(|i| (i, kind(things[i].label)));
        let colors = (0..things.len()).filter_map(|i| Some((i, color(things[i].label)?)));
        let kind = surprise(&features.matmul(&self.kind.t()?)?, kinds)?;
        kind + surprise(&features.matmul(&self.color.t()?)?, colors)?
    }
}

/// Mean surprise at the classes wanted of some rows of `logits` `(rows, classes)`.
pub(super) fn surprise(logits: &Tensor, wanted: impl Iterator<Item = (usize, usize)>) -> Result<Tensor> {
    let (rows, classes): (Vec<u32>, Vec<u32>) = wanted.map(|(row, class)| (row as u32, class as u32)).unzip();
    if rows.is_empty() {
        return Tensor::new(0f32, &Device::Cpu);
    }
    let logits = logits.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?;
    cross_entropy(&logits, &Tensor::new(classes, &Device::Cpu)?)
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
