//! `substratus load`: in a Job's pod with a request file, by hand with a source and a folder. Turns arguments into a load and
//! its outcome into an exit code; moves no byte.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use substratus_crds::SourceStatus;
use substratus_crds::conditions::reason;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::by_hand::ByHand;
use super::egress::Patience;
use super::failure::LoadError;
use super::load::{Surroundings, load};
use super::progress::{Store, human};
use super::report::{EXIT_FINAL, MAX_TERMINATION_MESSAGE, Outcome};
use super::request::LoadRequest;
use super::transfer::Tuning;
use crate::plugin::{PluginOptions, Plugins};
use crate::telemetry;

/// Where Kubernetes looks for a container's last words.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// What fetching a plugin may take.
const PLUGIN_TIMEOUT: Duration = Duration::from_mins(2);

/// Fetch a model into a folder or bucket, verified
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// The request of a Job's pod; everything about the source is in it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "to"])]
    request: Option<PathBuf>,
    #[command(flatten)]
    by_hand: ByHand,
    /// Folder of bundled plugins; may be given several times
    #[arg(long = "plugins", value_name = "DIR", env = "SUBSTRATUS_PLUGINS", value_delimiter = ':')]
    bundled: Vec<PathBuf>,
    /// Folder that keeps plugins and their compiled code
    #[arg(long, value_name = "DIR", env = "SUBSTRATUS_PLUGIN_CACHE")]
    plugin_cache: Option<PathBuf>,
    /// The operator's plugin store, for plugins that are not bundled
    #[arg(long, value_name = "URL")]
    store: Option<Url>,
    /// Where progress is reported to
    #[arg(long, value_name = "URL")]
    progress_url: Option<Url>,
    /// Token for the store and for reporting progress; read anew for each request
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File for the outcome as JSON, at most 4096 bytes [default: /dev/termination-log where it exists]
    #[arg(long, value_name = "FILE")]
    termination_log: Option<PathBuf>,
    /// What to print at the end
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// What is logged [default: info, and warn where a person looks on]
    #[arg(long, value_name = "FILTER", env = "LOG_FILTER")]
    log_filter: Option<String>,
    /// Connections at the same time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: u16,
    /// Attempts without progress before giving up
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: u32,
    /// Seconds without a byte after which a connection is replaced
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    stall: u64,
}

/// How the outcome is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A sentence
    #[default]
    Text,
    /// The outcome as JSON
    Json,
}

