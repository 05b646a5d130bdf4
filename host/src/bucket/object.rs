//! The sink's backend for object stores: one artifact below a prefix of a bucket. An object appears under its name only when it
//! is whole and verified. Knows nothing of where bytes come from; [`super::upload`] writes one file.
//!
//! Nothing keeps a second worker out, and nothing needs to: what either makes visible is whole and verified, and where one takes
//! away an upload of the other, that one begins the file again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tokio::sync::Semaphore;

use super::raw::{Address, Pending};
use super::records::{ObjectRecords, Records};
use super::sink::{SinkError, Verified};
use super::source::Source;
use super::store::{Environment, Store};
use super::upload::{Held, ObjectFile};
use super::url::{ARTIFACTS, BucketUrl, RECORDS};

/// What is counted when memory is given out.
pub(super) const UNIT: u64 = 64 * 1024;
/// Memory for parts that are fetched in ranges. Whoever gets some holds no connection yet, so that nobody who has a connection
/// waits for memory that only another connection could free.
const RANGED: u64 = 48 * 1024 * 1024;
/// Memory for files that come over one connection from beginning to end. Whoever holds some has that connection, or is past it.
const STREAMED: u64 = 24 * 1024 * 1024;
/// Folder of our records for copies that are not verified yet.
const ASIDE: &str = "aside";
/// Requests that write, at the same time.
const WRITES: usize = 8;

/// One artifact in an object store.
#[derive(Debug)]
pub struct ObjectSink {
    store: Store,
    prefix: String,
    aside: String,
    records: Records,
    listing: Arc<Listing>,
    room: Arc<Room>,
}

/// Sizes of the objects of an artifact: listed once, then kept. A request for each of 200,000 files would take longer than the
/// files.
#[derive(Debug, Default)]
pub(super) struct Listing(Mutex<HashMap<String, u64>>);

impl Listing {
    pub(super) fn set(&self, path: &str, size: Option<u64>) {
        let mut sizes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match size {
            Some(size) => drop(sizes.insert(path.to_owned(), size)),
            None => drop(sizes.remove(path)),
        }
    }

    fn all(&self) -> Vec<(String, u64)> {
        let sizes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = sizes.iter().map(|(path, size)| (path.clone(), *size)).collect();
        all.sort();
        all
    }

    fn get(&self, path: &str) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied()
    }
}

/// A copy that the store has made beside the artifact, and that nobody has looked at yet.
#[derive(Debug)]
pub struct Aside {
    key: Path,
    path: String,
}

/// What the files of one sink share.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) ranged: Arc<Semaphore>,
    pub(super) streamed: Arc<Semaphore>,
    pub(super) writes: Semaphore,
}

impl Default for Room {
    fn default() -> Self {
        let units = |bytes: u64| Arc::new(Semaphore::new(usize::try_from(bytes / UNIT).unwrap_or(1)));
        Self { ranged: units(RANGED), streamed: units(STREAMED), writes: Semaphore::new(WRITES) }
    }
}

/// Units for so many bytes, at most all there are: a part larger than the room is in it alone.
pub(super) fn units(bytes: u64, streamed: bool) -> u32 {
    let all = if streamed { STREAMED } else { RANGED };
    u32::try_from(bytes.min(all).div_ceil(UNIT)).unwrap_or(1).max(1)
}

impl ObjectSink {
    /// Looks at what is there; finds out whether the bucket is, and opens for us.
    pub async fn open(url: &BucketUrl, env: &Environment) -> Result<Self, SinkError> {
        Self::of(Store::open(url, env)?, url.path().trim_matches('/')).await
    }

    pub(super) async fn of(store: Store, prefix: &str) -> Result<Self, SinkError> {
        let under = |folder: &str| if prefix.is_empty() { folder.to_owned() } else { format!("{prefix}/{folder}") };
        let records = Records::Objects(ObjectRecords::new(store.clone(), under(RECORDS)));
        let aside = format!("{}/{ASIDE}", under(RECORDS));
        let sink = Self { store, prefix: under(ARTIFACTS), aside, records, listing: Arc::default(), room: Arc::default() };
        let folder = key(&sink.prefix, "")?;
        let mut listed = sink.store.objects().list(Some(&folder));
        loop {
            let next = listed.try_next().await.map_err(|error| sink.store.explain("list", folder.as_ref(), &error))?;
            let Some(found) = next else { break };
            if let Some(path) = found.location.as_ref().strip_prefix(&format!("{}/", sink.prefix)) {
                sink.listing.set(path, Some(found.size));
            }
        }
        drop(listed);
        Ok(sink)
    }

    /// Our records beside the files.
    pub fn records(&self) -> &Records {
        &self.records
    }

