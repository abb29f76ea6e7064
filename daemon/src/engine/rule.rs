//! One rule on one camera: when its alert begins and when it ends.
//!
//! A pure function of the answers and of the capture times of the frames they are about. An alert
//! begins once the answer has been at or above the threshold on every frame for the least duration,
//! and not before the cool-down after the one before is over. It goes on while the answer stays at
//! or above the release threshold. Whoever watches a camera that delivers nothing knows nothing: then
//! it ends too, and a robot that acts on it is not left waiting.

use std::time::{Duration, Instant};

use messages::{FrameStamp, Rule, RulePhase};

/// A frame that an answer is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// The frame.
    pub(super) stamp: FrameStamp,
    /// When it was captured.
    pub(super) captured: Instant,
}

/// An alert that began or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It began.
    Began(Span),
    /// It ended.
    Ended(Span),
}

/// The frames that made an alert begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// The first one whose answer was yes.
    pub(super) first: FrameStamp,
    /// The one that completed the least duration.
    pub(super) began: FrameStamp,
}

/// The alert of one rule on one camera.
#[derive(Debug)]
pub(super) struct Alarm {
    threshold: f64,
    release_threshold: f64,
    min_duration: Duration,
    cool_down: Duration,
    stage: Stage,
    /// Capture time of the newest frame seen.
    last: Option<Instant>,
    /// No alert begins before.
    cool_until: Option<Instant>,
    /// Capture time, since the Unix epoch, of the frame that changed the phase.
    since: u64,
}

#[derive(Debug)]
enum Stage {
    Quiet,
    /// Yes since this frame.
    Rising(Seen),
    Active(Span),
}

