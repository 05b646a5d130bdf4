//! One blob on its way into a registry: piece by piece, gone on with where a connection was cut, begun again where the registry has
//! forgotten it. A blob is there once its digest was confirmed, and not before. Knows no manifest.
//!
//! Docker's own registry forgets an upload of which a piece was cut in the middle, and goes on with one that lost a request before its
//! first byte. Not every registry takes pieces: one that refuses them gets the whole in one request, from then on for every blob.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use futures::stream;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use sha2::{Digest, Sha256};
use substratus_crds::conditions::reason;
use url::Url;

use super::layout::Layer;
use super::registry::{Attempts, Registry, Said, Takes, Trouble};
use crate::worker::counters::Counters;
use crate::worker::egress::Payload;
use crate::worker::failure::LoadError;

/// Bytes of a piece, each of them in memory until the registry has it.
pub const PIECE: u64 = 16 * 1024 * 1024;
/// A registry that wants larger pieces than so many bytes gets the whole at once.
const MAX_PIECE: u64 = 64 * 1024 * 1024;
/// Bytes read at once where the whole is sent.
const BLOCK: u64 = 1024 * 1024;
/// How often in a row a blob may begin again without getting further, or come with another digest.
const MAX_STARTS: u32 = 6;

/// A request without a body.
const NOTHING: (Option<Payload>, Takes) = (None, Takes::Nothing);

/// What a blob is read from.
pub enum Content {
    /// A file.
    File(File),
    /// What is in memory.
    Bytes(Bytes),
}

/// Sends blobs to one repository.
pub struct Sender<'a> {
    /// The repository.
    pub registry: &'a Registry,
    /// What the user sees.
    pub counters: &'a Counters,
    /// It takes no pieces.
    whole: AtomicBool,
}

/// The bytes of a blob, read once from its beginning, and hashed on the way.
struct Reader {
    content: Arc<Content>,
    at: u64,
    size: u64,
    hash: Sha256,
}

/// An upload that the registry knows.
struct Session {
    location: Url,
    /// What the registry has of it.
    sent: u64,
    reader: Reader,
    /// What was read and is not confirmed, and where it begins.
    held: (u64, Bytes),
    /// Bytes of a piece.
    piece: u64,
}

/// How an attempt at a piece ended, other than well.
enum Refused {
    /// As any request.
    Trouble(Trouble),
    /// The registry has not what we think, or nothing at all.
    OutOfStep(String),
    /// It takes no pieces.
    NoPieces,
}

impl From<Trouble> for Refused {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<LoadError> for Refused {
    fn from(error: LoadError) -> Self {
        Self::Trouble(error.into())
    }
}

impl<'a> Sender<'a> {
    /// Sends to `registry`.
    pub fn new(registry: &'a Registry, counters: &'a Counters) -> Self {
        Self { registry, counters, whole: AtomicBool::new(false) }
    }

