//! Which frames of a camera need a new description: those that show a change, and one now and then.

use std::time::{Duration, Instant};

use image::RgbImage;

use super::gate::Gate;
use crate::config::CaptionConfig;

/// A camera that shows no change is looked at so often at most: looking costs a decoded picture.
const REST: Duration = Duration::from_millis(100);

/// What is to be done with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It shows something new.
    News,
    /// It shows nothing new since this capture time, but the last description is old.
    Stale {
        /// Nanoseconds since the Unix epoch.
        since: u64,
    },
    /// It shows nothing new since this capture time: the last description holds.
    Same {
        /// Nanoseconds since the Unix epoch.
        since: u64,
    },
}

/// What was seen of a camera so far.
#[derive(Debug, Default)]
pub(super) struct Sight {
    gate: Gate,
    /// When the last description began.
    described: Option<Instant>,
    /// When a frame that showed nothing new was looked at, if that was the last one.
    rested: Option<Instant>,
    /// Capture time of the first frame that looked like the described one.
    since: u64,
}

impl Sight {
    /// Whether the next frame may be looked at.
    pub(super) fn is_rested(&self, now: Instant) -> bool {
        self.rested.is_none_or(|rested| now.duration_since(rested) >= REST)
    }

    /// Looks at a frame captured at `captured_at`. Unless it is [`Look::Same`] it is described now.
    pub(super) fn look(
        &mut self,
        picture: &RgbImage,
        captured_at: u64,
        now: Instant,
        config: &CaptionConfig,
    ) -> Look {
        let look = self.compare(picture, captured_at, config);
        let described = self.described.unwrap_or(now);
        let is_stale = config.max_silence().is_some_and(|most| now.duration_since(described) >= most);
        match look {
            Look::Same { .. } if !is_stale => {
                self.rested = Some(now);
                look
            }
            Look::Same { since } | Look::Stale { since } => {
                self.keep(now);
                Look::Stale { since }
            }
            Look::News => {
                self.keep(now);
                look
            }
        }
    }

    /// Looks at a frame that is described now, whatever it shows.
    pub(super) fn describe(
        &mut self,
        picture: &RgbImage,
        captured_at: u64,
        now: Instant,
        config: &CaptionConfig,
    ) {
        self.compare(picture, captured_at, config);
        self.keep(now);
    }

    /// The description came to nothing: the next frame is news.
    pub(super) fn forget(&mut self) {
        self.gate.forget();
        self.rested = None;
    }

    fn compare(&mut self, picture: &RgbImage, captured_at: u64, config: &CaptionConfig) -> Look {
        let is_news = config.change_threshold <= 0.0
            || f64::from(self.gate.difference(picture)) > config.change_threshold;
        if is_news {
            self.since = captured_at;
            Look::News
        } else {
            Look::Same { since: self.since }
        }
    }

    fn keep(&mut self, now: Instant) {
        self.gate.keep();
        self.described = Some(now);
        self.rested = None;
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn picture(box_level: u8) -> RgbImage {
        RgbImage::from_fn(64, 48, |x, y| {
            let level = if (20..28).contains(&x) && (20..28).contains(&y) { box_level } else { 90 };
            Rgb([level, (x * 2) as u8, (y * 3) as u8])
        })
    }

    fn config(change_threshold: f64, max_silence_s: f64) -> CaptionConfig {
        CaptionConfig { change_threshold, max_silence_s, ..CaptionConfig::default() }
    }

    /// Shows frames, one a second captured at 1000, 1001, ..., and returns what is to be done.
    fn story(levels: &[u8], config: &CaptionConfig) -> Vec<Look> {
        let (mut sight, start) = (Sight::default(), Instant::now());
        let look = |(second, level): (u64, &u8)| {
            sight.look(&picture(*level), 1000 + second, start + Duration::from_secs(second), config)
        };
        (0..).zip(levels).map(look).collect()
    }

    #[test]
    fn only_changes_are_described() {
        let looks = story(&[90, 90, 91, 200, 200, 90, 90], &config(8.0, 0.0));
        let same = |since| Look::Same { since };
        assert_eq!(
            looks,
            [Look::News, same(1000), same(1000), Look::News, same(1003), Look::News, same(1005)]
        );
    }

    #[test]
    fn silence_has_a_limit() {
        let looks = story(&[90; 7], &config(8.0, 3.0));
        let (same, stale) = (Look::Same { since: 1000 }, Look::Stale { since: 1000 });
        assert_eq!(looks, [Look::News, same, same, stale, same, same, stale]);
    }

    #[test]
    fn without_a_threshold_everything_is_news() {
        assert_eq!(story(&[90; 4], &config(0.0, 0.0)), [Look::News; 4]);
    }

    #[test]
    fn a_picture_encoded_for_a_question_is_known() {
        let (mut sight, now, config) = (Sight::default(), Instant::now(), config(8.0, 0.0));
        sight.describe(&picture(200), 7, now, &config);
        assert_eq!(sight.look(&picture(200), 8, now, &config), Look::Same { since: 7 });
        sight.forget();
        assert_eq!(sight.look(&picture(200), 9, now, &config), Look::News);
    }

    #[test]
    fn a_still_camera_is_looked_at_now_and_then() {
        let (mut sight, now, config) = (Sight::default(), Instant::now(), config(8.0, 0.0));
        assert_eq!(sight.look(&picture(90), 1, now, &config), Look::News);
        assert!(sight.is_rested(now), "the next change is looked for at once");
        assert_eq!(sight.look(&picture(90), 2, now, &config), Look::Same { since: 1 });
        assert!(!sight.is_rested(now + REST / 2));
        assert!(sight.is_rested(now + REST));
    }
}
