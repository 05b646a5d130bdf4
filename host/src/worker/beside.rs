//! Loads of the same owner that run at the same time: what one of them is getting is waited for and taken over, not fetched
//! twice. Nobody waits for a file that it has begun itself, so no two wait for each other. Reads records, never writes to them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::failure::LoadError;
use super::journal::{InWork, JOURNAL, said_in_work};
use super::plan::PlanFile;
use super::reuse;
use super::transfer::Transfer;
use crate::bucket::sink::Verified;
use crate::bucket::{BucketUrl, SinkError, Source};

/// Files with fewer bytes are fetched sooner than waited for.
const WORTH: u64 = 16 * 1024 * 1024;
/// How often a record is read.
const LOOK: Duration = Duration::from_secs(1);

/// Places where other loads may be at work.
pub struct Beside {
    places: Vec<BucketUrl>,
    /// Settings and credentials of object stores.
    pub(super) env: Vec<(OsString, OsString)>,
    /// A file of which a load records nothing new for so long is not waited for.
    stall: Duration,
    pub(super) stop: CancellationToken,
    seen: Mutex<Vec<Seen>>,
}

/// What was seen of one place: files in work, by digest, and since when their record is as it is.
#[derive(Debug, Default)]
struct Seen {
    looked: Option<Instant>,
    in_work: HashMap<[u8; 32], (InWork, Option<Instant>)>,
}

impl Beside {
    /// Looks at `places`, none of which is our own.
    pub fn new(places: Vec<BucketUrl>, env: Vec<(OsString, OsString)>, stall: Duration, stop: CancellationToken) -> Self {
        let seen = Mutex::new(places.iter().map(|_| Seen::default()).collect());
        Self { places, env, stall, stop, seen }
    }

    /// Waits while another load gets the bytes of `file`, and takes them over. Nothing where nobody gets them, or gives up.
    /// `waiting` is told before the first wait.
    pub(super) async fn await_bytes(
        &self,
        transfer: &Transfer,
        file: &PlanFile,
        waiting: impl Fn(),
    ) -> Result<Option<Verified>, LoadError> {
        let worth = file.size.is_some_and(|size| size >= WORTH) && !transfer.journal.begun(&file.path);
        let Some(sha256) = file.sha256.filter(|_| worth) else { return Ok(None) };
        let mut waited: Option<&BucketUrl> = None;
        loop {
            let busy = self.who_gets(sha256).await;
            if let Some(place) = waited.filter(|place| busy != Some(*place))
                && let Some(verified) = reuse::take_from(transfer, file, place, &self.env, &self.stop).await?
            {
                return Ok(Some(verified));
            }
            let Some(place) = busy else { return Ok(None) };
            if waited != Some(place) {
                tracing::info!(path = %file.path, place = %place, "another load is getting the same bytes; they are waited for");
            }
            waited = Some(place);
            waiting();
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The first place where a load that is alive has the file in work.
    async fn who_gets(&self, sha256: [u8; 32]) -> Option<&BucketUrl> {
        let mut seen = self.seen.lock().await;
        for (place, seen) in self.places.iter().zip(seen.iter_mut()) {
            if seen.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
                self.look(place, seen).await.unwrap_or_else(|error| {
                    tracing::debug!(place = %place, %error, "nobody is waited for there");
                    *seen = Seen::default();
                });
                seen.looked = Some(Instant::now());
            }
            let moved = seen.in_work.get(&sha256).and_then(|(_, since)| *since);
            if moved.is_some_and(|moved| moved.elapsed() < self.stall) {
                return Some(place);
            }
        }
        None
    }

    async fn look(&self, place: &BucketUrl, seen: &mut Seen) -> Result<(), SinkError> {
        let record = match Source::open(place, &self.env).await? {
            Some(source) => source.record_since(JOURNAL, self.stall).await?,
            None => None,
        };
        let (record, is_recent) = record.unwrap_or_default();
        // An old record that is seen for the first time was left by a load that ended.
        let now = (seen.looked.is_some() || is_recent).then(Instant::now);
        let before = std::mem::take(&mut seen.in_work);
        for (digest, work) in said_in_work(&record) {
            let since = before.get(&digest).filter(|(same, _)| *same == work).map_or(now, |(_, since)| *since);
            seen.in_work.insert(digest, (work, since));
        }
        Ok(())
    }
}
