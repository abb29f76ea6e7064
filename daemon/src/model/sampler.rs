//! Logits to a token, and tokens to the text a caller sees.

use std::cmp::Ordering;

use messages::Sampling;
use rand::rngs::ChaCha12Rng;
use rand::{Rng, SeedableRng};

mod mask;
mod stop;

pub use mask::Mask;
pub use stop::StopText;

/// Chooses tokens. For one seed the choices are the same on every machine that has the same logits.
#[derive(Debug)]
pub struct Sampler {
    temperature: f64,
    /// Probability of the nucleus; 1 keeps every token.
    top_p: f64,
    random: ChaCha12Rng,
    /// Candidates of the current token.
    candidates: Vec<Candidate>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: u32,
    /// Not normalized: the best token has 1.
    weight: f64,
}

impl Sampler {
    /// A sampler. A temperature or nucleus that makes no sense falls back to greedy or to all tokens.
    pub fn new(sampling: Sampling) -> Self {
        let temperature = f64::from(sampling.temperature);
        let top_p = f64::from(sampling.top_p);
        Self {
            temperature: if temperature.is_finite() { temperature.max(0.0) } else { 0.0 },
            top_p: if top_p > 0.0 && top_p < 1.0 { top_p } else { 1.0 },
            random: ChaCha12Rng::seed_from_u64(sampling.seed),
            candidates: Vec::new(),
        }
    }

    /// Whether it takes the highest logit: nothing is left to chance.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Chooses among `logits`, which must not be empty.
    pub fn sample(&mut self, logits: &[f32]) -> u32 {
        self.sample_where(logits, |_| true).unwrap_or(0)
    }

    /// Chooses among the `logits` of the tokens that `mask` allows, as if there were no others;
    /// `None` if it allows none.
    pub fn sample_masked(&mut self, logits: &[f32], mask: &Mask) -> Option<u32> {
        self.sample_where(logits, |id| mask.allows(id))
    }

    fn sample_where(&mut self, logits: &[f32], allows: impl Fn(u32) -> bool) -> Option<u32> {
        let best = best_where(logits, &allows)?;
        let top = logits[best as usize];
        if self.temperature == 0.0 || !top.is_finite() {
            return Some(best);
        }
        self.weigh(logits, f64::from(top), allows);
        let kept = self.nucleus();
        Some(self.draw(kept))
    }

    /// Fills the candidates with every allowed token whose weight is a number.
    fn weigh(&mut self, logits: &[f32], top: f64, allows: impl Fn(u32) -> bool) {
        let scale = 1.0 / self.temperature;
        self.candidates.clear();
        self.candidates.reserve(logits.len());
        for (id, &logit) in logits.iter().enumerate() {
            let weight = exp((f64::from(logit) - top) * scale);
            if weight > 0.0 && allows(id as u32) {
                self.candidates.push(Candidate { id: id as u32, weight });
            }
        }
    }

    /// Brings the smallest set with enough probability to the front and returns its size.
    fn nucleus(&mut self) -> usize {
        if self.top_p >= 1.0 {
            return self.candidates.len();
        }
        let total: f64 = self.candidates.iter().map(|candidate| candidate.weight).sum();
        // All tokens below this weight together have less than the probability that is cut off,
        // so none of them belongs to the nucleus and they need not be sorted.
        let least = total * (1.0 - self.top_p) / self.candidates.len() as f64;
        self.candidates.retain(|candidate| candidate.weight >= least);
        self.candidates.sort_unstable_by(|a, b| match b.weight.total_cmp(&a.weight) {
            Ordering::Equal => a.id.cmp(&b.id),
            order => order,
        });
        let wanted = total * self.top_p;
        let mut sum = 0.0;
        for (index, candidate) in self.candidates.iter().enumerate() {
            sum += candidate.weight;
            if sum >= wanted {
                return index + 1;
            }
        }
        self.candidates.len()
    }

    /// Draws one of the first `kept` candidates.
    fn draw(&mut self, kept: usize) -> u32 {
        let kept = &self.candidates[..kept];
        let total: f64 = kept.iter().map(|candidate| candidate.weight).sum();
        // 53 random bits, the precision of an f64.
        let unit = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut left = unit * total;
        for candidate in kept {
            left -= candidate.weight;
            if left < 0.0 {
                return candidate.id;
            }
        }
        kept[kept.len() - 1].id
    }
}

/// The first token with the highest logit; NaN is lower than everything.
pub fn greedy(logits: &[f32]) -> u32 {
    best_where(logits, |_| true).unwrap_or(0)
}

/// The first allowed token with the highest logit; `None` if none is allowed.
fn best_where(logits: &[f32], allows: impl Fn(u32) -> bool) -> Option<u32> {
    let mut best = None;
    let mut highest = f32::NEG_INFINITY;
    for (id, &logit) in logits.iter().enumerate() {
        if (logit > highest || best.is_none()) && allows(id as u32) {
            best = Some(id as u32);
            highest = if logit.is_nan() { f32::NEG_INFINITY } else { logit };
        }
    }
    best
}