    pub(super) async fn create(&self, path: &str, size: Option<u64>, held: Option<Held>) -> Result<ObjectFile, SinkError> {
        let key = key(&self.prefix, path)?;
        let (store, room, listing) = (self.store.clone(), Arc::clone(&self.room), Arc::clone(&self.listing));
        ObjectFile::begin(store, key, path, size, held, (room, listing)).await
    }

    pub(super) fn finished(&self, path: &str) -> Option<u64> {
        self.listing.get(path)
    }

    /// Every file that is there, and its size.
    pub fn files(&self) -> Vec<(String, u64)> {
        self.listing.all()
    }

    /// How the file `path` can be read for a time.
    pub async fn address(&self, path: &str, valid: Duration) -> Result<Address, SinkError> {
        self.store.address(&key(&self.prefix, path)?, valid).await
    }

    /// Gives up every upload of this artifact that no record speaks of: `recorded` holds paths and uploads. Who was killed between the
    /// beginning of an upload and its record has left one.
    pub async fn give_up_others(&self, recorded: &HashSet<(String, String)>) {
        let prefix = format!("{}/", self.prefix);
        let is_recorded = |pending: &Pending| {
            let path = pending.key.as_ref().strip_prefix(&prefix);
            path.is_some_and(|path| recorded.contains(&(path.to_owned(), pending.upload.clone())))
        };
        self.store.give_up(&prefix, is_recorded).await;
        // Copies are gone on with by nobody.
        self.store.give_up(&format!("{}/", self.aside), |_| false).await;
    }

    /// Every file is there: gives up uploads whose beginning nobody heard of, where any was begun.
    pub(super) async fn settle(&self) {
        if self.store.has_begun() {
            self.give_up_others(&HashSet::new()).await;
        }
    }

    pub(super) async fn remove(&self, path: &str) -> Result<(), SinkError> {
        if self.listing.get(path).is_none() {
            return Ok(());
        }
        self.store.delete(&key(&self.prefix, path)?).await?;
        self.listing.set(path, None);
        Ok(())
    }

    /// Has the store copy the file `name` of another artifact for `path`, out of sight. Nothing where it lies in another store.
    pub async fn copy_aside(&self, from: &Source, name: &str, path: &str) -> Result<Option<Aside>, SinkError> {
        let Some((store, from)) = from.object(name)?.filter(|(store, _)| store.is(&self.store)) else { return Ok(None) };
        let aside = Aside { key: key(&self.aside, path)?, path: path.to_owned() };
        store.copy(&from, &aside.key).await?;
        Ok(Some(aside))
    }

    /// Shows the bytes of a copy to `take`, if there are `size`; answers whether there are.
    pub async fn read_aside(&self, aside: &Aside, size: u64, mut take: impl FnMut(&[u8])) -> Result<bool, SinkError> {
        let explain = |error| self.store.explain("read", aside.key.as_ref(), &error);
        let found = self.store.objects().get(&aside.key).await.map_err(explain)?;
        if found.meta.size != size {
            return Ok(false);
        }
        let mut bytes = found.into_stream();
        while let Some(piece) = bytes.try_next().await.map_err(explain)? {
            take(&piece);
        }
        Ok(true)
    }

    /// A copy is verified: it appears under its name.
    pub async fn show(&self, aside: &Aside, verified: Verified) -> Result<(), SinkError> {
        let to = key(&self.prefix, &aside.path)?;
        self.store.copy(&aside.key, &to).await?;
        self.listing.set(&aside.path, Some(verified.size));
        Ok(())
    }

    /// Removes a copy.
    pub async fn drop_aside(&self, aside: &Aside) -> Result<(), SinkError> {
        self.store.delete(&aside.key).await
    }

    /// Removes the copies that a killed process left.
    pub async fn drop_all_aside(&self) -> Result<(), SinkError> {
        let folder = key(&self.aside, "")?;
        let listed = self.store.objects().list(Some(&folder)).try_collect::<Vec<_>>().await;
        for left in listed.map_err(|error| self.store.explain("list", folder.as_ref(), &error))? {
            self.store.delete(&left.location).await?;
        }
        Ok(())
    }

    /// Gives up an upload that nobody goes on with.
    pub async fn abort(&self, path: &str, upload: &str) -> Result<(), SinkError> {
        self.store.abort(&key(&self.prefix, path)?, upload).await
    }
}

/// The key of `path` below `prefix`, as it is: what stands for a folder or leaves one is refused.
pub(super) fn key(prefix: &str, path: &str) -> Result<Path, SinkError> {
    let refused = |_| SinkError::Refused(path.to_owned(), "it does not stay below the target, or holds a control character");
    Path::parse(format!("{prefix}/{path}")).map_err(refused)
}
