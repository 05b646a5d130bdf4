//! The plugin store on disk: components by digest, and machine code that we compiled and signed. Trusts nothing it reads.
//! Knows nothing about registries or calls.
//!
//! ```text
//! blobs/sha256/<hex>             bytes by digest, hashed again on every read
//! aot/<engine id>/<hex>.cwasm    HMAC-SHA256, then the code; bound to engine and component
//! notes/<hex>                    HMAC-SHA256, then what we found out ourselves; bound to its name
//! tmp/                           write, fsync, rename; sockets of sandboxes
//! key                            32 random bytes, readable by us alone
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::PluginError;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};

const TAG: usize = 32;

pub(super) struct Cache {
    root: PathBuf,
    key: [u8; 32],
    engine_id: String,
}

impl Cache {
    /// Opens the store, or makes one. Compiled code is kept for each engine apart.
    pub(super) fn open(root: &Path, engine_id: String) -> Result<Self, PluginError> {
        for folder in ["blobs/sha256", "notes", "tmp", &format!("aot/{engine_id}")] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(|source| failed("make the folder", &path, source))?;
        }
        let key = key(root)?;
        Ok(Self { root: root.to_owned(), key, engine_id })
    }

    /// What code is compiled for.
    pub(super) fn engine(&self) -> &str {
        &self.engine_id
    }

    /// Where a blob lies, whether it is there or not. `digest` must be well-formed.
    pub(super) fn blob_path(&self, digest: &str) -> Result<PathBuf, PluginError> {
        let hex = digest.strip_prefix("sha256:").filter(|hex| is_sha256(hex));
        let hex = hex.ok_or_else(|| PluginError::Unknown { digest: super::text::clip(digest, 128) })?;
        Ok(self.root.join("blobs/sha256").join(hex))
    }

    /// The bytes of a digest. A file that does not hash to its name is deleted and as good as absent.
    pub(super) fn blob(&self, digest: &str) -> Result<Vec<u8>, PluginError> {
        let path = self.blob_path(digest)?;
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(PluginError::Unknown { digest: digest.to_owned() });
            }
            Err(source) => return Err(failed("read the blob", &path, source)),
        };
        if digest_of(&bytes) != digest {
            tracing::error!(path = %path.display(), "a blob of the plugin store does not match its digest; it is deleted");
            remove(&path);
            return Err(PluginError::Unknown { digest: digest.to_owned() });
        }
        Ok(bytes)
    }

    /// Keeps bytes under their digest.
    pub(super) fn keep(&self, bytes: &[u8]) -> Result<String, PluginError> {
        let digest = digest_of(bytes);
        let path = self.blob_path(&digest)?;
        if !path.exists() {
            self.write(&path, &[bytes])?;
        }
        Ok(digest)
    }

    /// Something small that this store wrote down under this name, a hexadecimal one, if it is there and unharmed.
    pub(super) fn note(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.note_path(name)?;
        unsealed(&path, "a note of the plugin store", |text| self.seal_note(name, text))
    }

    /// Writes something small down under a name.
    pub(super) fn keep_note(&self, name: &str, text: &[u8]) -> Result<(), PluginError> {
        let path = self.note_path(name).ok_or_else(|| PluginError::Unknown { digest: super::text::clip(name, 128) })?;
        let tag = self.seal_note(name, text).finalize().into_bytes();
        self.write(&path, &[&tag, text])
    }

    fn note_path(&self, name: &str) -> Option<PathBuf> {
        is_sha256(name).then(|| self.root.join("notes").join(name))
    }

    fn seal_note(&self, name: &str, text: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac();
        // No engine is called so: a note is never taken for code.
        mac.update(b"note ");
        mac.update(name.as_bytes());
        mac.update(text);
        mac
    }

    /// Code that this store compiled for this engine from this component, if it is there and unharmed. The bytes are the ones
    /// whose signature was checked.
    pub(super) fn code(&self, digest: &str) -> Option<Vec<u8>> {
        unsealed(&self.code_path(digest), "compiled code", |code| self.seal(digest, code))
    }

    /// Deletes compiled code that turned out to be of no use.
    pub(super) fn forget_code(&self, digest: &str) {
        remove(&self.code_path(digest));
    }

    /// Signs and keeps compiled code. A full disk only costs the next start some time.
    pub(super) fn keep_code(&self, digest: &str, code: &[u8]) {
        let tag = self.seal(digest, code).finalize().into_bytes();
        if let Err(error) = self.write(&self.code_path(digest), &[&tag, code]) {
            tracing::warn!(%error, "compiled code cannot be kept");
        }
    }

    /// A new folder that we alone can enter.
    pub(super) fn folder(&self) -> Result<PathBuf, PluginError> {
        let path = self.root.join("tmp").join(unique());
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.map(|()| path.clone()).map_err(|source| failed("make the folder", &path, source))
    }

    fn code_path(&self, digest: &str) -> PathBuf {
        let name = digest.strip_prefix("sha256:").unwrap_or(digest);
        self.root.join("aot").join(&self.engine_id).join(format!("{name}.cwasm"))
    }

    fn mac(&self) -> Hmac<Sha256> {
        // The block size of SHA-256, zeros behind the key: what HMAC does with a short key.
        let mut block = [0; 64];
        block.iter_mut().zip(self.key).for_each(|(byte, key)| *byte = key);
        <Hmac<Sha256> as KeyInit>::new(&block.into())
    }

    fn seal(&self, digest: &str, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac();
        mac.update(self.engine_id.as_bytes());
        mac.update(digest.as_bytes());
        mac.update(&(code.len() as u64).to_be_bytes());
        mac.update(code);
        mac
    }

    /// Writes so that the path has the old content or the whole new one, whatever stops us.
    fn write(&self, path: &Path, parts: &[&[u8]]) -> Result<(), PluginError> {
        let tmp = self.root.join("tmp").join(unique());
        let written = write_new(&tmp, parts).and_then(|()| fs::rename(&tmp, path));
        written.map_err(|source| {
            remove(&tmp);
            failed("write", path, source)
        })
    }
}