impl LoadArgs {
    /// Runs the load; the exit code says whether another try could end otherwise.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        // A person has the progress line; a pod's log gets a line per file.
        let usual = if std::io::stderr().is_terminal() { "warn" } else { "info" };
        telemetry::init(telemetry::Format::Human, self.log_filter.as_deref().unwrap_or(usual))?;
        let stop = CancellationToken::new();
        end_on_signal(stop.clone())?;
        let outcome = match self.prepare(stop).await {
            Ok((request, around)) => load(&request, around).await,
            Err((inputs, error)) => failed(inputs, error),
        };
        self.tell(&outcome)?;
        Ok(exit_code(&outcome))
    }

    async fn prepare(&self, stop: CancellationToken) -> Result<(LoadRequest, Surroundings), (String, LoadError)> {
        let named =
            |inputs: &str, error: anyhow::Error| (inputs.to_owned(), LoadError::new(reason::INVALID, format!("{error:#}")));
        // Read first: a failure belongs to the load that it names.
        let asked = self.request.as_deref().map(read_request).transpose().map_err(|error| named("", error))?;
        let inputs = asked.as_ref().map_or("", |request| request.inputs.as_str());
        // The only place where a worker reads its environment.
        let env: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        let plugins = self.open_plugins(&env).map_err(|error| named(inputs, error))?;
        let store = Store::new(self.token_file.clone()).map_err(|error| named(inputs, error.into()))?;
        let request = match asked {
            Some(request) => request,
            None => self.by_hand.request(&plugins).map_err(|error| named("", error))?,
        };
        if let Err(error) = self.find_plugin(&plugins, &request.plugin.digest, &store).await {
            return Err((request.inputs, error));
        }
        let around = Surroundings {
            plugins,
            env,
            progress: self.progress_url.clone().map(|url| (store, url)),
            tuning: Tuning { connections: self.connections.into(), attempts: self.attempts, ..Tuning::default() },
            patience: Patience { stall: Duration::from_secs(self.stall), ..Patience::default() },
            stop,
        };
        Ok((request, around))
    }

    fn open_plugins(&self, env: &[(OsString, OsString)]) -> anyhow::Result<Plugins> {
        let home =
            || env.iter().find(|(name, _)| name == "HOME").map(|(_, home)| Path::new(home).join(".cache/substratus/plugins"));
        let cache = self
            .plugin_cache
            .clone()
            .or_else(home)
            .context("there is no HOME to keep compiled plugins in; give --plugin-cache")?;
        let bundled = match self.bundled.as_slice() {
            // Beside the binary in the image.
            [] => vec![PathBuf::from("/plugins")].into_iter().filter(|folder| folder.is_dir()).collect(),
            given => given.to_vec(),
        };
        Plugins::open(PluginOptions { cache, bundled }).context("cannot open the plugin host")
    }

    /// By digest: from the image, from the cache, else from the operator's store.
    async fn find_plugin(&self, plugins: &Plugins, digest: &str, store: &Store) -> Result<(), LoadError> {
        if plugins.manifest(digest).is_ok() {
            return Ok(());
        }
        let Some(base) = &self.store else {
            let message = format!("plugin {digest} is neither bundled nor cached, and no --store is given");
            return Err(LoadError::new(reason::PLUGIN_NOT_FOUND, message));
        };
        let fetched = self
            .fetch_patiently(base, digest, store)
            .await
            .map_err(|error| LoadError::unavailable(format!("cannot get plugin {digest} from the store: {error:#}")))?;
        let loaded = plugins.add(&fetched).map_err(|error| LoadError::new(reason::PLUGIN_FAILED, error.to_string()))?;
        if loaded.digest == digest {
            Ok(())
        } else {
            Err(LoadError::new(
                reason::PLUGIN_FAILED,
                format!("the store answered with plugin {} instead of {digest}", loaded.digest),
            ))
        }
    }

    /// A store may be restarting, or be a replica that stands by: the next attempt is another connection.
    async fn fetch_patiently(&self, base: &Url, digest: &str, store: &Store) -> anyhow::Result<Vec<u8>> {
        let mut failures = 0;
        loop {
            match fetch_plugin(base, digest, store).await {
                Err(error) if failures + 1 < self.attempts => {
                    failures += 1;
                    let pause = Tuning::default().pause_after(failures);
                    tracing::warn!(%error, ?pause, "the plugin store is asked again");
                    tokio::time::sleep(pause).await;
                }
                result => return result,
            }
        }
    }

    fn tell(&self, outcome: &Outcome) -> anyhow::Result<()> {
        let file = self.termination_log.clone().or_else(|| Some(PathBuf::from(TERMINATION_LOG)).filter(|file| file.exists()));
        if let Some(file) = file {
            std::fs::write(&file, bounded(outcome)?)
                .with_context(|| format!("cannot write the outcome to {}", file.display()))?;
        }
        let mut out = std::io::stdout().lock();
        match (self.output, outcome) {
            (Output::Json, outcome) => writeln!(out, "{}", serde_json::to_string(outcome)?)?,
            (Output::Text, Outcome::Complete { source, .. }) => {
                let revision = source.revision.as_deref().unwrap_or("unknown");
                writeln!(out, "complete: {} files, {}, revision {revision}", source.files, human(source.bytes))?;
                for warning in &source.warnings {
                    writeln!(out, "warning: {warning}")?;
                }
            }
            (Output::Text, Outcome::Failed { reason, message, .. }) => {
                writeln!(std::io::stderr(), "error: {message} ({reason})")?;
            }
        }
        Ok(())
    }
}