impl Alarm {
    /// The quiet alert of a checked rule.
    pub(super) fn new(rule: &Rule) -> Self {
        let duration = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO);
        Self {
            threshold: rule.threshold,
            release_threshold: rule.release_threshold,
            min_duration: duration(rule.min_duration_s),
            cool_down: duration(rule.cool_down_s),
            stage: Stage::Quiet,
            last: None,
            cool_until: None,
            since: 0,
        }
    }

    /// How far the alert is, and since which capture time.
    pub(super) fn phase(&self) -> (RulePhase, u64) {
        let phase = match self.stage {
            Stage::Quiet => RulePhase::Quiet,
            Stage::Rising(_) => RulePhase::Rising,
            Stage::Active(_) => RulePhase::Active,
        };
        (phase, self.since)
    }

    /// Takes in the probability of yes on a frame. Frames older than the newest one seen, and answers
    /// that are no number, change nothing.
    pub(super) fn see(&mut self, p_yes: f64, seen: &Seen) -> Option<Turn> {
        if p_yes.is_nan() || self.last.is_some_and(|last| seen.captured < last) {
            return None;
        }
        self.last = Some(seen.captured);
        match &self.stage {
            Stage::Active(_) if p_yes < self.release_threshold => {
                self.since = seen.stamp.captured_at;
                return self.end();
            }
            Stage::Active(_) => return None,
            Stage::Rising(_) if p_yes < self.threshold => {
                self.stage = Stage::Quiet;
                self.since = seen.stamp.captured_at;
            }
            Stage::Quiet if p_yes >= self.threshold => {
                self.stage = Stage::Rising(seen.clone());
                self.since = seen.stamp.captured_at;
            }
            Stage::Quiet | Stage::Rising(_) => {}
        }
        self.begin(seen)
    }

    /// Begins the alert if it has risen for long enough.
    fn begin(&mut self, seen: &Seen) -> Option<Turn> {
        let Stage::Rising(first) = &self.stage else { return None };
        let is_long = seen.captured.duration_since(first.captured) >= self.min_duration;
        if !is_long || self.cool_until.is_some_and(|until| seen.captured < until) {
            return None;
        }
        let span = Span { first: first.stamp.clone(), began: seen.stamp.clone() };
        self.stage = Stage::Active(span.clone());
        self.since = seen.stamp.captured_at;
        Some(Turn::Began(span))
    }

    /// Nothing more is known: an alert that is on ends, one that rises must rise anew.
    pub(super) fn end(&mut self) -> Option<Turn> {
        match std::mem::replace(&mut self.stage, Stage::Quiet) {
            Stage::Active(span) => {
                self.cool_until = self.last.map(|last| last + self.cool_down);
                Some(Turn::Ended(span))
            }
            Stage::Quiet | Stage::Rising(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule with everything that can delay or hold an alert.
    fn rule() -> Rule {
        Rule {
            threshold: 0.7,
            release_threshold: 0.4,
            min_duration_s: 2.0,
            cool_down_s: 5.0,
            ..Rule::new("door", "Is the door open?")
        }
    }

    /// An alarm with a clock of its own, in seconds.
    struct Bench {
        alarm: Alarm,
        start: Instant,
    }

    impl Bench {
        fn new(rule: &Rule) -> Self {
            Self { alarm: Alarm::new(rule), start: Instant::now() }
        }

        fn see(&mut self, second: f64, p_yes: f64) -> Option<Turn> {
            let captured = self.start + Duration::from_secs_f64(second);
            self.alarm.see(p_yes, &Seen { stamp: stamp(second), captured })
        }

        /// What answers, one a second from `from` on, lead to: `b` at a begin, `e` at an end.
        fn story(&mut self, from: u32, answers: &[f64]) -> String {
            let turns = (from..).zip(answers).map(|(second, p_yes)| self.see(second.into(), *p_yes));
            turns.map(|turn| letter(&turn)).collect()
        }
    }

    fn letter(turn: &Option<Turn>) -> char {
        match turn {
            None => '.',
            Some(Turn::Began(_)) => 'b',
            Some(Turn::Ended(_)) => 'e',
        }
    }

    fn stamp(second: f64) -> FrameStamp {
        let number = (second * 1000.0) as u64;
        FrameStamp { camera: "front".into(), sequence: number, captured_at: 1_000_000 + number }
    }

    fn check(rule: &Rule, answers: &[f64], expected: &str) {
        assert_eq!(Bench::new(rule).story(0, answers), expected, "{answers:?}");
    }

    #[test]
    fn an_alert_begins_and_ends_once() {
        let quick = Rule { min_duration_s: 0.0, cool_down_s: 0.0, ..rule() };
        check(&quick, &[0.1, 0.8, 0.9, 0.7, 0.1, 0.0, 0.1], ".b..e..");
        check(&quick, &[0.7, 0.3, 0.7, 0.3], "bebe");
        check(&quick, &[1.0, 1.0, 1.0], "b..");
        check(&quick, &[0.69, 0.5, 0.0], "...");
    }

    #[test]
    fn between_the_thresholds_nothing_changes() {
        let quick = Rule { min_duration_s: 0.0, cool_down_s: 0.0, ..rule() };
        check(&quick, &[0.6, 0.69, 0.41, 0.7, 0.5, 0.4, 0.69, 0.39, 0.5, 0.69], "...b...e..");
    }

    #[test]
    fn yes_must_last_for_the_least_duration() {
        let rule = Rule { cool_down_s: 0.0, ..rule() };
        check(&rule, &[0.8, 0.8, 0.8, 0.8], "..b.");
        check(&rule, &[0.8, 0.8, 0.6, 0.8, 0.8, 0.8], ".....b");
        check(&rule, &[0.8, 0.1, 0.8, 0.1, 0.8, 0.1], "......");
        // What counts is capture time, not the number of frames.
        let mut bench = Bench::new(&rule);
        assert_eq!(bench.see(0.0, 0.8), None);
        let span = Span { first: stamp(0.0), began: stamp(7.5) };
        assert_eq!(bench.see(7.5, 0.8), Some(Turn::Began(span.clone())));
        assert_eq!(bench.see(8.0, 0.1), Some(Turn::Ended(span)));
    }

    #[test]
    fn after_an_end_none_begins_before_the_cool_down() {
        let rule = Rule { min_duration_s: 0.0, cool_down_s: 3.0, ..rule() };
        check(&rule, &[0.9, 0.1, 0.9, 0.9, 0.9, 0.9], "be..b.");
        check(&rule, &[0.9, 0.1, 0.9, 0.1, 0.1, 0.1, 0.9], "be....b");
    }

    #[test]
    fn phases_say_since_when() {
        let mut bench = Bench::new(&rule());
        let mut at = |second: f64, p_yes: f64| {
            bench.see(second, p_yes);
            bench.alarm.phase()
        };
        assert_eq!(at(0.0, 0.1), (RulePhase::Quiet, 0));
        assert_eq!(at(1.0, 0.8), (RulePhase::Rising, stamp(1.0).captured_at));
        assert_eq!(at(2.0, 0.8), (RulePhase::Rising, stamp(1.0).captured_at));
        assert_eq!(at(3.0, 0.8), (RulePhase::Active, stamp(3.0).captured_at));
        assert_eq!(at(4.0, 0.8), (RulePhase::Active, stamp(3.0).captured_at));
        assert_eq!(at(5.0, 0.1), (RulePhase::Quiet, stamp(5.0).captured_at));
    }

    #[test]
    fn without_a_camera_an_alert_ends_once_and_rises_anew() {
        let mut bench = Bench::new(&rule());
        assert_eq!(bench.story(0, &[0.8, 0.8, 0.8]), "..b");
        assert_eq!(letter(&bench.alarm.end()), 'e');
        assert_eq!(bench.alarm.end(), None);
        // The cool-down counts from the last frame seen, at second 2.
        assert_eq!(bench.story(3, &[0.8, 0.8, 0.8, 0.8, 0.8]), "....b");
        let mut bench = Bench::new(&rule());
        assert_eq!(bench.story(0, &[0.8, 0.8]), "..");
        assert_eq!(bench.alarm.end(), None);
        assert_eq!(bench.story(10, &[0.8, 0.8, 0.8]), "..b");
    }

    #[test]
    fn old_frames_and_no_numbers_change_nothing() {
        let quick = Rule { min_duration_s: 0.0, cool_down_s: 0.0, ..rule() };
        let mut bench = Bench::new(&quick);
        assert_eq!(letter(&bench.see(5.0, 0.9)), 'b');
        assert_eq!(bench.see(4.0, 0.0), None);
        assert_eq!(bench.see(6.0, f64::NAN), None);
        assert_eq!(letter(&bench.see(6.0, 0.0)), 'e');
    }

    /// SplitMix64.
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[test]
    fn any_answers_keep_the_promises() {
        let mut state = 7;
        for round in 0..300 {
            let rule = Rule { min_duration_s: (round % 4) as f64, cool_down_s: (round % 7) as f64, ..rule() };
            let mut bench = Bench::new(&rule);
            let (mut second, mut is_on, mut ended) = (0.0, false, f64::NEG_INFINITY);
            let mut yes_since = None;
            for _ in 0..200 {
                second += (random(&mut state) % 1000) as f64 / 500.0;
                let p_yes = (random(&mut state) % 1000) as f64 / 999.0;
                let p_yes = if p_yes < 0.7 && random(&mut state) % 3 != 2 { 0.75 } else { p_yes };
                yes_since = if p_yes < 0.7 { None } else { yes_since.or(Some(second)) };
                match bench.see(second, p_yes) {
                    Some(Turn::Began(_)) => {
                        assert!(!is_on && p_yes >= 0.7);
                        assert!(yes_since.is_some_and(|since| second - since >= rule.min_duration_s - 1e-6));
                        assert!(second - ended >= rule.cool_down_s - 1e-6);
                        is_on = true;
                    }
                    Some(Turn::Ended(_)) => {
                        assert!(is_on && p_yes < 0.4);
                        (is_on, ended) = (false, second);
                    }
                    None => assert!(!is_on || p_yes >= 0.4),
                }
            }
        }
    }
}
