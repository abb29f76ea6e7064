//! Made-up models at real dimensions: seeded, the same on every machine, never wholly in memory.
//!
//! A tensor is a function of the seed and its name, and is made when it is asked for. Spreads are
//! chosen so that activations stay near 1 from layer to layer.

mod blocks;
mod loud;
mod file_type;
mod pair;
mod vocabulary;

use std::borrow::Cow;
use std::collections::HashMap;

use kernels::DType;

use crate::model::files::{ModelError, ProjectorKind, RawTensor, TensorStore};
use crate::model::language::LanguageConfig;
use crate::model::vision::VisionConfig;

use super::dims::squeeze_width;
use loud::Loud;

pub use file_type::FileType;
pub use loud::Tower;
pub use pair::{PairError, Recipe};
pub use vocabulary::vocabulary;

/// A tensor to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// Name as in a GGUF file.
    pub name: String,
    /// Type of the numbers.
    pub dtype: DType,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Mean of the numbers.
    mean: f32,
    /// Their root mean square distance from it.
    spread: f32,
}

impl Planned {
    /// Bytes of the tensor.
    pub fn bytes(&self) -> usize {
        let numbers: usize = self.shape.iter().product();
        numbers / self.dtype.block_len() * self.dtype.block_bytes()
    }
}

/// The tensors of one made-up file.
#[derive(Clone, Debug)]
pub struct Synthetic {
    place: &'static str,
    seed: u64,
    planned: Vec<Planned>,
    places: HashMap<String, usize>,
    /// Tensors with rows that are louder than the others.
    loud: HashMap<String, Loud>,
}

impl Synthetic {
    /// The language model, as a `llama` file of type `file_type` holds it.
    pub fn text(config: &LanguageConfig, file_type: FileType, seed: u64) -> Self {
        let LanguageConfig { vocabulary, hidden, layers, heads, kv_heads, head_dim, ffn, .. } = *config;
        let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let base = file_type.base();
        let mut plan = Plan::default();
        // Tokens enter the residual stream with spread 1.
        plan.push("token_embd.weight", base, &[vocabulary, hidden], 0.0, 1.0);
        for index in 0..layers {
            let name = |part: &str| format!("blk.{index}.{part}.weight");
            let more = file_type.more_bits(index, layers);
            plan.matrix(name("attn_q"), base, q_width, hidden);
            plan.matrix(name("attn_k"), base, kv_width, hidden);
            plan.matrix(name("attn_v"), more, kv_width, hidden);
            plan.matrix(name("attn_output"), base, hidden, q_width);
            plan.matrix(name("ffn_gate"), base, ffn, hidden);
            plan.matrix(name("ffn_up"), base, ffn, hidden);
            plan.matrix(name("ffn_down"), more, hidden, ffn);
            plan.scale(name("attn_norm"), hidden);
            plan.scale(name("ffn_norm"), hidden);
        }
        plan.scale("output_norm.weight", hidden);
        plan.matrix("output.weight", file_type.head(), vocabulary, hidden);
        plan.finish("the synthetic language model", seed)
    }

    /// Vision tower and projector, as a legacy `clip` file holds them: matrices of type `dtype`,
    /// `hidden` the width of the language model.
    pub fn mmproj(
        config: &VisionConfig,
        kind: ProjectorKind,
        hidden: usize,
        dtype: DType,
        seed: u64,
    ) -> Self {
        let mut plan = Plan::default();
        match kind {
            ProjectorKind::Ldp => plan.ldp(config.hidden, hidden, dtype),
            ProjectorKind::LdpV2 => plan.ldp_v2(config.hidden, hidden, dtype),
        }
        plan.vision(config, dtype);
        plan.finish("the synthetic vision tower", seed)
    }

    /// The tensors in the order of a file.
    pub fn planned(&self) -> &[Planned] {
        &self.planned
    }
}

impl TensorStore for Synthetic {
    fn place(&self) -> String {
        self.place.into()
    }