    /// Gets a blob there; true where it was there already.
    pub async fn blob(&self, layer: &Layer, content: Content) -> Result<bool, LoadError> {
        let (digest, content) = (layer.digest(), Arc::new(content));
        let mut attempts = self.registry.attempts();
        let (mut session, mut starts, mut begun) = (None, 0, false);
        loop {
            let result = async {
                // Also after an attempt: of an answer that was lost nobody knows what it said.
                if session.is_none() && self.registry.has(&digest).await? {
                    return Ok::<bool, Refused>(true);
                }
                self.attempt(layer, &content, &mut session, &mut attempts).await.map(|()| false)
            };
            let refused = match result.await {
                Ok(true) if begun => {
                    self.counters.arrived(layer.size);
                    return Ok(false);
                }
                Ok(there) => return Ok(there),
                Err(refused) => refused,
            };
            begun = true;
            match refused {
                Refused::Trouble(trouble) => attempts.after(trouble).await?,
                Refused::OutOfStep(why) => {
                    self.forget(&mut session);
                    starts += 1;
                    if starts >= MAX_STARTS {
                        return Err(LoadError::unavailable(format!("cannot push `{}`: {why}", layer.path)));
                    }
                    // Some refuse the second piece and not the first; the last attempt has none.
                    self.whole.fetch_or(starts + 1 == MAX_STARTS, Ordering::Relaxed);
                    attempts.after(Trouble::Passing(why)).await?;
                }
                Refused::NoPieces => {
                    tracing::info!("the registry takes no pieces; it gets every file at once");
                    self.forget(&mut session);
                    self.whole.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    fn forget(&self, session: &mut Option<Session>) {
        if let Some(session) = session.take() {
            self.counters.lost(session.sent);
        }
    }

    /// Goes on with what there is, to the end.
    async fn attempt(
        &self,
        layer: &Layer,
        content: &Arc<Content>,
        session: &mut Option<Session>,
        attempts: &mut Attempts<'_>,
    ) -> Result<(), Refused> {
        if session.is_some() {
            self.find_out(session).await?;
        }
        if session.is_none() {
            let (location, least) = self.begin().await?;
            let reader = Reader { content: Arc::clone(content), at: 0, size: layer.size, hash: Sha256::new() };
            *session = Some(Session { location, sent: 0, reader, held: (0, Bytes::new()), piece: PIECE.max(least) });
        }
        let Some(now) = session else { return Ok(()) };
        if layer.size > now.piece && (now.piece > MAX_PIECE || self.whole.load(Ordering::Relaxed)) {
            let Some(now) = session.take() else { return Ok(()) };
            return self.at_once(layer, now).await;
        }
        if layer.size <= now.piece {
            let bytes = now.reader.next(now.piece).await?;
            // One request, sent anew where it is cut.
            let Some(now) = session.take() else { return Ok(()) };
            return self.confirm(layer, now, Some(bytes)).await;
        }
        while now.sent < layer.size {
            self.piece(now).await?;
            attempts.progress();
        }
        let Some(now) = session.take() else { return Ok(()) };
        self.confirm(layer, now, None).await
    }

    /// Asks for an upload: where it goes, and the smallest piece that is taken.
    async fn begin(&self) -> Result<(Url, u64), Trouble> {
        let own = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("0"))]);
        let said = self.registry.ask(Method::POST, self.registry.url("blobs/uploads/")?, own, NOTHING).await?;
        match said.location() {
            Some(location) if said.status.as_u16() == 202 => {
                let least = said.number(&HeaderName::from_static("oci-chunk-min-length")).unwrap_or(0);
                Ok((location, least))
            }
            _ if said.status.is_success() => {
                Err(LoadError::new(reason::UNSUPPORTED, format!("{} does not say where blobs go", self.registry.place)).into())
            }
            _ => Err(self.registry.refused(&said, "push to")),
        }
    }

    /// What the registry has of an upload that was cut.
    async fn find_out(&self, session: &mut Option<Session>) -> Result<(), Refused> {
        let Some(now) = session else { return Ok(()) };
        let said = self.registry.ask(Method::GET, now.location.clone(), HeaderMap::new(), NOTHING).await?;
        match said.status.as_u16() {
            200..=299 => {}
            400 | 404 | 405 | 410 | 416 => {
                return Err(Refused::OutOfStep("the registry does not know the upload any more".to_owned()));
            }
            _ => return Err(self.registry.refused(&said, "push to").into()),
        }
        let has = has(&said).ok_or_else(|| Refused::OutOfStep("the registry does not say what it has".to_owned()))?;
        let (start, bytes) = &now.held;
        // What is neither sent nor held would have to be read again.
        if !(*start..=start + bytes.len() as u64).contains(&has) {
            return Err(Refused::OutOfStep(format!("the registry has {has} bytes where {} were sent", now.sent)));
        }
        self.counters.arrived(has.saturating_sub(now.sent));
        self.counters.lost(now.sent.saturating_sub(has));
        now.sent = has;
        now.location = said.location().unwrap_or_else(|| now.location.clone());
        Ok(())
    }

    /// The next piece, or what lacks of it.
    async fn piece(&self, now: &mut Session) -> Result<(), Refused> {
        if now.sent == now.held.0 + now.held.1.len() as u64 {
            now.held = (now.sent, now.reader.next(now.piece).await?);
        }
        let (start, bytes) = &now.held;
        let skip = usize::try_from(now.sent - start).unwrap_or(usize::MAX).min(bytes.len());
        let rest = bytes.slice(skip..);
        let end = now.sent + rest.len() as u64;
        let range = HeaderValue::try_from(format!("{}-{}", now.sent, end.saturating_sub(1)));
        let mut own = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))]);
        own.extend(range.ok().map(|range| (CONTENT_RANGE, range)));
        let length = rest.len() as u64;
        let said = self
            .registry
            .ask(Method::PATCH, now.location.clone(), own, (Some(Payload::Bytes(rest)), Takes::Bytes(length)))
            .await?;
        match said.status.as_u16() {
            200..=299 => {
                if has(&said).is_some_and(|has| has != end) {
                    return Err(Refused::OutOfStep(format!("the registry has not {end} bytes, as it should")));
                }
                now.location = said.location().unwrap_or_else(|| now.location.clone());
                now.sent = end;
                self.counters.arrived(length);
                Ok(())
            }
            405 | 411 | 501 => Err(Refused::NoPieces),
            400 | 404 | 416 => {
                Err(Refused::OutOfStep(format!("the registry answered {} to a piece ({})", said.status, said.words)))
            }
            _ => Err(self.registry.refused(&said, "push to").into()),
        }
    }

    /// All of it in one request.
    async fn at_once(&self, layer: &Layer, now: Session) -> Result<(), Refused> {
        let url = confirmed(now.location.clone(), &layer.digest());
        let reader = Arc::new(Mutex::new(Some(now.reader)));
        let own = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
            (CONTENT_LENGTH, HeaderValue::from(layer.size)),
        ]);
        let taken = reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        let back = Arc::clone(&reader);
        let blocks = stream::try_unfold(taken, move |reader| {
            let back = Arc::clone(&back);
            async move {
                let Some(mut reader) = reader else { return Ok::<_, std::io::Error>(None) };
                if reader.at == reader.size {
                    *back.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader);
                    return Ok(None);
                }
                let block = reader.next(BLOCK).await.map_err(std::io::Error::other)?;
                // The last block is followed by nobody's question.
                if reader.at == reader.size {
                    *back.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader);
                    return Ok(Some((block, None)));
                }
                Ok(Some((block, Some(reader))))
            }
        });
        let body = Payload::Once(Some(reqwest::Body::wrap_stream(blocks)));
        let said = self.registry.ask(Method::PUT, url, own, (Some(body), Takes::Bytes(layer.size))).await?;
        let reader = reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reader) = reader {
            reader.check(layer)?;
        }
        self.counters.arrived(layer.size);
        self.confirmed(layer, &said).inspect_err(|_| self.counters.lost(layer.size))
    }

    /// The last request of an upload: the registry checks the digest, and so did we.
    async fn confirm(&self, layer: &Layer, now: Session, body: Option<Bytes>) -> Result<(), Refused> {
        let sent = now.sent;
        if let Err(error) = now.reader.check(layer) {
            self.counters.lost(sent);
            // Room that nobody needs; what becomes of it is the registry's.
            drop(self.registry.ask(Method::DELETE, now.location, HeaderMap::new(), NOTHING).await);
            return Err(error.into());
        }
        let url = confirmed(now.location, &layer.digest());
        let mut own = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))]);
        let body = if let Some(bytes) = body {
            (Some(Payload::Bytes(bytes)), Takes::Bytes(layer.size))
        } else {
            own.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            (None, Takes::Look(layer.size))
        };
        let said = self.registry.ask(Method::PUT, url, own, body).await.inspect_err(|_| self.counters.lost(sent))?;
        self.counters.arrived(layer.size - sent);
        self.confirmed(layer, &said).inspect_err(|_| self.counters.lost(layer.size))
    }

    fn confirmed(&self, layer: &Layer, said: &Said) -> Result<(), Refused> {
        match said.status.as_u16() {
            200..=299 => Ok(()),
            // Our own hash was right, so it became another on the way.
            400 if said.words.contains("DIGEST") => Err(Refused::OutOfStep(format!(
                "the registry got other bytes of `{}` than were sent ({})",
                layer.path, said.words
            ))),
            404 | 416 => Err(Refused::OutOfStep("the registry does not know the upload any more".to_owned())),
            _ => Err(self.registry.refused(said, "push to").into()),
        }
    }
}

