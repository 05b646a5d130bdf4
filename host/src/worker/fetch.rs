//! One connection's work: asks for a range of a file, pours it to disk, and asks again for what lacks when the connection
//! breaks, stalls, expires or is told to wait. Decides nothing about other ranges.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::{ACCEPT_ENCODING, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use substratus_crds::conditions::reason;
use tokio::sync::OwnedSemaphorePermit;
use url::Url;

use super::answer::{Meaning, read};
use super::egress::{Answer, Ask, EgressError, shown};
use super::failure::LoadError;
use super::plan::{Origin, PlanFile};
use super::transfer::Transfer;
use super::verify::Front;
use crate::bucket::sink::Trouble as BucketTrouble;
use crate::bucket::{SinkError, SinkFile};

/// Progress that makes earlier failures forgotten.
const PROGRESS: u64 = 64 * 1024;
/// How often a loader is asked where a file is now.
const MAX_REFRESHES: u32 = 2;
/// A URL that ends within this time is not begun with.
const EXPIRY_MARGIN: u64 = 30;

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
enum Trouble {
    Retry(String),
    Wait(Option<Duration>),
    /// The URL is no good any more; there is another one now.
    Moved,
    Failed(LoadError),
    /// The bucket takes no more of this file.
    Sink(SinkError),
}

/// An answer whose body is about to be read.
pub(super) struct Opened {
    answer: Answer,
    /// The body is the whole file, whatever was asked for.
    pub(super) whole: bool,
    /// Size of the file, where the server said so.
    pub(super) total: Option<u64>,
    /// The body ends here.
    end: u64,
    _connection: OwnedSemaphorePermit,
}

/// Where a file is.
#[derive(Clone)]
struct Location {
    origin: Origin,
    /// Where redirects led to: later ranges go there at once, sparing the hub.
    direct: Option<Url>,
    refreshes: u32,
}

/// What the connections of one file share.
pub(super) struct Fetch {
    transfer: Arc<Transfer>,
    file: Arc<PlanFile>,
    sink_file: SinkFile,
    location: Mutex<Location>,
    refreshing: tokio::sync::Mutex<()>,
}