    fn info(&self, name: &str) -> Option<(DType, Vec<usize>)> {
        let planned = &self.planned[*self.places.get(name)?];
        Some((planned.dtype, planned.shape.clone()))
    }

    fn tensor(&self, name: &str) -> Result<RawTensor<'_>, ModelError> {
        let Some(&place) = self.places.get(name) else {
            return Err(ModelError::MissingTensor { place: self.place(), tensor: name.into() });
        };
        let planned = &self.planned[place];
        let seed = blocks::seed_of(self.seed, name);
        let mut bytes = vec![0; planned.bytes()];
        blocks::fill(&mut bytes, planned.dtype, seed, planned.mean, planned.spread);
        if let Some(loud) = self.loud.get(name) {
            loud.raise(planned.dtype, planned.shape[0], &mut bytes);
        }
        Ok(RawTensor { dtype: planned.dtype, shape: planned.shape.clone(), bytes: Cow::Owned(bytes) })
    }

    fn names(&self) -> Vec<String> {
        self.planned.iter().map(|planned| planned.name.clone()).collect()
    }
}

/// Collects the tensors of a file.
#[derive(Default)]
struct Plan {
    planned: Vec<Planned>,
}

impl Plan {
    fn push(&mut self, name: impl Into<String>, dtype: DType, shape: &[usize], mean: f32, spread: f32) {
        self.planned.push(Planned { name: name.into(), dtype, shape: shape.to_vec(), mean, spread });
    }

    /// A matrix that keeps the spread of what it is applied to.
    fn matrix(&mut self, name: impl Into<String>, dtype: DType, rows: usize, cols: usize) {
        self.push(name, dtype, &[rows, cols], 0.0, 1.0 / (cols as f32).sqrt());
    }

    /// Weights of a norm.
    fn scale(&mut self, name: impl Into<String>, len: usize) {
        self.push(name, DType::F32, &[len], 1.0, 0.1);
    }

    /// Biases.
    fn shift(&mut self, name: impl Into<String>, len: usize) {
        self.push(name, DType::F32, &[len], 0.0, 0.02);
    }

    fn linear(&mut self, name: &str, dtype: DType, rows: usize, cols: usize) {
        self.matrix(format!("{name}.weight"), dtype, rows, cols);
        self.shift(format!("{name}.bias"), rows);
    }

    fn norm(&mut self, name: &str, len: usize) {
        self.scale(format!("{name}.weight"), len);
        self.shift(format!("{name}.bias"), len);
    }

    fn depthwise(&mut self, name: String, channels: usize) {
        self.push(name, DType::F16, &[channels, 3, 3], 0.0, 1.0 / 3.0);
    }

    fn ldp(&mut self, vision: usize, hidden: usize, dtype: DType) {
        self.linear("mm.model.mlp.1", dtype, hidden, vision);
        self.linear("mm.model.mlp.3", dtype, hidden, hidden);
        let squeeze = squeeze_width(hidden);
        for block in [1, 2] {
            let name = |part: &str| format!("mm.model.mb_block.{block}.block.{part}");
            self.depthwise(name("0.0.weight"), hidden);
            self.norm(&name("0.1"), hidden);
            self.linear(&name("1.fc1"), dtype, squeeze, hidden);
            self.linear(&name("1.fc2"), dtype, hidden, squeeze);
            self.matrix(name("2.0.weight"), dtype, hidden, hidden);
            self.norm(&name("2.1"), hidden);
        }
    }

    fn ldp_v2(&mut self, vision: usize, hidden: usize, dtype: DType) {
        self.linear("mm.model.mlp.0", dtype, hidden, vision);
        self.linear("mm.model.mlp.2", dtype, hidden, hidden);
        self.depthwise("mm.model.peg.0.weight".into(), hidden);
        self.shift("mm.model.peg.0.bias", hidden);
    }

