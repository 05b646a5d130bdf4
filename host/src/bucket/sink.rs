//! The one sink: positional writes into a file that appears under its name only when it is whole and verified. In a folder that
//! is a file written in place, in an object store an upload in parts. Knows no HTTP and no hashing.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use thiserror::Error;

use super::local::{LocalFile, LocalSink};
use super::object::ObjectSink;
use super::records::Records;
use super::store::Environment;
use super::upload::{self, Held, ObjectFile};
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
    /// Nothing here writes to this scheme.
    #[error("bucket `{0}` cannot be written from here; use a folder, s3://, gs:// or az://")]
    Unsupported(BucketUrl),
    /// The object store said no.
    #[error("{1}")]
    Store(Trouble, String),
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

/// What a refusal of an object store asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Time: it may work later.
    Passing,
    /// Credentials that may do this.
    Denied,
    /// A bucket or an object that is there.
    Missing,
    /// Other settings.
    Settings,
    /// To begin the file again: what was sent of it is gone.
    Gone,
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
    /// Objects below a prefix.
    Object(Arc<ObjectSink>),
}

impl Sink {
    /// Opens the artifact in the folder `url`, makes what is missing and takes the lock that keeps other workers out.
    pub async fn open(url: &BucketUrl) -> Result<Self, SinkError> {
        Self::connect(url, &[]).await
    }

    /// The same of a folder or a bucket. `env` holds the settings and credentials of object stores.
    pub async fn connect(url: &BucketUrl, env: &Environment) -> Result<Self, SinkError> {
        match (url.scheme(), url.local_path()) {
            (Scheme::S3 | Scheme::Gs | Scheme::Az, _) => Ok(Self::Object(Arc::new(ObjectSink::open(url, env).await?))),
            (_, Some(folder)) => {
                let sink = blocking(move || LocalSink::open(&folder)).await?;
                Ok(Self::Local(Arc::new(sink)))
            }
            _ => Err(SinkError::Unsupported(url.clone())),
        }
    }

    /// Begins or continues `path`. With a size, room is set aside at once; `held` is what the record of an earlier run holds.
    pub async fn create(&self, path: &str, size: Option<u64>, held: Option<Held>) -> Result<SinkFile, SinkError> {
        match self {
            Self::Local(sink) => {
                let (sink, path) = (Arc::clone(sink), path.to_owned());
                Ok(SinkFile::Local(Arc::new(blocking(move || sink.create(&path, size)).await?)))
            }
            Self::Object(sink) => Ok(SinkFile::Object(Arc::new(sink.create(path, size, held).await?))),
        }
    }

    /// Bytes that can still be written, where the backend knows.
    pub async fn free(&self) -> Result<Option<u64>, SinkError> {
        let Self::Local(sink) = self else { return Ok(None) };
        let sink = Arc::clone(sink);
        blocking(move || sink.free()).await.map(Some)
    }

    /// Every file is finished: makes them durable in a folder; in an object store, gives up uploads whose beginning nobody heard of.
    pub async fn settle(&self) -> Result<(), SinkError> {
        match self {
            Self::Local(sink) => {
                let sink = Arc::clone(sink);
                blocking(move || sink.settle()).await
            }
            Self::Object(sink) => {
                sink.settle().await;
                Ok(())
            }
        }
    }

    /// Size of the finished file `path`; `None` where there is none.
    pub async fn finished(&self, path: &str) -> Result<Option<u64>, SinkError> {
        match self {
            Self::Local(sink) => {
                let (sink, path) = (Arc::clone(sink), path.to_owned());
                blocking(move || sink.finished(&path)).await
            }
            Self::Object(sink) => Ok(sink.finished(path)),
        }
    }

    /// Opens the finished file `path` of a folder for reading.
    pub async fn read(&self, path: &str) -> Result<std::fs::File, SinkError> {
        let Self::Local(sink) = self else { return Err(no_folder(path)) };
        let (sink, path) = (Arc::clone(sink), path.to_owned());
        blocking(move || sink.read(&path)).await
    }

    /// Takes over the finished file `name` of the folder `from` as `path`, by its name alone.
    pub async fn adopt(&self, from: &Self, name: &str, path: &str) -> Result<(), SinkError> {
        let (Self::Local(sink), Self::Local(from)) = (self, from) else { return Err(no_folder(path)) };
        let (sink, from, name, path) = (Arc::clone(sink), Arc::clone(from), name.to_owned(), path.to_owned());
        blocking(move || sink.adopt(&from, &name, &path)).await
    }

    /// Removes everything in the folder `url`, files and records: for artifacts that only ever were steps to another one.
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
        match self {
            Self::Local(sink) => {
                let (sink, path) = (Arc::clone(sink), path.to_owned());
                blocking(move || sink.remove(&path)).await
            }
            Self::Object(sink) => sink.remove(path).await,
        }
    }

    /// Gives up an upload that an earlier run began and nobody goes on with.
    pub async fn abort(&self, path: &str, upload: &str) -> Result<(), SinkError> {
        match self {
            Self::Local(_) => Ok(()),
            Self::Object(sink) => sink.abort(path, upload).await,
        }
    }

    /// Our records beside the files.
    pub fn records(&self) -> &Records {
        match self {
            Self::Local(sink) => sink.records(),
            Self::Object(sink) => sink.records(),
        }
    }
}

