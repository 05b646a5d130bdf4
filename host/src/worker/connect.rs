//! How a connection comes to be: where the file is now, when its server may be asked, what is done while it is down, busy or
//! sends us elsewhere. Ends with the head of a good answer; [`super::fetch`] reads on.

use std::ops::Range;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use substratus_crds::conditions::reason;
use tokio::time::Instant;
use url::Url;

use super::answer::{Meaning, date, read};
use super::egress::{Answer, Ask, EgressError, shown};
use super::failure::LoadError;
use super::fetch::{Fetch, Opened, Trouble};
use super::location::{Location, MAX_REFRESHES};
use super::seats::Seat;

/// How often in a row one request is sent elsewhere.
const MAX_MOVES: u32 = 8;
/// A URL is not begun with when it ends within this time after the range would.
const EXPIRY_MARGIN: Duration = Duration::from_secs(30);
/// Longest time that a range is expected to take: nobody signs for long enough where it is a guess after a bad moment.
const MAX_EXPECTED: f64 = 600.0;

impl Fetch {
    /// Asks until the head of a good answer is there.
    pub(super) async fn connect(&self, range: Option<&Range<u64>>, size: Option<u64>) -> Result<Opened, LoadError> {
        let (mut failures, mut waits, mut moves) = (0, 0, 0);
        let (mut waited, mut down) = (Duration::ZERO, None);
        loop {
            match self.open(range, size).await {
                Ok(opened) => {
                    self.transfer.answered.store(true, Ordering::Relaxed);
                    return Ok(opened);
                }
                Err(Trouble::Failed(error)) => return Err(error),
                Err(Trouble::Sink(error)) => return Err(error.into()),
                Err(Trouble::Moved) if moves < MAX_MOVES => moves += 1,
                Err(Trouble::Moved) => {
                    return Err(LoadError::unavailable(format!("`{}` is always somewhere else", self.file.path)));
                }
                Err(Trouble::Down(why)) => {
                    failures += 1;
                    self.transfer.seats.trouble();
                    let since = *down.get_or_insert_with(Instant::now);
                    self.outlast(failures, since, &why).await?;
                }
                Err(Trouble::Retry(why)) => {
                    failures += 1;
                    self.pause(failures, &why).await?;
                }
                Err(Trouble::Wait(wait)) => {
                    waits += 1;
                    let wait = wait.unwrap_or_else(|| self.transfer.tuning.pause_after(waits));
                    waited += wait;
                    if waited > self.transfer.tuning.max_wait {
                        return Err(LoadError::rate_limited(wait.as_secs()));
                    }
                    tracing::info!(path = %self.file.path, seconds = wait.as_secs(), "the source asks to wait");
                    self.transfer.seats.trouble();
                    // Who said so may be behind a redirect, where nobody looks before asking.
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    pub(super) async fn pause(&self, failures: u32, why: &str) -> Result<(), LoadError> {
        if failures >= self.transfer.tuning.attempts {
            return Err(LoadError::unavailable(format!("cannot fetch `{}`: {why}", self.file.path)));
        }
        let pause = self.transfer.tuning.pause_after(failures);
        tracing::debug!(path = %self.file.path, why, ?pause, "a request is repeated");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// A pause in an outage. A source that has given bytes is waited for longer than its attempts: what it was asked is right.
    async fn outlast(&self, failures: u32, since: Instant, why: &str) -> Result<(), LoadError> {
        let tuning = &self.transfer.tuning;
        if !self.transfer.answered.load(Ordering::Relaxed) || since.elapsed() >= tuning.outage {
            return self.pause(failures, why).await;
        }
        let pause = tuning.pause_after(failures);
        tracing::info!(path = %self.file.path, why, seconds = pause.as_secs_f32(), "the source is down and is waited for");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Waits until the server of `url` may be asked and there is a connection for it. Who waits for a server keeps no seat.
    async fn seat(&self, url: &Url) -> Seat {
        let quiet = &self.transfer.egress.quiet;
        let mut seat = self.seat.lock().unwrap_or_else(PoisonError::into_inner).take();
        loop {
            if let Some(left) = quiet.left(url) {
                seat = None;
                tokio::time::sleep(left).await;
                continue;
            }
            match seat.take() {
                Some(seat) => return seat,
                None => seat = Some(self.transfer.seats.take(self.turn).await),
            }
        }
    }

    /// Where the file is, by a URL that works until `range` has come.
    async fn current(&self, range: Option<&Range<u64>>) -> Result<Location, LoadError> {
        let bytes = range.map_or(0, |range| range.end - range.start);
        let expected = self.transfer.seats.seconds_for(bytes).unwrap_or(0.0).min(MAX_EXPECTED);
        let time = EXPIRY_MARGIN + Duration::from_secs_f64(expected);
        let mut location = self.location();
        if location.direct_is_over(time) {
            self.update(|newest| newest.back(&location));
            location = self.location();
        }
        while location.origin_is_over(time) {
            self.refresh(&location).await?;
            location = self.location();
        }
        Ok(location)
    }

    /// Where to ask, and the right to. Waiting for that takes time in which a URL may run out.
    async fn turn(&self, range: Option<&Range<u64>>) -> Result<(Location, Seat), LoadError> {
        let mut taken: Option<(Url, Seat)> = None;
        loop {
            let location = self.current(range).await?;
            match taken.take() {
                Some((url, seat)) if url == *location.url() => return Ok((location, seat)),
                _ => taken = Some((location.url().clone(), self.seat(location.url()).await)),
            }
        }
    }

    async fn open(&self, range: Option<&Range<u64>>, size: Option<u64>) -> Result<Opened, Trouble> {
        let (location, seat) = self.turn(range).await.map_err(unanswered)?;
        let answer = self.transfer.egress.send(ask(&location, range)).await.map_err(|error| match error {
            EgressError::Unavailable(why) => Trouble::Down(why),
            error => Trouble::Failed(error.into()),
        })?;
        let status = answer.response.status();
        let opened = |answer, whole, total, end| Opened { answer, whole, total, end, _seat: seat };
        match read(status, answer.response.headers(), range, size) {
            Meaning::Part { end, total } => {
                self.remember(&location, &answer);
                Ok(opened(answer, false, total, end))
            }
            Meaning::Whole(total) => {
                self.remember(&location, &answer);
                Ok(opened(answer, true, total, total.or(size).unwrap_or(u64::MAX)))
            }
            Meaning::Empty => Ok(opened(answer, true, Some(0), 0)),
            Meaning::Wait(wait) => {
                if wait.is_none() {
                    // It does not say for how long; for a moment, nobody else asks it either.
                    self.transfer.egress.quiet.keep(&answer.url, self.transfer.tuning.pause);
                }
                Err(Trouble::Wait(wait))
            }
            Meaning::Down(why) => Err(Trouble::Down(format!("{}: {why}", shown(&answer.url)))),
            Meaning::Retry(why) => Err(Trouble::Retry(format!("{}: {why}", shown(&answer.url)))),
            // Perhaps one answer of one server; the next attempt shows.
            Meaning::Changed(why) => Err(Trouble::Retry(format!("it changed while it was loaded: {why}"))),
            Meaning::Refused => {
                drop(answer);
                Err(self.elsewhere(&location, status).await)
            }
        }
    }

    /// The URL was refused: back to where redirects began, then to the loader, then to the user.
    async fn elsewhere(&self, tried: &Location, status: StatusCode) -> Trouble {
        if tried.direct.is_some() {
            self.update(|location| location.back(tried));
            return Trouble::Moved;
        }
        if tried.fruitless < MAX_REFRESHES {
            return match self.refresh(tried).await {
                Ok(()) => Trouble::Moved,
                Err(error) => unanswered(error),
            };
        }
        let origin = &tried.origin;
        let had_token = origin.auth.as_deref().is_some_and(|auth| self.transfer.egress.has_secret(auth, &origin.url));
        let (reason, hint) = match status.as_u16() {
            401 => (reason::NEEDS_AUTH, "give the Model a valid token"),
            403 if had_token => {
                (reason::FORBIDDEN, "the token may not read it; have its owner allow that, or ask for access first")
            }
            403 => (reason::NEEDS_AUTH, "give the Model a token that may read it"),
            451 => (reason::DISABLED, "the source may not give it away for legal reasons"),
            _ => (reason::NOT_FOUND, "check source and revision"),
        };
        Trouble::Failed(LoadError::new(reason, format!("the source refuses `{}` with status {status}; {hint}", self.file.path)))
    }

    /// Asks the loader where the file is; the first of several connections asks for all.
    async fn refresh(&self, tried: &Location) -> Result<(), LoadError> {
        let _one = self.refreshing.lock().await;
        if self.location().generation != tried.generation {
            return Ok(());
        }
        let origin = self.transfer.refresh.refresh(&self.file).await?;
        self.update(|location| *location = location.renewed(origin));
        Ok(())
    }

    fn remember(&self, asked: &Location, answer: &Answer) {
        self.update(|location| location.answered(asked, &answer.url, date(answer.response.headers())));
    }

    fn location(&self) -> Location {
        self.location.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update(&self, change: impl FnOnce(&mut Location)) {
        change(&mut self.location.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The loader does not say where the file is. Where that may pass, it is as if the source were down.
fn unanswered(error: LoadError) -> Trouble {
    if error.reason == reason::UNAVAILABLE { Trouble::Down(error.message) } else { Trouble::Failed(error) }
}

fn ask<'a>(location: &'a Location, range: Option<&Range<u64>>) -> Ask<'a> {
    let (origin, url) = (&location.origin, location.url());
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
