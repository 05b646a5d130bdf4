//! Builds the repository's guests once per content, with the host's own packager. Knows nothing of what they answer.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};
use sha2::{Digest as _, Sha256};
use substratus::plugin::{MANIFEST_SECTION, Manifest, package};

/// Folder of the importer in Python.
pub const PYTHON: &str = "examples/importer-python";

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The component of a plugin crate below the repository's root, such as `plugins/gpu-generic`. Compiled where its sources, the
/// WIT or the compiler changed since the last time; cargo works in `target/guests`, apart from the lock of an outer build.
pub fn component(folder: &str) -> anyhow::Result<PathBuf> {
    // One at a time: two builds of one workspace would only wait for each other.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _turn = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let crate_folder = root().join(folder);
    let workspace = crate_folder.parent().context("a plugin crate lies in a workspace")?;
    let target = root().join("target/guests");
    let name = crate_folder.file_name().context("a plugin crate has a name")?.to_string_lossy().into_owned();
    let file = target.join("components").join(format!("{name}-{}.wasm", fingerprint(workspace)?));
    if !file.exists() {
        let built = package::build(&crate_folder, Some(&target)).with_context(|| format!("build {folder}"))?;
        fs::create_dir_all(target.join("components"))?;
        let tmp = file.with_extension(format!("tmp-{}", std::process::id()));
        fs::write(&tmp, &built.bytes)?;
        fs::rename(&tmp, &file)?;
    }
    Ok(file)
}

/// The component of the importer in Python, with its manifest.
pub fn python_importer() -> anyhow::Result<PathBuf> {
    let folder = root().join(PYTHON);
    let module = fs::read(crate::engine::made_by(&format!("../{PYTHON}/build.sh"), &crate::engine::cache()?)?)?;
    let bytes = package::package_module(&module, &package::read_manifest(&folder.join("plugin.yaml"))?)?;
    let digest = short(Sha256::digest(&bytes).as_slice());
    let file = root().join("target/guests/components").join(format!("importer-python-{digest}.wasm"));
    if !file.exists() {
        fs::create_dir_all(root().join("target/guests/components"))?;
        let tmp = file.with_extension(format!("tmp-{}", std::process::id()));
        fs::write(&tmp, &bytes)?;
        fs::rename(&tmp, &file)?;
    }
    Ok(file)
}

/// A plugin crate as a later version of itself.
pub fn later(folder: &str, version: &str) -> anyhow::Result<Vec<u8>> {
    altered(folder, |manifest| version.clone_into(&mut manifest.version))
}

/// A plugin crate with another manifest that its packager takes.
pub fn altered(folder: &str, change: impl FnOnce(&mut Manifest)) -> anyhow::Result<Vec<u8>> {
    let mut manifest = package::read_manifest(&root().join(folder).join("plugin.yaml"))?;
    change(&mut manifest);
    Ok(package::package_module(&bare(folder)?, &manifest)?)
}

/// A plugin crate with any text for a manifest, as somebody would make it who uses no packager.
pub fn forged(folder: &str, manifest: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = bare(folder)?;
    bytes.extend(embedded(manifest));
    Ok(bytes)
}

/// A plugin crate without its manifest, which is the last section of the component.
fn bare(folder: &str) -> anyhow::Result<Vec<u8>> {
    let bytes = fs::read(component(folder)?)?;
    let manifest = package::read_manifest(&root().join(folder).join("plugin.yaml"))?;
    let bare = bytes.strip_suffix(embedded(&manifest.to_json()).as_slice()).context("the manifest is not the last section")?;
    Ok(bare.to_vec())
}

fn embedded(manifest: &str) -> Vec<u8> {
    let section = wasm_encoder::CustomSection { name: MANIFEST_SECTION.into(), data: manifest.as_bytes().into() };
    let mut embedded = Vec::new();
    wasm_encoder::ComponentSection::append_to_component(&section, &mut embedded);
    embedded
}

/// Every plugin crate of the repository: the folders of `plugins/` with a `plugin.yaml`.
pub fn plugins() -> anyhow::Result<Vec<String>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(root().join("plugins"))? {
        let path = entry?.path();
        if path.join("plugin.yaml").exists() {
            let name = path.file_name().context("a folder has a name")?.to_string_lossy().into_owned();
            folders.push(format!("plugins/{name}"));
        }
    }
    folders.sort();
    if folders.is_empty() {
        bail!("there is no plugin in plugins/");
    }
    Ok(folders)
}

/// The `*.wasm` files of a folder, in order of their names; there is at least one.
pub fn components(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        files.push(entry?.path());
    }
    files.retain(|file| file.extension().is_some_and(|end| end == "wasm"));
    files.sort();
    if files.is_empty() {
        bail!("there is no plugin in {}; build them with `make plugins`, or name a folder with --plugins", folder.display());
    }
    Ok(files)
}

/// Hash of everything a guest is made of.
fn fingerprint(workspace: &Path) -> anyhow::Result<String> {
    let mut files = BTreeMap::new();
    collect(workspace, &mut files)?;
    collect(&root().join("wit"), &mut files)?;
    collect(&root().join("host/src/plugin"), &mut files)?;
    files.insert(root().join("rust-toolchain.toml"), fs::read(root().join("rust-toolchain.toml"))?);
    let mut hash = Sha256::new();
    for (path, bytes) in files {
        hash.update(path.to_string_lossy().as_bytes());
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    }
    Ok(short(hash.finalize().as_slice()))
}

/// The beginning of a digest.
fn short(digest: &[u8]) -> String {
    format!("{:x}", u64::from_be_bytes(digest.first_chunk().copied().unwrap_or_default()))
}

fn collect(folder: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() {
            if name != "target" && name != "cases" {
                collect(&path, files)?;
            }
        } else {
            files.insert(path.clone(), fs::read(&path)?);
        }
    }
    Ok(())
}
