//! How fast, and by what, the networks learn over a run.

/// Steps until the rate is at its highest.
const WARM_UP: f32 = 200.0;

/// The step from which visual tokens learn words.
const NAMING_FROM: u32 = 1500;

/// The step from which they learn words for where things are.
const PLACES_FROM: u32 = 3000;

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

    /// Weight of the loss on patches: it teaches the tower to see while the language model cannot yet
    /// tell it what to look for, and fades out.
    pub(super) fn auxiliary(self, step: u32) -> f64 {
        0.5 * f64::from(1.0 - self.done(step)).max(0.1)
    }

    /// Weight of the loss on words for visual tokens, once there is something to see in them.
    pub(super) fn naming(self, step: u32) -> f64 {
        if step < NAMING_FROM { 0.0 } else { self.auxiliary(step) }
    }

    /// Weight of the loss on words for where things are, once their kinds and colours have words.
    pub(super) fn places(self, step: u32) -> f64 {
        if step < PLACES_FROM { 0.0 } else { self.auxiliary(step) }
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
    }
}
