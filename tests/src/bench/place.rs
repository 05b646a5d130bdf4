//! Where measured programs write to: memory, and a disk. Must not know what they write.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

/// Every Linux has a file system in memory here.
const MEMORY: &str = "/dev/shm";

/// A folder that goes with it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) name: &'static str,
    folder: TempDir,
}

impl Place {
    /// Memory where it holds so many bytes, and the disk.
    pub(super) fn all(bytes: u64) -> Result<Vec<Self>> {
        let room = rustix::fs::statvfs(MEMORY).is_ok_and(|space| space.f_bavail.saturating_mul(space.f_frsize) >= bytes);
        let memory = room.then(|| Self::below("memory", Path::new(MEMORY))).transpose()?;
        Ok(memory.into_iter().chain([Self::disk()?]).collect())
    }

    /// The folder for temporary files: `TMPDIR` names another one.
    pub(super) fn disk() -> Result<Self> {
        Self::below("disk", &std::env::temp_dir())
    }

    fn below(name: &'static str, parent: &Path) -> Result<Self> {
        let folder = tempfile::tempdir_in(parent).with_context(|| format!("making a folder in {}", parent.display()))?;
        Ok(Self { name, folder })
    }

    /// An empty folder; nothing of earlier runs waits for the disk any more.
    pub(super) fn target(&self) -> Result<PathBuf> {
        let target = self.folder.path().join("target");
        if target.exists() {
            fs::remove_dir_all(&target).context("removing the run before")?;
        }
        fs::create_dir(&target)?;
        rustix::fs::syncfs(fs::File::open(&target)?).context("waiting for the disk")?;
        Ok(target)
    }
}
