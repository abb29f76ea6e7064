//! LLaMA: tokens and visual tokens become logits.

use std::ops::Range;

use kernels::{Device, DeviceError, Pairing, Product};

use super::kv_cache::{KvCache, OutOfPages, Sequence};
use super::pass::{Layered, MAX_ROWS, Pass};

/// Numbers of a LLaMA model, as its file has them.
#[derive(Clone, Debug, PartialEq)]
pub struct LanguageConfig {
    /// Entries of the vocabulary.
    pub vocabulary: usize,
    /// Width of a token.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// Width of the feed-forward network.
    pub ffn: usize,
    /// Epsilon of every RMSNorm.
    pub eps: f32,
    /// Base of the rotary embedding.
    pub rope_base: f32,
    /// Which entries rotate together: depends on the file format's row order.
    pub pairing: Pairing,
    /// Positions as trained.
    pub context: usize,
}

/// A product of attention takes as long as this many of a matrix, whose numbers are small integers.
const ATTENTION_COST: f64 = 5.0;

impl LanguageConfig {
    /// What attention to `seen` positions takes, the rest of a row's way through a layer being 1.
    pub fn attention_work(&self, seen: usize) -> f64 {
        let joined = self.heads * self.head_dim;
        let matrices = self.hidden * (2 * joined + 2 * self.kv_heads * self.head_dim + 3 * self.ffn);
        ATTENTION_COST * (2 * joined * seen) as f64 / matrices as f64
    }
}

/// One layer.
pub struct LanguageLayer<D: Device> {
    /// RMSNorm before attention `(1, hidden)`.
    pub attention_norm: D::Tensor,
    /// Queries `(heads * head_dim, hidden)`.
    pub q: D::Matrix,
    /// Keys `(kv_heads * head_dim, hidden)`.
    pub k: D::Matrix,
    /// Values `(kv_heads * head_dim, hidden)`.
    pub v: D::Matrix,
    /// Joins the heads `(hidden, heads * head_dim)`.
    pub out: D::Matrix,
    /// RMSNorm before the feed-forward network `(1, hidden)`.
    pub ffn_norm: D::Tensor,
    /// `(ffn, hidden)`.
    pub gate: D::Matrix,
    /// `(ffn, hidden)`.
    pub up: D::Matrix,
    /// `(hidden, ffn)`.
    pub down: D::Matrix,
}

/// The language model.
pub struct LanguageWeights<D: Device> {
    /// Token embedding `(vocabulary, hidden)`.
    pub embedding: D::Matrix,
    /// The layers in order.
    pub layers: Vec<LanguageLayer<D>>,
    /// Last RMSNorm `(1, hidden)`.
    pub norm: D::Tensor,
    /// Logits `(vocabulary, hidden)`.
    pub head: D::Matrix,
}

impl<D: Device> LanguageWeights<D> {
    /// Bytes of all matrices.
    pub fn bytes(&self, device: &D) -> usize {
        let layer = |layer: &LanguageLayer<D>| {
            let LanguageLayer { q, k, v, out, gate, up, down, .. } = layer;
            [q, k, v, out, gate, up, down].map(|matrix| device.matrix_bytes(matrix)).iter().sum::<usize>()
        };
        let ends = device.matrix_bytes(&self.embedding) + device.matrix_bytes(&self.head);
        ends + self.layers.iter().map(layer).sum::<usize>()
    }
}

/// The language model with its scratch.
pub struct Language<D: Device> {
    config: LanguageConfig,
    weights: LanguageWeights<D>,
    rope: D::Tensor,   // (positions, head_dim)
    normed: D::Tensor, // (rows, hidden)
    q: D::Tensor,      // (rows, heads * head_dim)
    k: D::Tensor,      // (rows, kv_heads * head_dim)
    v: D::Tensor,      // (rows, kv_heads * head_dim)
    mixed: D::Tensor,  // (rows, heads * head_dim)
    gate: D::Tensor,   // (rows, ffn)
    up: D::Tensor,     // (rows, ffn)
    last: D::Tensor,   // (sampled rows, hidden)
    logits: D::Tensor, // (sampled rows, vocabulary)
}

