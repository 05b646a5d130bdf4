//! One connection's work: pours a range of a file to disk, and has what lacks asked for again by [`super::connect`] when the
//! connection breaks or stalls. Decides nothing about other ranges.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::egress::Answer;
use super::failure::LoadError;
use super::location::Location;
use super::plan::PlanFile;
use super::seats::{Seat, Turn};
use super::transfer::Transfer;
use super::verify::Front;
use crate::bucket::sink::Trouble as BucketTrouble;
use crate::bucket::{SinkError, SinkFile};

/// Progress that makes earlier failures forgotten.
const PROGRESS: u64 = 64 * 1024;

/// Why a file, or an attempt at it, ends.
#[derive(Debug)]
pub(super) enum Stop {
    /// The load fails.
    Failed(LoadError),
    /// The file has to begin again from its first byte.
    StartOver(String),
}

impl From<LoadError> for Stop {
    fn from(error: LoadError) -> Self {
        Self::Failed(error)
    }
}

impl From<SinkError> for Stop {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Store(BucketTrouble::Gone, why) => Self::StartOver(why),
            error => Self::Failed(error.into()),
        }
    }
}

/// Why one request brought less than it should.
pub(super) enum Trouble {
    Retry(String),
    /// No server answers.
    Down(String),
    Wait(Option<Duration>),
    /// The URL is no good any more; there is another one now.
    Moved,
    Failed(LoadError),
    /// The bucket takes no more of this file.
    Sink(SinkError),
}

/// An answer whose body is about to be read.
pub(super) struct Opened {
    pub(super) answer: Answer,
    /// The body is the whole file, whatever was asked for.
    pub(super) whole: bool,
    /// Size of the file, where the server said so.
    pub(super) total: Option<u64>,
    /// The body ends here.
    pub(super) end: u64,
    /// Given back when the body has been read.
    pub(super) _seat: Seat,
}

/// What the connections of one file share.
pub(super) struct Fetch {
    pub(super) transfer: Arc<Transfer>,
    pub(super) file: Arc<PlanFile>,
    sink_file: SinkFile,
    /// Whose turn it is among the files.
    pub(super) turn: Turn,
    /// For the first connection.
    pub(super) seat: Mutex<Option<Seat>>,
    pub(super) location: Mutex<Location>,
    pub(super) refreshing: tokio::sync::Mutex<()>,
    /// The file is whole already, and what comes is compared: something differed.
    again: Option<AtomicBool>,
}

impl Fetch {
    /// For the `index`th file of the plan; its first connection has `seat`.
    pub(super) fn new(
        transfer: Arc<Transfer>,
        (index, file): (usize, Arc<PlanFile>),
        sink_file: SinkFile,
        seat: Option<Seat>,
    ) -> Self {
        let location = Mutex::new(Location::new(file.origin.clone()));
        let (turn, seat, refreshing) = (Turn::Range(index), Mutex::new(seat), tokio::sync::Mutex::new(()));
        Self { transfer, file, sink_file, turn, seat, location, refreshing, again: None }
    }

    /// The same for a file that is there, to find out what of it the source has otherwise.
    pub(super) fn again(transfer: Arc<Transfer>, file: (usize, Arc<PlanFile>), sink_file: SinkFile) -> Self {
        Self { again: Some(AtomicBool::new(false)), ..Self::new(transfer, file, sink_file, None) }
    }

    /// Something that came again was not what lay there, and has replaced it. Said once.
    pub(super) fn has_changed(&self) -> bool {
        self.again.as_ref().is_some_and(|changed| changed.swap(false, Ordering::Relaxed))
    }

    /// Fetches `range`, beginning with what is open already. Answers with the end of what was written: the end of the range, or
    /// of the file where nobody knew its size.
    pub(super) async fn part(&self, mut range: Range<u64>, mut opened: Option<Opened>, front: &Front) -> Result<u64, Stop> {
        let size = self.file.size;
        // A range that is the whole file is asked for as such, on servers that know no ranges too.
        let whole = range.start == 0 && opened.as_ref().is_some_and(|opened| opened.whole);
        let mut failures = 0;
        while !range.is_empty() {
            let mut answer = match opened.take() {
                Some(opened) => opened,
                None => self.connect(Some(&range), size).await?,
            };
            if answer.whole && range.start > 0 {
                return Err(Stop::StartOver("the connection broke and the server does not know ranges".to_owned()));
            }
            let before = range.start;
            let trouble = match self.pour(&mut answer, &mut range, front).await {
                Ok(()) if range.end == u64::MAX && whole => return Ok(range.start),
                Ok(()) if range.start > before => continue,
                Ok(()) => "the answer was empty".to_owned(),
                Err(Trouble::Failed(error)) => return Err(error.into()),
                Err(Trouble::Sink(error)) => return Err(error.into()),
                Err(Trouble::Retry(why) | Trouble::Down(why)) => why,
                Err(Trouble::Wait(_) | Trouble::Moved) => continue,
            };
            drop(answer);
            if range.end == u64::MAX {
                // Nobody knows the size, so nobody knows what to ask for.
                return Err(Stop::StartOver(trouble));
            }
            failures = if range.start - before >= PROGRESS { 1 } else { failures + 1 };
            self.pause(failures, &trouble).await?;
        }
        Ok(range.end)
    }

    /// Body to disk, chunk by chunk. A chunk is written where it is received: it is still in the processor's cache, and the
    /// connection gets its buffer back before it reads on.
    async fn pour(&self, opened: &mut Opened, range: &mut Range<u64>, front: &Front) -> Result<(), Trouble> {
        let end = opened.end.min(range.end);
        loop {
            let chunk = match opened.answer.response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(()),
                Err(error) => {
                    if error.is_timeout() {
                        self.transfer.seats.trouble();
                    }
                    let error = self.transfer.egress.failed(&opened.answer.url, error);
                    return Err(Trouble::Retry(error.to_string()));
                }
            };
            let bytes = chunk.len() as u64;
            if bytes > end - range.start {
                return Err(Trouble::Retry("the server sends more bytes than it said".to_owned()));
            }
            let written = range.start..range.start + bytes;
            if let Some(changed) = &self.again {
                if !self.sink_file.holds(range.start, &chunk).map_err(Trouble::Sink)? {
                    changed.store(true, Ordering::Relaxed);
                    self.sink_file.write_at(range.start, &chunk).await.map_err(Trouble::Sink)?;
                }
                self.transfer.counters.repeated(bytes);
            } else {
                self.sink_file.write_at(range.start, &chunk).await.map_err(Trouble::Sink)?;
                self.transfer.counters.arrived(bytes);
                front.is_at(self.transfer.journal.wrote(&self.file.path, written.clone()));
            }
            range.start = written.end;
        }
    }
}
