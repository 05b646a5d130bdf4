//! One file on its way into an object store: parts are gathered in memory in any order, sent as soon as they are whole, and
//! given up once they are both sent and hashed. Knows no hash and no source.
//!
//! Bytes that were sent cannot be read back, so whoever hashes reads them here while they are held. What a killed process can go
//! on with is [`Held`]: the parts from the beginning that are sent *and* hashed, and the state of the hash at their end.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures::TryStreamExt;
use md5::{Digest, Md5};
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use sha2::Sha256;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use super::held::{Held, PIECE, Record};
use super::held::{MAX_PARTS, part_of};
use super::object::{Listing, Room, units};
use super::part::Part;
use super::sink::{SinkError, Trouble, Verified};
use super::store::Store;

/// A file that is being written. Dropping it ends what is on its way.
#[derive(Debug)]
pub struct ObjectFile {
    inner: Arc<Inner>,
    _end: DropGuard,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    key: Path,
    path: String,
    /// Known from the beginning, or before the first byte, or never.
    size: OnceLock<u64>,
    room: Arc<Room>,
    listing: Arc<Listing>,
    record: Record,
    state: Mutex<State>,
    /// Something happened that somebody may wait for.
    news: watch::Sender<()>,
    ended: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    parts: BTreeMap<u64, Part>,
    /// Sent, but not part of the record yet.
    sent: BTreeMap<u64, String>,
    /// States of the hash at the ends of parts that are not part of the record yet.
    hashed: BTreeMap<u64, String>,
    /// How far the hash is.
    position: u64,
    /// Parts that are being sent.
    on_the_way: usize,
    failed: Option<(Trouble, String)>,
}

impl ObjectFile {
    pub(super) async fn begin(
        store: Store,
        key: Path,
        path: &str,
        size: Option<u64>,
        held: Option<Held>,
        (room, listing): (Arc<Room>, Arc<Listing>),
    ) -> Result<Self, SinkError> {
        let held = held.unwrap_or_default();
        let state = State { position: held.front(size.unwrap_or(0)), ..State::default() };
        let ended = CancellationToken::new();
        let inner = Inner {
            store,
            key,
            path: path.to_owned(),
            size: OnceLock::new(),
            room,
            listing,
            record: Arc::new(Mutex::new((held, true))),
            state: Mutex::new(state),
            news: watch::Sender::new(()),
            ended: ended.clone(),
        };
        let file = Self { inner: Arc::new(inner), _end: ended.drop_guard() };
        if let Some(size) = size {
            file.expect(size).await?;
        }
        Ok(file)
    }

    /// The file has `size` bytes; said before the first of them is written.
    pub(super) async fn expect(&self, size: u64) -> Result<(), SinkError> {
        let size = *self.inner.size.get_or_init(|| size);
        // Before its first part, so that a record can speak of it.
        if size > part_of(size) { self.inner.upload().await } else { Ok(()) }
    }

    /// What a later process goes on with.
    pub(super) fn record(&self) -> Record {
        Arc::clone(&self.inner.record)
    }

    /// The state of the hash that belongs to the beginning that need not come again, and where that ends.
    pub(super) fn resumed(&self) -> Option<(String, u64)> {
        let position = self.inner.state().position;
        (position > 0).then(|| (self.inner.held().0.state.clone(), position))
    }

    /// Waits for memory for the parts that `range` lies in. Asked for in the order of the file, and before a connection is taken.
    pub(super) async fn reserve(&self, range: &Range<u64>) -> Result<(), SinkError> {
        let part = self.inner.part();
        for index in range.start / part..range.end.div_ceil(part) {
            self.inner.room_for(index, false).await?;
        }
        Ok(())
    }

