//! What is published: captions, and alerts that begin and end in turn.

use std::collections::BTreeMap;

use messages::{Alert, AlertEnd, AlertEvent, Caption, Rule};
use mobilevlmd::engine::Event;

use super::cameras::{index_of, stamp};

/// A caption.
pub(super) struct Described {
    pub(super) camera: usize,
    pub(super) sequence: u64,
    pub(super) text: String,
    pub(super) truncated: bool,
    pub(super) generated: u32,
}

/// An alert that began or ended because of the answer on a frame.
#[derive(Debug)]
pub(super) struct Rang {
    pub(super) rule: usize,
    pub(super) camera: usize,
    pub(super) sequence: u64,
    pub(super) p_yes: f32,
    pub(super) p_either: f32,
}

/// Everything that was published.
#[derive(Default)]
pub(super) struct Published {
    pub(super) captions: Vec<Described>,
    pub(super) alerts: Vec<Rang>,
    /// By rule and camera: why its alert ended last; nothing while it is on.
    alarms: BTreeMap<(usize, usize), Option<AlertEnd>>,
}

impl Published {
    /// Hears an event.
    pub(super) fn hear(&mut self, event: Event, rules: &[Rule]) {
        match event {
            Event::Caption(caption, _) => self.describe(*caption),
            Event::Alert(alert, _) => self.ring(&alert, rules),
            Event::Piece(_) => {}
            Event::CameraRemoved(camera) => panic!("{camera} was removed"),
        }
    }

    fn describe(&mut self, caption: Caption) {
        let Caption { text, frame, truncated, tokens, .. } = caption;
        assert_eq!(frame.captured_at, stamp(frame.sequence), "{frame:?}");
        let (camera, sequence, generated) = (index_of(&frame.camera), frame.sequence, tokens.generated);
        self.captions.push(Described { camera, sequence, text, truncated, generated });
    }

    fn ring(&mut self, alert: &Alert, rules: &[Rule]) {
        let rule = rules.iter().position(|rule| rule.name == alert.rule).expect("a rule that was set");
        let camera = index_of(alert.camera());
        let before = self.alarms.get(&(rule, camera)).copied();
        let now = match alert.event {
            AlertEvent::Began => None,
            AlertEvent::Ended(end) => Some(end),
        };
        assert_ne!(
            before.unwrap_or(Some(AlertEnd::Answer)).is_some(),
            now.is_some(),
            "out of turn: {alert:?}"
        );
        self.alarms.insert((rule, camera), now);
        // After a camera was gone, an alert begins with a frame that nothing was asked about.
        let is_answer = match alert.event {
            AlertEvent::Began => before.flatten().is_none_or(|end| end == AlertEnd::Answer),
            AlertEvent::Ended(end) => end == AlertEnd::Answer,
        };
        if is_answer {
            let (sequence, p_yes, p_either) = (alert.frame.sequence, alert.p_yes, alert.p_either);
            self.alerts.push(Rang { rule, camera, sequence, p_yes, p_either });
        }
    }

    /// Alerts that are on.
    pub(super) fn ringing(&self) -> usize {
        self.alarms.values().filter(|end| end.is_none()).count()
    }
}
