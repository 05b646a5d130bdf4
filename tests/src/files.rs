//! Folders as tests compare them. Must not know what lies in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use sha2::{Digest as _, Sha256};

/// Every file below a folder, by its path there; a folder that is not there has none.
pub fn below(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(next) else { continue };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(folder)?.to_string_lossy().into_owned(), path);
            }
        }
    }
    Ok(found)
}

/// The SHA-256 of every file below a folder, in hexadecimal.
pub fn sums(folder: &Path) -> Result<BTreeMap<String, String>> {
    let sum = |(name, path)| Ok((name, hex::encode(Sha256::digest(std::fs::read::<PathBuf>(path)?))));
    below(folder)?.into_iter().map(sum).collect()
}
