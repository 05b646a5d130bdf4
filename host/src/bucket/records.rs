//! Our own records beside an artifact: small documents, written whole or not at all, and logs that grow line by line. Knows
//! nothing of what they say.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path;

use super::local;
use super::sink::{SinkError, blocking};
use super::store::Store;
use super::url::BucketUrl;

/// A piece of a log in an object store ends once it has so many bytes: objects do not grow, so that a piece is written anew
/// for every line that is added.
const PIECE: usize = 256 * 1024;

/// The records of one artifact.
#[derive(Clone, Debug)]
pub enum Records {
    /// A folder.
    Folder(local::Records),
    /// Objects below a prefix.
    Objects(ObjectRecords),
}

/// Records in an object store.
#[derive(Clone, Debug)]
pub struct ObjectRecords {
    store: Store,
    prefix: Arc<str>,
}

/// A log that is being written.
#[derive(Debug)]
pub enum Log {
    /// Appended to at once.
    File(File),
    /// Kept until [`Records::flush_log`]: the number of the piece, its text, and whether it changed since it was written.
    Pieces(usize, Vec<u8>, bool),
}

impl Log {
    /// Adds a line, which must end with its line feed.
    pub fn push(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write_all(line),
            Self::Pieces(_, text, changed) => {
                text.extend_from_slice(line);
                *changed = true;
                Ok(())
            }
        }
    }

    /// Whether enough is kept to be written before more comes.
    pub const fn is_long(&self) -> bool {
        matches!(self, Self::Pieces(_, text, _) if text.len() >= PIECE)
    }

    /// The piece that has to be written: its number and text. Where it is long enough, the next one begins.
    pub fn unwritten(&mut self) -> Option<(usize, Vec<u8>)> {
        let Self::Pieces(number, text, changed) = self else { return None };
        if !std::mem::take(changed) {
            return None;
        }
        let piece = (*number, text.clone());
        if text.len() >= PIECE {
            *number += 1;
            text.clear();
        }
        Some(piece)
    }
}

impl ObjectRecords {
    pub(super) fn new(store: Store, prefix: String) -> Self {
        Self { store, prefix: prefix.into() }
    }

    fn key(&self, name: &str) -> Result<Path, SinkError> {
        Path::parse(format!("{}/{name}", self.prefix))
            .map_err(|_| SinkError::Refused(name.to_owned(), "it is no name of an object"))
    }

    pub(super) fn piece(name: &str, number: usize) -> String {
        format!("{name}.{number:06}")
    }

    /// Keys of the pieces of a log, in order.
    async fn pieces(&self, name: &str) -> Result<Vec<Path>, SinkError> {
        let (folder, beginning) = (self.key("")?, format!("{name}."));
        let listed = self.store.objects().list(Some(&folder)).try_collect::<Vec<_>>().await;
        let listed = listed.map_err(|error| self.store.explain("list", folder.as_ref(), &error))?;
        let mut keys: Vec<Path> = listed.into_iter().map(|found| found.location).collect();
        keys.retain(|key| key.filename().is_some_and(|name| name.starts_with(&beginning)));
        keys.sort();
        Ok(keys)
    }
}

impl Records {
    /// The records of the artifact at `url`, without its lock: for reading what others leave there. Nothing where it is no folder.
    pub fn of(url: &BucketUrl) -> Option<Self> {
        local::Records::of(url).map(Self::Folder)
    }

    /// In an object store nothing is lost when a machine goes down.
    pub const fn outlive_the_machine(&self) -> bool {
        matches!(self, Self::Objects(_))
    }

    /// Reads a record; `None` where there is none.
    pub async fn read(&self, name: &str) -> Result<Option<Vec<u8>>, SinkError> {
        match self {
            Self::Folder(folder) => folder.read(name),
            Self::Objects(objects) => objects.store.get(&objects.key(name)?).await,
        }
    }

    /// Writes a record through `fill` and puts it in place of the old one at once.
    pub async fn replace(
        &self,
        name: &str,
        durable: bool,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), SinkError> {
        match self {
            Self::Folder(folder) => folder.replace(name, durable, fill),
            Self::Objects(objects) => {
                let mut text = Vec::new();
                fill(&mut text).map_err(SinkError::io("write record", name))?;
                objects.store.put(&objects.key(name)?, text.into()).await
            }
        }
    }

    /// The same of a text, off the caller's thread.
    pub async fn write(&self, name: &'static str, text: Vec<u8>) -> Result<(), SinkError> {
        match self {
            Self::Folder(folder) => {
                let folder = folder.clone();
                blocking(move || folder.replace(name, false, |out| out.write_all(&text))).await
            }
            Self::Objects(objects) => objects.store.put(&objects.key(name)?, text.into()).await,
        }
    }

    /// Removes a record where there is one.
    pub async fn remove(&self, name: &str) -> Result<(), SinkError> {
        match self {
            Self::Folder(folder) => folder.remove(name),
            Self::Objects(objects) => objects.store.delete(&objects.key(name)?).await,
        }
    }

    /// Shows every line of the log `name` to `take`, and opens the log to add more.
    pub async fn open_log(&self, name: &str, mut take: impl FnMut(&str)) -> Result<Log, SinkError> {
        match self {
            Self::Folder(folder) => {
                let file = File::options().create(true).append(true).read(true).open(folder.path(name));
                let file = file.map_err(SinkError::io("open record", name))?;
                for line in BufReader::new(&file).lines() {
                    take(&line.map_err(SinkError::io("read record", name))?);
                }
                Ok(Log::File(file))
            }
            Self::Objects(objects) => {
                let keys = objects.pieces(name).await?;
                let last = keys.last().and_then(|key| key.filename()?.rsplit_once('.')?.1.parse::<usize>().ok());
                for key in keys {
                    let text = objects.store.get(&key).await?.unwrap_or_default();
                    String::from_utf8_lossy(&text).lines().for_each(&mut take);
                }
                Ok(Log::Pieces(last.map_or(0, |last| last + 1), Vec::new(), false))
            }
        }
    }

    /// Writes a piece of a log in an object store.
    pub async fn write_piece(&self, name: &str, (number, text): (usize, Vec<u8>)) -> Result<(), SinkError> {
        match self {
            Self::Folder(_) => Ok(()),
            Self::Objects(objects) => objects.store.put(&objects.key(&ObjectRecords::piece(name, number))?, text.into()).await,
        }
    }

    /// Makes durable what was added to a log.
    pub async fn flush_log(&self, name: &str, log: &mut Log) -> Result<(), SinkError> {
        match log {
            Log::File(file) => file.sync_all().map_err(SinkError::io("write record", name)),
            Log::Pieces(..) => match log.unwritten() {
                Some(piece) => self.write_piece(name, piece).await,
                None => Ok(()),
            },
        }
    }

    /// Removes a log.
    pub async fn remove_log(&self, name: &str) -> Result<(), SinkError> {
        match self {
            Self::Folder(folder) => folder.remove(name),
            Self::Objects(objects) => {
                for key in objects.pieces(name).await? {
                    objects.store.delete(&key).await?;
                }
                Ok(())
            }
        }
    }
}
