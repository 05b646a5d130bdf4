//! Plugins outside of any registry: an OCI image layout, as a folder or as one tar file, that other tools read too. Bytes are
//! hashed whenever they come in. Knows no registry, and nothing of what the bytes mean.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tempfile::TempDir;

use super::PluginError;
use super::cache::{digest_of, is_sha256};
use super::registry::{Descriptor, INDEX};
use crate::limits;

/// The tag of an entry.
pub(super) const TAG: &str = "org.opencontainers.image.ref.name";
/// The whole name of an entry: registry, repository, and tag or digest.
pub(super) const NAME: &str = "io.containerd.image.name";

/// Why a layout cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file cannot be read or written.
    #[error("{action}")]
    Io {
        /// What we were doing, with the path.
        action: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is no layout of plugins.
    #[error("{path} is no OCI layout of plugins: {reason}")]
    Format {
        /// Folder or file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A registry did not give or take something.
    #[error(transparent)]
    Plugin(#[from] PluginError),
}

/// A manifest of a layout.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Entry>,
}

/// A layout in the making: a folder, or a folder that becomes a tar file.
#[derive(Debug)]
pub(super) struct Writer {
    target: PathBuf,
    folder: PathBuf,
    temporary: Option<TempDir>,
    entries: Vec<Entry>,
}

impl Writer {
    /// Starts one. A name that ends in `.tar` becomes a tar file, any other a folder, which must be empty or not be there.
    pub(super) fn create(target: &Path) -> Result<Self, LayoutError> {
        let temporary =
            if is_tar(target) { Some(TempDir::new().map_err(|error| io("make a folder", target, error))?) } else { None };
        let folder = temporary.as_ref().map_or(target, TempDir::path).to_owned();
        if fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(malformed(target, "the folder is not empty; name another one".to_owned()));
        }
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(|error| io("make the folder", &blobs, error))?;
        Ok(Self { target: target.to_owned(), folder, temporary, entries: Vec::new() })
    }

    /// Keeps bytes under their digest.
    pub(super) fn blob(&self, bytes: &[u8]) -> Result<(), LayoutError> {
        let path = self.folder.join("blobs").join(digest_of(bytes).replacen(':', "/", 1));
        fs::write(&path, bytes).map_err(|error| io("write", &path, error))
    }

    /// Keeps a manifest and lists it, once.
    pub(super) fn manifest(
        &mut self,
        media_type: &str,
        bytes: &[u8],
        annotations: BTreeMap<String, String>,
    ) -> Result<(), LayoutError> {
        self.blob(bytes)?;
        let entry = Entry { media_type: media_type.to_owned(), digest: digest_of(bytes), size: bytes.len() as u64, annotations };
        if !self.entries.contains(&entry) {
            self.entries.push(entry);
        }
        Ok(())
    }

    /// Writes the index. The same entries give the same bytes.
    pub(super) fn finish(self) -> Result<(), LayoutError> {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": self.entries});
        let files = [("index.json", index.to_string()), ("oci-layout", json!({"imageLayoutVersion": "1.0.0"}).to_string())];
        for (name, text) in files {
            let path = self.folder.join(name);
            fs::write(&path, text).map_err(|error| io("write", &path, error))?;
        }
        if self.temporary.is_some() {
            pack(&self.folder, &self.target).map_err(|error| io("write", &self.target, error))?;
        }
        Ok(())
    }
}

/// A finished layout, read with suspicion.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    folder: PathBuf,
    _temporary: Option<TempDir>,
    pub(super) entries: Vec<Entry>,
}

impl Reader {
    /// Opens a folder or a tar file.
    pub(super) fn open(path: &Path) -> Result<Self, LayoutError> {
        let temporary = if path.is_dir() { None } else { Some(unpack(path)?) };
        let folder = temporary.as_ref().map_or(path, TempDir::path).to_owned();
        let mut reader = Self { path: path.to_owned(), folder, _temporary: temporary, entries: Vec::new() };
        let bytes = reader.file("index.json", limits::OCI_MANIFEST_BYTES as u64)?;
        let index: Index = serde_json::from_slice(&bytes)
            .map_err(|error| reader.wrong(format!("its index.json is not one of a layout ({error})")))?;
        reader.entries = index.manifests;
        Ok(reader)
    }