fn no_folder(path: &str) -> SinkError {
    SinkError::Refused(path.to_owned(), "it lies in an object store and is no file")
}

/// A file that is being written. Clones share it.
#[derive(Clone, Debug)]
pub enum SinkFile {
    /// A positional file.
    Local(Arc<LocalFile>),
    /// An upload.
    Object(Arc<ObjectFile>),
}

impl SinkFile {
    /// Writes `bytes` at `offset`; any order of offsets, several at a time.
    ///
    /// A folder's file is written on the caller's thread: that costs as long as a copy into the page cache, and a disk that does
    /// not keep up holds the network back.
    pub async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        match self {
            Self::Local(file) => file.write_at(offset, bytes),
            Self::Object(file) => file.write_at(offset, bytes).await,
        }
    }

    /// Waits for room to hold `range` before it is asked for, where bytes are held in memory. In the order of the file, and by
    /// nobody who has a connection.
    pub async fn reserve(&self, range: &Range<u64>) -> Result<(), SinkError> {
        match self {
            Self::Local(_) => Ok(()),
            Self::Object(file) => file.reserve(range).await,
        }
    }

    /// The file, which was begun without a size, has `size` bytes; said before the first of them is written.
    pub async fn expect(&self, size: u64) -> Result<(), SinkError> {
        match self {
            Self::Local(_) => Ok(()),
            Self::Object(file) => file.expect(size).await,
        }
    }

    /// How many bytes are best asked for at once, where it is not for the source to say.
    pub const fn piece(&self) -> Option<u64> {
        match self {
            Self::Local(_) => None,
            Self::Object(_) => Some(upload::PIECE),
        }
    }

    /// Fills a folder's empty file with `size` bytes of another file. `told` hears how far it is, and ends it by answering no.
    /// Answers whether both share their blocks.
    pub async fn fill(
        &self,
        from: std::fs::File,
        size: u64,
        told: impl FnMut(u64) -> bool + Send + 'static,
    ) -> Result<bool, SinkError> {
        let Self::Local(file) = self else { return Err(no_folder("a file")) };
        let file = Arc::clone(file);
        blocking(move || file.fill(&from, size, told)).await
    }

    /// Reads back what was written, blocking: for the thread that hashes.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, SinkError> {
        match self {
            Self::Local(file) => file.read_at(offset, buffer),
            Self::Object(file) => file.read_at(offset, buffer),
        }
    }

    /// Whether exactly `bytes` lie at `offset`, where bytes can be read back.
    pub fn holds(&self, offset: u64, bytes: &[u8]) -> Result<bool, SinkError> {
        let (mut there, mut position) = (vec![0; bytes.len().min(64 * 1024)], offset);
        for piece in bytes.chunks(there.len().max(1)) {
            let mut rest = piece;
            while !rest.is_empty() {
                let read = self.read_at(position, there.get_mut(..rest.len()).unwrap_or_default())?;
                if read == 0 || there.get(..read) != rest.get(..read) {
                    return Ok(false);
                }
                position += read as u64;
                rest = rest.get(read..).unwrap_or_default();
            }
        }
        Ok(true)
    }

    /// The state of the hash of what an earlier run wrote and cannot be read back, and where that ends.
    pub fn resumed(&self) -> Option<(String, u64)> {
        match self {
            Self::Local(_) => None,
            Self::Object(file) => file.resumed(),
        }
    }

    /// What a later run goes on with, where that is more than which bytes are there.
    pub fn record(&self) -> Option<upload::Record> {
        match self {
            Self::Local(_) => None,
            Self::Object(file) => Some(file.record()),
        }
    }

    /// The hash is at `position` and needs nothing before it any more; its state is kept where a later run can go on from.
    pub fn passed(&self, position: u64, hash: impl FnOnce() -> String) {
        if let Self::Object(file) = self {
            file.passed(position, hash);
        }
    }

    /// Nobody writes to `range` any more: a good time to bring it to the disk. Does not wait for it, promises nothing.
    pub fn settle(&self, range: Range<u64>) {
        if let Self::Local(file) = self {
            file.settle(range);
        }
    }

    /// Gives the file its name, a large one once it is durable. Only verified bytes get here.
    pub async fn finish(self, verified: Verified) -> Result<(), SinkError> {
        match self {
            Self::Local(file) => blocking(move || file.finish(verified)).await,
            Self::Object(file) => file.finish(verified).await,
        }
    }

    /// The file begins again: what a later run would go on with is given up.
    pub async fn abandon(&self) {
        if let Self::Object(file) = self {
            file.abandon().await;
        }
    }
}

/// Runs blocking file work on the threads made for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SinkError> + Send + 'static,
) -> Result<T, SinkError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(SinkError::Io { action: "finish work on", path: "the bucket".to_owned(), source: io::Error::other(error) })
    })
}
