//! What every tensor is called in GGUF files and in Hugging Face checkpoints, and its shape.

use std::collections::HashMap;

use crate::model::files::{ProjectorKind, TensorStore};
use crate::model::language::LanguageConfig;
use crate::model::vision::VisionConfig;

/// Names and shapes (outermost first) of the tensors a part of the model needs.
///
/// Extents of one are written only where they carry meaning: they are ignored when a stored shape is
/// compared, since some converters squeeze them away.
pub type Shapes = HashMap<String, Vec<usize>>;

/// Names of the vision tower. Fields without `.weight` are prefixes of a weight and a bias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VisionNames {
    root: &'static str,
    patch: &'static str,
    class: &'static str,
    positions: &'static str,
    pre_norm: &'static str,
    blocks: &'static str,
    block: VisionBlockNames,
}

/// Prefixes inside one vision block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VisionBlockNames {
    /// Norm before attention.
    pub norm1: &'static str,
    /// Queries.
    pub q: &'static str,
    /// Keys.
    pub k: &'static str,
    /// Values.
    pub v: &'static str,
    /// Joins the heads.
    pub out: &'static str,
    /// Norm before the MLP.
    pub norm2: &'static str,
    /// Widens.
    pub fc1: &'static str,
    /// Narrows.
    pub fc2: &'static str,
}

const GGUF_VISION: VisionNames = VisionNames {
    root: "v.",
    patch: "patch_embd.weight",
    class: "class_embd",
    positions: "position_embd.weight",
    pre_norm: "pre_ln",
    blocks: "blk",
    block: VisionBlockNames {
        norm1: "ln1",
        q: "attn_q",
        k: "attn_k",
        v: "attn_v",
        out: "attn_out",
        norm2: "ln2",
        fc1: "ffn_up",
        fc2: "ffn_down",
    },
};

const HUGGING_FACE_VISION: VisionNames = VisionNames {
    root: "vision_model.",
    patch: "embeddings.patch_embedding.weight",
    class: "embeddings.class_embedding",
    positions: "embeddings.position_embedding.weight",
    pre_norm: "pre_layrnorm",
    blocks: "encoder.layers",
    block: VisionBlockNames {
        norm1: "layer_norm1",
        q: "self_attn.q_proj",
        k: "self_attn.k_proj",
        v: "self_attn.v_proj",
        out: "self_attn.out_proj",
        norm2: "layer_norm2",
        fc1: "mlp.fc1",
        fc2: "mlp.fc2",
    },
};

/// Where a MobileVLM checkpoint keeps its own vision weights.
const INSIDE: &str = "model.vision_tower.vision_tower.vision_model.";

/// Whether an mmproj file has the names of the converter that swapped the matrices of the MLP.
fn is_swapped(store: &dyn TensorStore, config: &VisionConfig) -> bool {
    let shape = store.info("v.blk.0.ffn_down.weight").map(|(_, shape)| shape);
    shape == Some(vec![config.mlp, config.hidden])
}

/// Whether an mmproj file was written without the last block, by the converter that swapped names.
pub fn is_truncated_tower(store: &dyn TensorStore, config: &VisionConfig) -> bool {
    is_swapped(store, config) && store.info("v.post_ln.weight").is_none()
}

/// Width of the vision weights that a checkpoint holds itself, if it does.
pub fn width_inside(store: &dyn TensorStore) -> Option<usize> {
    let (_, shape) = store.info(&VisionNames::inside().class())?;
    shape.last().copied()
}

impl VisionNames {
    /// Names in an mmproj file, which may have the matrices of the MLP swapped.
    pub fn gguf(store: &dyn TensorStore, config: &VisionConfig) -> Self {
        let mut names = GGUF_VISION;
        if is_swapped(store, config) {
            std::mem::swap(&mut names.block.fc1, &mut names.block.fc2);
        }
        names
    }

    /// Names in the directory of a CLIP tower.
    pub fn tower() -> Self {
        HUGGING_FACE_VISION
    }

