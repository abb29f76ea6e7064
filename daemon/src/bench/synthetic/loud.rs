//! Channels of the vision tower's residual stream that are a hundred times the others.
//!
//! Trained towers have a few of them from an early block to the last, at a level that is nearly, but
//! not quite, the same for all patches. Arithmetic with few bits has to cope with what they leave to their
//! neighbours.

use std::fmt;

use half::f16;
use kernels::DType;

use super::Synthetic;
use crate::model::vision::VisionConfig;

/// Their level; that of the others is near 1.
const LEVEL: f32 = 100.0;

/// How much more they differ from patch to patch than others do.
const GAIN: f32 = 20.0;

/// How many there are, at most.
const CHANNELS: usize = 8;

/// What the channels of a made-up tower are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tower {
    /// All alike.
    Plain,
    /// Some are a hundred times the median.
    Loud,
}

impl fmt::Display for Tower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Loud => "loud",
        })
    }
}

/// Rows of a tensor that are made louder.
#[derive(Clone, Debug)]
pub(super) enum Loud {
    /// These are multiplied by [`GAIN`].
    Times(Vec<usize>),
    /// [`LEVEL`] is added to these.
    Plus(Vec<usize>),
}

impl Loud {
    /// Makes the rows of a tensor with `rows` rows louder. Only floats are.
    pub(super) fn raise(&self, dtype: DType, rows: usize, bytes: &mut [u8]) {
        let change = |value: f32| match self {
            Self::Times(_) => value * GAIN,
            Self::Plus(_) => value + LEVEL,
        };
        let (Self::Times(which) | Self::Plus(which)) = self;
        let row_bytes = bytes.len() / rows;
        for &row in which {
            let row = &mut bytes[row * row_bytes..][..row_bytes];
            match dtype {
                DType::F16 => row.as_chunks_mut().0.iter_mut().for_each(|number| {
                    *number = f16::from_f32(change(f16::from_le_bytes(*number).to_f32())).to_le_bytes();
                }),
                DType::F32 => row.as_chunks_mut().0.iter_mut().for_each(|number| {
                    *number = change(f32::from_le_bytes(*number)).to_le_bytes();
                }),
                _ => {}
            }
        }
    }
}

impl Synthetic {
    /// The same with loud channels from an early block on.
    pub(super) fn with_loud_channels(mut self, config: &VisionConfig) -> Self {
        let block = config.blocks / 4;
        // The second layer of the MLP, see [`Synthetic::vision`].
        let layer = format!("v.blk.{block}.ffn_up");
        // Far apart and not at the same place of their blocks of 32.
        let channel = |index: usize| (index * 157 + 11) % config.hidden;
        let loud: Vec<usize> = (0..CHANNELS.min(config.hidden / 64)).map(channel).collect();
        self.loud.insert(format!("{layer}.weight"), Loud::Times(loud.clone()));
        self.loud.insert(format!("{layer}.bias"), Loud::Plus(loud));
        self
    }
}
