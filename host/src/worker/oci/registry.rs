//! One repository of a registry that is pushed to: requests that are repeated where that may help, and refusals in words that a
//! user can act on. Knows no file.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use substratus_crds::conditions::reason;
use tokio::time::Instant;
use url::Url;

use super::layout::MANIFEST;
use super::reference::OciUrl;
use crate::plugin::sentence;
use crate::worker::answer;
use crate::worker::egress::{Ask, Egress, EgressError, Payload};
use crate::worker::failure::LoadError;
use crate::worker::transfer::Tuning;

/// The secret use of requests.
pub const USE: &str = "registry";
/// The header with a manifest's digest.
const DIGEST: &str = "docker-content-digest";
/// Bytes of a refusal that are read.
const MAX_WORDS: usize = 16 * 1024;
/// Bytes a second that a connection brings at least; one that brings fewer is given up.
const SLOWEST: u64 = 128 * 1024;
/// Bytes a second that a registry looks through at least, before it calls an upload good.
const SLOWEST_LOOK: u64 = 8 * 1024 * 1024;

/// A repository.
pub struct Registry {
    /// As the user wrote it.
    pub place: OciUrl,
    egress: Egress,
    base: Url,
    /// How hard to try.
    pub tuning: Tuning,
    /// How long an answer may take that takes the registry no work.
    stall: Duration,
    /// It has answered: one that does not any more is down, and not a mistake of the user's.
    answered: AtomicBool,
}

/// What a request has the registry do, besides answering.
#[derive(Clone, Copy)]
pub(in crate::worker) enum Takes {
    /// Nothing.
    Nothing,
    /// To receive so many bytes.
    Bytes(u64),
    /// To look through so many bytes that it has.
    Look(u64),
}

impl Takes {
    /// What that may take on a slow line, or a slow disk.
    fn time(self) -> Duration {
        let (bytes, each) = match self {
            Self::Nothing => (0, 1),
            Self::Bytes(bytes) => (bytes, SLOWEST),
            Self::Look(bytes) => (bytes, SLOWEST_LOOK),
        };
        Duration::from_secs(bytes / each)
    }
}

/// Why a request did not do what it should.
pub(in crate::worker) enum Trouble {
    /// Nothing helps but somebody.
    Failed(LoadError),
    /// The next attempt may be better.
    Passing(String),
    /// The registry says when.
    Wait(Option<Duration>),
}

impl From<LoadError> for Trouble {
    fn from(error: LoadError) -> Self {
        Self::Failed(error)
    }
}

/// The head of an answer, and what a refusal says.
#[derive(Debug)]
pub(in crate::worker) struct Said {
    pub(in crate::worker) status: StatusCode,
    pub(in crate::worker) headers: HeaderMap,
    /// `CODE: message` of the registry, in one line.
    pub(in crate::worker) words: String,
    /// Who answered.
    url: Url,
}

impl Said {
    /// Where the registry wants to be asked next.
    pub(in crate::worker) fn location(&self) -> Option<Url> {
        self.url.join(self.headers.get(LOCATION)?.to_str().ok()?).ok()
    }

    /// A header as a number.
    pub(in crate::worker) fn number(&self, name: &HeaderName) -> Option<u64> {
        self.headers.get(name)?.to_str().ok()?.trim().parse().ok()
    }

    fn wait(&self) -> Option<Duration> {
        answer::quiet(self.status, &self.headers)
    }
}

/// What the specification calls an error.
#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<Error>,
}

#[derive(Deserialize)]
struct Error {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Registry {
    /// The repository of `place`, spoken to through `egress` as it allows: by https, or else without.
    pub fn new(place: OciUrl, egress: Egress, (tuning, stall): (Tuning, Duration)) -> Result<Self, LoadError> {
        let none = || LoadError::new(reason::INVALID, format!("{place} names no repository"));
        let (secure, plain) = (place.base(true).ok_or_else(none)?, place.base(false).ok_or_else(none)?);
        let base = match (egress.check(&secure), egress.check(&plain)) {
            (Err(_), Ok(_)) => plain,
            (allowed, _) => allowed.map(|_| secure)?,
        };
        Ok(Self { place, egress, base, tuning, stall, answered: AtomicBool::new(false) })
    }