impl<D: Device> Language<D> {
    /// Rows whose logits are computed together at most: eight sequences with drafts of seven tokens.
    pub const MAX_SAMPLED: usize = 64;

    /// Joins weights and scratch for sequences of up to `context` positions. If those are more than
    /// were trained, all are interpolated linearly into the trained ones.
    pub fn new(
        device: &D,
        config: LanguageConfig,
        weights: LanguageWeights<D>,
        context: usize,
    ) -> Result<Self, DeviceError> {
        let rows = MAX_ROWS;
        let (q_width, kv_width) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let mut rope = device.tensor(context, config.head_dim)?;
        let stretch = (context as f32 / config.context as f32).max(1.0);
        device.write(&rope_table(config.rope_base, config.head_dim, context, stretch), &mut rope, 0);
        Ok(Self {
            rope,
            normed: device.tensor(rows, config.hidden)?,
            q: device.tensor(rows, q_width)?,
            k: device.tensor(rows, kv_width)?,
            v: device.tensor(rows, kv_width)?,
            mixed: device.tensor(rows, q_width)?,
            gate: device.tensor(rows, config.ffn)?,
            up: device.tensor(rows, config.ffn)?,
            last: device.tensor(Self::MAX_SAMPLED, config.hidden)?,
            logits: device.tensor(Self::MAX_SAMPLED, config.vocabulary)?,
            config,
            weights,
        })
    }

    /// Numbers of the model.
    pub fn config(&self) -> &LanguageConfig {
        &self.config
    }

    /// Bytes of the matrices that a pass with logits reads: all layers and the head.
    pub fn weight_bytes(&self, device: &D) -> usize {
        let of_layer = |layer: &LanguageLayer<D>| -> usize {
            let LanguageLayer { q, k, v, out, gate, up, down, .. } = layer;
            [q, k, v, out, gate, up, down].map(|matrix| device.matrix_bytes(matrix)).iter().sum()
        };
        self.weights.layers.iter().map(of_layer).sum::<usize>() + device.matrix_bytes(&self.weights.head)
    }

    /// A pass without rows.
    pub fn pass(&self, device: &D) -> Result<Pass<D>, DeviceError> {
        let (context, _) = device.shape(&self.rope);
        let mut pass = Pass::new(device, self.config.hidden, context)?;
        pass.clear(device);
        Ok(pass)
    }

    /// Adds `ids` at the end of `sequence`. Returns the rows of the pass they take.
    pub fn push_tokens(
        &self,
        device: &D,
        cache: &mut KvCache<D>,
        pass: &mut Pass<D>,
        sequence: &mut Sequence,
        ids: &[u32],
    ) -> Result<Range<usize>, OutOfPages> {
        let rows = pass.place(device, cache, sequence, ids.len())?;
        device.embed(&self.weights.embedding, ids, pass.x_mut(), rows.start);
        Ok(rows)
    }

    /// Adds rows `part` of `visual` at the end of `sequence`. Returns the rows of the pass they take.
    pub fn push_visual(
        &self,
        device: &D,
        cache: &mut KvCache<D>,
        pass: &mut Pass<D>,
        sequence: &mut Sequence,
        (visual, part): (&D::Tensor, Range<usize>),
    ) -> Result<Range<usize>, OutOfPages> {
        let rows = pass.place(device, cache, sequence, part.len())?;
        device.copy_rows(visual, part, pass.x_mut(), rows.start);
        Ok(rows)
    }

    /// Takes rows that one push added out of the pass: later rows move down.
    pub fn withdraw(&mut self, device: &D, pass: &mut Pass<D>, rows: Range<usize>) {
        pass.withdraw(device, rows, &mut self.normed);
    }

    /// Layer `index` for all rows of the pass.
    pub fn layer(&mut self, device: &D, cache: &mut KvCache<D>, pass: &mut Pass<D>, index: usize) {
        pass.layered(|rows| self.layer_of(device, cache, rows, index));
    }

