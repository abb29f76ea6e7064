//! Many examples as one matrix of rows.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};

use crate::example::Example;
use crate::net::language::Rows;
use crate::net::{Dims, Net};
use crate::ops::{Rotation, Span};
use crate::thing::Thing;

/// A batch on its way into the networks.
pub struct Batch {
    /// Pictures.
    pub pictures: usize,
    patches: Tensor, // (pictures * patches, 3 * patch * patch)
    ids: Tensor,     // (rows): entries of the embedding table, then visual tokens
    rows: Rows,
    sampled: Tensor, // (targets): rows whose next token is learned
    targets: Tensor, // (targets)
    answers: Vec<Answer>,
    /// What the patches show.
    pub things: Vec<Thing>,
    /// A number from 0 to 1 for every picture.
    pub chances: Vec<f32>,
}

/// One answer among the targets.
pub struct Answer {
    /// What is asked about.
    pub category: &'static str,
    /// Its tokens among the targets.
    pub targets: std::ops::Range<usize>,
}

/// What the tower and the projector make of the pictures of a batch.
pub struct Sight {
    /// Features `(pictures * patches, hidden)`.
    pub features: Tensor,
    /// Visual tokens `(pictures * patches / 4, hidden)`.
    pub visual: Tensor,
}

impl Batch {
    /// Lays out examples; `system` is what stands before every picture.
    pub fn new(dims: &Dims, system: &[u32], examples: &[Example]) -> Result<Self> {
        let device = Device::Cpu;
        let visual = dims.vision.patches() / 4;
        let vocabulary = dims.language.vocabulary;
        let mut layout = Layout::default();
        let (mut patches, mut things) = (Vec::new(), Vec::new());
        for (index, example) in examples.iter().enumerate() {
            let first_visual = (vocabulary + index * visual) as u32;
            let visual_ids = first_visual..first_visual + visual as u32;
            layout.add(system.iter().copied().chain(visual_ids), example);
            patches.extend_from_slice(&example.patches);
            things.extend_from_slice(&example.things);
        }
        let Layout { ids, positions, spans, sampled, targets, answers } = layout;
        let row = 3 * dims.vision.patch * dims.vision.patch;
        Ok(Self {
            pictures: examples.len(),
            patches: Tensor::from_vec(patches, (things.len(), row), &device)?,
            ids: Tensor::new(ids, &device)?,
            rows: Rows {
                rotation: Rotation::new(&positions, dims.language.rope_base),
                spans: Arc::new(spans),
            },
            sampled: Tensor::new(sampled, &device)?,
            targets: Tensor::new(targets, &device)?,
            answers,
            things,
            chances: examples.iter().map(|example| example.chance).collect(),
        })
    }

    /// Looks at the pictures.
    pub fn see(&self, net: &Net) -> Result<Sight> {
        let features = net.vision.forward(&self.patches)?;
        let visual = net.projector.forward(&features)?;
        Ok(Sight { features, visual })
    }

    /// Logits `(targets, vocabulary)` after visual tokens `(pictures * patches / 4, hidden)`.
    pub fn answer(&self, net: &Net, visual: &Tensor) -> Result<Tensor> {
        let x = net.language.forward(&net.language.embed(visual, &self.ids)?, &self.rows)?;
        net.language.logits(&x, &self.sampled)
    }

    /// Tokens to be learned, `(targets)`.
    pub fn targets(&self) -> &Tensor {
        &self.targets
    }

    /// The answers in the order of the targets.
    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }
}

/// Rows under construction.
#[derive(Default)]
struct Layout {
    ids: Vec<u32>,
    positions: Vec<usize>,
    spans: Vec<Span>,
    sampled: Vec<u32>,
    targets: Vec<u32>,
    answers: Vec<Answer>,
}

impl Layout {
    fn add(&mut self, prefix: impl Iterator<Item = u32>, example: &Example) {
        let start = self.ids.len();
        self.ids.extend(prefix);
        let shared = start..self.ids.len();
        self.positions.extend(0..shared.len());
        self.spans.push(Span { shared: 0..0, own: shared.clone(), causal: true });
        for segment in &example.segments {
            let first = self.ids.len();
            // The last token is only a target.
            let inputs = segment.ids.len() - 1;
            self.ids.extend_from_slice(&segment.ids[..inputs]);
            self.positions.extend(shared.len()..shared.len() + inputs);
            self.spans.push(Span { shared: shared.clone(), own: first..first + inputs, causal: true });
            let answer = segment.answer..segment.ids.len();
            let from = self.targets.len();
            self.sampled.extend(answer.clone().map(|at| (first + at - 1) as u32));
            self.targets.extend_from_slice(&segment.ids[answer]);
            self.answers.push(Answer { category: segment.category, targets: from..self.targets.len() });
        }
    }
}