    /// Names in a MobileVLM checkpoint.
    pub fn inside() -> Self {
        Self { root: INSIDE, ..HUGGING_FACE_VISION }
    }

    /// Patch embedding.
    pub fn patch(&self) -> String {
        format!("{}{}", self.root, self.patch)
    }

    /// Class vector.
    pub fn class(&self) -> String {
        format!("{}{}", self.root, self.class)
    }

    /// Position table.
    pub fn positions(&self) -> String {
        format!("{}{}", self.root, self.positions)
    }

    /// Prefix of the norm before the first block.
    pub fn pre_norm(&self) -> String {
        format!("{}{}", self.root, self.pre_norm)
    }

    /// Prefix of `part` of a block.
    pub fn block(&self, index: usize, part: impl Fn(&VisionBlockNames) -> &'static str) -> String {
        format!("{}{}.{index}.{}", self.root, self.blocks, part(&self.block))
    }

    /// All that is needed to run the tower.
    pub fn shapes(&self, config: &VisionConfig) -> Shapes {
        let VisionConfig { hidden, mlp, patch, .. } = *config;
        let mut shapes = Shapes::new();
        shapes.insert(self.patch(), vec![hidden, 3, patch, patch]);
        shapes.insert(self.class(), vec![hidden]);
        shapes.insert(self.positions(), vec![config.patches() + 1, hidden]);
        norm(&mut shapes, self.pre_norm(), hidden);
        for index in 0..config.blocks {
            norm(&mut shapes, self.block(index, |block| block.norm1), hidden);
            linear(&mut shapes, self.block(index, |block| block.q), hidden, hidden);
            linear(&mut shapes, self.block(index, |block| block.k), hidden, hidden);
            linear(&mut shapes, self.block(index, |block| block.v), hidden, hidden);
            linear(&mut shapes, self.block(index, |block| block.out), hidden, hidden);
            norm(&mut shapes, self.block(index, |block| block.norm2), hidden);
            linear(&mut shapes, self.block(index, |block| block.fc1), mlp, hidden);
            linear(&mut shapes, self.block(index, |block| block.fc2), hidden, mlp);
        }
        shapes
    }
}

/// Names of the projector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectorNames {
    kind: ProjectorKind,
    mlp: &'static str,
    /// LDP: prefix of the bottleneck blocks. LDPv2: prefix of the depthwise convolution.
    rest: &'static str,
}

impl ProjectorNames {
    /// Names in an mmproj file.
    pub fn gguf(kind: ProjectorKind) -> Self {
        let rest = match kind {
            ProjectorKind::Ldp => "mm.model.mb_block",
            ProjectorKind::LdpV2 => "mm.model.peg.0",
        };
        Self { kind, mlp: "mm.model.mlp", rest }
    }

    /// Names in a MobileVLM checkpoint.
    pub fn hugging_face(kind: ProjectorKind) -> Self {
        let (mlp, rest) = match kind {
            ProjectorKind::Ldp => ("model.mm_projector.model.mlp", "model.mm_projector.model.mb_block"),
            ProjectorKind::LdpV2 => ("model.mm_projector.mlp.mlp", "model.mm_projector.peg.peg.0"),
        };
        Self { kind, mlp, rest }
    }

    /// Prefix of the first linear layer.
    pub fn mlp1(&self) -> String {
        match self.kind {
            ProjectorKind::Ldp => format!("{}.1", self.mlp),
            ProjectorKind::LdpV2 => format!("{}.0", self.mlp),
        }
    }

    /// Prefix of the second linear layer.
    pub fn mlp2(&self) -> String {
        match self.kind {
            ProjectorKind::Ldp => format!("{}.3", self.mlp),
            ProjectorKind::LdpV2 => format!("{}.2", self.mlp),
        }
    }

    /// LDPv2: prefix of the depthwise convolution.
    pub fn peg(&self) -> String {
        self.rest.to_owned()
    }

    /// LDP: names of bottleneck block 0 or 1.
    pub fn bottleneck(&self, index: usize) -> BottleneckNames {
        BottleneckNames { root: format!("{}.{}.block", self.rest, index + 1) }
    }

