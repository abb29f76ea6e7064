//! Where learning begins: random numbers that are the same on every run, heads that look for what is
//! like themselves, and positions that are waves.
//!
//! Half of the heads begin with equal matrices for queries and keys, so that rows attend to rows like
//! them (Trockman and Kolter, "Mimetic Initialization of Self-Attention Layers", 2023): patches to
//! their neighbours, words to visual tokens that resemble them.

use std::f32::consts::TAU;

use candle_core::{DType, Device, Error, Result, Shape, Tensor, Var};
use candle_nn::{Init, VarBuilder, VarMap, var_builder::SimpleBackend};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::ops::HEAD_DIM;

/// Makes parameters on demand and keeps them in a [`VarMap`].
struct Start {
    vars: VarMap,
    seed: u64,
}

/// Parameters that are taken from `vars` or made from `seed`.
pub fn parameters(vars: &VarMap, seed: u64) -> VarBuilder<'static> {
    let start = Start { vars: vars.clone(), seed };
    VarBuilder::from_backend(Box::new(start), DType::F32, Device::Cpu)
}

impl SimpleBackend for Start {
    fn get(&self, shape: Shape, name: &str, init: Init, _: DType, device: &Device) -> Result<Tensor> {
        let mut vars = self.vars.data().lock().map_err(|_| Error::Msg("a thread died".into()))?;
        if let Some(var) = vars.get(name) {
            return Ok(var.as_tensor().clone());
        }
        // One parameter's numbers do not depend on which others there are.
        let stream = name.bytes().fold(self.seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
        let mut rng = ChaCha8Rng::seed_from_u64(stream);
        let values = match init {
            Init::Const(value) => vec![value as f32; shape.elem_count()],
            Init::Randn { mean, stdev } => {
                (0..shape.elem_count()).map(|_| mean as f32 + stdev as f32 * normal(&mut rng)).collect()
            }
            other => return Err(Error::Msg(format!("{name}: no start {other:?}"))),
        };
        let var = Var::from_vec(values, shape, device)?;
        let tensor = var.as_tensor().clone();
        vars.insert(name.into(), var);
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        Err(Error::Msg(format!("{name}: no shape")))
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.vars.data().lock().is_ok_and(|vars| vars.contains_key(name))
    }
}

/// Multiplier of the FNV hash.
const PRIME: u64 = 0x0100_0000_01b3;

/// A normally distributed number, by Box and Muller.
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let (radius, angle): (f32, f32) = (1.0 - rng.random::<f32>(), rng.random());
    (-2.0 * radius.ln()).sqrt() * (TAU * angle).cos()
}

/// Gives every second head the same matrix for queries as for keys.
pub fn alike(vars: &VarMap) -> Result<()> {
    let vars = vars.data().lock().map_err(|_| Error::Msg("a thread died".into()))?;
    for (name, query) in vars.iter() {
        let Some(key) = name.strip_suffix("attn_q.weight").map(|start| format!("{start}attn_k.weight"))
        else {
            continue;
        };
        let Some(key) = vars.get(&key) else { continue };
        let heads = query.dim(0)? / HEAD_DIM;
        let head = |i: usize| if i.is_multiple_of(2) { key } else { query }.narrow(0, i * HEAD_DIM, HEAD_DIM);
        query.set(&Tensor::cat(&(0..heads).map(head).collect::<Result<Vec<_>>>()?, 0)?)?;
    }
    Ok(())
}

/// Loudness of waves, and the factor between the longest and the shortest.
const LOUDNESS: f32 = 0.7;
const LENGTHS: f32 = 100.0;

/// Position embeddings `(1 + side * side, hidden)` whose likeness falls with distance: a quarter each
/// of sines and cosines of columns and rows; zeros for the class token.
pub fn waves(side: usize, hidden: usize) -> Result<Tensor> {
    let quarter = hidden / 4;
    let mut rows = vec![0.0; hidden];
    for at in 0..side * side {
        for place in [at % side, at / side] {
            let angle = |i: usize| place as f32 * LENGTHS.powf(-(i as f32) / quarter as f32);
            rows.extend((0..quarter).map(|i| LOUDNESS * angle(i).sin()));
            rows.extend((0..quarter).map(|i| LOUDNESS * angle(i).cos()));
        }
    }
    Tensor::from_vec(rows, (1 + side * side, hidden), &Device::Cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_starts_the_same() -> Result<()> {
        let made = |seed, order: [&str; 2]| -> Result<Vec<f32>> {
            let parameters = parameters(&VarMap::new(), seed);
            let init = Init::Randn { mean: 0.0, stdev: 2.0 };
            for name in order {
                parameters.get_with_hints((64, 64), name, init)?;
            }
            parameters.get_with_hints((64, 64), "a", init)?.flatten_all()?.to_vec1()
        };
        let numbers = made(1, ["a", "b"])?;
        assert_eq!(numbers, made(1, ["b", "a"])?);
        assert_ne!(numbers, made(2, ["a", "b"])?);
        let spread = numbers.iter().map(|x| x * x).sum::<f32>() / numbers.len() as f32;
        assert!((spread.sqrt() - 2.0).abs() < 0.1, "{spread}");
        Ok(())
    }

    #[test]
    fn every_second_head_looks_for_its_like() -> Result<()> {
        let vars = VarMap::new();
        let parameters = parameters(&vars, 0);
        let init = Init::Randn { mean: 0.0, stdev: 1.0 };
        for name in ["blk.0.attn_q.weight", "blk.0.attn_k.weight"] {
            parameters.get_with_hints((2 * HEAD_DIM, 8), name, init)?;
        }
        alike(&vars)?;
        let [q, k] = ["blk.0.attn_q.weight", "blk.0.attn_k.weight"]
            .map(|name| parameters.get_with_hints((2 * HEAD_DIM, 8), name, init));
        let (q, k): (Vec<Vec<f32>>, Vec<Vec<f32>>) = (q?.to_vec2()?, k?.to_vec2()?);
        assert_eq!(q[..HEAD_DIM], k[..HEAD_DIM]);
        assert!(q[HEAD_DIM..].iter().zip(&k[HEAD_DIM..]).all(|(q, k)| q != k));
        Ok(())
    }

    #[test]
    fn likeness_of_waves_falls_with_distance() -> Result<()> {
        let rows: Vec<Vec<f32>> = waves(12, 192)?.to_vec2()?;
        let likeness = |at: usize| rows[1].iter().zip(&rows[1 + at]).map(|(a, b)| a * b).sum::<f32>();
        assert!(likeness(0) > likeness(1) && likeness(1) > likeness(2));
        assert!((likeness(1) - likeness(12)).abs() < 1e-3 && likeness(13) < likeness(1));
        Ok(())
    }
}
