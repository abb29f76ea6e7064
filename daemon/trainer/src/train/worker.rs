//! One thread's share of a step.

use std::collections::BTreeMap;
use std::fmt;

use candle_core::{Result, Tensor};
use candle_nn::loss::cross_entropy;
use mobilevlmd::model::tokenizer::Tokenizer;

use super::loss::{Auxiliary, Naming};
use crate::batch::Batch;
use crate::example::{Example, Examples};
use crate::net::{Dims, Net};

/// Draws examples and computes on them.
pub(super) struct Worker<'a> {
    examples: Examples<'a>,
}

/// Losses and derivatives of some examples.
#[derive(Default)]
pub(super) struct Gradients {
    /// Mean surprise at a token of the answers.
    pub loss: f32,
    /// Mean surprise at a patch.
    pub auxiliary: f32,
    /// Mean surprise at the words for a visual token.
    pub naming: f32,
    /// One list of numbers per parameter.
    pub grads: Vec<Vec<f32>>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(dims: &Dims, tokenizer: &'a Tokenizer, questions: usize) -> Self {
        let (image, patch) = (dims.vision.image, dims.vision.patch);
        Self { examples: Examples::new(tokenizer, image, patch, questions) }
    }

    fn batch(&mut self, dims: &Dims, system: &[u32], seeds: impl Iterator<Item = u64>) -> Result<Batch> {
        let examples: Vec<Example> = seeds.map(|seed| self.examples.draw(seed)).collect();
        Batch::new(dims, system, &examples)
    }

    /// Losses and derivatives on the scenes `seeds`.
    pub(super) fn gradients(
        &mut self,
        share: &Share<'_>,
        seeds: impl Iterator<Item = u64>,
    ) -> Result<Gradients> {
        let batch = self.batch(share.dims, share.system, seeds)?;
        let forward = batch.forward(share.net)?;
        let loss = cross_entropy(&forward.logits, batch.targets())?;
        let auxiliary = share.auxiliary.loss(&forward.features, &batch.labels)?;
        let (table, side) = (share.net.language.embedding(), share.dims.vision.side());
        let naming = share.naming.loss(&forward.visual, table, &batch.labels, side)?;
        let mut total = ((&loss + (&auxiliary * share.weight)?)? + (&naming * share.naming_weight)?)?;
        if share.places_weight > 0.0 {
            let places = share.naming.places(&forward.visual, table, &batch.labels, side)?;
            total = (total + (places * share.places_weight)?)?;
        }
        let store = total.backward()?;
        let numbers = |var: &Tensor| match store.get(var) {
            Some(grad) => grad.flatten_all()?.to_vec1(),
            None => Ok(vec![0.0; var.elem_count()]),
        };
        Ok(Gradients {
            loss: loss.to_scalar()?,
            auxiliary: auxiliary.to_scalar()?,
            naming: naming.to_scalar()?,
            grads: share.vars.iter().map(numbers).collect::<Result<_>>()?,
        })
    }

    /// Counts which answers on the scenes `seeds` have every token most probable.
    pub(super) fn score(
        &mut self,
        dims: &Dims,
        system: &[u32],
        net: &Net,
        seeds: impl Iterator<Item = u64>,
        scores: &mut Scores,
    ) -> Result<()> {
        let batch = self.batch(dims, system, seeds)?;
        let got = batch.forward(net)?.logits.argmax(1)?.to_vec1::<u32>()?;
        let want = batch.targets().to_vec1::<u32>()?;
        for answer in batch.answers() {
            let is_right = got[answer.targets.clone()] == want[answer.targets.clone()];
            let (right, all) = scores.0.entry(answer.category).or_default();
            *right += u32::from(is_right);
            *all += 1;
        }
        Ok(())
    }
}

/// What all threads of a step share.
pub(super) struct Share<'a> {
    /// The numbers of the model.
    pub dims: &'a Dims,
    /// Tokens before every picture.
    pub system: &'a [u32],
    /// The networks.
    pub net: &'a Net,
    /// Readers of patches.
    pub auxiliary: &'a Auxiliary,
    /// How much the loss on patches counts.
    pub weight: f64,
    /// Words for visual tokens.
    pub naming: &'a Naming,
    /// How much the loss on them counts.
    pub naming_weight: f64,
    /// How much the loss on words for places counts.
    pub places_weight: f64,
    /// The parameters.
    pub vars: &'a [Tensor],
}

impl Gradients {
    /// Adds another share.
    pub(super) fn add(&mut self, other: Gradients) {
        self.loss += other.loss;
        self.auxiliary += other.auxiliary;
        self.naming += other.naming;
        if self.grads.is_empty() {
            self.grads = other.grads;
            return;
        }
        for (sum, grad) in self.grads.iter_mut().zip(&other.grads) {
            sum.iter_mut().zip(grad).for_each(|(sum, grad)| *sum += grad);
        }
    }

    /// Multiplies everything.
    pub(super) fn scale(&mut self, by: f32) {
        self.loss *= by;
        self.auxiliary *= by;
        self.naming *= by;
        self.grads.iter_mut().flatten().for_each(|grad| *grad *= by);
    }
}

/// Right answers and all answers, by category.
#[derive(Default)]
pub(super) struct Scores(BTreeMap<&'static str, (u32, u32)>);

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (category, (right, all))) in self.0.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            let percent = 100.0 * f64::from(*right) / f64::from((*all).max(1));
            write!(f, "{comma}{category} {percent:.0}")?;
        }
        Ok(())
    }
}
