//! A bucket of an object store: single objects, uploads in parts, copies; asked again where that may help. [`super::reach`] makes one,
//! [`super::refusal`] says what its refusals mean. Knows no artifact and no file.

use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};

use super::held::PIECE;
use super::raw::{Address, Pending, Raw};
use super::refusal::{self, is_missing_object, is_too_large};
use super::sink::{SinkError, Trouble};
use super::url::BucketUrl;

/// How often we ask again ourselves, after the client did.
const TRIES: u32 = 3;
/// What an upload is called in a store that has no name for it.
const UNNAMED: &str = "blocks";
/// Parts of a copy at the same time.
const COPIES: usize = 8;
/// Most bytes that are copied in one request of several; what S3 copies within a minute.
const MAX_COPY: u64 = 1024 * 1024 * 1024;

/// A process's environment.
pub type Environment = [(OsString, OsString)];

/// A bucket. Clones share connections and credentials.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    multipart: Arc<dyn MultipartStore>,
    raw: Raw,
    /// `s3://bucket`, and where it is asked for.
    name: Arc<str>,
    /// An upload in parts was asked for.
    has_begun: Arc<AtomicBool>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Store {
    /// The bucket that `url` is in. `env` holds what the cloud's own tools read: `AWS_…`, `GOOGLE_…` or `AZURE_…`.
    pub fn open(url: &BucketUrl, env: &Environment) -> Result<Self, SinkError> {
        super::reach::open(url, env)
    }

    pub(super) fn of(store: impl ObjectStore + MultipartStore, name: String, raw: Raw) -> Self {
        let store = Arc::new(store);
        let objects: Arc<dyn ObjectStore> = store.clone();
        Self { objects, multipart: store, raw, name: name.into(), has_begun: Arc::default() }
    }

    /// Whether both are the same bucket, reached the same way.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.name == other.name
    }

    /// Single objects.
    pub(super) fn objects(&self) -> &dyn ObjectStore {
        &*self.objects
    }

    /// Objects in parts.
    pub(super) fn multipart(&self) -> &dyn MultipartStore {
        &*self.multipart
    }

    /// The bytes of an object; `None` where there is none.
    pub(super) async fn get(&self, key: &Path) -> Result<Option<Vec<u8>>, SinkError> {
        let mut tries = 0;
        loop {
            let bytes = match self.objects.get(key).await {
                Ok(found) => found.bytes().await,
                Err(error) => Err(error),
            };
            match bytes {
                Ok(bytes) => return Ok(Some(bytes.into())),
                Err(error) if is_missing_object(&error) => return Ok(None),
                Err(error) => self.again(&mut tries, "read", key, &error)?,
            }
        }
    }

    /// Begins an upload in parts. One that was begun and not heard of is given up at the end of all.
    pub(super) async fn begin(&self, key: &Path) -> Result<String, SinkError> {
        let mut tries = 0;
        self.has_begun.store(true, Ordering::Relaxed);
        loop {
            match self.multipart.create_multipart(key).await {
                Ok(upload) if upload.is_empty() => return Ok(UNNAMED.to_owned()),
                Ok(upload) => return Ok(upload),
                Err(error) => self.again(&mut tries, "begin an upload of", key, &error)?,
            }
        }
    }

    /// Whether an upload in parts was asked for, whatever became of it.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Relaxed)
    }

    /// Gives up the uploads of objects whose names begin with `prefix`, but for those to `keep`. They cost room and nothing else, so
    /// that nothing fails where that cannot be done: a store's own rules remove them then, where it has some.
    pub(super) async fn give_up(&self, prefix: &str, keep: impl Fn(&Pending) -> bool) {
        let pending = match self.raw.pending(prefix).await {
            Ok(pending) => pending,
            Err(error) => {
                let error = self.explain("list pending uploads below", prefix, &error);
                return tracing::info!(%error, "uploads that killed loads may have left stay");
            }
        };
        for left in pending.into_iter().filter(|pending| !keep(pending)) {
            match self.abort(&left.key, &left.upload).await {
                Ok(()) => tracing::info!(path = %left.key, "an upload that nobody goes on with is given up"),
                Err(error) => tracing::warn!(path = %left.key, %error, "an upload is left behind"),
            }
        }
    }

    /// Gives up an upload; one that is gone is given up.
    pub(super) async fn abort(&self, key: &Path, upload: &str) -> Result<(), SinkError> {
        match self.multipart.abort_multipart(key, &upload.to_owned()).await {
            Err(error) if !is_missing_object(&error) => Err(self.explain("give up the upload of", key.as_ref(), &error)),
            _ => Ok(()),
        }
    }

    /// Has the store copy an object, in parts where it is too large for one request.
    pub(super) async fn copy(&self, from: &Path, to: &Path) -> Result<(), SinkError> {
        match self.objects.copy(from, to).await {
            Err(error) if self.raw.copies_parts() && is_too_large(&error) => self.copy_in_parts(from, to).await,
            other => other.map_err(|error| self.explain("copy", from.as_ref(), &error)),
        }
    }

    async fn copy_in_parts(&self, from: &Path, to: &Path) -> Result<(), SinkError> {
        let explain = |error| self.explain("copy", from.as_ref(), &error);
        let size = self.objects.head(from).await.map_err(explain)?.size;
        let upload = self.begin(to).await?;
        let part = (size.div_ceil(COPIES as u64).div_ceil(PIECE) * PIECE).clamp(PIECE, MAX_COPY);
        let ranges = (0..size).step_by(usize::try_from(part).unwrap_or(usize::MAX)).map(|start| start..(start + part).min(size));
        let requests = ranges.enumerate().map(|(index, range)| self.copy_part((from, range), to, (upload.as_str(), index)));
        let copied: Result<Vec<PartId>, SinkError> = stream::iter(requests).buffered(COPIES).try_collect().await;
        let done = match copied {
            Ok(parts) => self.multipart.complete_multipart(to, &upload, parts).await.map(drop).map_err(explain),
            Err(error) => Err(error),
        };
        if done.is_err()
            && let Err(error) = self.abort(to, &upload).await
        {
            tracing::warn!(path = %to, %error, "an upload is left behind");
        }
        done
    }

    async fn copy_part(
        &self,
        (from, range): (&Path, std::ops::Range<u64>),
        to: &Path,
        part: (&str, usize),
    ) -> Result<PartId, SinkError> {
        let mut tries = 0;
        loop {
            match self.raw.copy_part((from, range.clone()), to, part).await {
                Ok(tag) => return Ok(PartId { content_id: tag.unwrap_or_default() }),
                Err(error) => {
                    self.again(&mut tries, "copy a part of", from, &error)?;
                    // The client pauses by itself between its tries; this is none of them.
                    tokio::time::sleep(Duration::from_secs(1 << tries)).await;
                }
            }
        }
    }

    /// Removes an object where there is one.
    pub(super) async fn delete(&self, key: &Path) -> Result<(), SinkError> {
        let mut tries = 0;
        loop {
            match self.objects.delete(key).await {
                Ok(()) => return Ok(()),
                Err(error) if is_missing_object(&error) => return Ok(()),
                Err(error) => self.again(&mut tries, "remove", key, &error)?,
            }
        }
    }

    /// Busy servers are asked again by the client itself; a broken connection only where it knows that nothing happens twice.
    /// What comes here may happen twice.
    fn again(&self, tries: &mut u32, action: &str, key: &Path, error: &Error) -> Result<(), SinkError> {
        *tries += 1;
        let error = self.explain(action, key.as_ref(), error);
        if matches!(error, SinkError::Store(Trouble::Passing, _)) && *tries < TRIES { Ok(()) } else { Err(error) }
    }

    /// How `key` can be read for a time, by whoever has an HTTP client.
    pub(super) async fn address(&self, key: &Path, valid: Duration) -> Result<Address, SinkError> {
        let address = self.raw.address(key, valid).await;
        address.map_err(|error| self.explain("make an address of", key.as_ref(), &error))
    }

    /// Writes an object whole.
    pub(super) async fn put(&self, key: &Path, bytes: object_store::PutPayload) -> Result<(), SinkError> {
        self.objects.put(key, bytes).await.map(drop).map_err(|error| self.explain("write", key.as_ref(), &error))
    }

    /// What an error means for the user.
    pub(super) fn explain(&self, action: &str, path: &str, error: &Error) -> SinkError {
        refusal::explain(&format!("cannot {action} `{path}` in {}", self.name), error)
    }
}
