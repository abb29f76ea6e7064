//! What is minimized: surprise at the answers, and at what the patches show.

use candle_core::{Device, Result, Tensor};
use candle_nn::{Linear, Module, VarBuilder, linear, loss::cross_entropy};
use mobilevlmd::camera::world::{Color, DoorState, Label, Shape};

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
    reader: &Linear,
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