    /// All that is needed to run the projector from `vision` to `hidden` channels. The width of the
    /// squeeze is whatever `store` has.
    pub fn shapes(&self, store: &dyn TensorStore, vision: usize, hidden: usize) -> Shapes {
        let mut shapes = Shapes::new();
        linear(&mut shapes, self.mlp1(), hidden, vision);
        linear(&mut shapes, self.mlp2(), hidden, hidden);
        match self.kind {
            ProjectorKind::Ldp => {
                for index in 0..2 {
                    self.bottleneck(index).shapes(&mut shapes, store, hidden);
                }
            }
            ProjectorKind::LdpV2 => {
                shapes.insert(weight(&self.peg()), vec![hidden, 1, 3, 3]);
                shapes.insert(bias(&self.peg()), vec![hidden]);
            }
        }
        shapes
    }
}

/// Names inside one bottleneck block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BottleneckNames {
    root: String,
}

impl BottleneckNames {
    /// Depthwise kernel.
    pub fn depthwise(&self) -> String {
        format!("{}.0.0.weight", self.root)
    }

    /// Prefix of the norm after it.
    pub fn norm1(&self) -> String {
        format!("{}.0.1", self.root)
    }

    /// Prefix of the squeeze.
    pub fn squeeze(&self) -> String {
        format!("{}.1.fc1", self.root)
    }

    /// Prefix of the excitation.
    pub fn excite(&self) -> String {
        format!("{}.1.fc2", self.root)
    }

    /// Pointwise convolution.
    pub fn pointwise(&self) -> String {
        format!("{}.2.0.weight", self.root)
    }

    /// Prefix of the norm after it.
    pub fn norm2(&self) -> String {
        format!("{}.2.1", self.root)
    }

    fn shapes(&self, shapes: &mut Shapes, store: &dyn TensorStore, hidden: usize) {
        let stored = store.info(&bias(&self.squeeze())).and_then(|(_, shape)| shape.first().copied());
        let squeeze = stored.unwrap_or(0).max(1);
        shapes.insert(self.depthwise(), vec![hidden, 1, 3, 3]);
        norm(shapes, self.norm1(), hidden);
        linear(shapes, self.squeeze(), squeeze, hidden);
        linear(shapes, self.excite(), hidden, squeeze);
        shapes.insert(self.pointwise(), vec![hidden, hidden]);
        norm(shapes, self.norm2(), hidden);
    }
}

/// Names of the language model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanguageNames {
    /// Token embedding.
    pub embedding: &'static str,
    /// Last norm.
    pub norm: &'static str,
    /// Logits.
    pub head: &'static str,
    layers: &'static str,
    layer: LayerNames,
}

/// Names inside one language layer, each followed by `.weight`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerNames {
    /// Norm before attention.
    pub attention_norm: &'static str,
    /// Queries.
    pub q: &'static str,
    /// Keys.
    pub k: &'static str,
    /// Values.
    pub v: &'static str,
    /// Joins the heads.
    pub out: &'static str,
    /// Norm before the feed-forward network.
    pub ffn_norm: &'static str,
    /// Gate.
    pub gate: &'static str,
    /// Widens.
    pub up: &'static str,
    /// Narrows.
    pub down: &'static str,
}

impl LanguageNames {
    /// Names in a text GGUF.
    pub const GGUF: Self = Self {
        embedding: "token_embd.weight",
        norm: "output_norm.weight",
        head: "output.weight",
        layers: "blk",
        layer: LayerNames {
            attention_norm: "attn_norm",
            q: "attn_q",
            k: "attn_k",
            v: "attn_v",
            out: "attn_output",
            ffn_norm: "ffn_norm",
            gate: "ffn_gate",
            up: "ffn_up",
            down: "ffn_down",
        },
    };