    pub(super) async fn write_at(&self, mut offset: u64, mut bytes: &[u8]) -> Result<(), SinkError> {
        let inner = &self.inner;
        while !bytes.is_empty() {
            let index = offset / inner.part();
            if !inner.state().parts.contains_key(&index) {
                if index > 0 && inner.size.get().is_none() {
                    // It is longer than one part: the first, which could have been all, is sent now.
                    inner.upload().await?;
                    inner.send_whole(index - 1);
                }
                inner.room_for(index, true).await?;
            }
            let left = usize::try_from(inner.length(index) - offset % inner.part()).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(left));
            inner.put(index, offset % inner.part(), now)?;
            offset += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, SinkError> {
        let state = self.inner.state();
        self.inner.sound(&state)?;
        let index = offset / self.inner.part();
        let Some(part) = state.parts.get(&index) else { return Ok(0) };
        let within = usize::try_from(offset % self.inner.part()).unwrap_or(usize::MAX);
        let there = part.as_slice().get(within..).unwrap_or_default();
        let length = there.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..length), there.get(..length)) {
            to.copy_from_slice(from);
        }
        Ok(length)
    }

    /// The hash is at `position`; its state is asked for where a part ends.
    pub(super) fn passed(&self, position: u64, hash: impl FnOnce() -> String) {
        let inner = &self.inner;
        let mut state = inner.state();
        state.position = position;
        if position.is_multiple_of(inner.part()) || inner.size.get() == Some(&position) {
            state.hashed.insert(position.div_ceil(inner.part()) - 1, hash());
            inner.move_on(&mut state);
        }
    }

    /// Every byte is written and verified: the object appears.
    pub(super) async fn finish(&self, verified: Verified) -> Result<(), SinkError> {
        let inner = &self.inner;
        let upload = inner.held().0.upload.clone();
        if upload.is_empty() {
            let payload = inner.close(0, verified.size);
            let _turn = inner.room.writes.acquire().await;
            inner.store.put(&inner.key, payload).await?;
        } else {
            if inner.size.get().is_none() {
                inner.close(verified.size / inner.part(), verified.size % inner.part());
                inner.send_whole(verified.size.saturating_sub(1) / inner.part());
            }
            let count = verified.size.div_ceil(inner.part());
            let etags = inner.all_sent(count).await?;
            inner.complete(&upload, etags, &verified).await?;
        }
        inner.listing.set(&inner.path, Some(verified.size));
        Ok(())
    }

    /// Gives up what was sent: the file begins again, or never ends.
    pub(super) async fn abandon(&self) {
        let inner = &self.inner;
        // A part that arrives after the end would outlive it, so what is on its way gets there first.
        let mut news = inner.news.subscribe();
        while inner.state().on_the_way > 0 && news.changed().await.is_ok() {}
        inner.ended.cancel();
        let upload = std::mem::take(&mut inner.held().0).upload;
        if upload.is_empty() {
            return;
        }
        if let Err(error) = inner.store.abort(&inner.key, &upload).await {
            tracing::warn!(path = %inner.path, %error, "an upload is left behind");
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, (Held, bool)> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sound(&self, state: &State) -> Result<(), SinkError> {
        match &state.failed {
            Some((trouble, message)) => Err(SinkError::Store(*trouble, message.clone())),
            None if self.ended.is_cancelled() => Err(SinkError::Store(Trouble::Passing, "the upload was given up".to_owned())),
            None => Ok(()),
        }
    }

    /// Bytes of part `index`, where the file's size says so.
    fn length(&self, index: u64) -> u64 {
        let part = self.part();
        self.size.get().map_or(part, |size| size.saturating_sub(index * part).min(part))
    }

    /// Bytes of every part but the last.
    fn part(&self) -> u64 {
        self.size.get().map_or(PIECE, |size| part_of(*size))
    }

    /// Begins an upload in parts, once.
    async fn upload(&self) -> Result<(), SinkError> {
        if !self.held().0.upload.is_empty() {
            return Ok(());
        }
        let upload = self.store.begin(&self.key).await?;
        let mut held = self.held();
        held.0.upload = upload;
        held.0.part = self.part();
        held.1 = true;
        Ok(())
    }

    /// Memory for part `index`, where it has none.
    async fn room_for(&self, index: u64, streamed: bool) -> Result<(), SinkError> {
        let length = self.length(index);
        if index >= MAX_PARTS {
            let message =
                format!("`{}` is larger than {} bytes, and its source did not say so", self.path, MAX_PARTS * self.part());
            return Err(SinkError::Store(Trouble::Settings, message));
        }
        if self.state().parts.contains_key(&index) {
            return Ok(());
        }
        let room = if streamed { &self.room.streamed } else { &self.room.ranged };
        let mut news = self.news.subscribe();
        let wait = Arc::clone(room).acquire_many_owned(units(length, streamed));
        tokio::pin!(wait);
        let permit = loop {
            // What fails meanwhile frees nothing.
            self.sound(&self.state())?;
            tokio::select! {
                permit = &mut wait => break permit,
                _ = news.changed() => {}
            }
        };
        let closed = |_| SinkError::Store(Trouble::Passing, "the upload has ended".to_owned());
        let part = Part::new(length, permit.map_err(closed)?);
        self.state().parts.entry(index).or_insert(part);
        Ok(())
    }

    /// Bytes into a part; one that is whole is sent, unless it may be all there is.
    fn put(self: &Arc<Self>, index: u64, within: u64, bytes: &[u8]) -> Result<(), SinkError> {
        let mut state = self.state();
        self.sound(&state)?;
        let there = state.parts.get_mut(&index).map_or(Err("bytes of a part came twice"), |part| part.put(within, bytes));
        let whole = there.map_err(|why| SinkError::Refused(self.path.clone(), why))? == self.length(index);
        drop(state);
        let alone = self.size.get().map_or(index == 0, |size| *size <= self.part());
        if whole && !alone {
            self.send_whole(index);
        }
        Ok(())
    }

    /// Ends a part at `length` bytes and answers with them.
    fn close(&self, index: u64, length: u64) -> PutPayload {
        let mut state = self.state();
        state.parts.get_mut(&index).map_or_else(PutPayload::new, |part| part.close(usize::try_from(length).unwrap_or(0)))
    }

    /// Sends a part that nobody adds to any more, once.
    fn send_whole(self: &Arc<Self>, index: u64) {
        let mut state = self.state();
        let payload = match state.parts.get_mut(&index) {
            Some(part) if !part.is_leaving => {
                part.is_leaving = true;
                let payload = part.close(usize::MAX);
                state.on_the_way += 1;
                payload
            }
            _ => return,
        };
        drop(state);
        let (file, ended) = (Arc::clone(self), self.ended.clone());
        tokio::spawn(async move {
            tokio::select! {
                sent = file.send(index, payload) => file.sent(index, sent),
                () = ended.cancelled() => {}
            }
            file.state().on_the_way -= 1;
            file.news.send_replace(());
        });
    }

    async fn send(&self, index: u64, payload: PutPayload) -> Result<String, SinkError> {
        let upload = self.held().0.upload.clone();
        let _turn = self.room.writes.acquire().await;
        let number = usize::try_from(index).unwrap_or(usize::MAX);
        let sent = self.store.multipart().put_part(&self.key, &upload, number, payload).await;
        sent.map(|part| part.content_id).map_err(|error| self.store.explain("write a part of", self.key.as_ref(), &error))
    }

    fn sent(&self, index: u64, sent: Result<String, SinkError>) {
        let mut state = self.state();
        match sent {
            Ok(etag) => {
                if let Some(part) = state.parts.get_mut(&index) {
                    part.is_sent = true;
                }
                state.sent.insert(index, etag);
                self.move_on(&mut state);
            }
            Err(SinkError::Store(trouble, message)) => state.failed = Some((trouble, message)),
            Err(error) => state.failed = Some((Trouble::Passing, error.to_string())),
        }
    }

    /// Frees what is sent and hashed, and lets the record follow.
    fn move_on(&self, state: &mut State) {
        let (position, part) = (state.position, self.part());
        state.parts.retain(|index, held| !held.is_sent || index * part + held.as_slice().len() as u64 > position);
        let mut held = self.held();
        loop {
            let next = held.0.etags.len() as u64;
            if !state.sent.contains_key(&next) || !state.hashed.contains_key(&next) {
                return;
            }
            held.0.etags.extend(state.sent.remove(&next));
            held.0.state = state.hashed.remove(&next).unwrap_or_default();
            held.1 = true;
        }
    }

    /// Waits until `count` parts are sent; what the store said of each.
    async fn all_sent(&self, count: u64) -> Result<Vec<String>, SinkError> {
        let mut news = self.news.subscribe();
        loop {
            {
                let state = self.state();
                self.sound(&state)?;
                let held = self.held();
                if held.0.etags.len() as u64 + state.sent.len() as u64 == count {
                    return Ok(held.0.etags.iter().chain(state.sent.values()).cloned().collect());
                }
            }
            if news.changed().await.is_err() {
                return Err(SinkError::Store(Trouble::Passing, "the upload has ended".to_owned()));
            }
        }
    }

    async fn complete(&self, upload: &str, etags: Vec<String>, verified: &Verified) -> Result<(), SinkError> {
        let whole = whole_etag(&etags);
        let parts = etags.into_iter().map(|content_id| PartId { content_id }).collect();
        let Err(error) = self.store.multipart().complete_multipart(&self.key, &upload.to_owned(), parts).await else {
            return Ok(());
        };
        let error = self.store.explain("complete", self.key.as_ref(), &error);
        // An answer that was lost, or a process killed after asking: the upload is gone because the object is there.
        if matches!(error, SinkError::Store(Trouble::Gone, _)) && self.is_there(whole.as_deref(), verified).await {
            return Ok(());
        }
        Err(error)
    }

    /// Whether the object is there with these bytes: by its tag where that says so, else by reading it.
    async fn is_there(&self, tag: Option<&str>, verified: &Verified) -> bool {
        let Ok(found) = self.store.objects().get(&self.key).await else { return false };
        if found.meta.size != verified.size {
            return false;
        }
        if tag.is_some() && found.meta.e_tag.as_deref().map(|etag| etag.trim_matches('"')) == tag {
            return true;
        }
        let (mut hash, mut bytes) = (Sha256::new(), found.into_stream());
        loop {
            match bytes.try_next().await {
                Ok(Some(piece)) => hash.update(&piece),
                Ok(None) => return hash.finalize()[..] == verified.sha256,
                Err(_) => return false,
            }
        }
    }
}

/// The tag that S3 gives an object made of parts with these tags; nothing where they are no MD5 sums.
fn whole_etag(etags: &[String]) -> Option<String> {
    let mut hash = Md5::new();
    for etag in etags {
        let sum: [u8; 16] = hex::decode(etag.trim_matches('"')).ok()?.try_into().ok()?;
        hash.update(sum);
    }
    Some(format!("{}-{}", hex::encode(hash.finalize()), etags.len()))
}

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;
