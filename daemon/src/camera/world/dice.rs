//! Random numbers that are the same on every machine and for ever: worlds are named by their seeds.

/// Step of the sequence, odd and without pattern.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A stream of numbers that follows from its seed alone.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// The stream number `stream` of `seed`.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        Self(mix(seed ^ mix(stream)))
    }

    /// The next number, all bits of it random.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        scatter(self.0)
    }

    /// A number below `end`, which is at least 1.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (((self.next() >> 32) * end as u64) >> 32) as usize
    }

    /// A number from 0 to below 1.
    pub(super) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 24) as f32
    }

    /// A number from `low` to below `high`.
    pub(super) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// True with probability `part`.
    pub(super) fn chance(&mut self, part: f32) -> bool {
        self.unit() < part
    }

    /// One of `choices`, of which there is at least one.
    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// An index into `weights`, the likelier the heavier.
    pub(super) fn weighted(&mut self, weights: &[f32]) -> usize {
        let mut left = self.unit() * weights.iter().sum::<f32>();
        for (index, weight) in weights.iter().enumerate() {
            left -= weight;
            if left < 0.0 {
                return index;
            }
        }
        weights.len() - 1
    }

    /// Puts `items` in a random order.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// A random number that follows from `x`.
pub(super) fn mix(x: u64) -> u64 {
    scatter(x.wrapping_add(STEP))
}

/// Scatters the bits of `x` (the finalizer of splitmix64).
fn scatter(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_never_change() {
        let mut dice = Dice::new(7, 1);
        let numbers = [dice.next(), dice.next()];
        let mut again = Dice::new(7, 1);
        assert_eq!(numbers, [again.next(), again.next()]);
        assert_ne!(numbers[0], Dice::new(7, 2).next());
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn numbers_stay_within_their_bounds() {
        let mut dice = Dice::new(1, 0);
        let mut seen = [0; 3];
        for _ in 0..300 {
            seen[dice.below(3)] += 1;
            assert!((2.0..5.0).contains(&dice.between(2.0, 5.0)));
            assert_ne!(dice.weighted(&[1.0, 0.0, 1.0]), 1);
        }
        assert!(seen.iter().all(|&count| count > 60), "{seen:?}");
    }
}
