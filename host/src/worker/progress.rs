//! Tells how a load is getting on: to the operator's store over HTTP, to a person on a terminal. Never fails a load.

mod bar;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use substratus_crds::TransferStatus;
use tokio::time::Instant;
use url::Url;

use super::counters::{Counters, Snapshot};
use super::report::Progress;

/// The store is told at most this often.
const EVERY: Duration = Duration::from_secs(2);
/// A person sees it move.
const REDRAW: Duration = Duration::from_millis(500);
/// What a POST may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The operator's store, as a worker sees it.
#[derive(Clone, Debug)]
pub struct Store {
    client: reqwest::Client,
    token_file: Option<PathBuf>,
}

impl Store {
    /// A store that takes the token in `token_file`, read anew for each request because it rotates.
    pub fn new(token_file: Option<PathBuf>) -> Result<Self, reqwest::Error> {
        let client =
            reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).connect_timeout(TIMEOUT).build()?;
        Ok(Self { client, token_file })
    }

    /// A request with the pod's token.
    pub fn request(&self, method: http::Method, url: Url) -> reqwest::RequestBuilder {
        let request = self.client.request(method, url);
        match self.token_file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()) {
            Some(token) => request.bearer_auth(token.trim()),
            None => request,
        }
    }
}

/// Reports until it is dropped.
#[derive(Debug)]
pub struct Reporter {
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.task.abort();
        if std::io::stderr().is_terminal() {
            // What is said next begins a line of its own.
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Reporter {
    /// Starts reporting `counters` of the load `inputs`.
    pub fn start(counters: Arc<Counters>, inputs: String, to: Option<(Store, Url)>) -> Self {
        let person = std::io::stderr().is_terminal();
        Self { task: tokio::spawn(report(counters, inputs, to, person)) }
    }
}

async fn report(counters: Arc<Counters>, inputs: String, to: Option<(Store, Url)>, person: bool) {
    let mut rate = Rate::default();
    let (mut told, mut reached) = (None, true);
    let mut ticks = tokio::time::interval(if person { REDRAW } else { EVERY });
    let mut due: Option<Instant> = None;
    loop {
        let now = ticks.tick().await;
        let snapshot = counters.snapshot();
        let (current, transfer) = (counters.current(), status(snapshot, rate.sample(snapshot.fetched, now)));
        let transfer = TransferStatus { file: current.as_ref().map(|(path, _)| path.clone()), ..transfer };
        if person {
            let bar = bar::line(&transfer, current, bar::columns());
            // A carriage return belongs on a terminal and nowhere else; a terminal that is gone is no failure.
            let _ = write!(std::io::stderr(), "\r\x1b[K{bar}");
        }
        let Some((store, url)) = &to else { continue };
        if told.as_ref() == Some(&transfer) || due.is_some_and(|due| now < due) {
            continue;
        }
        due = Some(now + EVERY);
        let progress = Progress { inputs: inputs.clone(), transfer };
        match post(store, url, &progress).await {
            Ok(()) => (told, reached) = (Some(progress.transfer), true),
            Err(error) if reached => {
                tracing::warn!(%error, "progress cannot be reported; the load goes on");
                reached = false;
            }
            Err(_) => {}
        }
    }
}

/// Sends one report.
async fn post(store: &Store, url: &Url, progress: &Progress) -> anyhow::Result<()> {
    let request = store.request(http::Method::POST, url.clone()).timeout(TIMEOUT).header("content-type", "application/json");
    let response = request.body(serde_json::to_vec(progress)?).send().await?;
    anyhow::ensure!(response.status().is_success(), "the store answered {}", response.status());
    Ok(())
}

/// Bytes per second, smoothed over a few samples.
#[derive(Debug, Default)]
struct Rate {
    last: Option<(u64, Instant)>,
    average: u64,
}

impl Rate {
    fn sample(&mut self, bytes: u64, at: Instant) -> u64 {
        if let Some((before, then)) = self.last
            && at > then
        {
            let millis = u64::try_from(at.duration_since(then).as_millis()).unwrap_or(u64::MAX).max(1);
            let current = bytes.saturating_sub(before).saturating_mul(1000) / millis;
            self.average = if self.average == 0 { current } else { (self.average.saturating_mul(2) + current) / 3 };
        }
        self.last = Some((bytes, at));
        self.average
    }
}

/// The counters as a status shows them.
pub fn status(snapshot: Snapshot, rate: u64) -> TransferStatus {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let whole = snapshot.files_done == snapshot.files && snapshot.files > 0 && !snapshot.more;
    let share = match (snapshot.total, whole) {
        (_, true) => 100,
        (0, false) => 0,
        // Not 100 before every file is verified.
        (total, false) => (u128::from(snapshot.done) * 100 / u128::from(total)).min(99),
    };
    let left = snapshot.total.saturating_sub(snapshot.done);
    TransferStatus {
        progress: format!("{share}%"),
        bytes_done: signed(snapshot.done),
        bytes_total: signed(snapshot.total),
        bytes_per_second: signed(rate),
        eta_seconds: left.checked_div(rate).map(signed),
        files_done: signed(snapshot.files_done),
        files_total: signed(snapshot.files),
        reused_bytes: signed(snapshot.reused),
        ..TransferStatus::default()
    }
}

/// `1.5 GiB`
pub fn human(bytes: i64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut tenths = i128::from(bytes) * 10;
    let mut unit = "B";
    for next in UNITS {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{}.{} {unit}", tenths / 10, tenths % 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_a_person_wants_to_know() {
        let half = Snapshot { total: 1000, done: 500, fetched: 500, reused: 0, files: 2, files_done: 1, more: false };
        let shown = status(half, 100);
        assert_eq!((shown.progress.as_str(), shown.eta_seconds, shown.bytes_done), ("50%", Some(5), 500));
        assert_eq!(status(half, 0).eta_seconds, None);
        assert_eq!(status(Snapshot { done: 1000, ..half }, 0).progress, "99%", "not verified yet");
        assert_eq!(status(Snapshot { done: 1000, files_done: 2, ..half }, 0).progress, "100%");
        assert_eq!(status(Snapshot { done: 1000, files_done: 2, more: true, ..half }, 0).progress, "99%", "not put together yet");
        assert_eq!(human(1_610_612_736), "1.5 GiB");
    }

    #[test]
    fn a_rate_is_smooth() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        assert_eq!(rate.sample(0, start), 0);
        assert_eq!(rate.sample(2000, start + Duration::from_secs(2)), 1000);
        assert_eq!(rate.sample(2000, start + Duration::from_secs(4)), 666);
    }
}
