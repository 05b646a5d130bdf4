//! A part of an object while it is in memory: gathered, then sent as it is. Knows no store.

use object_store::PutPayload;
use tokio::sync::OwnedSemaphorePermit;

/// A part, and the memory that it was given.
#[derive(Debug)]
pub(super) struct Part {
    bytes: Bytes,
    /// On its way, or there.
    pub(super) is_leaving: bool,
    pub(super) is_sent: bool,
    _room: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Bytes {
    Gathering(Vec<u8>, u64),
    Whole(PutPayload),
}

impl Part {
    /// An empty part of `length` bytes.
    pub(super) fn new(length: u64, room: OwnedSemaphorePermit) -> Self {
        let bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        Self { bytes: Bytes::Gathering(bytes, 0), is_leaving: false, is_sent: false, _room: room }
    }

    /// What is there of it.
    pub(super) fn as_slice(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Gathering(bytes, _) => bytes,
            Bytes::Whole(payload) => payload.as_ref().first().map_or(&[], |bytes| bytes),
        }
    }

    /// Bytes at their place; answers with how many have come.
    pub(super) fn put(&mut self, within: u64, bytes: &[u8]) -> Result<u64, &'static str> {
        let Bytes::Gathering(buffer, there) = &mut self.bytes else { return Err("bytes of a part came twice") };
        let within = usize::try_from(within).unwrap_or(usize::MAX);
        let Some(to) = within.checked_add(bytes.len()).and_then(|end| buffer.get_mut(within..end)) else {
            return Err("more bytes came than the file has");
        };
        to.copy_from_slice(bytes);
        *there += bytes.len() as u64;
        Ok(*there)
    }

    /// The payload, of the first `length` bytes: from now on nothing is added.
    pub(super) fn close(&mut self, length: usize) -> PutPayload {
        if let Bytes::Gathering(bytes, _) = &mut self.bytes {
            bytes.truncate(length);
            self.bytes = Bytes::Whole(std::mem::take(bytes).into());
        }
        match &self.bytes {
            Bytes::Whole(payload) => payload.clone(),
            Bytes::Gathering(..) => PutPayload::new(),
        }
    }
}
