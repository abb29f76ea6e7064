//! What of a configuration can change without a restart.

use toml::Value;

use super::{Config, ConfigError, QuestionConfig};

impl Config {
    /// This configuration with everything of `new` that needs no restart: what is logged, what is asked of
    /// frames, cameras, rules, and what an answer takes.
    ///
    /// Errors: what changes does not go with what stays.
    pub fn reloaded(&self, new: &Self) -> Result<Self, ConfigError> {
        let Self { log, caption, cameras, rules, question, .. } = new.clone();
        let QuestionConfig { max_tokens, max_stale_s, .. } = question;
        let question = QuestionConfig { max_tokens, max_stale_s, ..self.question.clone() };
        let reloaded = Self { log, caption, cameras, rules, question, ..self.clone() };
        reloaded.validate().map(|()| reloaded)
    }

    /// Keys whose values differ in `other`, written `model.path`.
    pub fn differing_keys(&self, other: &Self) -> Vec<String> {
        let (ours, theirs) = (self.to_table(), other.to_table());
        let mut keys = Vec::new();
        for (name, value) in &ours {
            match (value, theirs.get(name)) {
                (Value::Table(ours), Some(Value::Table(theirs))) => {
                    let differing = ours.iter().filter(|(key, value)| theirs.get(*key) != Some(value));
                    keys.extend(differing.map(|(key, _)| format!("{name}.{key}")));
                }
                (value, other) if other != Some(value) => keys.push(name.clone()),
                _ => {}
            }
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::super::CameraConfig;
    use super::*;

    fn camera(name: &str) -> CameraConfig {
        CameraConfig { name: name.into(), source: "test:".into(), ..CameraConfig::default() }
    }

    #[test]
    fn what_needs_a_restart_stays_and_is_named() {
        let old = Config { cameras: vec![camera("a")], ..Config::default() };
        let mut new = Config { cameras: vec![camera("a"), camera("b")], ..Config::default() };
        new.log = "debug".into();
        new.caption.prompt = "What is there?".into();
        new.question.max_tokens = 8;
        (new.question.queue, new.model.context) = (4, 4096);
        new.device_name = "robot".into();
        let now = old.reloaded(&new).expect("accepted");
        assert_eq!((now.cameras.len(), now.log.as_str(), now.question.max_tokens), (2, "debug", 8));
        assert_eq!(now.caption, new.caption);
        assert_eq!((now.question.queue, now.model.context), (32, 2048));
        let mut waiting = now.differing_keys(&new);
        waiting.sort();
        assert_eq!(waiting, ["device_name", "model.context", "question.queue"]);
        assert!(new.differing_keys(&new).is_empty());
    }

    #[test]
    fn what_goes_only_with_a_new_model_is_refused() {
        let mut new = Config::default();
        (new.model.context, new.caption.max_tokens) = (8192, 4000);
        assert!(new.validate().is_ok());
        let error = Config::default().reloaded(&new).expect_err("refused").to_string();
        assert!(error.starts_with("caption.max_tokens: 4000 is not accepted"), "{error}");
    }
}
