//! The one sink: positional writes into a file that appears under its name only when it is whole and verified.
//! Knows no HTTP and no hashing; object stores (multipart, parts out of order) become a second variant.

use std::io;
use std::sync::Arc;

use thiserror::Error;
use tokio_util::bytes::Bytes;

use super::local::{LocalFile, LocalSink};
use super::url::{BucketUrl, Scheme};

/// What went wrong in the bucket.
#[derive(Debug, Error)]
pub enum SinkError {
    /// No room for the bytes.
    #[error("no space left while writing `{0}`; make room or give the bucket a larger volume")]
    NoSpace(String),
    /// The path leaves the target, goes through a symbolic link or is no file name.
    #[error("path `{0}` is refused: {1}")]
    Refused(String, &'static str),
    /// No backend for this scheme yet.
    #[error("bucket `{0}` cannot be written by this version; use a tar:// or file:// bucket")]
    Unsupported(BucketUrl),
    /// Another worker holds the target.
    #[error("another load is writing to `{0}`")]
    Busy(String),
    /// The system said no.
    #[error("cannot {action} `{path}`: {source}")]
    Io {
        /// What we were doing.
        action: &'static str,
        /// With what.
        path: String,
        /// The system's words.
        source: io::Error,
    },
}

impl SinkError {
    pub(crate) fn io(action: &'static str, path: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Self::NoSpace(path),
            _ => Self::Io { action, path, source },
        }
    }
}

/// Proof that the bytes of a file were read back, counted and hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Bytes.
    pub size: u64,
    /// SHA-256 of them.
    pub sha256: [u8; 32],
}

/// One artifact in a bucket: its files, and our records beside them.
#[derive(Clone, Debug)]
pub enum Sink {
    /// A folder.
    Local(Arc<LocalSink>),
}

impl Sink {
    /// Opens the artifact at `url`, makes its folders and takes the lock that keeps other workers out.
    pub async fn open(url: &BucketUrl) -> Result<Self, SinkError> {
        match (url.scheme(), url.local_path()) {
            (Scheme::File | Scheme::Tar, Some(folder)) => {
                let sink = blocking(move || LocalSink::open(&folder)).await?;
                Ok(Self::Local(Arc::new(sink)))
            }
            _ => Err(SinkError::Unsupported(url.clone())),
        }
    }

    /// Begins or continues `path`. With a size, room is set aside at once.
    pub async fn create(&self, path: &str, size: Option<u64>) -> Result<SinkFile, SinkError> {
        let Self::Local(sink) = self;
        let (sink, path) = (Arc::clone(sink), path.to_owned());
        Ok(SinkFile::Local(Arc::new(blocking(move || sink.create(&path, size)).await?)))
    }

    /// Bytes that can still be written, where the backend knows.
    pub async fn free(&self) -> Result<Option<u64>, SinkError> {
        let Self::Local(sink) = self;
        let sink = Arc::clone(sink);
        blocking(move || sink.free()).await.map(Some)
    }

    /// Size of the finished file `path`; `None` where there is none.
    pub async fn finished(&self, path: &str) -> Result<Option<u64>, SinkError> {
        let Self::Local(sink) = self;
        let (sink, path) = (Arc::clone(sink), path.to_owned());
        blocking(move || sink.finished(&path)).await
    }

    /// Opens the finished file `path` for reading.
    pub async fn read(&self, path: &str) -> Result<std::fs::File, SinkError> {
        let Self::Local(sink) = self;
        let (sink, path) = (Arc::clone(sink), path.to_owned());
        blocking(move || sink.read(&path)).await
    }

    /// Takes over the finished file `name` of `from` as `path`: by its name alone where the backend can.
    pub async fn adopt(&self, from: &Self, name: &str, path: &str) -> Result<(), SinkError> {
        let (Self::Local(sink), Self::Local(from)) = (self, from);
        let (sink, from, name, path) = (Arc::clone(sink), Arc::clone(from), name.to_owned(), path.to_owned());
        blocking(move || sink.adopt(&from, &name, &path)).await
    }

    /// Removes everything at `url`, files and records: for artifacts that only ever were steps to another one.
    pub async fn discard(url: &BucketUrl) -> Result<(), SinkError> {
        let Some(folder) = url.local_path() else { return Err(SinkError::Unsupported(url.clone())) };
        blocking(move || match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(SinkError::io("remove", folder.display().to_string())(error))
            }
            _ => Ok(()),
        })
        .await
    }

    /// Removes the finished file `path` or what there is of it.
    pub async fn remove(&self, path: &str) -> Result<(), SinkError> {
        let Self::Local(sink) = self;
        let (sink, path) = (Arc::clone(sink), path.to_owned());
        blocking(move || sink.remove(&path)).await
    }

    /// The folder of our records, for backends that have one.
    pub fn records(&self) -> &super::local::Records {
        let Self::Local(sink) = self;
        sink.records()
    }
}

/// A file that is being written. Clones share it.
#[derive(Clone, Debug)]
pub enum SinkFile {
    /// A positional file.
    Local(Arc<LocalFile>),
}

impl SinkFile {
    /// Writes `chunks` one behind the other from `offset` on; any order of offsets, several at a time.
    pub async fn write_at(&self, offset: u64, chunks: Vec<Bytes>) -> Result<(), SinkError> {
        let Self::Local(file) = self;
        let file = Arc::clone(file);
        blocking(move || file.write_at(offset, &chunks)).await
    }

    /// Reads back what was written, blocking: for the thread that hashes.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, SinkError> {
        let Self::Local(file) = self;
        file.read_at(offset, buffer)
    }

    /// Makes the file durable and gives it its name. Only verified bytes get here.
    pub async fn finish(self, verified: Verified) -> Result<(), SinkError> {
        let Self::Local(file) = self;
        blocking(move || file.finish(verified)).await
    }
}

/// Runs blocking file work on the threads made for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, SinkError> + Send + 'static) -> Result<T, SinkError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(SinkError::Io { action: "finish work on", path: "the bucket".to_owned(), source: io::Error::other(error) })
    })
}
