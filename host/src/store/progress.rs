//! The newest report of every running load, in memory: a restart forgets it and the next report brings it back. Tells who
//! listens which Job has news. Knows nothing of where reports come from.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::{self, Stream};
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::worker::report::Progress;

/// Reports of one Job are this far apart at least; a worker sends one a second.
const MIN_INTERVAL: Duration = Duration::from_millis(250);
/// A load that was silent for so long makes room for others.
const STALE: Duration = Duration::from_mins(5);
/// Loads that are remembered.
const MAX_LOADS: usize = 10_000;
/// Changes that a slow listener may be behind before it is told to look at everything.
const BACKLOG: usize = 1024;
/// Longest text of a report's own.
const MAX_TEXT: usize = 128;

type Key = (String, String);

/// Shared by the endpoint, which writes, and the reconciles, which read.
#[derive(Clone, Debug)]
pub struct ProgressBoard {
    loads: Arc<Mutex<BTreeMap<Key, (Instant, Progress)>>>,
    changed: broadcast::Sender<Key>,
}

/// The report is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It cannot be true.
    #[error("refuse report: {0}")]
    Invalid(&'static str),
    /// The last one is too fresh.
    #[error("refuse report: the last one is less than a quarter of a second old")]
    TooSoon,
    /// Too many loads at a time.
    #[error("refuse report: too many loads report at a time")]
    Full,
}

impl Default for ProgressBoard {
    fn default() -> Self {
        Self { loads: Arc::default(), changed: broadcast::channel(BACKLOG).0 }
    }
}

impl ProgressBoard {
    /// The newest report of a Job. Compare its `inputs` with the load you wait for.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Progress> {
        self.lock().get(&(namespace.to_owned(), name.to_owned())).map(|(_, progress)| progress.clone())
    }

    /// Forgets a Job that is done or gone.
    pub fn remove(&self, namespace: &str, name: &str) {
        self.lock().remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// Takes a report and says how many bytes are new in it.
    pub fn put(&self, namespace: &str, name: &str, progress: Progress) -> Result<u64, Refusal> {
        self.put_at((namespace.to_owned(), name.to_owned()), progress, Instant::now())
    }

    pub(super) fn put_at(&self, key: Key, progress: Progress, now: Instant) -> Result<u64, Refusal> {
        check(&key.1, &progress)?;
        let mut loads = self.lock();
        let before = loads.get(&key);
        if before.is_some_and(|(at, _)| now.saturating_duration_since(*at) < MIN_INTERVAL) {
            return Err(Refusal::TooSoon);
        }
        // A resumed worker begins with what is there, so the first report of a load tells what is new in the next one only.
        let same = before.filter(|(_, before)| before.inputs == progress.inputs);
        let moved = same.map_or(0, |(_, before)| progress.transfer.bytes_done.saturating_sub(before.transfer.bytes_done));
        if before.is_none() && loads.len() >= MAX_LOADS {
            loads.retain(|_, (at, _)| now.saturating_duration_since(*at) < STALE);
            if loads.len() >= MAX_LOADS {
                return Err(Refusal::Full);
            }
        }
        loads.insert(key.clone(), (now, progress));
        drop(loads);
        // Nobody listens before the controllers run.
        let _ = self.changed.send(key);
        Ok(u64::try_from(moved).unwrap_or_default())
    }

    /// Namespace and name of every Job with news, from now on. Somebody who is too far behind is told about every load.
    pub fn changes(&self) -> impl Stream<Item = (String, String)> + Send + 'static {
        let start = (self.clone(), self.changed.subscribe(), VecDeque::new());
        stream::unfold(start, |(board, mut receiver, mut missed)| async move {
            loop {
                if let Some(key) = missed.pop_front() {
                    return Some((key, (board, receiver, missed)));
                }
                match receiver.recv().await {
                    Ok(key) => missed.push_back(key),
                    Err(broadcast::error::RecvError::Lagged(_)) => missed.extend(board.lock().keys().cloned()),
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, (Instant, Progress)>> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A report ends in a status, so it must be a possible one.
fn check(name: &str, progress: &Progress) -> Result<(), Refusal> {
    let transfer = &progress.transfer;
    let name_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    if name.is_empty() || name.len() > 253 || !name.bytes().all(name_byte) {
        return Err(Refusal::Invalid("the address names no Job"));
    }
    if progress.inputs.is_empty() || progress.inputs.len() > MAX_TEXT || transfer.progress.len() > MAX_TEXT {
        return Err(Refusal::Invalid("a text is missing or too long"));
    }
    let counters =
        [transfer.bytes_done, transfer.bytes_total, transfer.bytes_per_second, transfer.files_done, transfer.files_total];
    if counters.iter().chain(&transfer.eta_seconds).any(|&counter| counter < 0) {
        return Err(Refusal::Invalid("a counter is negative"));
    }
    Ok(())
}
