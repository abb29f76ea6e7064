//! `mobilevlmd run`: the daemon itself.

use std::io::IsTerminal;
use std::path::PathBuf;

use messages::keys::{Key, Name, Topic};

use super::Failure;
use crate::config::{Config, Override, Sources};
use crate::{journal, service};

/// Describes cameras until stopped; what mobilevlmd does without a command.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Settings: where they come from.
    #[command(flatten)]
    pub settings: Settings,
}

/// Flags that set keys of the configuration.
#[derive(Debug, clap::Args)]
pub struct Settings {
    /// The file and the model.
    #[command(flatten)]
    pub model: ModelSettings,
    /// Camera instead of those of the file; repeat it for more: v4l2:/dev/video0, file:PATH, test:
    #[arg(long, value_name = "[NAME=]SOURCE")]
    pub camera: Vec<String>,
    /// Endpoint to listen on (bus.listen); repeatable
    #[arg(long, value_name = "ENDPOINT")]
    pub listen: Vec<String>,
    /// Endpoint to connect to (bus.connect); repeatable
    #[arg(long, value_name = "ENDPOINT")]
    pub connect: Vec<String>,
}

/// Flags of every command that loads the model of the configuration.
#[derive(Debug, clap::Args)]
pub struct ModelSettings {
    /// Configuration file [default: /etc/mobilevlmd/mobilevlmd.toml if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// GGUF file or Hugging Face directory (model.path) [default: the built-in world model]
    #[arg(long, value_name = "PATH")]
    pub model: Option<String>,
    /// GGUF vision part (model.mmproj)
    #[arg(long, value_name = "FILE")]
    pub mmproj: Option<String>,
    /// Any other key, for example --set model.threads=2; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub set: Vec<(String, String)>,
}

impl ModelSettings {
    /// The configuration file, the environment and these flags.
    pub fn sources(&self) -> Sources {
        Sources::of_process(self.config.clone(), self.overrides().collect())
    }

    fn overrides(&self) -> impl Iterator<Item = Override> {
        let one = |flag: &str, key: &str, value: &Option<String>| {
            value.as_ref().map(|value| Override::flag(flag, key, vec![value.clone()]))
        };
        let set = self.set.iter().map(|(key, value)| Override::flag("--set", key, vec![value.clone()]));
        let named =
            [one("--model", "model.path", &self.model), one("--mmproj", "model.mmproj", &self.mmproj)];
        set.chain(named.into_iter().flatten())
    }
}

impl Settings {
    /// The configuration file, the environment and these flags.
    pub fn sources(&self) -> Sources {
        let list = |flag: &str, key: &str, values: &[String]| {
            (!values.is_empty()).then(|| Override::flag(flag, key, values.to_vec()))
        };
        let named = [
            list("--camera", "camera", &self.camera),
            list("--listen", "bus.listen", &self.listen),
            list("--connect", "bus.connect", &self.connect),
        ];
        Sources::of_process(
            self.model.config.clone(),
            self.model.overrides().chain(named.into_iter().flatten()).collect(),
        )
    }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let sources = args.settings.sources();
    let config = sources.load().map_err(|error| Failure::config(&error))?;
    journal::start(&config.log);
    if std::io::stdout().is_terminal() {
        say!("{}", greeting(&config));
    }
    service::run(config, || sources.load(), service::Signals::new).map_err(|error| {
        let code = match (error.is_configuration(), error.is_device_lost()) {
            (true, _) => Some(Failure::CONFIGURATION),
            (_, true) => Some(Failure::DEVICE_LOST),
            _ => None,
        };
        let failure = Failure::from(error);
        Failure { code: code.unwrap_or(failure.code), ..failure }
    })
}

/// What a person in front of a terminal wants to know.
fn greeting(config: &Config) -> String {
    let device = config.device();
    let mut lines = Vec::new();
    for camera in config.cameras_or_test() {
        let names = Name::new(&device).and_then(|device| Ok((device, Name::new(&camera.name)?)));
        if let Ok((device, name)) = names {
            lines.push(format!("{} -> {}", camera.source, Key::new(device, Topic::Caption(name))));
        }
    }
    lines.push("in another terminal: mobilevlmd watch, or mobilevlmd ask CAMERA \"What do you see?\"".into());
    lines.push("stop with Ctrl-C".into());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn flags_become_overrides() {
        let text =
            "mobilevlmd --config c.toml --set model.threads=2 --camera a=test: --camera b=test: --model m";
        let cli = Cli::try_parse_from(text.split(' ')).expect("accepted");
        let sources = cli.run.settings.sources();
        assert_eq!(sources.file(), Some("c.toml".into()));
        let flags: Vec<_> =
            sources.flags.iter().map(|flag| (flag.key.as_str(), flag.values.join(" "))).collect();
        let expected = [("model.threads", "2"), ("model.path", "m"), ("camera", "a=test: b=test:")]
            .map(|(k, v)| (k, v.to_owned()));
        assert_eq!(flags, expected);
    }

    #[test]
    fn flags_stand_with_and_without_the_command() {
        for (text, accepted) in [
            ("mobilevlmd", true),
            ("mobilevlmd run", true),
            ("mobilevlmd run --camera test:", true),
            ("mobilevlmd --camera test:", true),
            ("mobilevlmd --camera test: status", false),
            ("mobilevlmd --set model.threads", false),
        ] {
            assert_eq!(Cli::try_parse_from(text.split(' ')).is_ok(), accepted, "{text}");
        }
    }
}
