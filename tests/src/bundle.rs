//! First-party plugins as an image brings them along: an OCI layout that the program itself writes, as the Dockerfile has it do. It
//! must not know images.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::guests;

/// A layout of an earlier build is somebody's for so long.
const STALE: Duration = Duration::from_hours(24);

/// Has the program write components into a new folder.
pub fn write(program: &Path, components: &[PathBuf], to: &Path) -> Result<()> {
    let mut command = Command::new(program);
    let output = command.args(["plugin", "export"]).args(components).arg("--to").arg(to).output();
    let output = output.with_context(|| format!("running {}", program.display()))?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "writing plugins to {}: {}", to.display(), words.trim());
    Ok(())
}

/// Every `*.wasm` file of a folder, in order of their names.
pub fn components(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|end| end == "wasm"));
    files.sort();
    Ok(files)
}

/// The repository's plugins as a layout, built where a source or the program changed.
pub fn first_party(program: &Path) -> Result<PathBuf> {
    // One at a time: all tests want the same.
    static WRITING: Mutex<()> = Mutex::new(());
    let _turn = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let components = guests::plugins()?.iter().map(|plugin| guests::component(plugin)).collect::<Result<Vec<_>>>()?;
    let made = fs::metadata(program)?.modified()?.duration_since(SystemTime::UNIX_EPOCH)?;
    let mut hash = Sha256::new();
    hash.update(made.as_nanos().to_be_bytes());
    for component in &components {
        hash.update(fs::read(component)?);
    }
    let layouts = guests::root().join("target/guests/layouts");
    let folder = layouts.join(hex::encode(hash.finalize()));
    if !folder.exists() {
        fs::create_dir_all(&layouts)?;
        forget_stale(&layouts)?;
        let begun = tempfile::tempdir_in(&layouts)?;
        let written = begun.path().join("plugins");
        write(program, &components, &written)?;
        // Another process may have been faster.
        fs::rename(&written, &folder).or_else(|error| if folder.exists() { Ok(()) } else { Err(error) })?;
    }
    Ok(folder)
}

fn forget_stale(layouts: &Path) -> Result<()> {
    for entry in fs::read_dir(layouts)? {
        let path = entry?.path();
        let age = fs::metadata(&path).and_then(|metadata| metadata.modified()).map(|time| time.elapsed().unwrap_or_default());
        if age.is_ok_and(|age| age > STALE) {
            fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}
