//! One thread's share of a step.

use std::collections::BTreeMap;
use std::fmt;

use candle_core::{Result, Tensor};
use candle_nn::loss::cross_entropy;
use mobilevlmd::model::tokenizer::Tokenizer;

use super::loss::Auxiliary;
use super::words::Words;
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
    /// With as many captions and questions for each scene.
    pub(super) fn new(dims: &Dims, tokenizer: &'a Tokenizer, texts: (usize, usize)) -> Self {
        let sides = (dims.vision.image, dims.vision.patch);
        Self { examples: Examples::new(tokenizer, sides, texts) }
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
        let sight = batch.see(share.net)?;
        let table = share.words.table(share.net.language.embedding())?;
        let visual = mixed(&batch, &sight.visual, &table, share.words, share.told)?;
        let loss = cross_entropy(&batch.answer(share.net, &visual)?, batch.targets())?;
        let auxiliary = share.auxiliary.loss(&sight.features, &batch.things)?;
        let naming = share.words.loss(&sight.visual, &table, &batch.things)?;
        let total = (&loss + ((&auxiliary + &naming)? * share.weight)?)?;
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
        share: &Share<'_>,
        seeds: impl Iterator<Item = u64>,
        scores: &mut Scores,
    ) -> Result<()> {
        let batch = self.batch(share.dims, share.system, seeds)?;
        let sight = batch.see(share.net)?;
        let table = share.words.table(share.net.language.embedding())?;
        let visual = mixed(&batch, &sight.visual, &table, share.words, share.told)?;
        let got = batch.answer(share.net, &visual)?.argmax(1)?.to_vec1::<u32>()?;
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

/// Visual tokens of a batch, of which those of a share `told` of the pictures are told in words.
fn mixed(batch: &Batch, seen: &Tensor, table: &Tensor, words: &Words, told: f32) -> Result<Tensor> {
    if told <= 0.0 {
        return Ok(seen.clone());
    }
    let per_picture = seen.dim(0)? / batch.pictures;
    let is_told = |chance: &f32| if *chance < told { 1.0 } else { 0.0 };
    let mask = batch.chances.iter().flat_map(|chance| std::iter::repeat_n(is_told(chance), per_picture));
    let mask = Tensor::from_vec(mask.collect::<Vec<f32>>(), (seen.dim(0)?, 1), seen.device())?;
    let words = words.tell(table, &batch.things)?;
    words.broadcast_mul(&mask)? + seen.broadcast_mul(&(1.0 - mask)?)?
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
    /// How much the losses on patches and visual tokens count.
    pub weight: f64,
    /// Words for visual tokens.
    pub words: &'a Words,
    /// Share of the pictures that are told in words.
    pub told: f32,
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
