//! Another artifact of the bucket, read and never written: its records, and its files for a [`super::Sink`] to take over. Whoever
//! wrote there is not trusted: no symbolic link is followed, nothing but a regular file is opened, and nothing large is read.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use object_store::ObjectStoreExt;
use object_store::path::Path;
use rustix::fs::{Mode, OFlags};

use super::local::{FOLDER, folder_of, step};
use super::object::key;
use super::records::ObjectRecords;
use super::refusal::is_missing_object;
use super::sink::{SinkError, blocking};
use super::store::{Environment, Store};
use super::url::{ARTIFACTS, BucketUrl, RECORDS};

/// A record that is longer is not read, in bytes: that of a hundred thousand files fits.
const MAX_RECORD: u64 = 16 * 1024 * 1024;

/// An artifact.
#[derive(Debug)]
pub enum Source {
    /// In a folder: `artifacts/` and `.substratus/`, where they are there.
    Folder(OwnedFd),
    /// Below a prefix of a bucket.
    Objects(Store, String),
}

impl Source {
    /// Opens the artifact at `url`; nothing where there is none.
    pub async fn open(url: &BucketUrl, env: &Environment) -> Result<Option<Self>, SinkError> {
        if url.scheme().is_object() {
            return Ok(Some(Self::Objects(Store::open(url, env)?, url.path().trim_matches('/').to_owned())));
        }
        let Some(folder) = url.local_path() else { return Err(SinkError::Unsupported(url.clone())) };
        blocking(move || match rustix::fs::open(&folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(folder) => Ok(Some(Self::Folder(folder))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(SinkError::io("open folder", folder.display().to_string())(error.into())),
        })
        .await
    }

    /// A record; nothing where there is none.
    pub async fn record(&self, name: &str) -> Result<Option<Vec<u8>>, SinkError> {
        match self {
            Self::Folder(folder) => {
                let (folder, name) = (folder.try_clone().map_err(SinkError::io("open record", name))?, name.to_owned());
                blocking(move || record_of(&folder, &name)).await
            }
            Self::Objects(store, prefix) => {
                let found = match store.objects().get(&key(&below(prefix, RECORDS), name)?).await {
                    Ok(found) => found,
                    Err(error) if is_missing_object(&error) => return Ok(None),
                    Err(error) => return Err(store.explain("read", name, &error)),
                };
                if found.meta.size > MAX_RECORD {
                    return Err(too_long(name));
                }
                let bytes = found.bytes().await.map_err(|error| store.explain("read", name, &error))?;
                Ok(Some(bytes.into()))
            }
        }
    }

    /// A record, and whether it was written within `recently`; nothing where there is none.
    pub async fn record_since(&self, name: &str, recently: Duration) -> Result<Option<(Vec<u8>, bool)>, SinkError> {
        let modified = match self {
            Self::Folder(folder) => {
                let (folder, name) = (folder.try_clone().map_err(SinkError::io("open record", name))?, name.to_owned());
                blocking(move || modified(&folder, &name)).await?
            }
            Self::Objects(store, prefix) => match store.objects().head(&key(&below(prefix, RECORDS), name)?).await {
                Ok(found) => u64::try_from(found.last_modified.timestamp()).ok().map(|at| UNIX_EPOCH + Duration::from_secs(at)),
                Err(error) if is_missing_object(&error) => None,
                Err(error) => return Err(store.explain("read", name, &error)),
            },
        };
        let Some(modified) = modified else { return Ok(None) };
        // A time in the future is some clock's mistake, and recent.
        let is_recent = modified.elapsed().map_or(true, |age| age <= recently);
        Ok(self.record(name).await?.map(|record| (record, is_recent)))
    }

    /// Name of the record that holds the beginning of a log, which is all of it in a folder.
    pub fn first_piece(&self, log: &str) -> String {
        match self {
            Self::Folder(_) => log.to_owned(),
            Self::Objects(..) => ObjectRecords::piece(log, 0),
        }
    }

    /// Opens the file `path` of a folder, if it has `size` bytes; nothing where it is no such file.
    pub async fn file(&self, path: &str, size: u64) -> Result<Option<File>, SinkError> {
        let Self::Folder(folder) = self else { return Ok(None) };
        let (folder, path) = (folder.try_clone().map_err(SinkError::io("open", path))?, path.to_owned());
        blocking(move || {
            let artifacts = step(&folder, ARTIFACTS, &path)?;
            let (folder, name) = folder_of(&artifacts, &path, false)?;
            let file = regular(&folder, &name, &path)?;
            Ok(file.filter(|(_, length)| *length == size).map(|(file, _)| file))
        })
        .await
    }

    /// The store and the key of the file `path`.
    pub(super) fn object(&self, path: &str) -> Result<Option<(&Store, Path)>, SinkError> {
        match self {
            Self::Folder(_) => Ok(None),
            Self::Objects(store, prefix) => Ok(Some((store, key(&below(prefix, ARTIFACTS), path)?))),
        }
    }
}

fn below(prefix: &str, folder: &str) -> String {
    if prefix.is_empty() { folder.to_owned() } else { format!("{prefix}/{folder}") }
}

fn record_of(folder: &OwnedFd, name: &str) -> Result<Option<Vec<u8>>, SinkError> {
    let Some(records) = records_of(folder)? else { return Ok(None) };
    let Some((file, length)) = regular(&records, name, name)? else { return Ok(None) };
    if length > MAX_RECORD {
        return Err(too_long(name));
    }
    let mut text = Vec::new();
    // It may grow while it is read.
    file.take(MAX_RECORD).read_to_end(&mut text).map_err(SinkError::io("read record", name))?;
    Ok(Some(text))
}

/// When a record was written.
fn modified(folder: &OwnedFd, name: &str) -> Result<Option<SystemTime>, SinkError> {
    let Some(records) = records_of(folder)? else { return Ok(None) };
    let Some((file, _)) = regular(&records, name, name)? else { return Ok(None) };
    let known = file.metadata().and_then(|known| known.modified());
    known.map(Some).map_err(SinkError::io("look at", name))
}

fn records_of(folder: &OwnedFd) -> Result<Option<OwnedFd>, SinkError> {
    match rustix::fs::openat(folder, RECORDS, FOLDER, Mode::empty()) {
        Ok(records) => Ok(Some(records)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(SinkError::io("open folder", RECORDS)(error.into())),
    }
}

/// Opens a regular file and tells its length; nothing where there is no file. A pipe is not waited for.
fn regular(folder: &OwnedFd, name: &str, path: &str) -> Result<Option<(File, u64)>, SinkError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file: File = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Ok(file) => file.into(),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(rustix::io::Errno::LOOP) => return Err(no_file(path)),
        Err(error) => return Err(SinkError::io("open", path)(io::Error::from(error))),
    };
    let known = file.metadata().map_err(SinkError::io("look at", path))?;
    if known.is_file() { Ok(Some((file, known.len()))) } else { Err(no_file(path)) }
}

fn no_file(path: &str) -> SinkError {
    SinkError::Refused(path.to_owned(), "something that is no regular file has this name")
}

fn too_long(name: &str) -> SinkError {
    SinkError::Refused(name.to_owned(), "it is too long for a record")
}
