//! What every worker is told on its command line: where plugins are, whom to tell, how hard to try. Knows nothing of what the
//! worker fetches.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use substratus_crds::conditions::reason;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::egress::Patience;
use super::failure::LoadError;
use super::load::Effort;
use super::network::{CA_BUNDLE, Network};
use super::oci::login::Accounts;
use super::progress::{Store, human};
use super::report::Outcome;
use super::request::LoadRequest;
use super::transfer::Tuning;
use crate::bucket::Environment;
use crate::plugin::{Isolation, PluginOptions, Plugins};
use crate::telemetry;

/// Where Kubernetes looks for a container's last words.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// What fetching a plugin may take.
const PLUGIN_TIMEOUT: Duration = Duration::from_mins(2);

/// Where plugins are found and kept.
#[derive(Debug, Args)]
pub(super) struct PluginArgs {
    /// Folder of bundled plugins; may be given several times
    #[arg(long = "plugins", value_name = "DIR", env = "SUBSTRATUS_PLUGINS", value_delimiter = ':')]
    bundled: Vec<PathBuf>,
    /// Folder that keeps plugins and their compiled code
    #[arg(long, value_name = "DIR", env = "SUBSTRATUS_PLUGIN_CACHE")]
    plugin_cache: Option<PathBuf>,
    /// Where the plugin runs: `process`, in a child without tokens, files and network; or `none`, in this process
    #[arg(long, env = "SUBSTRATUS_SANDBOX", default_value = "process", value_name = "process|none", hide = true)]
    sandbox: Isolation,
}

/// Arguments of `load` and `import` alike.
#[derive(Debug, Args)]
pub(super) struct WorkerArgs {
    #[command(flatten)]
    pub(super) plugins: PluginArgs,
    /// The operator's plugin store, for plugins that are not bundled
    #[arg(long, value_name = "URL")]
    store: Option<Url>,
    /// Where progress is reported to
    #[arg(long, value_name = "URL")]
    progress_url: Option<Url>,
    /// Token for the store and for reporting progress; read anew for each request
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// Arguments of everything that moves bytes.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// File for the outcome as JSON, at most 4096 bytes [default: /dev/termination-log where it exists]
    #[arg(long, value_name = "FILE")]
    termination_log: Option<PathBuf>,
    /// What to print at the end
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Output,
    /// What is logged [default: info, and warn where a person looks on]
    #[arg(long, value_name = "FILTER", env = "LOG_FILTER")]
    log_filter: Option<String>,
    #[command(flatten)]
    pub(super) effort: EffortArgs,
}

/// How hard to try, and by which way.
#[derive(Debug, Args)]
pub(super) struct EffortArgs {
    /// Most connections at the same time; fewer where more bring nothing, or servers are busy
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: u16,
    /// Attempts without progress before giving up
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: u32,
    /// Seconds to go on asking, whatever the attempts, where a source answered before and now is down
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(0..=86400))]
    outage: u64,
    /// Seconds without a byte after which a connection is replaced
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    stall: u64,
    /// Certificates to trust besides the system's, in PEM format, as `AWS_CA_BUNDLE` names them. Proxies are taken from
    /// `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// How the outcome is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// A sentence
    #[default]
    Text,
    /// The outcome as JSON
    Json,
}

impl RunArgs {
    /// Starts logging: a person has the progress line, a pod's log gets a line per file.
    pub(super) fn start_log(&self) -> anyhow::Result<()> {
        let usual = if std::io::stderr().is_terminal() { "warn" } else { "info" };
        telemetry::init(telemetry::Format::Human, self.log_filter.as_deref().unwrap_or(usual))?;
        Ok(())
    }

    /// Leaves the outcome where Kubernetes looks for it, or where the arguments say; a person without either needs none.
    pub(super) fn write_termination(&self, outcome: &Outcome) -> anyhow::Result<()> {
        let file = self.termination_log.clone().or_else(|| Some(PathBuf::from(TERMINATION_LOG)).filter(|file| file.exists()));
        let Some(file) = file else { return Ok(()) };
        std::fs::write(&file, outcome.bounded()?).with_context(|| format!("cannot write the outcome to {}", file.display()))
    }

    /// Tells the outcome: to Kubernetes, and to whoever started this.
    pub(super) fn tell(&self, outcome: &Outcome, what: &str) -> anyhow::Result<()> {
        self.write_termination(outcome)?;
        let mut out = std::io::stdout().lock();
        match (self.output, outcome) {
            (Output::Json, outcome) => writeln!(out, "{}", serde_json::to_string(outcome)?)?,
            (Output::Text, Outcome::Complete { source, .. }) => {
                writeln!(out, "{what}: {} files, {}", source.files, human(source.bytes))?;
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

impl PluginArgs {
    /// The plugin host with what is bundled.
    pub(super) fn open(&self, env: &[(OsString, OsString)]) -> anyhow::Result<Plugins> {
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
        Plugins::open_isolated(PluginOptions { cache, bundled }, self.sandbox.clone()).context("cannot open the plugin host")
    }
}

impl EffortArgs {
    /// The environment, with what the arguments say in its place: the only place where a worker reads it.
    pub(super) fn environment(&self) -> Vec<(OsString, OsString)> {
        let mut env: Vec<_> = std::env::vars_os().collect();
        if let Some(file) = &self.ca_file {
            env.retain(|(name, _)| name != CA_BUNDLE);
            env.push((CA_BUNDLE.into(), file.into()));
        }
        env
    }

    /// How hard to try, and by which way: `env` says what of the network is as the administrator made it.
    pub(super) fn effort(&self, env: &Environment) -> Result<Effort, LoadError> {
        Ok(Effort {
            tuning: Tuning {
                connections: self.connections.into(),
                attempts: self.attempts,
                outage: Duration::from_secs(self.outage),
                ..Tuning::default()
            },
            patience: Patience { stall: Duration::from_secs(self.stall), ..Patience::default() },
            network: Network::from_env(env)?,
            accounts: Accounts::default(),
        })
    }
}

impl WorkerArgs {
    /// The operator's store.
    pub(super) fn store(&self) -> Result<Store, reqwest::Error> {
        Store::new(self.token_file.clone())
    }

    /// Where progress goes.
    pub(super) fn progress_to(&self, store: Store) -> Option<(Store, Url)> {
        self.progress_url.clone().map(|url| (store, url))
    }

    /// By digest: from the image, from the cache, else from the operator's store.
    pub(super) async fn find_plugin(&self, plugins: &Plugins, digest: &str, store: &Store) -> Result<(), LoadError> {
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
                Err(error) if failures + 1 < self.run.effort.attempts => {
                    failures += 1;
                    let pause = Tuning::default().pause_after(failures);
                    tracing::warn!(%error, ?pause, "the plugin store is asked again");
                    tokio::time::sleep(pause).await;
                }
                result => return result,
            }
        }
    }
}

/// The request that the operator left in the pod.
pub(super) fn read_request(file: &Path) -> anyhow::Result<LoadRequest> {
    let text = std::fs::read(file).with_context(|| format!("cannot read the request {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("the request {} is none of this version", file.display()))
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
pub(super) fn end_on_signal(stop: CancellationToken) -> anyhow::Result<()> {
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
