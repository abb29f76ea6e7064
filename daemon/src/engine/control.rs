//! Changes are made between two units of work, in the order in which they came.

use std::collections::BTreeMap;

use kernels::Device;
use messages::{
    AlertEnd, AskError, CaptionChange, CaptionSettings, Captioning, NewCaptioning, Rule, RuleChange,
    SessionChange, SessionList, SessionState,
};

use super::Engine;
use super::camera::CameraInput;
use super::change::ControlRequest;
use crate::changes::Changes;
use crate::config::CaptionConfig;
use crate::model::prompt::{Turn, after_image, system_prefix};

impl<D: Device> Engine<D> {
    /// Takes in changes and answers them. Whoever does not wait for the answer has their change all the
    /// same.
    pub(super) fn admit_changes(&mut self) {
        while let Ok(request) = self.changes.try_recv() {
            match request {
                ControlRequest::Rules(change, outcome) => {
                    let _ = outcome.send(self.change_rules(change));
                }
                ControlRequest::Captions(change, outcome) => {
                    let _ = outcome.send(self.change_captions(&change));
                }
                ControlRequest::Sessions(change, outcome) => {
                    let _ = outcome.send(self.change_sessions(&change));
                }
                ControlRequest::Reload(reload, outcome) => {
                    let _ = outcome.send(self.reload(*reload));
                }
            }
        }
    }

    /// Takes up what was changed over the bus, and what the configuration says of all else. Changes that
    /// cannot be taken up are told in the log, and the configuration holds.
    ///
    /// Errors: the model cannot judge the rules of the configuration. Nothing is changed.
    pub(super) fn take_up(&mut self, changes: Changes) -> Result<(), AskError> {
        let Changes { rules, captions } = changes;
        self.set_rules(self.rules_under(rules))?;
        for (index, values) in self.captions_under(captions).into_iter().enumerate() {
            if values != self.cameras[index].captioning {
                self.set_captioning(index, values);
            }
        }
        Ok(())
    }

    /// The rules of the configuration, or those that replace them.
    fn rules_under(&self, changed: Option<Vec<Rule>>) -> Vec<Rule> {
        let configured = &self.options.rules;
        let names: Vec<_> = self.cameras.iter().map(|camera| camera.input.name.clone()).collect();
        let changed = changed.map(|rules| {
            let rules = RuleChange::Set(rules).apply(&[], configured, &names)?;
            self.prompts_of(&rules).map(|_| rules)
        });
        match changed {
            Some(Ok(rules)) => rules,
            Some(Err(error)) => {
                tracing::warn!(%error, "the rules that were changed over the bus are not taken up");
                configured.clone()
            }
            None => configured.clone(),
        }
    }

    /// What the configuration says of the captions of every camera, and what replaces it.
    fn captions_under(&self, changes: BTreeMap<String, NewCaptioning>) -> Vec<Captioning> {
        let mut values = self.configured_captions();
        for (camera, new) in changes {
            let change = CaptionChange::Set(NewCaptioning { cameras: vec![camera.clone()], ..new });
            let changed = change.apply(&values, &values).and_then(|changed| {
                changed.iter().try_for_each(|values| self.check_captioning(values)).map(|()| changed)
            });
            match changed {
                Ok(changed) => values = changed,
                Err(error) => {
                    tracing::warn!(camera, %error, "what was changed of its captions over the bus is not taken up");
                }
            }
        }
        values
    }

    /// How every camera is described.
    pub(super) fn captions(&self) -> Vec<Captioning> {
        self.cameras.iter().map(|camera| camera.captioning.clone()).collect()
    }

    fn configured_captions(&self) -> Vec<Captioning> {
        self.cameras.iter().map(|camera| configured(&camera.input, &self.options.caption)).collect()
    }

    /// Changes how cameras are described. What is being written is finished.
    fn change_captions(&mut self, change: &CaptionChange) -> Result<CaptionSettings, AskError> {
        let now = self.captions();
        let changed = change.apply(&now, &self.configured_captions())?;
        for values in &changed {
            self.check_captioning(values)?;
        }
        self.captions_revision += u64::from(*change != CaptionChange::Get);
        for (index, values) in changed.iter().enumerate() {
            if *values != now[index] {
                self.set_captioning(index, values.clone());
            }
        }
        Ok(CaptionSettings { cameras: changed, revision: self.captions_revision })
    }

    /// Errors: the prompt or the longest caption does not fit the model's context.
    pub(super) fn check_captioning(&self, values: &Captioning) -> Result<(), AskError> {
        let before = system_prefix(&self.tokenizer).len() + self.model.visual_tokens();
        let prompt = after_image(&self.tokenizer, &[Turn::ask(&values.prompt)]).len();
        let limit = self.model.context().saturating_sub(before + 1);
        for (what, got, limit) in [
            ("prompt in tokens", prompt, limit),
            ("max_tokens", values.max_tokens as usize, self.model.context()),
        ] {
            if got > limit {
                return Err(AskError::TooLong { what: what.into(), got: got as u64, limit: limit as u64 });
            }
        }
        Ok(())
    }

    fn set_captioning(&mut self, index: usize, values: Captioning) {
        let camera = &mut self.cameras[index];
        tracing::info!(
            camera = values.camera,
            prompt_id = values.prompt_id,
            paused = values.paused,
            period_s = values.period_s,
            "captions changed"
        );
        // The next frame is described even if it shows nothing new.
        camera.sight.forget();
        let (was_paused, is_paused) = (camera.captioning.paused, values.paused);
        camera.captioning = values;
        match (was_paused, is_paused) {
            (false, true) => self.end_alerts(AlertEnd::Paused, |watched| watched == index),
            // What was encoded for questions meanwhile is too old to be described.
            (true, false) => {
                if let Some(mut scene) = self.cameras[index].scene.take() {
                    self.model.release(&mut scene.sequence);
                }
            }
            _ => {}
        }
    }

    /// A picture that a question had encoded on a paused camera is neither described nor watched.
    pub(super) fn is_paused(&self, camera: usize) -> bool {
        self.cameras[camera].captioning.paused
    }

    fn change_sessions(&mut self, change: &SessionChange) -> Result<SessionList, AskError> {
        if let SessionChange::End(name) = change {
            let index = self.camera_index(&name.camera)?;
            if !self.sessions.end_idle(index, &name.name) {
                let reason = format!("a question of session \"{}\" is being answered", name.name);
                return Err(AskError::BadRequest { reason });
            }
        }
        let state = |(camera, name, turns, is_busy): (usize, &str, usize, bool)| SessionState {
            camera: self.cameras[camera].input.name.clone(),
            name: name.to_owned(),
            turns: turns as u32,
            is_busy,
        };
        Ok(SessionList { sessions: self.sessions.list().map(state).collect() })
    }

    fn camera_index(&self, name: &str) -> Result<usize, AskError> {
        let names = || self.cameras.iter().map(|camera| camera.input.name.clone());
        names().position(|known| known == name).ok_or_else(|| AskError::UnknownCamera {
            camera: name.chars().take(64).collect(),
            known: names().collect(),
        })
    }
}

/// What the configuration says of a camera's captions.
pub(super) fn configured(camera: &CameraInput, config: &CaptionConfig) -> Captioning {
    Captioning {
        camera: camera.name.clone(),
        prompt: config.prompt.clone(),
        prompt_id: config.prompt_id.clone(),
        max_tokens: config.max_tokens,
        period_s: config.period_s,
        paused: !camera.describe,
    }
}