    /// A URL below the repository.
    pub(in crate::worker) fn url(&self, path: &str) -> Result<Url, LoadError> {
        self.base
            .join(path)
            .map_err(|error| LoadError::new(reason::JOB_FAILED, format!("{path} is no path of a registry: {error}")))
    }

    /// One request, answered within the time that so many bytes may take.
    pub(in crate::worker) async fn ask(
        &self,
        method: Method,
        url: Url,
        own: HeaderMap,
        (body, takes): (Option<Payload>, Takes),
    ) -> Result<Said, Trouble> {
        let within = self.stall.saturating_add(takes.time());
        match tokio::time::timeout(within, self.answer(method, url, own, body)).await {
            Ok(said) => said,
            Err(_) => Err(Trouble::Passing(format!("no answer in {} s from {}", within.as_secs(), self.place.host()))),
        }
    }

    async fn answer(&self, method: Method, url: Url, own: HeaderMap, body: Option<Payload>) -> Result<Said, Trouble> {
        // Nothing of a push is elsewhere, but what the registry calls a location.
        let ask = Ask { method, url, headers: HeaderMap::new(), own, body, auth: Some(USE), follow: false };
        let answer = self.egress.send(ask).await.map_err(|error| match error {
            EgressError::Unavailable(why) => Trouble::Passing(why),
            error => Trouble::Failed(error.into()),
        })?;
        self.answered.store(true, Ordering::Relaxed);
        let (mut response, url) = (answer.response, answer.url);
        let (status, headers) = (response.status(), response.headers().clone());
        let mut text = Vec::new();
        // What comes with a good answer is of no interest, but one that breaks off is none.
        while let Some(chunk) =
            response.chunk().await.map_err(|error| Trouble::Passing(self.egress.failed(&url, error).to_string()))?
        {
            text.extend_from_slice(chunk.get(..chunk.len().min(MAX_WORDS - text.len())).unwrap_or_default());
            if text.len() >= MAX_WORDS {
                break;
            }
        }
        let words = self.egress.redact(&words(&text));
        Ok(Said { status, headers, words, url })
    }

    /// Counts attempts at something.
    pub(in crate::worker) fn attempts(&self) -> Attempts<'_> {
        Attempts { registry: self, failures: 0, waited: Duration::ZERO, down: None }
    }

