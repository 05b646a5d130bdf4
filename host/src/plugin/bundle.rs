//! Bundled plugins as an OCI layout, the form in which an image brings them along: every component is hashed before it is read.
//! Knows nothing of registries; one that a registry gives takes a bundled one's place.

use std::path::Path;

use super::cache::Cache;
use super::export::Image;
use super::layout::{NAME, Reader};
use super::{LayoutError, Loaded, add};

/// Whether a folder is a layout.
pub(super) fn is_layout(folder: &Path) -> bool {
    folder.join("index.json").is_file()
}

/// Every good plugin of a layout, in its order. A bad one is logged and left out.
pub(super) fn load(cache: &Cache, folder: &Path) -> Vec<Loaded> {
    let reader = match Reader::open(folder) {
        Ok(reader) => reader,
        Err(error) => {
            tracing::error!(folder = %folder.display(), %error, "cannot read a layout of bundled plugins");
            return Vec::new();
        }
    };
    let mut loaded = Vec::new();
    for entry in reader.entries.iter().filter(|entry| entry.annotations.contains_key(NAME)) {
        let component = || -> Result<Vec<u8>, LayoutError> {
            let image: Image = serde_json::from_slice(&reader.manifest(entry)?)
                .map_err(|error| reader.wrong(format!("{} is no manifest ({error})", entry.digest)))?;
            match image.layers.as_slice() {
                [layer] => reader.blob(layer),
                layers => Err(reader.wrong(format!("{} has {} layers instead of one", entry.digest, layers.len()))),
            }
        };
        match component().and_then(|bytes| Ok(add(cache, &bytes)?)) {
            Ok(plugin) => loaded.push(plugin),
            Err(error) => tracing::error!(digest = entry.digest, %error, "a bundled plugin is left out"),
        }
    }
    loaded
}