    /// The bytes that an entry announces, hashed.
    pub(super) fn manifest(&self, entry: &Entry) -> Result<Vec<u8>, LayoutError> {
        self.hashed(&entry.digest, entry.size, limits::OCI_MANIFEST_BYTES as u64)
    }

    /// The bytes that a manifest announces, hashed.
    pub(super) fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, LayoutError> {
        self.hashed(&descriptor.digest, descriptor.size, limits::COMPONENT_BYTES)
    }

    /// An error about this layout.
    pub(super) fn wrong(&self, reason: String) -> LayoutError {
        malformed(&self.path, reason)
    }

    fn hashed(&self, digest: &str, size: u64, max: u64) -> Result<Vec<u8>, LayoutError> {
        let hex = digest.strip_prefix("sha256:").filter(|hex| is_sha256(hex));
        let hex = hex.ok_or_else(|| self.wrong("it names something that is no SHA-256".to_owned()))?;
        if size > max {
            return Err(self.wrong(format!("{digest} has {size} bytes, and at most {max} are taken")));
        }
        let bytes = self.file(&format!("blobs/sha256/{hex}"), size)?;
        if digest_of(&bytes) == digest {
            Ok(bytes)
        } else {
            Err(self.wrong(format!("{digest} holds other bytes than its name says")))
        }
    }

    fn file(&self, name: &str, max: u64) -> Result<Vec<u8>, LayoutError> {
        let path = self.folder.join(name);
        // Opening anything else, such as a pipe, may never end.
        if !path.is_file() {
            return Err(self.wrong(format!("{name} is missing")));
        }
        let file = File::open(&path).map_err(|error| io("read", &path, error))?;
        let mut bytes = Vec::new();
        file.take(max + 1).read_to_end(&mut bytes).map_err(|error| io("read", &path, error))?;
        if bytes.len() as u64 > max {
            return Err(self.wrong(format!("{name} has more than {max} bytes")));
        }
        Ok(bytes)
    }
}

fn is_tar(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tar"))
}

/// One file with the same bytes for the same content, in place only when it is whole.
fn pack(folder: &Path, target: &Path) -> std::io::Result<()> {
    let partial = target.with_extension("tar.partial");
    let mut names = vec!["oci-layout".to_owned(), "index.json".to_owned()];
    let mut blobs: Vec<String> = Vec::new();
    for entry in fs::read_dir(folder.join("blobs/sha256"))? {
        blobs.push(format!("blobs/sha256/{}", entry?.file_name().to_string_lossy()));
    }
    blobs.sort();
    names.extend(blobs);
    let mut archive = tar::Builder::new(BufWriter::new(File::create(&partial)?));
    for name in names {
        let file = File::open(folder.join(&name))?;
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_size(file.metadata()?.len());
        archive.append_data(&mut header, &name, file)?;
    }
    archive.into_inner()?.flush()?;
    fs::rename(partial, target)
}

/// Takes a layout's own files out of an archive, and nothing else: no link, no other name, no more bytes than a plugin has.
fn unpack(path: &Path) -> Result<TempDir, LayoutError> {
    let failed = |error| io("read", path, error);
    let folder = TempDir::new().map_err(failed)?;
    fs::create_dir_all(folder.path().join("blobs/sha256")).map_err(failed)?;
    let mut archive = tar::Archive::new(File::open(path).map_err(failed)?);
    let mut left = limits::LAYOUT_BYTES;
    for entry in archive.entries().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.path().map_err(failed)?.to_string_lossy().into_owned();
        let name = name.strip_prefix("./").unwrap_or(&name);
        let is_ours = name == "index.json" || name.strip_prefix("blobs/sha256/").is_some_and(is_sha256);
        if !is_ours {
            continue;
        }
        if !entry.header().entry_type().is_file() {
            return Err(malformed(path, format!("{name} is no plain file")));
        }
        let size = entry.size();
        if size > limits::COMPONENT_BYTES || size > left {
            return Err(malformed(path, format!("{name} has {size} bytes, which is more than is taken")));
        }
        left -= size;
        let file = folder.path().join(name);
        let mut file = File::create_new(&file).map_err(|_| malformed(path, format!("{name} is in it twice")))?;
        std::io::copy(&mut entry.take(size), &mut file).map_err(failed)?;
    }
    Ok(folder)
}