    fn vision(&mut self, config: &VisionConfig, dtype: DType) {
        let VisionConfig { hidden, blocks, mlp, patch, .. } = *config;
        self.push("v.class_embd", DType::F32, &[hidden], 0.0, 0.5);
        let spread = 1.0 / (3.0 * (patch * patch) as f32).sqrt();
        self.push("v.patch_embd.weight", DType::F16, &[hidden, 3, patch, patch], 0.0, spread);
        self.push("v.position_embd.weight", dtype, &[1 + config.patches(), hidden], 0.0, 0.2);
        self.norm("v.pre_ln", hidden);
        for index in 0..blocks {
            let name = |part: &str| format!("v.blk.{index}.{part}");
            for part in ["attn_k", "attn_v", "attn_q", "attn_out"] {
                self.linear(&name(part), dtype, hidden, hidden);
            }
            self.norm(&name("ln1"), hidden);
            // Legacy files call the first layer of the MLP `ffn_down` and the second `ffn_up`.
            self.linear(&name("ffn_down"), dtype, mlp, hidden);
            self.linear(&name("ffn_up"), dtype, hidden, mlp);
            self.norm(&name("ln2"), hidden);
        }
    }

    fn finish(self, place: &'static str, seed: u64) -> Synthetic {
        let places = self.planned.iter().enumerate().map(|(i, planned)| (planned.name.clone(), i)).collect();
        Synthetic { place, seed, planned: self.planned, places, loud: HashMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::dims::{Dims, projector_parameters};

    /// Bytes of everything but the embedding table, of which a token reads one row.
    fn read_per_token(file_type: &str) -> f64 {
        let text = Synthetic::text(&Dims::B1_7.language(), file_type.parse().unwrap(), 1);
        let all: usize = text.planned().iter().map(Planned::bytes).sum();
        (all - text.planned()[0].bytes()) as f64 / 1e6
    }

    #[test]
    fn a_token_reads_the_known_bytes() {
        for (file_type, megabytes) in [("q4_0", 748.0), ("q4_k_m", 797.0), ("q8_0", 1380.0), ("f16", 2598.0)]
        {
            let got = read_per_token(file_type);
            assert!((got - megabytes).abs() < 1.0, "{file_type}: {got} MB");
        }
    }

    #[test]
    fn files_have_the_published_number_of_tensors() {
        let (vision, language) = (Dims::B1_7.vision(), Dims::B1_7.language());
        let text = Synthetic::text(&language, FileType::Q4_K_M, 1);
        assert_eq!(text.planned().len(), 219);
        for (kind, count) in [(ProjectorKind::Ldp, 397), (ProjectorKind::LdpV2, 379)] {
            let mmproj = Synthetic::mmproj(&vision, kind, language.hidden, DType::F16, 1);
            assert_eq!(mmproj.planned().len(), count);
            let projector = mmproj.planned().iter().filter(|planned| planned.name.starts_with("mm."));
            let numbers: usize = projector.map(|planned| planned.shape.iter().product::<usize>()).sum();
            assert_eq!(numbers as u64, projector_parameters(kind, &vision, language.hidden));
        }
    }

    #[test]
    fn a_tensor_is_a_function_of_seed_and_name() {
        let make = |seed| Synthetic::text(&Dims::Tiny.language(), FileType::Q4_K_M, seed);
        let bytes = |store: &Synthetic, name: &str| store.tensor(name).unwrap().bytes.into_owned();
        let (one, again, other) = (make(1), make(1), make(2));
        for name in one.names() {
            assert_eq!(bytes(&one, &name), bytes(&again, &name), "{name}");
            assert_ne!(bytes(&one, &name), bytes(&other, &name), "{name}");
        }
        assert_ne!(bytes(&one, "blk.0.ffn_gate.weight"), bytes(&one, "blk.0.ffn_up.weight"));
        assert_ne!(bytes(&one, "blk.0.ffn_gate.weight"), bytes(&one, "blk.1.ffn_gate.weight"));
        assert!(one.info("blk.2.ffn_gate.weight").is_none());
        assert!(one.tensor("blk.2.ffn_gate.weight").is_err());
    }
}
