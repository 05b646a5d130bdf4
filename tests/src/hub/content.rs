//! What a file of the hub holds — bytes, a file on disk, or noise made on the fly — and how to read it at an offset.
//! Must not know HTTP.

use std::{
    fs::File,
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use axum::body::Bytes;
use sha2::{Digest as _, Sha256};

/// Bytes per read: large enough that a hop to the blocking pool is noise, small enough that memory stays bounded.
pub(super) const CHUNK: usize = 512 * 1024;

/// The noise repeats after this many bytes. Odd, so that a part put at the wrong multiple of a power of two shows.
const NOISE_BLOCK: usize = 4 * 1024 * 1024 + 4099;

/// What a file holds. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Content(Arc<Inner>);

#[derive(Debug)]
enum Inner {
    Bytes(Bytes),
    File { file: Arc<File>, size: u64 },
    Noise { block: Bytes, size: u64 },
}

impl Content {
    /// A file on disk; it stays open, and must not change.
    pub fn file(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(Self(Arc::new(Inner::File { file: Arc::new(file), size })))
    }

    /// `size` bytes that do not compress, the same for the same `seed`; costs no memory beyond 4 MiB.
    pub fn noise(seed: u64, size: u64) -> Self {
        let length = usize::try_from(size).unwrap_or(usize::MAX).min(NOISE_BLOCK);
        let words = std::iter::successors(Some(splitmix(seed)), |word| Some(splitmix(*word)));
        let block: Bytes = words.flat_map(u64::to_le_bytes).take(length).collect();
        Self(Arc::new(Inner::Noise { block, size }))
    }

    /// How many bytes there are.
    pub fn size(&self) -> u64 {
        match &*self.0 {
            Inner::Bytes(bytes) => bytes.len() as u64,
            Inner::File { size, .. } | Inner::Noise { size, .. } => *size,
        }
    }

    /// The same number for clones of one content, as long as one of them lives.
    pub(super) fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// At most `max` bytes from `at`; empty only at the end.
    pub(super) async fn read(&self, at: u64, max: usize) -> io::Result<Bytes> {
        if let Inner::File { .. } = &*self.0 {
            let content = self.clone();
            return tokio::task::spawn_blocking(move || content.read_now(at, max)).await.map_err(io::Error::other)?;
        }
        self.read_now(at, max)
    }

    fn read_now(&self, at: u64, max: usize) -> io::Result<Bytes> {
        let max = usize::try_from(self.size().saturating_sub(at)).unwrap_or(usize::MAX).min(max);
        match &*self.0 {
            Inner::Bytes(bytes) => Ok(slice(bytes, at, max)),
            Inner::Noise { block, .. } => Ok(slice(block, at.checked_rem(block.len() as u64).unwrap_or(0), max)),
            Inner::File { .. } if max == 0 => Ok(Bytes::new()),
            Inner::File { file, .. } => {
                let mut buffer = Buffer::take();
                rustix::io::pread(file, rustix::buffer::spare_capacity(&mut buffer.0), at)?;
                buffer.0.truncate(max);
                Ok(Bytes::from_owner(buffer))
            }
        }
    }

    /// The SHA-256 of the whole, in hex.
    pub fn sha256(&self) -> io::Result<String> {
        let mut hasher = Sha256::new();
        self.each_chunk(|chunk| hasher.update(chunk))?;
        Ok(hex::encode(hasher.finalize()))
    }

    /// Writes the whole to `out`.
    pub fn write_to(&self, out: &mut impl io::Write) -> io::Result<()> {
        let mut written = Ok(());
        self.each_chunk(|chunk| {
            if written.is_ok() {
                written = out.write_all(chunk);
            }
        })?;
        written
    }

    /// Hands the whole to `take`, piece by piece.
    pub(super) fn each_chunk(&self, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut at = 0;
        while at < self.size() {
            let chunk = self.read_now(at, CHUNK)?;
            if chunk.is_empty() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read"));
            }
            take(&chunk);
            at += chunk.len() as u64;
        }
        Ok(())
    }
}

impl<T: Into<Vec<u8>>> From<T> for Content {
    fn from(bytes: T) -> Self {
        Self(Arc::new(Inner::Bytes(Bytes::from(bytes.into()))))
    }
}

/// Room for a chunk, used again once it is sent: fresh memory for every chunk costs more than reading it.
struct Buffer(Vec<u8>);

static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

impl Buffer {
    fn take() -> Self {
        let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self(spare.unwrap_or_else(|| Vec::with_capacity(CHUNK)))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut used = std::mem::take(&mut self.0);
        used.clear();
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < 32 {
            spare.push(used);
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn slice(bytes: &Bytes, at: u64, max: usize) -> Bytes {
    let start = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(start..start.saturating_add(max).min(bytes.len()))
}

/// One step of the `SplitMix64` generator.
fn splitmix(state: u64) -> u64 {
    let mut word = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_the_same_read_in_any_pieces_and_differs_by_seed() {
        let size = NOISE_BLOCK as u64 * 2 + 17;
        let (noise, mut whole) = (Content::noise(7, size), Vec::new());
        noise.each_chunk(|chunk| whole.extend_from_slice(chunk)).unwrap();
        assert_eq!(whole.len() as u64, size);
        let at = NOISE_BLOCK - 3;
        let piece = noise.read_now(at as u64, 10).unwrap();
        assert_eq!(&whole[at..at + piece.len()], &piece[..]);
        assert_ne!(noise.sha256().unwrap(), Content::noise(8, size).sha256().unwrap());
    }

    #[test]
    fn a_file_reads_like_its_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        std::fs::write(&path, b"hello world").unwrap();
        let (file, bytes) = (Content::file(&path).unwrap(), Content::from("hello world"));
        assert_eq!(file.read_now(6, 100).unwrap(), bytes.read_now(6, 100).unwrap());
        assert_eq!(file.sha256().unwrap(), bytes.sha256().unwrap());
        assert!(file.read_now(11, 4).unwrap().is_empty());
    }
}