/// `e^x` for `x <= 0` from additions and multiplications only, because the last bit of a system's
/// own function differs between systems. The relative error is below 1e-15; NaN gives 0.
pub(super) fn exp(x: f64) -> f64 {
    if x.is_nan() || x < -700.0 {
        return 0.0;
    }
    let whole = (x * std::f64::consts::LOG2_E).round();
    // The two parts of ln 2 keep the rest exact.
    let rest = x - whole * 6.931_471_803_691_238e-1 - whole * 1.908_214_929_270_587_7e-10;
    let series = (1..=13).rev().fold(1.0, |sum, n| 1.0 + sum * rest / f64::from(n));
    let power = f64::from_bits(((1023 + whole as i64) as u64) << 52);
    series * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(temperature: f32, top_p: f32, seed: u64) -> Sampler {
        Sampler::new(Sampling { temperature, top_p, seed })
    }

    #[test]
    fn greedy_takes_the_first_of_the_highest() {
        for (logits, want) in [
            (&[1.0, 3.0, 3.0, 2.0][..], 1),
            (&[f32::NAN, -5.0, f32::NAN], 1),
            (&[f32::NAN, f32::NAN], 0),
            (&[f32::NEG_INFINITY, f32::NEG_INFINITY], 0),
            (&[0.0, f32::INFINITY, f32::NAN], 1),
        ] {
            assert_eq!(sampler(0.0, 0.0, 0).sample(logits), want, "{logits:?}");
            assert_eq!(sampler(f32::NAN, 0.5, 0).sample(logits), want, "{logits:?}");
        }
    }

    #[test]
    fn a_seed_fixes_the_choices() {
        let logits: Vec<f32> = (0..100).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
        let draw = |seed| {
            let mut sampler = sampler(0.8, 0.9, seed);
            (0..8).map(|_| sampler.sample(&logits)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let logits = [0.0, 2f32.ln(), f32::NAN, 5f32.ln()];
        let mut sampler = sampler(1.0, 0.0, 1);
        let mut counts = [0u32; 4];
        for _ in 0..8000 {
            counts[sampler.sample(&logits) as usize] += 1;
        }
        assert_eq!(counts[2], 0, "NaN never wins");
        for (id, want) in [(0, 1000.0), (1, 2000.0), (3, 5000.0)] {
            assert!((f64::from(counts[id]) - want).abs() < 200.0, "token {id}: {counts:?}");
        }
    }

    #[test]
    fn the_nucleus_is_the_smallest_set_with_enough_probability() {
        // Probabilities 0.5, 0.3, 0.1, 0.1.
        let logits = [1f32.ln(), 5f32.ln(), 3f32.ln(), 1f32.ln()];
        for (top_p, want) in [(0.4, &[1][..]), (0.6, &[1, 2]), (0.85, &[0, 1, 2]), (0.95, &[0, 1, 2, 3])] {
            let mut sampler = sampler(1.0, top_p, 3);
            let mut seen: Vec<u32> = (0..600).map(|_| sampler.sample(&logits)).collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen, want, "top_p {top_p}");
        }
    }

    #[test]
    fn a_mask_leaves_out_all_other_tokens() {
        let mask = |ids: &[u32]| {
            let mut mask = Mask::default();
            mask.set(&[0; 2]);
            ids.iter().for_each(|&id| mask.allow(id));
            mask
        };
        let logits = [9.0, 1.0, f32::NAN, 1.0, 2.0];
        for (ids, want) in [
            (&[1, 3][..], Some(1)),
            (&[3, 4], Some(4)),
            (&[2], Some(2)),
            (&[2, 3], Some(3)),
            (&[40], None),
            (&[], None),
        ] {
            for temperature in [0.0, 0.01] {
                let got = sampler(temperature, 0.5, 0).sample_masked(&logits, &mask(ids));
                assert_eq!(got.is_some(), want.is_some(), "{ids:?}");
                assert!(temperature > 0.0 || got == want, "{ids:?}");
                assert!(got.is_none_or(|id| ids.contains(&id)), "{ids:?}: {got:?}");
            }
        }
        // The nucleus is that of the allowed tokens: 0.73 of 2 and 0.27 of 1 without the 9.
        let (mut sampler, allowed) = (sampler(1.0, 0.7, 5), mask(&[1, 4]));
        assert!((0..200).all(|_| sampler.sample_masked(&logits, &allowed) == Some(4)));
    }

    #[test]
    fn the_exponential_is_exact_to_the_last_bits() {
        for i in 0..7000 {
            let x = -f64::from(i) * 0.0997;
            let (got, want) = (exp(x), x.exp());
            assert!((got - want).abs() <= want * 2e-15, "{x}: {got} {want}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f64::NEG_INFINITY), 0.0);
    }
}
