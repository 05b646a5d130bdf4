//! Log lines: JSON or for people, on standard error, with a filter that can be changed while the operator runs.
//! Knows nothing of what is logged.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

/// Logging could not be set up, or not be changed.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("read log filter '{filter}', write something like 'info' or 'substratus=debug,kube=warn'")]
    Filter {
        /// What was typed.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// There is a logger already.
    #[error("start logging")]
    Install(#[source] tracing_subscriber::util::TryInitError),
    /// The logger is gone.
    #[error("change the log filter")]
    Reload(#[source] reload::Error),
}

/// Reads and changes the filter of a running logger.
#[derive(Clone, Debug)]
pub struct Reload {
    handle: reload::Handle<EnvFilter, Registry>,
    current: Arc<Mutex<String>>,
}

impl Reload {
    /// The filter as it was typed.
    pub fn filter(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes another filter, or keeps the old one where the new one is wrong.
    pub fn set(&self, filter: &str) -> Result<(), TelemetryError> {
        let parsed = parse(filter)?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        self.handle.reload(parsed).map_err(TelemetryError::Reload)?;
        filter.clone_into(&mut current);
        Ok(())
    }
}

/// Logs to standard error for the rest of the process.
pub fn init(format: Format, filter: &str) -> Result<Reload, TelemetryError> {
    let (subscriber, reload) = subscriber(format, filter, std::io::stderr)?;
    subscriber.try_init().map_err(TelemetryError::Install)?;
    Ok(reload)
}

/// The logger, for whoever brings a writer.
pub fn subscriber<W>(format: Format, filter: &str, writer: W) -> Result<(impl Subscriber + Send + Sync, Reload), TelemetryError>
where
    W: for<'a> MakeWriter<'a, Writer: Write> + Send + Sync + 'static,
{
    let (filter_layer, handle) = reload::Layer::new(parse(filter)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match format {
        Format::Human => lines.with_target(false).with_ansi(false).boxed(),
        Format::Json => lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
    };
    let reload = Reload { handle, current: Arc::new(Mutex::new(filter.to_owned())) };
    Ok((Registry::default().with(filter_layer).with(lines), reload))
}

fn parse(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder().parse(filter).map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn json_lines_hold_the_fields() {
        let lines = Lines::default();
        let writer = lines.clone();
        let (subscriber, _reload) = subscriber(Format::Json, "info", move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || tracing::info!(model = "opt", "loaded"));
        let line: serde_json::Value = serde_json::from_str(&lines.text()).unwrap();
        assert_eq!((&line["message"], &line["model"], &line["level"]), (&"loaded".into(), &"opt".into(), &"INFO".into()));
    }

    #[test]
    fn filter_changes_while_it_runs() {
        let lines = Lines::default();
        let writer = lines.clone();
        let (subscriber, reload) = subscriber(Format::Human, "warn", move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("before");
            reload.set("debug").unwrap();
            tracing::info!("after");
            assert!(reload.set("a=b=c").is_err());
            assert_eq!(reload.filter(), "debug", "a wrong filter changes nothing");
        });
        assert!(!lines.text().contains("before") && lines.text().contains("after"), "{}", lines.text());
    }
}
