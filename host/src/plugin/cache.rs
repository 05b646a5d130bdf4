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
//!
//! A file that is not what we put there is never used: it is deleted, made anew where we can, and somebody is told ([`alarm`]).
//! When a file was read last is its time of modification, by which [`sweep`] knows what nobody needs.
//!
//! [`alarm`]: super::alarm

mod file;
mod sweep;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use self::file::Found;
use super::PluginError;
use super::alarm::{Alarms, Stored, Tampered};
use crate::limits;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};

pub(crate) use file::{random, unique};
pub use sweep::Swept;

/// Gives the bytes of a digest, from wherever they came to us.
type Spare = Box<dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync>;

const TAG: usize = 32;

pub(super) struct Cache {
    root: PathBuf,
    key: [u8; 32],
    engine_id: String,
    alarms: Alarms,
    spare: OnceLock<Spare>,
}

impl Cache {
    /// Opens the store, or makes one. Compiled code is kept for each engine apart.
    pub(super) fn open(root: &Path, engine_id: String, alarms: Alarms) -> Result<Self, PluginError> {
        for folder in ["blobs/sha256", "notes", "tmp", &format!("aot/{engine_id}")] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(|source| failed("make the folder", &path, source))?;
        }
        let key = key(root)?;
        Ok(Self { root: root.to_owned(), key, engine_id, alarms, spare: OnceLock::new() })
    }

    /// Whom to ask for components that are gone. Only the first one counts.
    pub(super) fn lend(&self, spare: Spare) {
        drop(self.spare.set(spare));
    }

    /// Who listens.
    pub(super) fn alarms(&self) -> &Alarms {
        &self.alarms
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
        if let Some(bytes) = self.whole(digest, &path)? {
            return Ok(bytes);
        }
        let spare = self.spare.get().and_then(|spare| spare(digest)).filter(|bytes| digest_of(bytes) == digest);
        let bytes = spare.ok_or_else(|| PluginError::Unknown { digest: digest.to_owned() })?;
        self.write(&path, &[&bytes])?;
        Ok(bytes)
    }

    /// What lies at the path of a digest, where it is that.
    fn whole(&self, digest: &str, path: &Path) -> Result<Option<Vec<u8>>, PluginError> {
        match file::read(path, limits::COMPONENT_BYTES).map_err(|source| failed("read the blob", path, source))? {
            Found::Nothing => Ok(None),
            Found::Bytes(bytes) if digest_of(&bytes) == digest => Ok(Some(bytes)),
            Found::Bytes(_) | Found::Odd => {
                self.tampered(Stored::Component, Some(digest), path);
                Ok(None)
            }
        }
    }

    /// It is gone before anybody hears of it, so that whoever does can make it anew.
    fn tampered(&self, what: Stored, digest: Option<&str>, path: &Path) {
        file::remove(path);
        self.alarms.raise(Tampered { what, digest: digest.map(str::to_owned), path: path.to_owned() });
    }

    /// Keeps bytes under their digest.
    pub(super) fn keep(&self, bytes: &[u8]) -> Result<String, PluginError> {
        let digest = digest_of(bytes);
        let path = self.blob_path(&digest)?;
        if self.whole(&digest, &path)?.is_none() {
            self.write(&path, &[bytes])?;
        }
        Ok(digest)
    }

    /// Something small that this store wrote down under this name, a hexadecimal one, if it is there and unharmed.
    pub(super) fn note(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.note_path(name)?;
        self.unsealed(&path, Stored::Note, None, |text| self.seal_note(name, text))
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
        self.unsealed(&self.code_path(digest), Stored::Code, Some(digest), |code| self.seal(digest, code))
    }

    /// Deletes compiled code that turned out to be of no use.
    pub(super) fn forget_code(&self, digest: &str) {
        file::remove(&self.code_path(digest));
    }

    /// Signs and keeps compiled code. A full disk only costs the next start some time.
    pub(super) fn keep_code(&self, digest: &str, code: &[u8]) {
        let tag = self.seal(digest, code).finalize().into_bytes();
        if let Err(error) = self.write(&self.code_path(digest), &[&tag, code]) {
            tracing::warn!(%error, "compiled code cannot be kept");
        }
    }

    /// A new folder that we alone can enter; elsewhere where the store cannot be written to.
    pub(super) fn folder(&self) -> Result<PathBuf, PluginError> {
        let name = file::unique();
        let path = self.root.join("tmp").join(&name);
        let make = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path);
        match make(&path) {
            Ok(()) => Ok(path),
            Err(source) => {
                let elsewhere = std::env::temp_dir().join(format!("substratus-{name}"));
                make(&elsewhere).map(|()| elsewhere).map_err(|_| failed("make the folder", &path, source))
            }
        }
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
        let tmp = self.root.join("tmp").join(file::unique());
        let written = file::write_new(&tmp, parts).and_then(|()| fs::rename(&tmp, path));
        written.map_err(|source| {
            file::remove(&tmp);
            failed("write", path, source)
        })
    }

    /// What lies behind a file's seal, if the seal is ours; a file with another one is deleted.
    fn unsealed(
        &self,
        path: &Path,
        what: Stored,
        digest: Option<&str>,
        seal: impl FnOnce(&[u8]) -> Hmac<Sha256>,
    ) -> Option<Vec<u8>> {
        let mut sealed = match file::read(path, limits::CODE_BYTES + TAG as u64) {
            Ok(Found::Bytes(bytes)) => bytes,
            Ok(Found::Nothing) => return None,
            Ok(Found::Odd) => {
                self.tampered(what, digest, path);
                return None;
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read a {what} of the plugin store");
                return None;
            }
        };
        let is_ours = sealed.split_at_checked(TAG).is_some_and(|(tag, content)| seal(content).verify_slice(tag).is_ok());
        if !is_ours {
            self.tampered(what, digest, path);
            return None;
        }
        sealed.drain(..TAG);
        Some(sealed)
    }
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
    file::remove(&path);
    let key = file::random().map_err(|source| failed("read random bytes from", Path::new("/dev/urandom"), source))?;
    let tmp = root.join("tmp").join(file::unique());
    // A link, unlike a rename, fails where another process was faster; then its key counts.
    let made = file::write_new(&tmp, &[&key]).and_then(|()| fs::hard_link(&tmp, &path));
    file::remove(&tmp);
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

fn failed(action: &str, path: &Path, source: io::Error) -> PluginError {
    PluginError::Store { action: format!("{action} {}", path.display()), source }
}

#[cfg(test)]
#[path = "cache/tests.rs"]
mod tests;
