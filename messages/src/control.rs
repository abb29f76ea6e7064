//! What can be changed of captions and sessions while the daemon runs.

use serde::{Deserialize, Serialize};

use crate::AskError;

/// Longest prompt in bytes; far more than its tokens could fill a context.
const PROMPT_BYTES: usize = 8192;

/// Longest name of a prompt in bytes.
const PROMPT_ID_BYTES: usize = 64;

/// Longest time between captions in seconds: a day.
const LONGEST_S: f64 = 86400.0;

/// What a camera's frames are asked, and how often.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Captioning {
    /// Name of the camera.
    pub camera: String,
    /// What is asked of every frame.
    pub prompt: String,
    /// Name of the prompt in published captions.
    pub prompt_id: String,
    /// Longest caption in tokens.
    pub max_tokens: u32,
    /// Least seconds between the starts of two captions.
    pub period_s: f64,
    /// Whether frames are neither described nor watched for alerts. Questions are answered still.
    pub paused: bool,
}

/// Values that replace those of some cameras; what is left out stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewCaptioning {
    /// Names of the cameras; empty means all.
    pub cameras: Vec<String>,
    /// [`Captioning::prompt`]
    pub prompt: Option<String>,
    /// [`Captioning::prompt_id`]
    pub prompt_id: Option<String>,
    /// [`Captioning::max_tokens`]
    pub max_tokens: Option<u32>,
    /// [`Captioning::period_s`]
    pub period_s: Option<f64>,
    /// [`Captioning::paused`]
    pub paused: Option<bool>,
}

/// What is to be done with the captions of cameras. The answer is the [`CaptionSettings`] there are
/// then. In JSON `"get"`, `{"set": {"cameras": ["front"], "paused": true}}` or `{"reset": ["front"]}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptionChange {
    /// Nothing: only the answer is wanted.
    #[default]
    Get,
    /// Some values are replaced.
    Set(NewCaptioning),
    /// The cameras of these names, or all if there are none, are as the configuration has them.
    Reset(Vec<String>),
}

/// How all cameras are described.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CaptionSettings {
    /// One for each camera, in the order of the configuration.
    pub cameras: Vec<Captioning>,
    /// Changes since the daemon started: of two states the one with the higher number is newer.
    pub revision: u64,
}

impl NewCaptioning {
    /// Takes over what a newer change says. [`NewCaptioning::cameras`] stays.
    pub fn take(&mut self, newer: &Self) {
        let Self { cameras: _, prompt, prompt_id, max_tokens, period_s, paused } = newer.clone();
        self.prompt = prompt.or_else(|| self.prompt.take());
        self.prompt_id = prompt_id.or_else(|| self.prompt_id.take());
        self.max_tokens = max_tokens.or(self.max_tokens);
        self.period_s = period_s.or(self.period_s);
        self.paused = paused.or(self.paused);
    }
}

impl Captioning {
    /// Checks everything that can be checked without the model.
    pub fn check(&self) -> Result<(), AskError> {
        let refuse = |reason: String| Err(AskError::BadRequest { reason });
        for (field, text, most) in
            [("prompt", &self.prompt, PROMPT_BYTES), ("prompt_id", &self.prompt_id, PROMPT_ID_BYTES)]
        {
            if text.trim().is_empty() {
                return refuse(format!("{field}: empty"));
            }
            if text.len() > most {
                return Err(AskError::TooLong {
                    what: format!("{field} in bytes"),
                    got: text.len() as u64,
                    limit: most as u64,
                });
            }
        }
        if self.max_tokens == 0 {
            return refuse("max_tokens: 0 is not accepted, expected 1 or more".into());
        }
        // Not-a-number lies in no range.
        if !(0.0..=LONGEST_S).contains(&self.period_s) {
            return refuse(format!("period_s: {} is not accepted, expected 0 to 86400", self.period_s));
        }
        Ok(())
    }

    fn take(&mut self, new: &NewCaptioning) {
        let NewCaptioning { cameras: _, prompt, prompt_id, max_tokens, period_s, paused } = new.clone();
        self.prompt = prompt.unwrap_or_else(|| std::mem::take(&mut self.prompt));
        self.prompt_id = prompt_id.unwrap_or_else(|| std::mem::take(&mut self.prompt_id));
        self.max_tokens = max_tokens.unwrap_or(self.max_tokens);
        self.period_s = period_s.unwrap_or(self.period_s);
        self.paused = paused.unwrap_or(self.paused);
    }
}

