//! Moves the files of a plan: several at a time, each over several byte ranges, every connection on a seat of one transfer.
//! Knows no plugin: where a file moved to is asked through [`Refresh`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures::future::BoxFuture;
use substratus_crds::conditions::reason;
use tokio::task::JoinSet;

use super::beside::Beside;
use super::counters::Counters;
use super::egress::Egress;
use super::failure::LoadError;
use super::file::FileLoad;
use super::journal::Journal;
use super::plan::{Origin, Plan, PlanFile};
use super::seats::{Seats, Turn};
use crate::bucket::Sink;
use crate::bucket::sink::Verified;

/// How hard to try.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Most connections at the same time, over all files.
    pub connections: usize,
    /// Most files at the same time, with those that are only hashed or made durable. Each has a buffer for its hash.
    pub files: usize,
    /// Bytes asked for in one request.
    pub part: u64,
    /// Attempts without a byte of progress before giving up.
    pub attempts: u32,
    /// How long a source that answered before is asked again while it is down, however many attempts that takes.
    pub outage: Duration,
    /// Pause before the second attempt; doubled each time.
    pub pause: Duration,
    /// Longest time that servers may make us wait, all waits of one request together.
    pub max_wait: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            connections: 32,
            files: 64,
            part: 16 * 1024 * 1024,
            attempts: 6,
            outage: Duration::from_hours(1),
            pause: Duration::from_millis(500),
            max_wait: Duration::from_mins(15),
        }
    }
}

impl Tuning {
    /// Pause after so many attempts in a row that brought nothing.
    pub fn pause_after(&self, attempts: u32) -> Duration {
        self.pause.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(Duration::from_secs(30))
    }
}

/// Where is the file now? Asked when its URL expired or was refused.
pub trait Refresh: Send + Sync {
    /// The file's newest origin.
    fn refresh<'a>(&'a self, file: &'a PlanFile) -> BoxFuture<'a, Result<Origin, LoadError>>;
}

/// Everything that the files of one load share.
pub struct Transfer {
    /// The only way out.
    pub egress: Egress,
    /// The only way to disk.
    pub sink: Sink,
    /// What is done.
    pub journal: Journal,
    /// What the user sees.
    pub counters: Arc<Counters>,
    /// Who knows new URLs.
    pub refresh: Arc<dyn Refresh>,
    /// How hard to try.
    pub tuning: Tuning,
    /// Files that are there already, and counted.
    pub taken: HashMap<String, Verified>,
    /// Loads that may be getting the same bytes now.
    pub beside: Option<Beside>,
    /// Who may have a connection.
    pub(super) seats: Seats,
    /// A server has given bytes: one that does not answer any more is down, and not a mistake of the user's.
    pub(super) answered: AtomicBool,
}

impl Transfer {
    /// A transfer that has not begun.
    pub fn new(
        egress: Egress,
        sink: Sink,
        journal: Journal,
        counters: Arc<Counters>,
        refresh: Arc<dyn Refresh>,
        tuning: Tuning,
    ) -> Self {
        let (seats, taken) = (Seats::new(tuning.connections), HashMap::new());
        Self { egress, sink, journal, counters, refresh, tuning, taken, beside: None, seats, answered: AtomicBool::new(false) }
    }

    /// Fetches what is not there yet. Answers with size and digest of every file, in the plan's order.
    pub async fn run(self: Arc<Self>, plan: &Plan) -> Result<Vec<Verified>, LoadError> {
        self.check_room(plan).await?;
        tokio::select! {
            verified = self.files(plan) => verified,
            never = self.seats.keep_pace(&self.counters) => match never {},
        }
    }

    /// A file begins when there is a connection for it that no file in work waits for.
    async fn files(self: &Arc<Self>, plan: &Plan) -> Result<Vec<Verified>, LoadError> {
        let mut verified: Vec<_> = plan.files.iter().map(|file| self.taken.get(&file.path).copied()).collect();
        let missing = |(_, file): &(usize, &PlanFile)| !self.taken.contains_key(&file.path);
        let mut waiting = plan.files.iter().enumerate().filter(missing).peekable();
        let mut running = JoinSet::new();
        loop {
            let begins = waiting.peek().is_some() && running.len() < self.tuning.files;
            tokio::select! {
                seat = self.seats.take(Turn::File), if begins => {
                    if let Some((index, file)) = waiting.next() {
                        let load = FileLoad::new(Arc::clone(self), index, file.clone(), seat);
                        running.spawn(async move { (index, load.run().await) });
                    }
                }
                Some(joined) = running.join_next() => {
                    // Dropping the set at an error ends the other files; what they wrote is in the journal.
                    let (index, result) =
                        joined.map_err(|error| LoadError::new(reason::JOB_FAILED, format!("a file's task ended: {error}")))?;
                    if let Some(slot) = verified.get_mut(index) {
                        *slot = Some(result?);
                    }
                }
                else => return Ok(verified.into_iter().flatten().collect()),
            }
        }
    }

    /// Before the first byte: is there room for all that lacks? Files in work have theirs set aside.
    async fn check_room(&self, plan: &Plan) -> Result<(), LoadError> {
        let lacks = |file: &&PlanFile| {
            let is_there = self.journal.finished(file).is_some() || self.taken.contains_key(&file.path);
            !is_there && !self.journal.begun(&file.path)
        };
        let needed: u64 = plan.files.iter().filter(lacks).filter_map(|file| file.size).fold(0, u64::saturating_add);
        match self.sink.free().await? {
            Some(free) if needed > free => {
                let message = format!(
                    "the files need {needed} bytes and the bucket has {free} free; make room or choose fewer files with spec.files"
                );
                Err(LoadError::new(reason::TOO_LARGE, message))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