/// What lies behind a file's seal, if the seal is ours; a file with another one is deleted.
fn unsealed(path: &Path, what: &str, seal: impl FnOnce(&[u8]) -> Hmac<Sha256>) -> Option<Vec<u8>> {
    let mut sealed = fs::read(path).ok()?;
    if sealed.split_at_checked(TAG).is_none_or(|(tag, content)| seal(content).verify_slice(tag).is_err()) {
        tracing::error!(path = %path.display(), "{what} does not carry our signature; it is deleted");
        remove(path);
        return None;
    }
    sealed.drain(..TAG);
    Some(sealed)
}

/// `sha256:…` of bytes.
pub(super) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Whether a text is a SHA-256 in lower-case hexadecimal.
pub(super) fn is_sha256(hex: &str) -> bool {
    hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Reads the key, or makes one. A key that others can read is replaced: what it signed proves nothing.
fn key(root: &Path) -> Result<[u8; 32], PluginError> {
    let path = root.join("key");
    if let Some(key) = read_key(&path)? {
        return Ok(key);
    }
    remove(&path);
    let mut key = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut key))
        .map_err(|source| failed("read random bytes from", Path::new("/dev/urandom"), source))?;
    let tmp = root.join("tmp").join(unique());
    // A link, unlike a rename, fails where another process was faster; then its key counts.
    let made = write_new(&tmp, &[&key]).and_then(|()| fs::hard_link(&tmp, &path));
    remove(&tmp);
    match made {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_key(&path)?
            .ok_or_else(|| failed("read the key", &path, io::Error::other("it has no 32 bytes that we alone can read"))),
        Err(source) => Err(failed("write the key", &path, source)),
    }
}

fn read_key(path: &Path) -> Result<Option<[u8; 32]>, PluginError> {
    let read = || -> io::Result<Option<[u8; 32]>> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.mode() & 0o077 != 0 || metadata.len() != 32 {
            return Ok(None);
        }
        let mut key = [0; 32];
        file.read_exact(&mut key)?;
        Ok(Some(key))
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map_err(|source| failed("read the key", path, source)),
    }
}

fn write_new(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()
}

/// A name that no other writer of this folder uses.
fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}-{}", std::process::id(), since.as_nanos(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot delete");
        }
        _ => {}
    }
}

fn failed(action: &str, path: &Path, source: io::Error) -> PluginError {
    PluginError::Store { action: format!("{action} {}", path.display()), source }
}