impl CaptionChange {
    /// The values after the change. `configured` are those of the configuration, in the same order.
    ///
    /// Errors: an unknown camera or a bad value.
    pub fn apply(&self, now: &[Captioning], configured: &[Captioning]) -> Result<Vec<Captioning>, AskError> {
        let mut changed = now.to_vec();
        let cameras = match self {
            Self::Get => return Ok(changed),
            Self::Set(new) => &new.cameras,
            Self::Reset(cameras) => cameras,
        };
        if let Some(unknown) = cameras.iter().find(|name| !now.iter().any(|known| known.camera == **name)) {
            let known = now.iter().map(|known| known.camera.clone()).collect();
            return Err(AskError::UnknownCamera { camera: unknown.chars().take(64).collect(), known });
        }
        for (values, configured) in changed.iter_mut().zip(configured) {
            if !cameras.is_empty() && !cameras.contains(&values.camera) {
                continue;
            }
            match self {
                Self::Set(new) => values.take(new),
                _ => *values = configured.clone(),
            }
            values.check()?;
        }
        Ok(changed)
    }
}

/// What is to be done with sessions. The answer is the [`SessionList`] there is then. In JSON `"get"`
/// or `{"end": {"camera": "front", "name": "lunch"}}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionChange {
    /// Nothing: only the answer is wanted.
    #[default]
    Get,
    /// A session is over, unless a question of it is being answered.
    End(SessionName),
}

/// Which session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionName {
    /// Name of its camera.
    pub camera: String,
    /// Its name.
    pub name: String,
}

/// The sessions of a daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionList {
    /// In the order in which they began.
    pub sessions: Vec<SessionState>,
}

/// A session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// Name of its camera.
    pub camera: String,
    /// Its name.
    pub name: String,
    /// Exchanges that are still in view.
    pub turns: u32,
    /// Whether a question of it is being answered.
    pub is_busy: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(camera: &str) -> Captioning {
        Captioning {
            camera: camera.into(),
            prompt: "Describe the scene.".into(),
            prompt_id: "scene".into(),
            max_tokens: 48,
            period_s: 0.0,
            paused: false,
        }
    }

    fn set(cameras: &[&str], new: NewCaptioning) -> CaptionChange {
        CaptionChange::Set(NewCaptioning {
            cameras: cameras.iter().map(|&name| name.into()).collect(),
            ..new
        })
    }

    #[test]
    fn a_change_touches_what_it_names() {
        let configured = [values("front"), values("rear")];
        let pause = NewCaptioning { paused: Some(true), period_s: Some(2.0), ..NewCaptioning::default() };
        let one = set(&["rear"], pause.clone()).apply(&configured, &configured).expect("accepted");
        assert_eq!(one, [values("front"), Captioning { paused: true, period_s: 2.0, ..values("rear") }]);
        let all = set(&[], pause).apply(&one, &configured).expect("accepted");
        assert!(all.iter().all(|values| values.paused));
        let back = CaptionChange::Reset(vec!["front".into()]).apply(&all, &configured).expect("accepted");
        assert_eq!((back[0].paused, back[1].paused), (false, true));
        assert_eq!(CaptionChange::Get.apply(&all, &configured), Ok(all));
    }

    #[test]
    fn a_bad_change_says_what_is_wrong() {
        let configured = [values("front")];
        let empty = NewCaptioning::default();
        for (change, expected) in [
            (set(&["attic"], empty.clone()), "no camera \"attic\"; there are: front"),
            (set(&[], NewCaptioning { prompt: Some(" ".into()), ..empty.clone() }), "prompt: empty"),
            (set(&[], NewCaptioning { max_tokens: Some(0), ..empty.clone() }), "max_tokens: 0 is not"),
            (set(&[], NewCaptioning { period_s: Some(f64::NAN), ..empty.clone() }), "period_s: NaN is not"),
            (
                set(&[], NewCaptioning { prompt_id: Some("x".repeat(65)), ..empty }),
                "prompt_id in bytes is 65",
            ),
            (CaptionChange::Reset(vec!["attic".into()]), "no camera \"attic\""),
        ] {
            let error = change.apply(&configured, &configured).expect_err("refused").to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn scripts_write_changes_as_documented() {
        let parse =
            |json: &str| serde_json::from_str::<CaptionChange>(json).map_err(|error| error.to_string());
        assert_eq!(parse(r#""get""#), Ok(CaptionChange::Get));
        assert_eq!(parse(r#"{"reset": []}"#), Ok(CaptionChange::Reset(Vec::new())));
        let paused = NewCaptioning { paused: Some(true), ..NewCaptioning::default() };
        assert_eq!(parse(r#"{"set": {"cameras": ["front"], "paused": true}}"#), Ok(set(&["front"], paused)));
        assert!(parse(r#"{"set": {"pause": true}}"#).unwrap_err().contains("unknown field `pause`"));
        let end = serde_json::from_str::<SessionChange>(r#"{"end": {"camera": "front", "name": "lunch"}}"#);
        let name = SessionName { camera: "front".into(), name: "lunch".into() };
        assert_eq!(end.expect("it is JSON"), SessionChange::End(name));
    }
}
