//! The one sink: positional writes into a file that appears under its name only when it is whole and verified.
//! Knows no HTTP and no hashing; object stores (multipart, parts out of order) become a second variant.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use thiserror::Error;

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

impl Verified {
    /// A large file is durable once it has its name. Small ones are after [`Sink::settle`], all at once: to wait for the disk
    /// thousands of times would take longer than to fetch them.
    pub const fn is_durable_alone(&self) -> bool {
        self.size >= 4 * 1024 * 1024
    }
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

    /// Makes every finished file durable.
    pub async fn settle(&self) -> Result<(), SinkError> {
        let Self::Local(sink) = self;
        let sink = Arc::clone(sink);
        blocking(move || sink.settle()).await
    }

    /// Size of the finished file `path`; `None` where there is none.
    pub async fn finished(&self, path: &str) -> Result<Option<u64>, SinkError> {
        let Self::Local(sink) = self;
        let (sink, path) = (Arc::clone(sink), path.to_owned());
        blocking(move || sink.finished(&path)).await
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
    /// Writes `bytes` at `offset`; any order of offsets, several at a time.
    ///
    /// A folder's file is written on the caller's thread: that costs as long as a copy into the page cache, and a disk that does
    /// not keep up holds the network back.
    #[expect(clippy::unused_async, reason = "a store behind a network waits")]
    pub async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        let Self::Local(file) = self;
        file.write_at(offset, bytes)
    }

    /// Reads back what was written, blocking: for the thread that hashes.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, SinkError> {
        let Self::Local(file) = self;
        file.read_at(offset, buffer)
    }

    /// Nobody writes to `range` any more: a good time to bring it to the disk. Does not wait for it, promises nothing.
    pub fn settle(&self, range: Range<u64>) {
        let Self::Local(file) = self;
        file.settle(range);
    }

    /// Gives the file its name, a large one once it is durable. Only verified bytes get here.
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