/// What an answer says of an upload: `Range: 0-N`, both ends included. One byte and none look the same, and mean none.
fn has(said: &Said) -> Option<u64> {
    let text = said.headers.get(RANGE)?.to_str().ok()?;
    let last: u64 = text.trim_start_matches("bytes=").split_once('-')?.1.trim().parse().ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}

/// An upload's URL with the digest that ends it.
fn confirmed(mut location: Url, digest: &str) -> Url {
    location.query_pairs_mut().append_pair("digest", digest);
    location
}

impl Reader {
    /// The next bytes, at most `most`.
    async fn next(&mut self, most: u64) -> Result<Bytes, LoadError> {
        let (content, at, length) = (Arc::clone(&self.content), self.at, most.min(self.size - self.at));
        let mut hash = std::mem::take(&mut self.hash);
        let read = tokio::task::spawn_blocking(move || {
            let bytes = content.read(at, length)?;
            hash.update(&bytes);
            Ok::<_, std::io::Error>((bytes, hash))
        });
        let failed = |why: String| LoadError::new(reason::JOB_FAILED, format!("cannot read what is pushed: {why}"));
        let (bytes, hash) = read.await.map_err(|error| failed(error.to_string()))?.map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                LoadError::new(reason::DIGEST_MISMATCH, "a file became shorter while it was pushed; load or train it again")
            }
            _ => failed(error.to_string()),
        })?;
        (self.at, self.hash) = (at + bytes.len() as u64, hash);
        Ok(bytes)
    }

    /// Whether all that was read is what the layer says.
    fn check(self, layer: &Layer) -> Result<(), LoadError> {
        let found: [u8; 32] = self.hash.finalize().into();
        if self.at == layer.size && found == layer.sha256 {
            return Ok(());
        }
        let message = format!(
            "`{}` has sha256 {} and its record says {}: it was changed after it was complete; load or train it again",
            layer.path,
            hex::encode(found),
            hex::encode(layer.sha256)
        );
        Err(LoadError::new(reason::DIGEST_MISMATCH, message))
    }
}

impl Content {
    fn read(&self, at: u64, length: u64) -> std::io::Result<Bytes> {
        let wanted = usize::try_from(length).map_err(std::io::Error::other)?;
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(at).map_err(std::io::Error::other)?;
                if start + wanted > bytes.len() {
                    Err(std::io::ErrorKind::UnexpectedEof.into())
                } else {
                    Ok(bytes.slice(start..start + wanted))
                }
            }
            Self::File(file) => {
                let mut buffer = vec![0; wanted];
                file.read_exact_at(&mut buffer, at)?;
                Ok(buffer.into())
            }
        }
    }
}
