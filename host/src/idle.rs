//! `substratus idle`, the sidecar in a Notebook's pod: asks Jupyter whether anybody uses it, and tells the operator when nobody
//! has for long enough. Knows nothing of Kubernetes; whether the Notebook is suspended is the operator's decision.

pub mod jupyter;
pub mod usage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};
use url::Url;

use self::jupyter::Jupyter;
use self::usage::Watch;
use crate::kinds::shared::duration;
use crate::store::IdleReport;
use crate::telemetry;
use crate::worker::progress::Store;

/// Jupyter is asked this often within the timeout, so that the timeout is kept to a quarter of it.
const PARTS: u32 = 4;
/// Shortest and longest time between two questions.
const EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// What a report may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What is not accepted is said again after this.
const AGAIN: Duration = Duration::from_secs(30);

/// Watch whether a Notebook is used
#[derive(Debug, clap::Args)]
pub struct IdleArgs {
    /// How long nobody must have used it: `30m`
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    timeout: Duration,
    /// Where Jupyter answers; its token is taken from the variable `NOTEBOOK_TOKEN`
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8888")]
    jupyter: Url,
    /// Where to tell
    #[arg(long, value_name = "URL")]
    report_url: Url,
    /// Token for telling; read anew for each request
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// What is logged
    #[arg(long, value_name = "FILTER", env = "LOG_FILTER", default_value = "info")]
    log_filter: String,
}

fn timeout(text: &str) -> Result<Duration, String> {
    duration::read(text).ok_or_else(|| "write a time as `30m` or `1h30m`".to_owned())
}

/// Jupyter's token; an argument could be read by whoever lists processes.
#[expect(clippy::disallowed_methods, reason = "a secret, which help and debug output must not show")]
fn token() -> String {
    std::env::var("NOTEBOOK_TOKEN").unwrap_or_default()
}

impl IdleArgs {
    /// Watches until it is told to end.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        telemetry::init(telemetry::Format::Human, &self.log_filter)?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let jupyter = Jupyter::new(&self.jupyter, &token())?;
        let store = Store::new(self.token_file.clone())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = self.watch(&jupyter, &store) => {}
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn watch(&self, jupyter: &Jupyter, store: &Store) {
        let every = (self.timeout / PARTS).clamp(EVERY.0, EVERY.1);
        let mut watch = Watch::default();
        let (mut said, mut next) = (String::new(), Instant::now());
        tracing::info!(timeout = ?self.timeout, ?every, "watching whether anybody uses this Notebook");
        loop {
            let asked = jupyter.usage().await;
            // The same words once.
            let words = asked.as_ref().map_or_else(ToString::to_string, ToString::to_string);
            if said != words {
                tracing::info!("{words}");
                said = words;
            }
            let quiet = watch.take(asked.ok(), Instant::now());
            if quiet >= self.timeout && Instant::now() >= next {
                match self.report(store, quiet).await {
                    Ok(()) => tracing::info!(?quiet, "nobody uses this Notebook: it is being suspended"),
                    Err(error) => tracing::warn!("nobody uses this Notebook, and it is not suspended: {error:#}"),
                }
                next = Instant::now() + AGAIN;
            }
            sleep(every).await;
        }
    }

    async fn report(&self, store: &Store, quiet: Duration) -> anyhow::Result<()> {
        let report = IdleReport { idle_seconds: u32::try_from(quiet.as_secs()).unwrap_or(u32::MAX) };
        let request = store.request(http::Method::POST, self.report_url.clone()).timeout(TIMEOUT);
        let mut response = request.header("content-type", "application/json").body(serde_json::to_vec(&report)?).send().await?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let words = response.chunk().await.ok().flatten().unwrap_or_default();
        let words: String = String::from_utf8_lossy(&words).trim().chars().take(300).collect();
        anyhow::bail!("the operator answered {status}: {words}")
    }
}