impl Fetch {
    pub(super) fn new(transfer: Arc<Transfer>, file: Arc<PlanFile>, sink_file: SinkFile) -> Self {
        let location = Location { origin: file.origin.clone(), direct: None, refreshes: 0 };
        Self { transfer, file, sink_file, location: Mutex::new(location), refreshing: tokio::sync::Mutex::new(()) }
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
                Err(Trouble::Retry(why)) => why,
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

    /// Asks until the head of a good answer is there.
    pub(super) async fn connect(&self, range: Option<&Range<u64>>, size: Option<u64>) -> Result<Opened, LoadError> {
        let (mut failures, mut waited) = (0, Duration::ZERO);
        loop {
            match self.open(range, size).await {
                Ok(opened) => return Ok(opened),
                Err(Trouble::Failed(error)) => return Err(error),
                Err(Trouble::Sink(error)) => return Err(error.into()),
                Err(Trouble::Moved) => {}
                Err(Trouble::Retry(why)) => {
                    failures += 1;
                    self.pause(failures, &why).await?;
                }
                Err(Trouble::Wait(wait)) => {
                    failures += 1;
                    let wait = wait.unwrap_or_else(|| self.transfer.tuning.pause_after(failures));
                    waited += wait;
                    if waited > self.transfer.tuning.max_wait || failures > self.transfer.tuning.attempts {
                        return Err(LoadError::rate_limited(wait.as_secs()));
                    }
                    tracing::info!(path = %self.file.path, seconds = wait.as_secs(), "the source asks to wait");
                    self.transfer.hush(wait);
                }
            }
        }
    }

    async fn pause(&self, failures: u32, why: &str) -> Result<(), LoadError> {
        if failures >= self.transfer.tuning.attempts {
            return Err(LoadError::unavailable(format!("cannot fetch `{}`: {why}", self.file.path)));
        }
        let pause = self.transfer.tuning.pause_after(failures);
        tracing::debug!(path = %self.file.path, why, ?pause, "a request is repeated");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    async fn open(&self, range: Option<&Range<u64>>, size: Option<u64>) -> Result<Opened, Trouble> {
        self.transfer.until_quiet_ends().await;
        let mut location = self.location();
        if location.origin.expires.is_some_and(|expires| expires < now() + EXPIRY_MARGIN) && location.refreshes < MAX_REFRESHES {
            self.refresh(&location).await.map_err(Trouble::Failed)?;
            location = self.location();
        }
        let closed = |_| Trouble::Failed(LoadError::new(reason::JOB_FAILED, "the transfer has ended"));
        let connection = Arc::clone(&self.transfer.connections).acquire_owned().await.map_err(closed)?;
        let answer = self.transfer.egress.send(ask(&location, range)).await.map_err(|error| match error {
            EgressError::Unavailable(why) => Trouble::Retry(why),
            error => Trouble::Failed(error.into()),
        })?;
        let status = answer.response.status();
        let opened = |answer, whole, total, end| Opened { answer, whole, total, end, _connection: connection };
        match read(status, answer.response.headers(), range, size) {
            Meaning::Part { end, total } => {
                self.remember(&location, &answer.url);
                Ok(opened(answer, false, total, end))
            }
            Meaning::Whole(total) => {
                self.remember(&location, &answer.url);
                Ok(opened(answer, true, total, total.or(size).unwrap_or(u64::MAX)))
            }
            Meaning::Empty => Ok(opened(answer, true, Some(0), 0)),
            Meaning::Wait(wait) => Err(Trouble::Wait(wait)),
            Meaning::Retry(why) => Err(Trouble::Retry(format!("{}: {why}", shown(&answer.url)))),
            Meaning::Changed(why) => Err(Trouble::Failed(self.changed(&why))),
            Meaning::Refused => {
                drop(answer);
                Err(self.elsewhere(&location, status).await)
            }
        }
    }

    /// The URL was refused: back to where redirects began, then to the loader, then to the user.
    async fn elsewhere(&self, tried: &Location, status: StatusCode) -> Trouble {
        if tried.direct.is_some() {
            self.update(|location| {
                if location.direct == tried.direct {
                    location.direct = None;
                }
            });
            return Trouble::Moved;
        }
        if tried.refreshes < MAX_REFRESHES {
            return match self.refresh(tried).await {
                Ok(()) => Trouble::Moved,
                Err(error) => Trouble::Failed(error),
            };
        }
        let (reason, hint) = match status.as_u16() {
            401 => (reason::NEEDS_AUTH, "give the Model a valid token"),
            403 => (reason::NEEDS_AUTH, "the token may not read it, or access has to be asked for first"),
            _ => (reason::NOT_FOUND, "check source and revision"),
        };
        Trouble::Failed(LoadError::new(reason, format!("the source refuses `{}` with status {status}; {hint}", self.file.path)))
    }

    /// Asks the loader where the file is; the first of several connections asks for all.
    async fn refresh(&self, tried: &Location) -> Result<(), LoadError> {
        let _one = self.refreshing.lock().await;
        if self.location().refreshes != tried.refreshes {
            return Ok(());
        }
        let origin = self.transfer.refresh.refresh(&self.file).await?;
        self.update(|location| *location = Location { origin, direct: None, refreshes: tried.refreshes + 1 });
        Ok(())
    }

    fn remember(&self, asked: &Location, led_to: &Url) {
        if asked.direct.is_none() && *led_to != asked.origin.url {
            self.update(|location| {
                if location.refreshes == asked.refreshes {
                    location.direct = Some(led_to.clone());
                }
            });
        }
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
                    let error = self.transfer.egress.failed(&opened.answer.url, error);
                    return Err(Trouble::Retry(error.to_string()));
                }
            };
            let bytes = chunk.len() as u64;
            if bytes > end - range.start {
                return Err(Trouble::Retry("the server sends more bytes than it said".to_owned()));
            }
            self.sink_file.write_at(range.start, &chunk).await.map_err(Trouble::Sink)?;
            let written = range.start..range.start + bytes;
            range.start = written.end;
            self.transfer.counters.arrived(bytes);
            front.is_at(self.transfer.journal.wrote(&self.file.path, written));
        }
    }

    fn changed(&self, why: &str) -> LoadError {
        LoadError::unavailable(format!("`{}` changed while it was loaded: {why}", self.file.path))
    }

    fn location(&self) -> Location {
        self.location.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update(&self, change: impl FnOnce(&mut Location)) {
        change(&mut self.location.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn ask<'a>(location: &'a Location, range: Option<&Range<u64>>) -> Ask<'a> {
    let origin = &location.origin;
    let url = location.direct.as_ref().unwrap_or(&origin.url);
    // Behind a redirect to another host neither the credential nor the plan's headers have any business.
    let at_home = url.origin() == origin.url.origin();
    let mut own = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
    if let Some(value) =
        range.and_then(|range| HeaderValue::try_from(format!("bytes={}-{}", range.start, range.end.saturating_sub(1))).ok())
    {
        own.insert(RANGE, value);
    }
    Ask {
        method: Method::GET,
        url: url.clone(),
        headers: if at_home { origin.headers.clone() } else { HeaderMap::new() },
        own,
        body: None,
        auth: origin.auth.as_deref().filter(|_| at_home),
        follow: true,
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
