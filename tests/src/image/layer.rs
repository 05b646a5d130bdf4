//! One layer of an image: a sorted set of files, owned by root, without a clock. It must not know images.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tar::{Builder, EntryType, Header};

/// Files of a layer by their path inside the image (relative, `/`-separated).
#[derive(Debug, Clone, Default)]
pub struct Layer {
    entries: BTreeMap<String, (Content, u32)>,
}

#[derive(Debug, Clone)]
enum Content {
    Folder,
    Source(PathBuf),
    /// With a capability that whoever runs it gets.
    Capable(PathBuf, u32),
    Bytes(Vec<u8>),
    Link(String),
}

impl Layer {
    /// Adds a file of this machine, whose content is read when the image is built.
    pub fn file(self, path: &str, source: &Path, mode: u32) -> Result<Self> {
        let source = source.canonicalize().with_context(|| format!("finding {}", source.display()))?;
        Ok(self.add(path, Content::Source(source), mode))
    }

    /// Adds a program of this machine that has a capability, by its number, whoever runs it.
    pub fn capable(self, path: &str, source: &Path, capability: u32) -> Result<Self> {
        let source = source.canonicalize().with_context(|| format!("finding {}", source.display()))?;
        Ok(self.add(path, Content::Capable(source, capability), 0o755))
    }

    /// Adds a file with the given content.
    #[must_use]
    pub fn bytes(self, path: &str, content: impl Into<Vec<u8>>, mode: u32) -> Self {
        self.add(path, Content::Bytes(content.into()), mode)
    }

    /// Adds a folder; those above any entry are added by themselves with mode 0755.
    #[must_use]
    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.add(path, Content::Folder, mode)
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(self, path: &str, target: &str) -> Self {
        self.add(path, Content::Link(target.to_owned()), 0o777)
    }

    /// Adds all below a folder of this machine, with its modes and symbolic links, at `path` (empty: the image's root).
    pub fn tree(mut self, path: &str, source: &Path) -> Result<Self> {
        for entry in fs::read_dir(source).with_context(|| format!("listing {}", source.display()))? {
            let entry = entry.with_context(|| format!("listing {}", source.display()))?;
            let name = entry.file_name();
            let inside = format!("{path}/{}", name.to_str().context("a file name that is not UTF-8")?);
            let facts = entry.metadata().with_context(|| format!("reading {}", entry.path().display()))?;
            let mode = facts.permissions().mode() & 0o7777;
            if facts.is_symlink() {
                let target = fs::read_link(entry.path()).context("reading a symbolic link")?;
                self = self.link(&inside, target.to_str().context("a link target that is not UTF-8")?);
            } else if facts.is_dir() {
                self = self.dir(&inside, mode).tree(&inside, &entry.path())?;
            } else {
                self = self.file(&inside, &entry.path(), mode)?;
            }
        }
        Ok(self)
    }

    /// Adds the files below a folder of this machine as they are now, to be read by everybody.
    pub fn copy(mut self, path: &str, source: &Path) -> Result<Self> {
        for entry in fs::read_dir(source).with_context(|| format!("listing {}", source.display()))? {
            let entry = entry.with_context(|| format!("listing {}", source.display()))?;
            let name = entry.file_name();
            let inside = format!("{path}/{}", name.to_str().context("a file name that is not UTF-8")?);
            self = if entry.path().is_dir() {
                self.copy(&inside, &entry.path())?
            } else {
                let bytes = fs::read(entry.path()).with_context(|| format!("reading {}", entry.path().display()))?;
                self.bytes(&inside, bytes, 0o644)
            };
        }
        Ok(self)
    }

    fn add(mut self, path: &str, content: Content, mode: u32) -> Self {
        let path = path.trim_matches('/');
        for (end, _) in path.match_indices('/') {
            let above = path.get(..end).unwrap_or_default().to_owned();
            self.entries.entry(above).or_insert((Content::Folder, 0o755));
        }
        self.entries.insert(path.to_owned(), (content, mode));
        self
    }

    /// The layer as an uncompressed tar archive.
    pub(super) fn pack(&self) -> Result<Vec<u8>> {
        let mut archive = Builder::new(Vec::new());
        for (path, (content, mode)) in &self.entries {
            pack_entry(&mut archive, path, content, *mode).with_context(|| format!("packing {path}"))?;
        }
        archive.into_inner().context("finishing a layer")
    }
}

fn pack_entry(archive: &mut Builder<Vec<u8>>, path: &str, content: &Content, mode: u32) -> Result<()> {
    // All other fields are zero: owner root, the first second of 1970.
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    match content {
        Content::Folder => {
            header.set_entry_type(EntryType::Directory);
            archive.append_data(&mut header, format!("{path}/"), std::io::empty())?;
        }
        Content::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            archive.append_link(&mut header, path, target)?;
        }
        Content::Bytes(bytes) => append_file(archive, header, path, bytes)?,
        Content::Capable(source, capability) => {
            archive.append_pax_extensions([(CAPABILITY, file_capability(*capability).as_slice())])?;
            let bytes = fs::read(source).with_context(|| format!("reading {}", source.display()))?;
            append_file(archive, header, path, &bytes)?;
        }
        Content::Source(source) => {
            let bytes = fs::read(source).with_context(|| format!("reading {}", source.display()))?;
            append_file(archive, header, path, &bytes)?;
        }
    }
    Ok(())
}

/// The attribute of a file that Linux reads capabilities from, as archives of images carry it.
const CAPABILITY: &str = "SCHILY.xattr.security.capability";

/// One capability that is in effect at once, as Linux has it on disk: revision 2, 32 bits twice of what is permitted and inheritable.
fn file_capability(number: u32) -> Vec<u8> {
    const REVISION_2_EFFECTIVE: u32 = 0x0200_0001;
    [REVISION_2_EFFECTIVE, 1 << number, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect()
}

fn append_file(archive: &mut Builder<Vec<u8>>, mut header: Header, path: &str, bytes: &[u8]) -> Result<()> {
    header.set_entry_type(EntryType::Regular);
    header.set_size(bytes.len().try_into()?);
    Ok(archive.append_data(&mut header, path, bytes)?)
}