    fn layer_of(&mut self, device: &D, cache: &mut KvCache<D>, rows: Layered<'_, D>, index: usize) {
        let LanguageConfig { heads, kv_heads, eps, pairing, .. } = self.config;
        let layer = &self.weights.layers[index];
        let Layered { positions, slots, spans, x } = rows;
        let normed = &mut self.normed;

        device.rms_norm(x, &layer.attention_norm, eps, normed);
        device.matmul_each(
            normed,
            &mut [
                Product { w: &layer.q, bias: None, out: &mut self.q }, // (rows, heads * head_dim)
                Product { w: &layer.k, bias: None, out: &mut self.k }, // (rows, kv_heads * head_dim)
                Product { w: &layer.v, bias: None, out: &mut self.v }, // (rows, kv_heads * head_dim)
            ],
        );
        device.rope(&mut self.q, heads, &self.rope, positions, pairing);
        device.rope(&mut self.k, kv_heads, &self.rope, positions, pairing);
        device.kv_append(cache.arena_mut(), index, &self.k, &self.v, slots);
        device.attend(&self.q, cache.arena(), index, spans, heads, &mut self.mixed);
        device.matmul(&self.mixed, &layer.out, None, normed); // (rows, hidden)
        device.add(x, normed);

        device.rms_norm(x, &layer.ffn_norm, eps, normed);
        device.matmul_each(
            normed,
            &mut [
                Product { w: &layer.gate, bias: None, out: &mut self.gate }, // (rows, ffn)
                Product { w: &layer.up, bias: None, out: &mut self.up },     // (rows, ffn)
            ],
        );
        device.silu_mul(&mut self.gate, &self.up);
        device.matmul(&self.gate, &layer.down, None, normed); // (rows, hidden)
        device.add(x, normed);
    }

    /// Logits `(rows.len(), vocabulary)` of up to [`Self::MAX_SAMPLED`] rows after the last layer.
    pub fn logits(&mut self, device: &D, pass: &Pass<D>, rows: &[usize]) -> &D::Tensor {
        device.set_rows(&mut self.last, rows.len());
        for (to, &row) in rows.iter().enumerate() {
            device.copy_rows(pass.x(), row..row + 1, &mut self.last, to);
        }
        device.rms_norm(&self.last, &self.weights.norm, self.config.eps, &mut self.normed);
        device.matmul(&self.normed, &self.weights.head, None, &mut self.logits);
        &self.logits
    }
}

/// Cosines and sines of every position: rows of `head_dim / 2` cosines, then as many sines. `stretch`
/// positions take the place of one.
///
/// Angles are rounded to f32 before the functions are taken, as the trained models had them.
fn rope_table(base: f32, head_dim: usize, positions: usize, stretch: f32) -> Vec<f32> {
    let half = head_dim / 2;
    let frequencies: Vec<f32> =
        (0..half).map(|i| (1.0 / f64::from(base).powf(2.0 * i as f64 / head_dim as f64)) as f32).collect();
    let mut table = Vec::with_capacity(positions * head_dim);
    for position in 0..positions {
        let place = position as f32 / stretch;
        let angles = frequencies.iter().map(|frequency| f64::from(place * frequency));
        table.extend(angles.clone().map(|angle| angle.cos() as f32));
        table.extend(angles.map(|angle| angle.sin() as f32));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_is_as_much_work_as_all_else_in_the_middle_of_a_long_context() {
        let config = crate::bench::dims::Dims::B1_7.language();
        assert_eq!(config.attention_work(0), 0.0);
        let work = config.attention_work(2500);
        assert!((0.9..1.1).contains(&work), "{work}");
        assert!((config.attention_work(5000) - 2.0 * work).abs() < 1e-9);
    }

    #[test]
    fn interpolated_positions_stand_between_trained_ones() {
        const DIM: usize = 16;
        let trained = rope_table(10_000.0, DIM, 64, 1.0);
        let stretched = rope_table(10_000.0, DIM, 256, 4.0);
        for position in 0..64 {
            let row = |table: &[f32], position: usize| table[position * DIM..][..DIM].to_vec();
            assert_eq!(row(&stretched, 4 * position), row(&trained, position), "position {position}");
        }
        // The fastest pair turns by one per trained position.
        let quarter = &stretched[DIM..][..DIM];
        assert_eq!((quarter[0], quarter[DIM / 2]), (0.25_f64.cos() as f32, 0.25_f64.sin() as f32));
    }
}
