//! Logging: structured fields under systemd, a human log otherwise.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use log::kv;
use systemd_journal_logger::{JournalLog, connected_to_journal};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber, span};
use tracing_subscriber::filter::{FilterExt, Targets, filter_fn};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::bus::Doorkeeper;

/// What the running log lets through, to be changed.
static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Starts logging what `filter` lets through: a level and `MODULE=LEVEL` parts, as in the
/// configuration. Under systemd every field of an event and of its spans becomes a field of the
/// journal (`journalctl CAMERA=front`); elsewhere lines go to standard error.
///
/// A second call changes nothing: the first one to start logging in a process decides.
pub fn start(filter: &str) {
    let (filter, handle) = reload::Layer::new(targets(filter));
    let filter = filter.and(filter_fn(|metadata| !Doorkeeper::retells(metadata)));
    let registry = tracing_subscriber::registry();
    // A log that is already running, of a test for example, is kept.
    let started = match JournalLog::new() {
        Ok(journal) if connected_to_journal() => {
            let journal = journal.with_extra_fields([("VERSION", env!("CARGO_PKG_VERSION"))]);
            let journal = JournalLayer { journal }.with_filter(filter);
            registry.with(journal).with(Doorkeeper.with_filter(Doorkeeper::filter())).try_init()
        }
        _ => {
            let human = tracing_subscriber::fmt::layer()
                .with_writer(io::stderr)
                .with_ansi(io::stderr().is_terminal())
                .with_target(false);
            let human = human.with_filter(filter);
            registry.with(human).with(Doorkeeper.with_filter(Doorkeeper::filter())).try_init()
        }
    };
    if started.is_ok() {
        let _ = FILTER.set(handle);
    }
}

/// Lets something else through from now on.
pub fn change(filter: &str) {
    let Some(handle) = FILTER.get() else { return };
    if let Err(error) = handle.reload(targets(filter)) {
        tracing::warn!(%error, "what is logged stays as it was");
    }
    // Those who log by way of the `log` crate ask that one first.
    log::set_max_level(
        LevelFilter::current()
            .into_level()
            .map_or(log::LevelFilter::Off, |level| log_level(level).to_level_filter()),
    );
}

/// A checked filter; what is not understood lets everything from `info` on through.
fn targets(filter: &str) -> Targets {
    filter.parse().unwrap_or_else(|_| Targets::new().with_default(Level::INFO))
}

/// Tells why the program ends. The journal takes it as an error.
pub fn failure(message: &str) {
    let priority = if connected_to_journal() { "<3>" } else { "" };
    eprintln!("{priority}mobilevlmd: {message}");
}

/// Sends events to the journal with their fields and those of the spans around them.
struct JournalLayer {
    journal: JournalLog,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JournalLayer {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.pairs.extend(outer.pairs.iter().cloned());
            }
        }
        let own = fields.pairs.len();
        event.record(&mut fields);
        let metadata = event.metadata();
        let mut record = log::Record::builder();
        record
            .level(log_level(*metadata.level()))
            .target(metadata.target())
            .file(metadata.file())
            .line(metadata.line())
            .module_path(metadata.module_path())
            .key_values(&fields);
        // There is no other place to tell that the journal is gone.
        let _ = self.journal.journal_send(&record.args(format_args!("{}", fields.line(own))).build());
    }
}

fn log_level(level: Level) -> log::Level {
    match level {
        Level::ERROR => log::Level::Error,
        Level::WARN => log::Level::Warn,
        Level::INFO => log::Level::Info,
        Level::DEBUG => log::Level::Debug,
        _ => log::Level::Trace,
    }
}

/// The message of an event and its other fields as text. A field that is set twice keeps both
/// values, as the journal does.
#[derive(Clone, Debug, Default, PartialEq)]
struct Fields {
    message: String,
    pairs: Vec<(String, String)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            // Events of the `log` crate carry their origin twice.
            name if name.starts_with("log.") => {}
            name => self.pairs.push((name.replace('.', "_"), value)),
        }
    }

    /// The message and, behind it, the fields from number `own` on: those of the event itself, which
    /// the short form of `journalctl` would not show.
    fn line(&self, own: usize) -> String {
        let pairs = self.pairs.iter().skip(own).map(|(key, value)| format!(" {key}={value:?}"));
        format!("{}{}", self.message, pairs.collect::<String>())
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, value.to_string());
    }
}

impl kv::Source for Fields {
    fn visit<'a>(&'a self, visitor: &mut dyn kv::VisitSource<'a>) -> Result<(), kv::Error> {
        for (key, value) in &self.pairs {
            visitor.visit_pair(kv::Key::from_str(key), kv::Value::from(value.as_str()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps the fields of every event, gathered as the journal layer gathers them.
    #[derive(Clone, Default)]
    struct Recorder(Arc<Mutex<Vec<Fields>>>);

    impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut fields = Fields::default();
            event.record(&mut fields);
            self.0.lock().expect("no panic while recording").push(fields);
        }
    }

    #[test]
    fn fields_keep_their_names_and_values() {
        let recorder = Recorder::default();
        let subscriber = tracing_subscriber::registry().with(recorder.clone());
        tracing::subscriber::with_default(subscriber, || {
            let error = io::Error::other("two\nlines");
            tracing::info!(camera = "front", tokens.prompt = 164u64, error = %error, ok = true, "described");
        });
        let expected = Fields {
            message: "described".into(),
            pairs: [("camera", "front"), ("tokens_prompt", "164"), ("error", "two\nlines"), ("ok", "true")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .to_vec(),
        };
        let recorded = recorder.0.lock().expect("recorded");
        assert_eq!(*recorded, [expected]);
        assert_eq!(recorded[0].line(2), "described error=\"two\\nlines\" ok=\"true\"");
    }

    #[test]
    fn every_accepted_filter_is_understood() {
        for filter in ["info", "info,zenoh=warn", "off", "warn,mobilevlmd=debug,zenoh=error"] {
            assert!(filter.parse::<Targets>().is_ok(), "{filter}");
        }
    }
}
