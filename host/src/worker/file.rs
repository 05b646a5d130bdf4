//! One file of a plan, from what an earlier run left to its name in the bucket. Decides what to ask for; [`super::fetch`] asks.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use substratus_crds::conditions::reason;
use tokio::task::JoinSet;

use super::failure::LoadError;
use super::fetch::{Fetch, Opened, Stop};
use super::plan::PlanFile;
use super::seats::Seat;
use super::transfer::Transfer;
use super::verify::{Front, Hashed, Hashing, Verifier};
use crate::bucket::sink::Verified;
use crate::bucket::{SinkError, SinkFile};

/// A file that is being loaded.
pub(super) struct FileLoad {
    pub(super) transfer: Arc<Transfer>,
    /// Its place in the plan.
    pub(super) index: usize,
    pub(super) file: Arc<PlanFile>,
    /// For its first connection.
    seat: Mutex<Option<Seat>>,
    /// The size that nobody knew was added to the sum.
    counted: AtomicBool,
}

impl FileLoad {
    pub(super) fn new(transfer: Arc<Transfer>, index: usize, file: PlanFile, seat: Seat) -> Self {
        Self { transfer, index, file: Arc::new(file), seat: Mutex::new(Some(seat)), counted: AtomicBool::new(false) }
    }

    /// Loads, verifies, names. Bytes that do not match are fetched again once.
    pub(super) async fn run(self) -> Result<Verified, LoadError> {
        let (transfer, file) = (&self.transfer, &self.file);
        if let Some(verified) = transfer.journal.finished(file)
            && transfer.sink.finished(&file.path).await? == Some(verified.size)
        {
            transfer.counters.found(verified.size);
            transfer.counters.file();
            return Ok(verified);
        }
        let _working = transfer.counters.working(&file.path);
        if let Some(beside) = &transfer.beside
            && let Some(verified) = beside.await_bytes(transfer, file, || drop(self.seat())).await?
        {
            return Ok(verified);
        }
        let mut mismatches = 0;
        let mut restarts = 0;
        loop {
            let hashed = match self.attempt().await {
                Ok(hashed) => hashed,
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::StartOver(why)) => {
                    restarts += 1;
                    self.forget();
                    if restarts >= transfer.tuning.attempts {
                        return Err(LoadError::unavailable(format!("cannot fetch `{}`: {why}", file.path)));
                    }
                    tokio::time::sleep(transfer.tuning.pause_after(restarts)).await;
                    continue;
                }
            };
            if file.is(&hashed) {
                return Ok(hashed.verified);
            }
            mismatches += 1;
            self.forget();
            tracing::warn!(path = %file.path, found = hashed.name(file), "the bytes do not match the digest");
            if mismatches == 2 {
                return Err(self.spoilt(&hashed).await?);
            }
        }
    }

    /// The file came twice with other bytes than the plan has: nothing of it stays.
    pub(super) async fn spoilt(&self, hashed: &Hashed) -> Result<LoadError, SinkError> {
        let file = &self.file;
        self.transfer.sink.remove(&file.path).await?;
        let planned = file.gitoid.map(hex::encode).or_else(|| file.sha256.map(hex::encode)).unwrap_or_default();
        let message = format!(
            "`{}` came twice with {} and the source says {planned}; the source or something on the way is broken",
            file.path,
            hashed.name(file)
        );
        Ok(LoadError::new(reason::DIGEST_MISMATCH, message))
    }

    pub(super) fn forget(&self) {
        self.transfer.counters.lost(self.transfer.journal.done(&self.file.path));
        self.transfer.journal.forget(&self.file.path);
    }

    /// Adds a size that was learnt to the sum, once.
    fn count(&self, size: Option<u64>) {
        if let Some(size) = size
            && !self.counted.swap(true, Ordering::Relaxed)
        {
            self.transfer.counters.expect(0, size);
        }
    }

    async fn attempt(&self) -> Result<Hashed, Stop> {
        let (transfer, file) = (&self.transfer, &self.file);
        let sink_file = transfer.sink.create(&file.path, file.size, transfer.journal.held(&file.path)).await?;
        let result = self.write(&sink_file).await;
        let again = match &result {
            Ok(hashed) => !file.is(hashed),
            Err(Stop::StartOver(_)) => true,
            Err(Stop::Failed(_)) => false,
        };
        if again {
            sink_file.abandon().await;
        }
        result
    }

    /// Gets every byte into the bucket, and gives the file its name where they are the right ones.
    async fn write(&self, sink_file: &SinkFile) -> Result<Hashed, Stop> {
        let (transfer, file) = (&self.transfer, &self.file);
        let hash = Verifier::start(sink_file.clone(), Hashing::of(file));
        let size = self.bytes(sink_file, hash.front()).await?;
        let mut hashed = hash.finish(size).await?;
        if let Some(planned) = file.sha256.filter(|planned| *planned != hashed.verified.sha256)
            && sink_file.piece().is_none()
        {
            hashed = self.repair(sink_file, hashed, planned).await?;
        }
        if file.is(&hashed) {
            let verified = hashed.verified;
            sink_file.clone().finish(verified).await?;
            transfer.journal.finish(&file.path, verified)?;
            transfer.counters.file();
            let sha256 = hex::encode(verified.sha256);
            let from = file.origin.url.host_str();
            tracing::info!(path = %file.path, bytes = verified.size, sha256, from, "file complete");
        }
        Ok(hashed)
    }

    /// The seat for the first connection, once.
    fn seat(&self) -> Option<Seat> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Bytes that are asked for at once.
    fn piece(&self, sink_file: &SinkFile) -> u64 {
        sink_file.piece().unwrap_or(self.transfer.tuning.part)
    }

    /// Gets every byte there; answers with how many there are.
    async fn bytes(&self, sink_file: &SinkFile, front: Front) -> Result<u64, Stop> {
        let (transfer, file) = (&self.transfer, &self.file);
        let part = self.piece(sink_file);
        // Who waits for memory must not keep a connection from those that have some.
        let seat = self.seat().filter(|_| sink_file.piece().is_none());
        let fetch = Arc::new(Fetch::new(Arc::clone(transfer), (self.index, Arc::clone(file)), sink_file.clone(), seat));
        let Some(size) = file.size else { return self.unknown(sink_file, &fetch, front).await };
        let done = transfer.journal.begin(&file.path, size, file.sha256, sink_file.record());
        if sink_file.piece().is_some_and(|piece| size > piece) {
            // Nobody could give up an upload that no record speaks of.
            transfer.journal.flush().await?;
        }
        transfer.counters.found(done.len());
        front.is_at(done.front());
        let mut missing: VecDeque<_> = done.missing(size, part).into();
        let Some(first) = missing.pop_front() else { return Ok(size) };
        // A file of one part is asked for as it is: not every server knows ranges.
        let wanted = (first != (0..size)).then(|| first.clone());
        sink_file.reserve(&first).await?;
        let opened = fetch.connect(wanted.as_ref(), Some(size)).await?;
        if opened.whole && wanted.is_some() {
            if !done.is_empty() {
                return Err(Stop::StartOver("the server does not know ranges any more".to_owned()));
            }
            fetch.part(0..size, Some(opened), &front).await?;
        } else {
            self.parts(sink_file, &fetch, (first, opened), missing, &front).await?;
        }
        Ok(size)
    }

    /// The first part and all others beside it, in order, so that the hash can follow.
    async fn parts(
        &self,
        sink_file: &SinkFile,
        fetch: &Arc<Fetch>,
        first: (Range<u64>, Opened),
        mut missing: VecDeque<Range<u64>>,
        front: &Front,
    ) -> Result<(), Stop> {
        let mut running = JoinSet::new();
        let start = |running: &mut JoinSet<_>, range, opened| {
            let (fetch, front) = (Arc::clone(fetch), front.clone());
            running.spawn(async move { fetch.part(range, opened, &front).await });
        };
        start(&mut running, first.0, Some(first.1));
        while !running.is_empty() || !missing.is_empty() {
            let next = missing.front().filter(|_| running.len() < self.transfer.tuning.connections).cloned();
            let room = async {
                match &next {
                    Some(range) => sink_file.reserve(range).await,
                    None => std::future::pending().await,
                }
            };
            tokio::pin!(room);
            // The place in the queue for memory is kept while parts end.
            loop {
                tokio::select! {
                    room = &mut room => {
                        room?;
                        if let Some(range) = missing.pop_front() {
                            start(&mut running, range, None);
                        }
                        break;
                    }
                    Some(joined) = running.join_next() => {
                        joined.map_err(|error| LoadError::new(reason::JOB_FAILED, format!("a part's task ended: {error}")))??;
                        if next.is_none() {
                            break;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// A file whose size nobody knows: the first answer says it, or the end of the only one does. Not resumed by a later run.
    async fn unknown(&self, sink_file: &SinkFile, fetch: &Arc<Fetch>, front: Front) -> Result<u64, Stop> {
        let (transfer, file) = (&self.transfer, &self.file);
        let part = self.piece(sink_file);
        let first = 0..part;
        let opened = fetch.connect(Some(&first), None).await?;
        let size = opened.total;
        transfer.journal.begin(&file.path, size.unwrap_or(u64::MAX), file.sha256, sink_file.record());
        self.count(size);
        if let Some(size) = size {
            sink_file.expect(size).await?;
        }
        match (opened.whole, size) {
            (_, Some(0)) => Ok(0),
            (true, Some(size)) => fetch.part(0..size, Some(opened), &front).await,
            (true, None) => {
                let size = fetch.part(0..u64::MAX, Some(opened), &front).await?;
                self.count(Some(size));
                Ok(size)
            }
            (false, Some(size)) => {
                let first = 0..size.min(first.end);
                let missing = super::ranges::Ranges::default().missing(size, part).into_iter().skip(1).collect();
                self.parts(sink_file, fetch, (first, opened), missing, &front).await?;
                Ok(size)
            }
            (false, None) => {
                Err(Stop::Failed(LoadError::unavailable(format!("the server does not say how large `{}` is", file.path))))
            }
        }
    }
}
