//! How fast, and by what, the networks learn over a run.

/// Steps until the rate is at its highest.
const WARM_UP: f32 = 200.0;

/// Parts of the run: until the first all pictures are told in words, from the second all are seen.
const TOLD_UNTIL: f32 = 0.12;
const SEEN_FROM: f32 = 0.4;

/// What is left of the rate at the end.
const FLOOR: f32 = 0.02;

/// The plan of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// Learning rate at its highest.
    pub rate: f32,
    /// Steps of the run.
    pub steps: u32,
}

impl Schedule {
    /// Linear up, then half a cosine down.
    pub(super) fn rate(self, step: u32) -> f32 {
        let up = (step as f32 + 1.0) / WARM_UP;
        let down = std::f32::consts::PI * self.done(step);
        self.rate * up.min(FLOOR + (1.0 - FLOOR) * 0.5 * (1.0 + down.cos()))
    }

    /// Weight of the losses on patches and visual tokens: they teach the tower to see while the language
    /// model cannot yet tell it what to look for, and fade out.
    pub(super) fn auxiliary(self, step: u32) -> f64 {
        f64::from(1.0 - self.done(step)).max(0.1)
    }

    /// Share of pictures whose visual tokens are told to the language model instead of seen.
    pub(super) fn told(self, step: u32) -> f32 {
        ((SEEN_FROM - self.done(step)) / (SEEN_FROM - TOLD_UNTIL)).clamp(0.0, 1.0)
    }

    fn done(self, step: u32) -> f32 {
        (step as f32 / self.steps.max(1) as f32).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_then_falls() {
        let schedule = Schedule { rate: 1e-3, steps: 2000 };
        assert!(schedule.rate(0) < 1e-5 && schedule.rate(1999) < 3e-5);
        assert!(schedule.rate(250) > 9e-4 && schedule.rate(1000) < schedule.rate(500));
        assert!(schedule.auxiliary(0) > schedule.auxiliary(1900));
        assert_eq!((schedule.told(0), schedule.told(1000)), (1.0, 0.0));
        assert!(schedule.told(400) > schedule.told(600));
    }
}