fn io(action: &str, path: &Path, source: std::io::Error) -> LayoutError {
    LayoutError::Io { action: format!("{action} {}", path.display()), source }
}

fn malformed(path: &Path, reason: String) -> LayoutError {
    LayoutError::Format { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(target: &Path) {
        let mut writer = Writer::create(target).unwrap();
        let annotations = BTreeMap::from([(TAG.to_owned(), "v1".to_owned())]);
        writer.manifest("application/x", b"{}", annotations.clone()).unwrap();
        writer.manifest("application/x", b"{}", annotations).unwrap();
        writer.blob(b"blob").unwrap();
        writer.finish().unwrap();
    }

    fn descriptor(bytes: &[u8]) -> Descriptor {
        serde_json::from_value(json!({"mediaType": "x", "digest": digest_of(bytes), "size": bytes.len()})).unwrap()
    }

    #[test]
    fn a_folder_and_a_tar_file_hold_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let targets = [folder.path().join("layout"), folder.path().join("layout.tar"), folder.path().join("again.tar")];
        for target in &targets {
            write(target);
            let reader = Reader::open(target).unwrap();
            assert_eq!(reader.entries.len(), 1);
            assert_eq!(reader.manifest(&reader.entries[0]).unwrap(), b"{}");
            assert_eq!(reader.blob(&descriptor(b"blob")).unwrap(), b"blob");
        }
        assert_eq!(fs::read(&targets[1]).unwrap(), fs::read(&targets[2]).unwrap(), "same content, same bytes");
        assert!(Writer::create(&targets[0]).unwrap_err().to_string().contains("is not empty"));
    }

    #[test]
    fn other_bytes_than_announced_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path());
        let blob = folder.path().join("blobs").join(digest_of(b"blob").replace(':', "/"));
        let read = || Reader::open(folder.path()).unwrap().blob(&descriptor(b"blob")).unwrap_err().to_string();
        fs::write(&blob, b"blub").unwrap();
        assert!(read().contains("holds other bytes"), "{}", read());
        fs::write(&blob, b"blob and more").unwrap();
        assert!(read().contains("has more than 4 bytes"), "{}", read());
        fs::remove_file(&blob).unwrap();
        assert!(read().contains("is missing"), "{}", read());
        let outside = Descriptor { digest: "sha256:../../etc/passwd".to_owned(), ..descriptor(b"") };
        assert!(Reader::open(folder.path()).unwrap().blob(&outside).unwrap_err().to_string().contains("no SHA-256"));
        let huge = Descriptor { size: limits::COMPONENT_BYTES + 1, ..descriptor(b"blob") };
        assert!(Reader::open(folder.path()).unwrap().blob(&huge).unwrap_err().to_string().contains("at most"));
    }

    #[test]
    fn an_archive_writes_nothing_but_a_layouts_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("evil.tar");
        let hex = "0".repeat(64);
        let pack = |entries: &[(&str, tar::EntryType, &[u8])]| {
            let mut archive = tar::Builder::new(File::create(&path).unwrap());
            for (name, kind, bytes) in entries {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(*kind);
                header.set_size(bytes.len() as u64);
                // Written by hand: the library refuses to write such names.
                header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
                header.set_link_name("/etc/passwd").unwrap();
                header.set_cksum();
                archive.append(&header, *bytes).unwrap();
            }
            archive.finish().unwrap();
            unpack(&path)
        };
        let regular = tar::EntryType::Regular;
        let outside =
            pack(&[("../outside", regular, b"x"), ("/tmp/outside", regular, b"x"), ("index.json", regular, b"{}")]).unwrap();
        let names: Vec<_> = fs::read_dir(outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        let blob = format!("blobs/sha256/{hex}");
        let link = pack(&[(&blob, tar::EntryType::Symlink, b"")]).unwrap_err().to_string();
        assert!(link.contains("is no plain file"), "{link}");
        let twice = pack(&[(&blob, regular, b"x"), (&blob, regular, b"y")]).unwrap_err().to_string();
        assert!(twice.contains("is in it twice"), "{twice}");
        let broken = Reader::open(&path).unwrap_err().to_string();
        assert!(broken.contains("is in it twice"), "{broken}");
        pack(&[("index.json", regular, b"[")]).unwrap();
        assert!(Reader::open(&path).unwrap_err().to_string().contains("not one of a layout"));
    }
}
