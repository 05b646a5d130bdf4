//! One pass of SHA-256 over a file while it is being written: the hash follows the front of what is there, on a thread of its
//! own, off the network's path. Knows nothing of where bytes come from.

use sha1::Sha1;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::watch::{self, Receiver, Sender};
use tokio::task::JoinHandle;

use super::plan::PlanFile;
use crate::bucket::sink::Verified;
use crate::bucket::{SinkError, SinkFile};

/// Bytes read back at once: they stay in the processor's cache until they are hashed.
pub(super) const BLOCK: usize = 256 * 1024;
/// So many bytes are sent to the disk at a time.
const SETTLED: u64 = 32 * 1024 * 1024;

/// What the bytes of a file came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// Their number and SHA-256.
    pub verified: Verified,
    /// Their object id as a Git blob, where it was asked for.
    pub gitoid: Option<[u8; 20]>,
}

impl Hashed {
    /// What a message calls these bytes beside what the source says of `file`.
    pub(super) fn name(&self, file: &PlanFile) -> String {
        match self.gitoid.filter(|_| file.gitoid.is_some()) {
            Some(gitoid) => format!("the Git object id {}", hex::encode(gitoid)),
            None => format!("sha256 {}", hex::encode(self.verified.sha256)),
        }
    }
}

/// The hashes of one file, fed in order.
#[derive(Clone, Debug, Default)]
pub struct Hashing {
    size: u64,
    sha256: Sha256,
    git: Option<Sha1>,
}

impl Hashing {
    /// What `file` has to be hashed with, so that [`PlanFile::is`] can tell.
    ///
    /// A Git blob is hashed behind a header with its size (Git's book, 10.2), so a file of unknown size has none.
    pub fn of(file: &PlanFile) -> Self {
        let git = file.gitoid.and(file.size).map(|size| Sha1::new_with_prefix(format!("blob {size}\0")));
        Self { git, ..Self::default() }
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.sha256.update(bytes);
        if let Some(git) = &mut self.git {
            git.update(bytes);
        }
    }

    /// These were all.
    pub fn finish(self) -> Hashed {
        let verified = Verified { size: self.size, sha256: self.sha256.finalize().into() };
        Hashed { verified, gitoid: self.git.map(|git| git.finalize().into()) }
    }
}

/// A running hash.
#[derive(Debug)]
pub struct Verifier {
    front: Front,
    thread: JoinHandle<Result<Hashed, SinkError>>,
}

/// Tells how far a file is whole. However far the hash is behind, it holds the newest number only.
#[derive(Clone, Debug)]
pub struct Front(Sender<u64>);

impl Front {
    /// A front that nobody follows.
    pub fn of_nobody() -> Self {
        Self(watch::Sender::new(0))
    }

    /// The file is whole up to `position`; what was told before may have been more.
    pub fn is_at(&self, position: u64) {
        self.0.send_if_modified(|front| {
            let further = position > *front;
            *front = position.max(*front);
            further
        });
    }
}

impl Verifier {
    /// Starts hashing `file` from its beginning, as far as it is told that bytes are there.
    pub fn start(file: SinkFile, hashing: Hashing) -> Self {
        let (front, told) = watch::channel(0);
        Self { front: Front(front), thread: tokio::task::spawn_blocking(move || follow(&file, told, hashing)) }
    }

    /// The handle that tells how far the file is whole.
    pub fn front(&self) -> Front {
        self.front.clone()
    }

    /// The file is whole and has `size` bytes: waits for the hash to get there. Every handle from [`Self::front`] must be gone.
    pub async fn finish(self, size: u64) -> Result<Hashed, SinkError> {
        self.front.is_at(size);
        drop(self.front);
        let joined = self.thread.await;
        joined.unwrap_or_else(|error| Err(SinkError::io("hash", "a file")(std::io::Error::other(error))))
    }
}

/// Hashes up to the newest front until nobody can tell a newer one. What is hashed needs no memory any more: it goes to the disk
/// while the rest arrives, so that little is left to wait for at the end.
fn follow(file: &SinkFile, mut told: Receiver<u64>, mut hash: Hashing) -> Result<Hashed, SinkError> {
    if let Some((sha256, size)) = file.resumed().and_then(|(state, position)| Some((restore(&state)?, position))) {
        // Files that Git holds are too small for an upload in parts, the only one that is resumed like this.
        hash = Hashing { size, sha256, git: None };
    }
    let (mut settled, mut block) = (hash.size, Vec::new());
    // What was told last is seen even when those who told it are gone.
    while Handle::current().block_on(told.changed()).is_ok() {
        let front = *told.borrow_and_update();
        while hash.size < front {
            let wanted = usize::try_from(front - hash.size).map_or(BLOCK, |left| left.min(BLOCK));
            if block.len() < wanted {
                // Of many small files each has a small one.
                block.resize(wanted, 0);
            }
            let read = file.read_at(hash.size, block.get_mut(..wanted).unwrap_or_default())?;
            if read == 0 {
                return Err(SinkError::io("read back", "a file")(std::io::ErrorKind::UnexpectedEof.into()));
            }
            hash.update(block.get(..read).unwrap_or_default());
            file.passed(hash.size, || hex::encode(hash.sha256.serialize()));
            if hash.size - settled >= SETTLED {
                file.settle(settled..hash.size);
                settled = hash.size;
            }
        }
    }
    Ok(hash.finish())
}

/// A hash that was interrupted, from the state that it left.
pub fn restore(state: &str) -> Option<Sha256> {
    let mut bytes = SerializedState::<Sha256>::default();
    hex::decode_to_slice(state, &mut bytes).ok()?;
    Sha256::deserialize(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_goes_on_from_the_state_it_left() {
        let bytes: Vec<u8> = (0..1000_u32).map(|byte| u8::try_from(byte % 251).unwrap()).collect();
        for at in [0, 1, 63, 64, 65, 640, 1000] {
            let (before, after) = bytes.split_at(at);
            let left = hex::encode(Sha256::new_with_prefix(before).serialize());
            assert_eq!(restore(&left).unwrap().chain_update(after).finalize(), Sha256::digest(&bytes), "{at}");
        }
        assert!(restore("").is_none() && restore("00").is_none() && restore(&"zz".repeat(105)).is_none());
    }
}