    /// The digest that the tag of this place has now, where there is one.
    pub(in crate::worker) async fn tagged(&self, tag: &str) -> Result<Option<String>, Trouble> {
        let own = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(MANIFEST))]);
        let said = self.ask(Method::HEAD, self.url(&format!("manifests/{tag}"))?, own, (None, Takes::Nothing)).await?;
        match said.status.as_u16() {
            200 => Ok(said.headers.get(DIGEST).and_then(|digest| digest.to_str().ok()).map(str::to_owned)),
            // Whoever may not look may push all the same; if not, the push says so, and why.
            401 | 403 | 404 => Ok(None),
            _ => Err(self.refused(&said, "look at the tag of")),
        }
    }

    /// Whether the repository has a blob. Where it lies is not asked.
    pub(in crate::worker) async fn has(&self, digest: &str) -> Result<bool, Trouble> {
        let said =
            self.ask(Method::HEAD, self.url(&format!("blobs/{digest}"))?, HeaderMap::new(), (None, Takes::Nothing)).await?;
        match said.status.as_u16() {
            200 | 301 | 302 | 303 | 307 | 308 => Ok(true),
            401 | 403 | 404 => Ok(false),
            _ => Err(self.refused(&said, "look for a blob in")),
        }
    }

    /// Puts a manifest under a tag: the last request of a push.
    pub(in crate::worker) async fn tag(&self, tag: &str, manifest: &[u8]) -> Result<(), Trouble> {
        let own = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(MANIFEST))]);
        let (bytes, takes) = (manifest.to_vec(), Takes::Bytes(manifest.len() as u64));
        let said = self
            .ask(Method::PUT, self.url(&format!("manifests/{tag}"))?, own, (Some(Payload::Bytes(bytes.into())), takes))
            .await?;
        if said.status.is_success() { Ok(()) } else { Err(self.refused(&said, "push the manifest to")) }
    }

    /// What a refusal means; `doing` is what was being done with the place.
    pub(in crate::worker) fn refused(&self, said: &Said, doing: &str) -> Trouble {
        let words = if said.words.is_empty() { String::new() } else { format!(": {}", said.words) };
        let (place, host, status) = (&self.place, self.place.host(), said.status.as_u16());
        let what = format!("cannot {doing} {place}: the registry answered {status}{words}");
        let lower = said.words.to_lowercase();
        let is_full = ["quota", "storage limit", "too large", "exceed"].iter().any(|word| lower.contains(word));
        let (reason, hint) = match status {
            429 => return Trouble::Wait(said.wait()),
            503 if said.wait().is_some() => return Trouble::Wait(said.wait()),
            408 | 425 | 500 | 502..=504 => return Trouble::Passing(what),
            401 => (
                reason::NEEDS_AUTH,
                format!(
                    "give it an account that may push: in a cluster `kubectl create secret docker-registry NAME \
                     --docker-server={host} --docker-username=… --docker-password=…` and spec.publishSecret: NAME, by hand `docker login {host}`"
                ),
            ),
            413 | 507 => (reason::TOO_LARGE, "make room there, or have its limit raised".to_owned()),
            _ if is_full && (400..500).contains(&status) => {
                (reason::TOO_LARGE, "make room there, or have its quota raised".to_owned())
            }
            403 => (reason::FORBIDDEN, format!("give the account the right to push to {}", self.place.repository())),
            404 => (reason::NOT_FOUND, "make the repository or the project first, or check the name".to_owned()),
            405 | 501 => (reason::UNSUPPORTED, "it takes no pushes here; name another registry".to_owned()),
            _ => (reason::REFUSED, "see what its log says".to_owned()),
        };
        Trouble::Failed(LoadError::new(reason, format!("{what}; {hint}")))
    }
}

/// Attempts in a row that brought nothing.
pub(in crate::worker) struct Attempts<'a> {
    registry: &'a Registry,
    failures: u32,
    waited: Duration,
    down: Option<Instant>,
}

impl Attempts<'_> {
    /// Something was brought.
    pub(in crate::worker) fn progress(&mut self) {
        (self.failures, self.down) = (0, None);
    }

    /// Waits before the next attempt, or gives up. A registry that has answered is waited for longer than its attempts.
    pub(in crate::worker) async fn after(&mut self, trouble: Trouble) -> Result<(), LoadError> {
        let tuning = &self.registry.tuning;
        let pause = match trouble {
            Trouble::Failed(error) => return Err(error),
            Trouble::Wait(wait) => {
                self.failures += 1;
                let wait = wait.unwrap_or_else(|| tuning.pause_after(self.failures));
                self.waited += wait;
                if self.waited > tuning.max_wait {
                    return Err(LoadError::rate_limited(wait.as_secs()));
                }
                tracing::info!(seconds = wait.as_secs(), "the registry asks to wait");
                wait
            }
            Trouble::Passing(why) => {
                self.failures += 1;
                let since = *self.down.get_or_insert_with(Instant::now);
                let outlasts = self.registry.answered.load(Ordering::Relaxed) && since.elapsed() < tuning.outage;
                if self.failures >= tuning.attempts && !outlasts {
                    return Err(LoadError::unavailable(why));
                }
                tracing::info!(why, failures = self.failures, "a request is repeated");
                tuning.pause_after(self.failures)
            }
        };
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

fn words(text: &[u8]) -> String {
    let said = serde_json::from_slice::<Errors>(text).ok().and_then(|said| said.errors.into_iter().next());
    match said {
        Some(Error { code, message }) if message.is_empty() => sentence(&code),
        Some(Error { code, message }) => sentence(&format!("{code}: {message}")),
        None => sentence(&String::from_utf8_lossy(text.get(..text.len().min(512)).unwrap_or_default())),
    }
}
