//! The newest report of every running load, in memory: a restart forgets it and the next report brings it back. Tells who
//! listens which Job has news. Knows nothing of where reports come from.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::{self, Stream};
use substratus_crds::TransferStatus;
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

/// Longest name of a file in a report.
const MAX_FILE: usize = 512;

type Key = (String, String);

/// The newest report of a load.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What it says.
    pub progress: Progress,
    /// How long nothing has moved, as far as this operator has seen.
    pub still: Duration,
}

/// What is new in a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Bytes, taken over or fetched.
    pub bytes: u64,
    /// Those of them that were taken over.
    pub reused: u64,
    /// Whole files.
    pub files: u64,
}

#[derive(Clone, Debug)]
struct Load {
    at: Instant,
    /// When something was another than before.
    moved: Instant,
    progress: Progress,
}

/// Shared by the endpoint, which writes, and the reconciles, which read.
#[derive(Clone, Debug)]
pub struct ProgressBoard {
    loads: Arc<Mutex<BTreeMap<Key, Load>>>,
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
    pub fn get(&self, namespace: &str, name: &str) -> Option<Report> {
        self.get_at(&(namespace.to_owned(), name.to_owned()), Instant::now())
    }

    pub(super) fn get_at(&self, key: &Key, now: Instant) -> Option<Report> {
        let still = |load: &Load| now.saturating_duration_since(load.moved);
        self.lock().get(key).map(|load| Report { progress: load.progress.clone(), still: still(load) })
    }

    /// Forgets a Job that is done or gone.
    pub fn remove(&self, namespace: &str, name: &str) {
        self.lock().remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// Takes a report and says what is new in it.
    pub fn put(&self, namespace: &str, name: &str, progress: Progress) -> Result<Moved, Refusal> {
        self.put_at((namespace.to_owned(), name.to_owned()), progress, Instant::now())
    }

    pub(super) fn put_at(&self, key: Key, progress: Progress, now: Instant) -> Result<Moved, Refusal> {
        check(&key.1, &progress)?;
        let mut loads = self.lock();
        let before = loads.get(&key);
        if before.is_some_and(|before| now.saturating_duration_since(before.at) < MIN_INTERVAL) {
            return Err(Refusal::TooSoon);
        }
        // A resumed worker begins with what is there, so the first report of a load tells what is new in the next one only.
        let same = before.filter(|before| before.progress.inputs == progress.inputs);
        let moved = same.map_or_else(Moved::default, |before| Moved::between(&before.progress.transfer, &progress.transfer));
        let still = same.filter(|before| before.stands(&progress.transfer)).map(|before| before.moved);
        if before.is_none() && loads.len() >= MAX_LOADS {
            loads.retain(|_, load| now.saturating_duration_since(load.at) < STALE);
            if loads.len() >= MAX_LOADS {
                return Err(Refusal::Full);
            }
        }
        loads.insert(key.clone(), Load { at: now, moved: still.unwrap_or(now), progress });
        drop(loads);
        // Nobody listens before the controllers run.
        let _ = self.changed.send(key);
        Ok(moved)
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

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Load>> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Load {
    /// Whether a report tells of nothing that moved.
    fn stands(&self, now: &TransferStatus) -> bool {
        let known = &self.progress.transfer;
        (known.bytes_done, known.files_done, &known.pod) == (now.bytes_done, now.files_done, &now.pod)
    }
}

impl Moved {
    fn between(before: &TransferStatus, now: &TransferStatus) -> Self {
        let more = |before: i64, now: i64| u64::try_from(now.saturating_sub(before)).unwrap_or_default();
        Self {
            bytes: more(before.bytes_done, now.bytes_done),
            reused: more(before.reused_bytes, now.reused_bytes),
            files: more(before.files_done, now.files_done),
        }
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
    if transfer.file.as_ref().is_some_and(|file| file.len() > MAX_FILE || file.chars().any(char::is_control)) {
        return Err(Refusal::Invalid("the name of the file is too long, or is none"));
    }
    let counters = [
        transfer.bytes_done,
        transfer.bytes_total,
        transfer.bytes_per_second,
        transfer.files_done,
        transfer.files_total,
        transfer.reused_bytes,
    ];
    if counters.iter().chain(&transfer.eta_seconds).any(|&counter| counter < 0) {
        return Err(Refusal::Invalid("a counter is negative"));
    }
    Ok(())
}