fn read_request(file: &Path) -> anyhow::Result<LoadRequest> {
    let text = std::fs::read(file).with_context(|| format!("cannot read the request {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("the request {} is no load request of this version", file.display()))
}

async fn fetch_plugin(base: &Url, digest: &str, store: &Store) -> anyhow::Result<Vec<u8>> {
    let url = Url::parse(&format!("{}/plugins/{digest}", base.as_str().trim_end_matches('/')))?;
    let mut response = store.request(http::Method::GET, url).timeout(PLUGIN_TIMEOUT).send().await?;
    anyhow::ensure!(response.status().is_success(), "the store answered {}", response.status());
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        anyhow::ensure!(
            bytes.len() as u64 <= crate::limits::COMPONENT_BYTES,
            "it is over {} bytes",
            crate::limits::COMPONENT_BYTES
        );
    }
    Ok(bytes)
}

/// SIGTERM and SIGINT end the load in order: the journal is written, and the exit code asks for another run.
fn end_on_signal(stop: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}

fn failed(inputs: String, error: LoadError) -> Outcome {
    Outcome::Failed { inputs, reason: error.reason.to_owned(), message: error.message, retry_after: error.retry_after }
}

fn exit_code(outcome: &Outcome) -> ExitCode {
    match outcome {
        Outcome::Complete { .. } => ExitCode::SUCCESS,
        Outcome::Failed { .. } if outcome.is_final() => ExitCode::from(EXIT_FINAL),
        Outcome::Failed { .. } => ExitCode::FAILURE,
    }
}

/// The outcome as JSON within what Kubernetes keeps: texts are cut, numbers never.
fn bounded(outcome: &Outcome) -> anyhow::Result<String> {
    let mut outcome = outcome.clone();
    loop {
        let text = serde_json::to_string(&outcome)?;
        if text.len() <= MAX_TERMINATION_MESSAGE {
            return Ok(text);
        }
        match &mut outcome {
            Outcome::Complete { source, .. } => {
                if source.warnings.pop().is_none() {
                    let revision = source.revision.take().map(|text| cut(text, 512));
                    *source = SourceStatus { revision, bytes: source.bytes, files: source.files, ..SourceStatus::default() };
                }
            }
            Outcome::Failed { message, .. } => {
                let half = message.len() / 2;
                anyhow::ensure!(half > 0, "the outcome does not fit a termination message");
                *message = cut(std::mem::take(message), half);
            }
        }
    }
}

fn cut(text: String, bytes: usize) -> String {
    if text.len() <= bytes { text } else { text.get(..text.floor_char_boundary(bytes)).unwrap_or_default().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_termination_message_fits() {
        let long = Outcome::Failed {
            inputs: "i".into(),
            reason: reason::NOT_FOUND.into(),
            message: "\"ü\n".repeat(4000),
            retry_after: Some(7),
        };
        let text = bounded(&long).unwrap();
        assert!(text.len() <= MAX_TERMINATION_MESSAGE);
        let Outcome::Failed { reason, message, retry_after, .. } = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
        assert_eq!((reason.as_str(), retry_after), (reason::NOT_FOUND, Some(7)));
        assert!(message.len() > 500);

        let source = SourceStatus { files: 7, bytes: 9, warnings: vec!["w".repeat(400); 20], ..SourceStatus::default() };
        let text = bounded(&Outcome::Complete { inputs: "i".into(), source }).unwrap();
        let Outcome::Complete { source, .. } = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
        assert!((source.files, source.bytes) == (7, 9) && !source.warnings.is_empty());
    }

    #[test]
    fn what_another_run_would_meet_again_is_final() {
        for (reason, retry_after, code) in [
            (reason::NOT_FOUND, None, EXIT_FINAL),
            (reason::GATED, None, EXIT_FINAL),
            (reason::UNAVAILABLE, None, 1),
            (reason::RATE_LIMITED, None, 1),
            (reason::RATE_LIMITED, Some(3600), EXIT_FINAL),
        ] {
            let outcome = failed(String::new(), LoadError { retry_after, ..LoadError::new(reason, "x") });
            assert_eq!(exit_code(&outcome), ExitCode::from(code), "{reason}");
        }
    }
}
