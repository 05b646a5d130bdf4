//! Bundled plugins: an OCI layout, the form in which an image brings them along, or a folder of `*.wasm` files. Every component is
//! hashed before it is read. Knows nothing of registries; one that a registry gives takes a bundled one's place.

use std::path::{Path, PathBuf};

use super::cache::{Cache, digest_of};
use super::export::Image;
use super::layout::{Entry, NAME, Reader};
use super::registry::Descriptor;
use super::{LayoutError, Loaded, add, add_file};

/// Every good plugin of a folder, in its order. A bad one is logged and left out.
pub(super) fn load(cache: &Cache, folder: &Path) -> Vec<Loaded> {
    if !is_layout(folder) {
        return files(folder).iter().filter_map(|file| good(add_file(cache, file), &file.display().to_string())).collect();
    }
    let reader = match Reader::open(folder) {
        Ok(reader) => reader,
        Err(error) => {
            tracing::error!(folder = %folder.display(), %error, "cannot read a layout of bundled plugins");
            return Vec::new();
        }
    };
    let read = |entry: &Entry| -> Result<Loaded, LayoutError> { Ok(add(cache, &reader.blob(&component(&reader, entry)?)?)?) };
    plugins(&reader).filter_map(|entry| good(read(entry), &entry.digest)).collect()
}

/// The bytes of a component that came with the image, read again.
pub(super) fn find(folder: &Path, digest: &str) -> Option<Vec<u8>> {
    if !is_layout(folder) {
        return files(folder).iter().filter_map(|file| std::fs::read(file).ok()).find(|bytes| digest_of(bytes) == digest);
    }
    let reader = Reader::open(folder).ok()?;
    let layers = plugins(&reader).filter_map(|entry| component(&reader, entry).ok());
    layers.filter(|layer| layer.digest == digest).find_map(|layer| reader.blob(&layer).ok())
}

fn good<E: std::fmt::Display>(read: Result<Loaded, E>, what: &str) -> Option<Loaded> {
    read.inspect_err(|error| tracing::error!(plugin = what, %error, "a bundled plugin is left out")).ok()
}

fn is_layout(folder: &Path) -> bool {
    folder.join("index.json").is_file()
}

/// In order of their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = match std::fs::read_dir(folder) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) => {
            tracing::error!(folder = %folder.display(), %error, "cannot read a folder of bundled plugins");
            return Vec::new();
        }
    };
    files.retain(|file| file.extension().is_some_and(|extension| extension == "wasm"));
    files.sort();
    files
}

/// What is no signature of something else.
fn plugins(reader: &Reader) -> impl Iterator<Item = &Entry> {
    reader.entries.iter().filter(|entry| entry.annotations.contains_key(NAME))
}

fn component(reader: &Reader, entry: &Entry) -> Result<Descriptor, LayoutError> {
    let image: Image = serde_json::from_slice(&reader.manifest(entry)?)
        .map_err(|error| reader.wrong(format!("{} is no manifest ({error})", entry.digest)))?;
    match <[Descriptor; 1]>::try_from(image.layers) {
        Ok([layer]) => Ok(layer),
        Err(layers) => Err(reader.wrong(format!("{} has {} layers instead of one", entry.digest, layers.len()))),
    }
}