    /// Names in a MobileVLM checkpoint.
    pub const HUGGING_FACE: Self = Self {
        embedding: "model.embed_tokens.weight",
        norm: "model.norm.weight",
        head: "lm_head.weight",
        layers: "model.layers",
        layer: LayerNames {
            attention_norm: "input_layernorm",
            q: "self_attn.q_proj",
            k: "self_attn.k_proj",
            v: "self_attn.v_proj",
            out: "self_attn.o_proj",
            ffn_norm: "post_attention_layernorm",
            gate: "mlp.gate_proj",
            up: "mlp.up_proj",
            down: "mlp.down_proj",
        },
    };

    /// `part` of a layer.
    pub fn layer(&self, index: usize, part: impl Fn(&LayerNames) -> &'static str) -> String {
        format!("{}.{index}.{}.weight", self.layers, part(&self.layer))
    }

    /// All that is needed to run the language model.
    pub fn shapes(&self, config: &LanguageConfig) -> Shapes {
        let LanguageConfig { vocabulary, hidden, ffn, head_dim, .. } = *config;
        let (heads, kv_heads) = (config.heads * head_dim, config.kv_heads * head_dim);
        let mut shapes = Shapes::new();
        shapes.insert(self.embedding.into(), vec![vocabulary, hidden]);
        shapes.insert(self.norm.into(), vec![hidden]);
        shapes.insert(self.head.into(), vec![vocabulary, hidden]);
        for index in 0..config.layers {
            shapes.insert(self.layer(index, |layer| layer.attention_norm), vec![hidden]);
            shapes.insert(self.layer(index, |layer| layer.q), vec![heads, hidden]);
            shapes.insert(self.layer(index, |layer| layer.k), vec![kv_heads, hidden]);
            shapes.insert(self.layer(index, |layer| layer.v), vec![kv_heads, hidden]);
            shapes.insert(self.layer(index, |layer| layer.out), vec![hidden, heads]);
            shapes.insert(self.layer(index, |layer| layer.ffn_norm), vec![hidden]);
            shapes.insert(self.layer(index, |layer| layer.gate), vec![ffn, hidden]);
            shapes.insert(self.layer(index, |layer| layer.up), vec![ffn, hidden]);
            shapes.insert(self.layer(index, |layer| layer.down), vec![hidden, ffn]);
        }
        shapes
    }
}

/// The weight under a prefix.
pub fn weight(prefix: &str) -> String {
    format!("{prefix}.weight")
}

/// The bias under a prefix.
pub fn bias(prefix: &str) -> String {
    format!("{prefix}.bias")
}

fn linear(shapes: &mut Shapes, prefix: String, outputs: usize, inputs: usize) {
    shapes.insert(weight(&prefix), vec![outputs, inputs]);
    shapes.insert(bias(&prefix), vec![outputs]);
}

fn norm(shapes: &mut Shapes, prefix: String, width: usize) {
    shapes.insert(weight(&prefix), vec![width]);
    shapes.insert(bias(&prefix), vec![width]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_formats() {
        let inside = VisionNames::inside();
        assert_eq!(
            inside.block(3, |block| block.fc1),
            "model.vision_tower.vision_tower.vision_model.encoder.layers.3.mlp.fc1"
        );
        assert_eq!(VisionNames::tower().pre_norm(), "vision_model.pre_layrnorm");
        assert_eq!(GGUF_VISION.block(0, |block| block.out), "v.blk.0.attn_out");
        let ldp = ProjectorNames::hugging_face(ProjectorKind::Ldp);
        assert_eq!(ldp.mlp2(), "model.mm_projector.model.mlp.3");
        assert_eq!(ldp.bottleneck(1).depthwise(), "model.mm_projector.model.mb_block.2.block.0.0.weight");
        assert_eq!(ProjectorNames::gguf(ProjectorKind::LdpV2).peg(), "mm.model.peg.0");
        assert_eq!(LanguageNames::GGUF.layer(1, |layer| layer.out), "blk.1.attn_output.weight");
        assert_eq!(
            LanguageNames::HUGGING_FACE.layer(0, |layer| layer.gate),
            "model.layers.0.mlp.gate_proj.weight"
        );
    }
}
